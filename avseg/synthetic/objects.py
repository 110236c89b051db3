"""The things that stand in a scene: pictures and recordings by category, and silent clutter."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from avseg.data.lists import read_rows
from avseg.errors import AvsegError
from avseg.media.audio import load_audio
from avseg.media.images import image_bytes
from avseg.synthetic import shapes, timbres

SOUND_SUFFIXES = (".ogg", ".wav", ".mp3", ".flac")
PICTURE_SIDE = 256  # pixels; larger pictures are shrunk when read, which no scene can show


@dataclass(frozen=True)
class Picture:
    """A cut-out. ``path`` is None for one that is drawn by `shapes`; ``category`` is empty for clutter."""

    name: str
    category: str
    path: Path | None = None


@dataclass(frozen=True)
class Recording:
    """A sound of a category. ``path`` is None for one that is synthesised by `timbres`."""

    name: str
    category: str
    path: Path | None = None


@dataclass(frozen=True)
class Category:
    """What looks and sounds alike enough to be one answer: any of its pictures with any of its recordings."""

    name: str
    pictures: tuple[Picture, ...]
    recordings: tuple[Recording, ...]


@dataclass(frozen=True)
class ObjectSet:
    """All categories in their order of preference, the clutter, and a digest of the content."""

    source: str
    categories: tuple[Category, ...]
    clutter: tuple[Picture, ...]
    digest: str

    def first(self, count: int) -> "ObjectSet":
        """The first ``count`` categories (0: all), the clutter as it was."""
        if count <= 0 or count >= len(self.categories):
            return self
        chosen = self.categories[:count]
        return ObjectSet(self.source, chosen, self.clutter, _digest_of(self.digest, [c.name for c in chosen]))


def load_objects(folder: Path | None = None, categories: int = 0) -> ObjectSet:
    """Find the pictures and recordings of a folder, or take the built-in procedural set.

    A folder with an ``index.csv`` (columns picture, sound, category, licence, role; written by
    `avseg.synthetic.stamps`) is read by it, and its first rows are the preferred categories. In any other folder
    ``x.png`` belongs to ``x.ogg`` (or wav, mp3, flac) beside it, its category is its sub-folder's name, at the
    top its own name, and a picture without a sound is clutter.

    Args:
        folder: the cut-outs; None for the procedural set.
        categories: keep only the first so many categories; 0 keeps all.

    Raises:
        AvsegError: the folder does not exist, holds no picture with a sound, or too few categories for a scene.
    """
    if folder is None:
        return _procedural().first(categories)
    folder = Path(folder)
    if not folder.is_dir():
        raise AvsegError(f"{folder} is not a folder: give one with cut-out PNGs and sounds of the same names")
    index = folder / "index.csv"
    rows = _indexed(index) if index.is_file() else _paired(folder)
    found = _group(folder, rows)
    if len(found.categories) < 2:
        raise AvsegError(
            f"{folder} holds {len(found.categories)} categories with a picture and a sound: "
            "scenes need at least two, as x.png beside x.ogg"
        )
    return found.first(categories)


@lru_cache(maxsize=1024)
def read_picture(picture: Picture) -> npt.NDArray[np.uint8]:
    """The cut-out as (H, W, 4) RGBA, trimmed to its visible part, at most `PICTURE_SIDE` pixels long.

    Raises:
        AvsegError: the file is no picture, or has no transparent background.
    """
    if picture.path is None:
        rgba = shapes.draw(picture.name)
    else:
        try:
            data = image_bytes(picture.path, "restore it", "remove or replace it")
            with Image.open(io.BytesIO(data)) as image:
                rgba = np.asarray(image.convert("RGBA"))
        except AvsegError:
            raise
        except Exception as error:  # a damaged file can raise nearly any
            raise AvsegError(f"{picture.path} is not a readable picture: remove or replace it") from error
    inside = rgba[..., 3] > 16
    if not inside.any() or (inside.mean() > 0.995 and picture.category):
        raise AvsegError(f"{picture.path} has no transparent background: cut-outs need an alpha channel")
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    rgba = rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    shrink = PICTURE_SIDE / max(rgba.shape[:2])
    if shrink < 1:
        premultiplied = rgba.astype(np.float32)
        premultiplied[..., :3] *= premultiplied[..., 3:] / 255
        small: npt.NDArray[Any] = cv2.resize(premultiplied, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        small[..., :3] = small[..., :3] * (255 / np.maximum(small[..., 3:], 1))
        rgba = np.clip(small, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rgba)


@lru_cache(maxsize=256)
def read_recording(recording: Recording, sample_rate: int) -> npt.NDArray[np.float32]:
    """The sound as mono float32, its silent ends cut off and its RMS brought to 0.1.

    Raises:
        AvsegError: the file holds no audible sound.
    """
    if recording.path is None:
        sound = timbres.play(recording.name, sample_rate)
    else:
        sound = np.asarray(load_audio(recording.path, sample_rate), dtype=np.float32).reshape(-1)
    hop = sample_rate // 50
    whole = len(sound) // hop * hop
    level = np.sqrt((sound[:whole].reshape(-1, hop) ** 2).mean(1)) if whole else np.zeros(0)
    if not len(level) or level.max() < 1e-4:
        raise AvsegError(f"{recording.path} holds no audible sound: remove it or record it louder")
    loud = np.flatnonzero(level > level.max() * 0.02)
    sound = sound[loud[0] * hop : (loud[-1] + 1) * hop]
    return np.asarray(sound * (0.1 / np.sqrt((sound**2).mean())), dtype=np.float32)


def _procedural() -> ObjectSet:
    categories = tuple(
        Category(
            name,
            tuple(Picture(look, name) for look in shapes.looks(name)),
            tuple(Recording(timbre, name) for timbre in timbres.timbres(name)),
        )
        for name in shapes.CATEGORIES
    )
    clutter = tuple(Picture(look, "") for look in shapes.clutter_looks())
    names = [shapes.REVISION, timbres.REVISION, *(c.name for c in categories)]
    return ObjectSet("procedural", categories, clutter, _digest_of("procedural", names))


def _indexed(index: Path) -> list[dict[str, str]]:
    columns = ("picture", "sound", "category", "licence", "role")
    rows = [row for _, row in read_rows(index, columns, f"{index} does not exist: fetch the folder again.")]
    for row in rows:
        for name in (row["picture"], row["sound"]):
            if name and not (index.parent / name).is_file():
                raise AvsegError(f"{index} names {name}, which is not there: fetch the folder again")
    return rows


def _paired(folder: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() != ".png" or any(part.startswith(".") for part in path.parts):
            continue
        sound = next((s for suffix in SOUND_SUFFIXES if (s := path.with_suffix(suffix)).is_file()), None)
        inside = path.parent.relative_to(folder)
        category = inside.name if inside.parts else path.stem
        rows.append(
            {
                "picture": str(path.relative_to(folder)),
                "sound": str(sound.relative_to(folder)) if sound else "",
                "category": category if sound else "",
                "role": "object" if sound else "clutter",
            }
        )
    return rows


def _group(folder: Path, rows: Sequence[dict[str, str]]) -> ObjectSet:
    pictures: dict[str, list[Picture]] = {}
    recordings: dict[str, list[Recording]] = {}
    clutter = []
    content = hashlib.sha256()
    for row in rows:
        category = row["category"]
        for name in (row["picture"], row["sound"]):
            if name:
                content.update(f"{name}|{category}|{row['role']}|".encode())
                content.update((folder / name).read_bytes())
        if row["role"] == "clutter":
            clutter.append(Picture(row["picture"], "", folder / row["picture"]))
            continue
        if row["picture"]:
            pictures.setdefault(category, []).append(Picture(row["picture"], category, folder / row["picture"]))
        if row["sound"]:
            recordings.setdefault(category, []).append(Recording(row["sound"], category, folder / row["sound"]))
    categories = tuple(
        Category(name, tuple(pictures[name]), tuple(recordings[name])) for name in pictures if name in recordings
    )
    return ObjectSet(folder.name, categories, tuple(clutter), content.hexdigest())


def _digest_of(first: str, names: Sequence[str]) -> str:
    return hashlib.sha256("|".join([first, *names]).encode()).hexdigest()
