"""Where the files of a segmented video go, what is there already and of which video, and how they get there whole."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from avseg.errors import AvsegError
from avseg.files import check_folder, whole_set
from avseg.inference.recording import listing
from avseg.inference.source import RecordingSource, VideoSource
from avseg.reading import JSON_BYTES, read_json

_PIECE = 2**20
_PIECES = 64  # that are looked at of a long video: reading all of it would take as long as copying it
_FRAMES = 16


def content_of(video: VideoSource) -> str:
    """What tells video from other video of the same name and size, whatever its files' times are.

    Of more than 64 MB evenly spread pieces are read.
    """
    path = video.info.path
    if path.is_dir():
        return digest([file for files in listing(path) for file in files])
    if isinstance(video, RecordingSource):
        recording = video.recording
        hashed = hashlib.sha256(f"{len(recording.frames)} {recording.shape} {recording.sample_rate}".encode())
        for index in np.linspace(0, len(recording.frames) - 1, min(_FRAMES, len(recording.frames))).round():
            hashed.update(recording.frame(int(index)).tobytes())
        hashed.update(recording.wave.tobytes())
        return hashed.hexdigest()
    return digest([path])


def weights_of(source: Path | None) -> str:
    """What tells a stored model from others, also in the same place; empty where it isn't known without a network."""
    if source is None or not source.exists():
        return ""
    files = [source / name for name in ("config.json", "model.safetensors")] if source.is_dir() else [source]
    return digest(files, whole=True) if all(file.is_file() for file in files) else ""


def digest(files: Iterable[Path], whole: bool = False) -> str:
    """SHA-256 of files' sizes and bytes; of several files their names count, too.

    Args:
        files: In this order.
        whole: Read all of them, also where that is more than 64 MB.
    """
    paths = list(files)
    sizes = [path.stat().st_size for path in paths]
    names = [ascii(path.name) for path in paths] if len(paths) > 1 else []
    hashed = hashlib.sha256(f"{names} {sizes}".encode())
    ends = list(accumulate(sizes))
    offset, total = 0, sum(sizes)
    step = 1 if whole or total <= _PIECE * _PIECES else total // _PIECES
    while offset < total:
        number = bisect_right(ends, offset)
        with paths[number].open("rb") as file:
            file.seek(offset - ends[number] + sizes[number])
            piece = file.read(_PIECE)
        hashed.update(piece)
        offset += max(len(piece), step)
    return hashed.hexdigest()


KINDS = ("video", "masks", "coco", "npz", "strip")
"""What can be written of a video."""

_MEND = "choose another folder (--out), or replace it with --overwrite."
_FILES = {"masks": "masks", "coco": "coco.json", "npz": "scores.npz", "strip": "strip.png"}


