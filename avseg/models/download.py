"""Fetching published models by name: whole or not at all, resumed, checked against what came the first time."""

import datetime
import json
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError
from avseg.files import whole_file, whole_folder, write_json
from avseg.models.catalogue import NOT_STATED, SOURCE, Published, folder_of, home, models_in, named
from avseg.models.convert import convert
from avseg.models.weights import sha256
from avseg.progress import Progress
from avseg.reading import read_json

DRIVE = "https://drive.google.com/uc?id="
_HASHES = "hashes.json"


def missing(names: list[str]) -> list[Published]:
    """What of the names' models was not downloaded yet, each once and what others need first.

    Raises:
        AvsegError: an unknown name.
    """
    wanted: dict[str, Published] = {}
    for name in names:
        for entry in named(name):
            for each in [*(named("vggish") if entry.vggish else []), entry]:
                if not list(models_in(each.name)):
                    wanted[each.name] = each
    return list(wanted.values())


def describe(entries: list[Published]) -> str:
    """What would be fetched, in a sentence or two: sizes and licences."""
    total = sum(entry.megabytes or 0 for entry in entries)
    unknown = any(entry.megabytes is None for entry in entries)
    parts = ", ".join(f"{entry.name} ({entry.licence})" for entry in entries)
    size = " and what nobody says the size of" if unknown and total else "" if total else "of unknown size"
    text = f"{parts}: {f'about {total} MB' if total else ''}{size}, into {home() / 'models'}."
    silent = [entry.name for entry in entries if entry.licence == NOT_STATED]
    if silent:
        text += f" The authors of {', '.join(silent)} state no licence: whether you may use them is yours to find out."
    return text


def download(entry: Published, progress: Callable[[str], Progress] | None = None) -> list[str]:
    """Fetch a model, convert it where it is one of AVS, and note what came.

    What was fetched in part is kept below ``partial/`` and goes on from there. SHA-256 of files that come for the first
    time are written down; later other ones are refused.

    Args:
        entry: Which.
        progress: Gives a progress (bytes done, bytes in all) for a file's name.

    Returns:
        The names that ``--checkpoint`` takes now.

    Raises:
        AvsegError: no connection, no room, something else than was published, or a file that can't be converted. Then
            nothing is left but what was fetched in part.
    """
    place = home() / "models" / entry.name
    partial = home() / "partial" / entry.name
    _check_room(entry)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        files = _fetch(entry, partial, progress)
    except OSError as error:
        if error.filename or error.errno:
            raise AvsegError(
                f"{home()} cannot be written to ({error.strerror or error}): make room, then try again."
            ) from None
        raise
    hashes = {file.relative_to(partial).as_posix(): sha256(file) for file in files}
    _check_hashes(entry, hashes)
    with whole_folder(place) as folder:
        _make(entry, partial, files, folder)
        write_json(folder / SOURCE, _origin(entry, hashes))
    _note_hashes(entry, hashes)
    shutil.rmtree(partial, ignore_errors=True)
    return list(models_in(entry.name))


def _origin(entry: Published, hashes: dict[str, str]) -> dict[str, Any]:
    return {
        "name": entry.name,
        "source": entry.source,
        "revision": entry.revision,
        "licence": entry.licence,
        "date": datetime.date.today().isoformat(),
        "sha256": hashes,
    }


def _check_room(entry: Published) -> None:
    try:
        home().mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(home()).free
    except OSError as error:
        raise AvsegError(
            f"{home()} cannot be written to ({error.strerror}): set AVSEG_HOME to another folder."
        ) from None
    # What is fetched is there twice while it is converted.
    wanted = (entry.megabytes or 0) * 10**6 * (1 if entry.kind == "transformers" else 2)
    if free < wanted:
        raise AvsegError(
            f"{home()} has room for {free / 1e6:.0f} MB and {entry.name} needs {wanted / 1e6:.0f}: make room, or set "
            "AVSEG_HOME to another folder."
        )


def _fetch(entry: Published, partial: Path, progress: Callable[[str], Progress] | None) -> list[Path]:
    kind, _, rest = entry.source.partition(":")
    try:
        if kind == "drive":
            return [_from_drive(rest, partial / "file", None if progress is None else progress(entry.name))]
        if kind == "hub":
            return _from_hub(entry, rest, partial)
        return [_from_address(entry, partial, None if progress is None else progress(entry.name))]
    except AvsegError:
        raise
    except OSError as error:
        if getattr(error, "errno", None) in (28, 30, 122):  # no room, read-only, quota
            raise
        raise _cannot(entry, error) from None
    except Exception as error:  # of three libraries and their servers, nearly any
        raise _cannot(entry, error) from None


