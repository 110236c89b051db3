"""Real cut-outs and recordings for the generated benchmark: Tux Paint's stamps, from Debian's archive."""

import csv
import io
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from avseg.data.lists import read_rows
from avseg.errors import AvsegError
from avseg.files import clear, scratch, whole_folder
from avseg.media.audio import load_audio
from avseg.media.images import image_bytes

PACKAGE = "tuxpaint-stamps-default"
LICENCE = "GPL-2+"
LEAST_SECONDS = 0.5
LEAST_LEVEL = 0.005  # RMS of full scale
COLUMNS = ("picture", "sound", "category", "licence", "role")
_INSIDE = Path("usr/share/tuxpaint/stamps")
_MEND = (
    "generate the benchmark without --objects (the built-in set needs nothing), or download "
    f"https://packages.debian.org/{PACKAGE} elsewhere and give the .deb as the archive"
)


@dataclass(frozen=True)
class StampsInfo:
    """What a folder of stamps holds.

    Attributes:
        folder: where it is.
        rows: one a picture, as in ``index.csv``: picture, sound, category, licence, role.
        dropped: stamps of the table that could not be used, with the reason; only known right after fetching.
    """

    folder: Path
    rows: tuple[dict[str, str], ...]
    dropped: tuple[str, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories in order of preference."""
        return tuple(dict.fromkeys(row["category"] for row in self.rows if row["role"] == "object"))

    @property
    def pictures(self) -> int:
        """Pictures of objects that could sound."""
        return sum(row["role"] == "object" for row in self.rows)

    @property
    def recordings(self) -> int:
        """Recordings."""
        return sum(bool(row["sound"]) for row in self.rows)

    @property
    def clutter(self) -> int:
        """Silent pictures."""
        return sum(row["role"] == "clutter" for row in self.rows)


def fetch_stamps(folder: str | Path, archive: Path | None = None) -> StampsInfo:
    """Fetch and unpack Debian's package of stamps and keep the usable ones, with an ``index.csv``.

    A table in the package (``stamps.csv``) says which stamps show a thing and play its sound, and what category
    they belong to. A folder that was fetched before is only listed. Nothing is installed: the package is
    downloaded by ``apt-get download`` and unpacked by ``dpkg-deb`` into a temporary folder.

    Args:
        folder: where the stamps go; new or empty.
        archive: the package's .deb, where it is on disk already.

    Raises:
        AvsegError: ``apt-get`` or ``dpkg-deb`` is missing or fails, the package isn't what was expected, or the
            folder holds something else.
    """
    folder = Path(folder)
    clear(folder.parent)
    if (folder / "index.csv").is_file():
        return list_stamps(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AvsegError(f"{folder} is in use by something else: name a new or an empty folder for the stamps")
    with scratch("stamps") as temporary:
        package = Path(archive) if archive is not None else _download(temporary)
        if not package.is_file():
            raise AvsegError(f"{package} is not there: give the {PACKAGE} .deb, or leave the archive out")
        unpacked = temporary / "unpacked"
        unpacked.mkdir()
        _run(["dpkg-deb", "-x", str(package), str(unpacked)], f"{package} could not be unpacked")
        stamps = unpacked / _INSIDE
        if not stamps.is_dir():
            raise AvsegError(f"{package} holds no stamps: give Debian's {PACKAGE} package")
        with whole_folder(folder) as new:
            rows, dropped = _select(stamps, new)
            if not any(row["role"] == "object" for row in rows):
                raise AvsegError(f"{package} holds none of the stamps that were expected; {_MEND}")
            with open(new / "index.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    return StampsInfo(folder, tuple(rows), tuple(dropped))


def stamps_if_any(folder: str | Path, say: Callable[[str], None]) -> Path | None:
    """The folder of stamps, fetched where it isn't there; None, said through ``say``, where they cannot be had."""
    folder = Path(folder)
    if (folder / "index.csv").is_file():
        return folder
    say("fetching stamps (Debian's tuxpaint-stamps-default, 161 MB)")
    try:
        return fetch_stamps(folder).folder
    except AvsegError as error:
        say(f"no stamps here, so the built-in procedural objects are used ({error})")
        return None


def list_stamps(folder: str | Path) -> StampsInfo:
    """What a folder that `fetch_stamps` wrote holds.

    Raises:
        AvsegError: it has no ``index.csv`` of stamps.
    """
    index = Path(folder) / "index.csv"
    rows = tuple(
        row for _, row in read_rows(index, COLUMNS, f"{index} cannot be read: fetch the stamps into a new folder.")
    )
    return StampsInfo(Path(folder), rows)


def _download(folder: Path) -> Path:
    """Download the package by the machine's package lists or, where these are missing or old, by fresh ones of its own.

    Neither needs to be root, and nothing of the machine's is changed.
    """
    failure = f"{PACKAGE} could not be downloaded"
    try:
        _run(["apt-get", "download", PACKAGE], failure, folder)
    except AvsegError:
        (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        own = ["apt-get", "-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder}"]
        _run([*own, "update"], failure, folder)
        _run([*own, "download", PACKAGE], failure, folder)
    found = sorted(folder.glob("*.deb"))
    if not found:
        raise AvsegError(f"apt-get downloaded no {PACKAGE}: {_MEND}")
    return found[0]


def _run(command: list[str], failure: str, folder: Path | None = None) -> None:
    if shutil.which(command[0]) is None:
        raise AvsegError(f"{failure}, because there is no {command[0]} here: {_MEND}")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise AvsegError(f"{failure} ({said}): {_MEND}")


def _select(stamps: Path, new: Path) -> tuple[list[dict[str, str]], list[str]]:
    """Copy what the table names; rows of the index, and what had to be dropped."""
    rows, dropped = [], []
    table = resources.files("avseg.synthetic").joinpath("stamps.csv").read_text(encoding="utf-8").splitlines()
    for entry in csv.DictReader(table):
        stamp, category = entry["stamp"], entry["category"]
        place = Path(category or "clutter") / Path(stamp).name
        if not _is_cut_out(stamps / f"{stamp}.png"):
            dropped.append(f"{stamp}: no picture with a transparent background")
            continue
        sound = ""
        if entry["sound"] == "yes":
            reason = _unusable(stamps / f"{stamp}.ogg")
            if reason:
                dropped.append(f"{stamp}: {reason}, picture kept")
            else:
                sound = f"{place}.ogg"
                _copy(stamps / f"{stamp}.ogg", new / sound)
        _copy(stamps / f"{stamp}.png", new / f"{place}.png")
        rows.append(
            {
                "picture": f"{place}.png",
                "sound": sound,
                "category": category,
                "licence": LICENCE,
                "role": "object" if category else "clutter",
            }
        )
    audible = {row["category"] for row in rows if row["sound"]}
    for row in rows:
        if row["role"] == "object" and row["category"] not in audible:
            row["category"], row["role"] = "", "clutter"
    return rows, dropped


def _is_cut_out(picture: Path) -> bool:
    try:
        data = image_bytes(picture, "", "")
        with Image.open(io.BytesIO(data)) as image:
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
    except Exception:  # a damaged file can raise nearly any
        return False
    return bool((alpha < 16).any() and (alpha > 127).any())


def _unusable(sound: Path) -> str:
    """Why a sound can't be used; empty if it can."""
    if not sound.is_file():
        return "no sound"
    samples = load_audio(sound, 16000)
    if len(samples) < LEAST_SECONDS * 16000:
        return f"shorter than {LEAST_SECONDS} s"
    if float(np.sqrt((samples**2).mean())) < LEAST_LEVEL:
        return "inaudible"
    return ""


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