@dataclass(frozen=True)
class Outputs:
    """Where the files of one video go.

    Attributes:
        out: The folder of all results.
        name: Of this video's.
    """

    out: Path
    name: str

    @property
    def folder(self) -> Path:
        """What belongs to this video besides the overlay."""
        return self.out / self.name

    @property
    def summary(self) -> Path:
        """Lists the moments; takes its name last."""
        return self.folder / "moments.json"

    def path(self, kind: str) -> Path:
        """Where one of `KINDS` goes."""
        return self.out / f"{self.name}.mp4" if kind == "video" else self.folder / _FILES[kind]

    def check(self, kinds: tuple[str, ...], video: VideoSource) -> None:
        """Make sure that results can be written here.

        Args:
            kinds: Which.
            video: What they are of.

        Raises:
            AvsegError: the overlay would replace the video itself, or a folder is a file.
        """
        path, overlay = video.info.path, self.path("video")
        if "video" in kinds and overlay.exists() and path.exists() and overlay.samefile(path):
            raise AvsegError(f"{overlay} is the video itself: choose another folder for the results (--out).")
        for parent in (self.out, self.folder):
            if parent.exists() and not parent.is_dir():
                raise AvsegError(f"{parent} is a file: choose another folder for the results (--out).")
            check_folder(parent)

    def replaced(self, kinds: tuple[str, ...]) -> tuple[str, ...]:
        """What is made where results are replaced by ``kinds``: also what else there is, which would be of others."""
        if not self.summary.is_file():
            return kinds
        there = {kind for kind in _FILES if self.path(kind).exists()}
        there |= {"video"} if is_overlay(self.path("video")) else set()
        return kinds_of({*kinds, *there})

    def missing(
        self, kinds: tuple[str, ...], video: VideoSource, options: dict[str, Any], content: str
    ) -> tuple[str, ...]:
        """Which outputs are to be made beside those that exist.

        Args:
            kinds: What was asked for.
            video: What it is of.
            options: How it is to be made.
            content: Of the video (`avseg.inference.output_paths.content_of`).

        Raises:
            AvsegError: what exists is of another video, was made with other options, or isn't complete.
        """
        there = [kind for kind in kinds if self.path(kind).exists()]
        if not self.summary.is_file():
            if there:
                raise AvsegError(f"{self.path(there[0])} exists: {_MEND}")
            return kinds
        known = self.read_summary()
        there_is = (video.info.path.name, size_of(video), content)
        # An earlier version didn't note the content.
        if (known.get("video"), known.get("bytes"), known.get("content", content)) != there_is:
            raise AvsegError(f"{self.folder} holds the results of another {known.get('video')}: {_MEND}")
        missing = tuple(kind for kind in kinds if kind not in there)
        if missing:
            self.check_options(options)
        return missing

    def check_options(self, options: dict[str, Any]) -> None:
        """Make sure that what exists was made with some options.

        Raises:
            AvsegError: it wasn't.
        """
        differ = self.differ(options)
        if differ:
            raise AvsegError(f"{self.folder} was made with other options: {_MEND.removesuffix('.')} ({differ}).")

    def differ(self, options: dict[str, Any]) -> str:
        """Which of some options what exists was made with, where they were others; empty where they were the same."""
        summary = self.read_summary()
        if "content" not in summary:  # from before 2026-11-26, when models heard half a second later
            return "by an earlier version of avseg"
        known = {**summary["options"], "weights": summary.get("weights", "")}
        # The same model may have moved, and another may stand where it was.
        alike = "weights" if known["weights"] and options.get("weights") else "model"
        names = [name for name in options if name not in ("model", "weights") or name == alike]
        words = {"weights": "other weights", "model": f"model {known.get('model')}"}
        return ", ".join(
            words.get(name, f"{name} {known[name]}") for name in names if name in known and known[name] != options[name]
        )

    def read_summary(self) -> dict[str, Any]:
        """What `moments.json` holds.

        Raises:
            AvsegError: it isn't one.
        """
        try:
            found = read_json(self.summary, "remove it", 8 * JSON_BYTES)
            rows, options = found["moments"], found["options"]
            whole = isinstance(rows, list) and all(row["share"] >= 0 for row in rows)
            if whole and isinstance(options, dict) and found["end"] >= found["start"]:
                return dict(found)
        except (AvsegError, KeyError, TypeError):
            pass
        raise AvsegError(f"{self.summary} is not what avseg writes there: {_MEND}")

    def overlay_bytes(self, stage: "Outputs") -> int | None:
        """The size of the overlay, by which it is told from a video to segment; None without one.

        Args:
            stage: Where a new one is, if it is made.
        """
        fresh = stage.path("video")
        if fresh.is_file():
            return fresh.stat().st_size
        try:
            size: int | None = self.read_summary().get("overlay_bytes")
            return size
        except AvsegError:
            return None

    @contextmanager
    def staged(self) -> Iterator["Outputs"]:
        """A hidden place beside this one, whose files come here once the block has ended well."""
        made = [folder for folder in (self.folder, self.out) if not folder.exists()]
        try:
            with whole_set(self.out) as hidden:
                stage = Outputs(hidden, self.name)
                stage.folder.mkdir()
                yield stage
        except BaseException:
            for folder in made:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            raise


def kinds_of(asked: Iterable[str]) -> tuple[str, ...]:
    """What was asked for, in the order of `KINDS`.

    Raises:
        AvsegError: nothing, or something else.
    """
    chosen = set(asked)
    unknown = sorted(chosen - set(KINDS))
    if unknown or not chosen:
        what = f"'{unknown[0]}' is nothing that can be saved" if unknown else "Nothing is to be saved"
        raise AvsegError(f"{what}: choose among {', '.join(KINDS)}.")
    return tuple(kind for kind in KINDS if kind in chosen)


def is_overlay(path: Path) -> bool:
    """Whether a video is an overlay that avseg wrote, and not something to be segmented."""
    outputs = Outputs(path.parent, path.stem)
    if path != outputs.path("video") or not outputs.summary.is_file():
        return False
    try:
        return bool(outputs.read_summary().get("overlay_bytes") == path.stat().st_size)
    except AvsegError:
        return False


def size_of(video: VideoSource) -> int | None:
    """Size of the video's file in bytes, by which it is known again."""
    path = video.info.path
    return path.stat().st_size if path.is_file() else None
