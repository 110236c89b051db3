"""Knowing again what results were made of: a video by its content, a model by its weights."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import numpy as np

from avseg.inference.footage import Footage, Recorded
from avseg.inference.recording import listing

_PIECE = 2**20
_PIECES = 64  # that are looked at of a long video: reading all of it would take as long as copying it
_FRAMES = 16


def content_of(footage: Footage) -> str:
    """What tells footage from other footage of the same name and size, whatever its files' times are.

    Of more than 64 MB evenly spread pieces are read.
    """
    path = footage.info.path
    if path.is_dir():
        return digest([file for files in listing(path) for file in files])
    if isinstance(footage, Recorded):
        recording = footage.recording
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