def _cannot(entry: Published, error: Exception) -> AvsegError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return AvsegError(
        f"{entry.name} cannot be had from {entry.address} ({reason}): check the connection and try again, which goes "
        "on where it stopped; or fetch it by other means and convert it (`avseg convert`)."
    )


def _from_drive(number: str, file: Path, progress: Progress | None) -> Path:
    try:
        import gdown
    except ImportError:
        raise AvsegError("Google Drive needs gdown: pip install gdown.") from None

    def tell(done: int, total: int | None) -> None:
        if progress is not None:
            progress(done, total or done)

    found = gdown.download(f"{DRIVE}{number}", str(file), quiet=True, resume=True, progress=tell, use_cookies=False)
    if found is None or not file.is_file():
        raise OSError("the drive gives no such file")
    if file.read_bytes()[:15].lstrip().lower().startswith((b"<!doctype", b"<html")):
        file.unlink()
        raise OSError("the drive gave a page instead of the file, as it does where too many ask for it")
    return file


def _from_hub(entry: Published, repository: str, partial: Path) -> list[Path]:
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(repository, revision=entry.revision)
    there = [item.rfilename for item in info.siblings or []]
    wanted = [name for name in there if any(fnmatch(name, pattern) for pattern in entry.files)]
    if not wanted:
        raise OSError(f"the repository holds none of {', '.join(entry.files)}")
    # One commit for all files, whatever is pushed meanwhile.
    return [Path(hf_hub_download(repository, name, revision=info.sha, local_dir=partial)) for name in wanted]


def _from_address(entry: Published, partial: Path, progress: Progress | None) -> Path:
    import requests

    file = partial / entry.source.rpartition("/")[2]
    begun = file.with_suffix(".part")
    have = begun.stat().st_size if begun.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(entry.source, headers=headers, stream=True, timeout=30) as answer:
        answer.raise_for_status()
        have = have if answer.status_code == 206 else 0
        total = have + int(answer.headers.get("Content-Length", 0))
        with begun.open("ab" if have else "wb") as stream:
            for piece in answer.iter_content(2**16):
                stream.write(piece)
                have += len(piece)
                if progress is not None:
                    progress(have, max(total, have))
    if total and have < total:
        raise OSError(f"the connection broke after {have} of {total} bytes")
    begun.replace(file)
    return file


def _known_hashes() -> dict[str, Any]:
    file = home() / _HASHES
    values = read_json(file, "delete it; hashes are then noted anew") if file.is_file() else {}
    return values if isinstance(values, dict) else {}


def _check_hashes(entry: Published, hashes: dict[str, str]) -> None:
    if entry.sha256 and not all(found.startswith(entry.sha256) for found in hashes.values()):
        _forget(entry)
        raise AvsegError(f"{entry.name}: what {entry.address} gives is not what was published (its SHA-256 differs).")
    known = _known_hashes().get(entry.name)
    if isinstance(known, dict) and known != hashes:
        changed = next((name for name in {**known, **hashes} if known.get(name) != hashes.get(name)), "")
        _forget(entry)
        raise AvsegError(
            f"{entry.name}: {changed} at {entry.address} is not what came the first time (its SHA-256 differs). If you "
            f"trust the new one, take {entry.name} out of {home() / _HASHES}."
        )


def _forget(entry: Published) -> None:
    shutil.rmtree(home() / "partial" / entry.name, ignore_errors=True)


def _note_hashes(entry: Published, hashes: dict[str, str]) -> None:
    values = {**_known_hashes(), entry.name: hashes}
    with whole_file(home() / _HASHES) as temporary:
        temporary.write_text(json.dumps(values, indent=1))


def _make(entry: Published, partial: Path, files: list[Path], folder: Path) -> None:
    """Bring what was fetched into its place, converted where it is a checkpoint of somebody's program."""
    if entry.kind == "transformers":
        for file in files:
            place = folder / file.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        return
    vggish = folder_of("vggish") if entry.vggish else None
    made, failures = [], []
    for file in files:
        out = folder / _stem(file) if entry.files else folder
        try:
            # `convert` makes a folder whole; its own place must be empty.
            convert(file, partial / "converted", vggish, overwrite=True)
        except AvsegError as error:
            failures.append(str(error))
            continue
        shutil.copytree(partial / "converted", out, dirs_exist_ok=True)
        made.append(out)
    if not made:
        _forget(entry)
        raise AvsegError(f"{entry.name}: what came is not what it says ({failures[0]})")


def _stem(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", file.stem) or "model"
