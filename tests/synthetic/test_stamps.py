"""Tux Paint's stamps: unpacked from a package built here, and once from Debian's own."""

import csv
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avseg.errors import AvsegError
from avseg.media.audio import write_wav
from avseg.synthetic import load_objects, stamps
from avseg.synthetic.stamps import fetch_stamps, list_stamps

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb here")


def table() -> list[dict[str, str]]:
    text = resources.files("avseg.synthetic").joinpath("stamps.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def picture(path: Path, opaque: bool = False) -> None:
    rgba = np.full((40, 50, 4), 255, np.uint8)
    rgba[:10, :, 3] = 255 if opaque else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba).save(path)


def sound(path: Path, seconds: float = 1.0, level: float = 0.3) -> None:
    # the name says ogg, the content is WAV: decoders go by content
    wave = path.with_suffix(".wav")
    write_wav(wave, (level * np.sin(np.arange(int(16000 * seconds)) / 7)).astype(np.float32))
    wave.rename(path)


def package(folder: Path, inside: str = "usr/share/tuxpaint/stamps") -> Path:
    """A .deb with a few of the table's stamps: good, too short, silent, without transparency."""
    tree = folder / "tree"
    here = tree / inside
    good = ["animals/birds/duck", "animals/birds/owl", "animals/mammals/dogs/dog"]
    for name in [*good, "animals/birds/crow", "animals/birds/lark", "animals/birds/hen", "food/pizza"]:
        picture(here / f"{name}.png", opaque=name.endswith("hen"))
    for name in good:
        sound(here / f"{name}.ogg")
        sound(here / f"{name}_desc.ogg")
    sound(here / "animals/birds/crow.ogg", seconds=0.2)
    sound(here / "animals/birds/lark.ogg", level=0.0)
    picture(here / "animals/birds/nandou.png")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        "Package: stamps\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
    )
    archive = folder / "stamps.deb"
    subprocess.run(["dpkg-deb", "-b", str(tree), str(archive)], check=True, capture_output=True)
    return archive


@needs_dpkg
def test_usable_stamps_are_kept_with_an_index(tmp_path: Path) -> None:
    info = fetch_stamps(tmp_path / "stamps", package(tmp_path))
    assert set(info.categories) == {"duck", "owl", "dog"}
    assert (info.pictures, info.recordings) == (3, 3)
    clutter = {row["picture"] for row in info.rows if row["role"] == "clutter"}
    assert clutter == {"clutter/pizza.png", "crow/crow.png", "lark/lark.png"}
    assert {row["licence"] for row in info.rows} == {"GPL-2+"}
    dropped = " ".join(info.dropped)
    assert "crow: shorter" in dropped
    assert "lark: inaudible" in dropped
    assert "hen: no picture with a transparent background" in dropped
    files = {p.name for p in (tmp_path / "stamps").rglob("*")}
    assert "nandou.png" not in files
    assert not any("_desc" in name for name in files)
    assert list_stamps(tmp_path / "stamps").rows == info.rows
    assert {c.name for c in load_objects(tmp_path / "stamps").categories} == {"duck", "owl", "dog"}


@needs_dpkg
def test_a_fetched_folder_is_only_listed(tmp_path: Path) -> None:
    first = fetch_stamps(tmp_path / "stamps", package(tmp_path))
    assert fetch_stamps(tmp_path / "stamps", tmp_path / "gone.deb").rows == first.rows


@needs_dpkg
def test_a_wrong_package_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match="no stamps"):
        fetch_stamps(tmp_path / "stamps", package(tmp_path, "usr/share/other"))
    (tmp_path / "text.deb").write_text("no package")
    with pytest.raises(AvsegError, match=r"text\.deb could not be unpacked"):
        fetch_stamps(tmp_path / "stamps", tmp_path / "text.deb")
    assert not (tmp_path / "stamps").exists()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(AvsegError, match="in use"):
        fetch_stamps(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_without_apt_the_mend_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AvsegError, match=r"no apt-get here.*built-in set"):
        fetch_stamps(tmp_path / "stamps")
    with pytest.raises(AvsegError, match="not there"):
        fetch_stamps(tmp_path / "stamps", tmp_path / "no.deb")
    assert not (tmp_path / "stamps").exists()


def test_the_table_is_sound() -> None:
    rows = table()
    objects = [row for row in rows if row["category"]]
    assert len({row["stamp"] for row in rows}) == len(rows)
    places = [(row["category"] or "clutter", Path(row["stamp"]).name) for row in rows]
    assert len(set(places)) == len(places)  # nothing overwrites anything
    assert {row["category"] for row in objects} == {row["category"] for row in objects if row["sound"] == "yes"}
    assert sum(row["sound"] == "yes" for row in rows) > 60
    assert all(row["sound"] == "no" for row in rows if not row["category"])
    unwanted = ("nandou", "iguana", "giraffe", "wombat")
    assert not [row for row in objects if row["stamp"].rsplit("/", 1)[-1] in unwanted]
    assert not [row for row in rows if row["stamp"].startswith("symbols/")]


def test_an_index_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("n,video\n1,a.mp4\n")
    with pytest.raises(AvsegError, match="no column 'picture'"):
        list_stamps(tmp_path)
    with pytest.raises(AvsegError, match="cannot be read"):
        list_stamps(tmp_path / "nowhere")


@pytest.mark.apt
@pytest.mark.heavy
def test_debians_package_has_the_tables_stamps(tmp_path: Path) -> None:
    info = fetch_stamps(tmp_path / "stamps")
    assert not info.dropped
    assert len(info.categories) > 50
    assert stamps.PACKAGE == "tuxpaint-stamps-default"
    load_objects(tmp_path / "stamps")
