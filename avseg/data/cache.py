"""Frames of a data set as memory-mapped arrays, which are made once and read in place of image files.

Each kind of array has a folder below ``ROOT/.avseg/store/<subset>/``, named by the settings that decide its values. A
file there, a shard, holds up to `ROWS` rows of one kind, and says of each row which frame it is of and a key made of
its source files' sizes and times of change. Shards never change: they appear whole under their name, and one of which
any source file has changed counts as missing, is made again and removed.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save

from avseg.config import InputConfig
from avseg.data.fit import shrink_of
from avseg.data.frames import DataSet, Frame
from avseg.data.log_mel import EXAMPLE
from avseg.data.parallel import cores, working_in
from avseg.data.rows import FlowSource, Row, fit_of, read_row
from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.progress import Progress
from avseg.reading import parse_json

FORMAT_VERSION = 1
"""Part of every folder's name: raise it when what is cached, or how it is made of its files, changes."""

ROWS = 64
"""Frames in a shard: what is made again when a file has changed, and what a killed build loses."""

Slot: TypeAlias = tuple["Shard", int]
"""Shard and number of a row."""

_TYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
_HEADER = 2**26  # bytes


class CacheWarning(UserWarning):
    """There is no room for the cache, and files are read instead."""


class Shard:
    """Rows of one kind in one memory-mapped safetensors file. Travels to other processes as its path.

    Attributes:
        path: The file.
        names: Name and key of each row.
        rows: ``(n, ...)``, read-only.

    Raises:
        OSError: no such file.
        ValueError: no whole one.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = 8 + int.from_bytes(file.read(8), "little")
                if not 8 < start < min(size, _HEADER):
                    raise ValueError(f"{path} is cut off")
                header = parse_json(file.read(start - 8).decode())
            self.names = [(str(name), str(key)) for name, key in parse_json(header["__metadata__"]["names"])]
            shape, dtype = header["rows"]["shape"], _TYPES[header["rows"]["dtype"]]
            # Python's own mapping would hold a file open for each shard, and there may be more than a process may have.
            memory = torch.from_file(str(path), False, size, dtype=torch.uint8).numpy()
            self.rows: npt.NDArray = memory[start:].view(dtype).reshape(len(self.names), *shape[1:])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{path} is no shard ({error})") from None
        self.rows.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _mapped, (self.path,)


def _mapped(path: Path) -> Shard:
    try:
        return Shard(path)
    except (OSError, ValueError):
        raise AvsegError(f"{path} was removed while it was in use: start again.") from None


class Cache:
    """Where the arrays of every frame of a run are.

    Attributes:
        slots: For each frame's ``id`` the slot of each of its kinds.
        side: S, the images' side.
    """

    def __init__(self, slots: Mapping[tuple[DataSet, str], Mapping[str, Slot]], side: int):
        self.slots, self.side = slots, side

    def row(self, frame: Frame) -> Row:
        """What `read_row` reads of a frame, bit for bit; its mask only where it is ``labelled``."""
        row = {kind: shard.rows[number] for kind, (shard, number) in self.slots[frame.id].items() if kind != "mask"}
        if frame.labelled:
            shard, number = self.slots[frame.id]["mask"]
            bits = np.unpackbits(shard.rows[number], count=self.side**2)
            row["mask"] = bits.view(np.bool_).reshape(self.side, self.side)
        return row


def open_cache(
    frames: Iterable[Frame],
    inputs: InputConfig,
    flow: FlowSource,
    where: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Cache | None:
    """Find frames in the cache, and put there what is missing or has changed.

    Masks are cached of those frames alone that are ``labelled``; hidden masks never are. Several processes may call
    this at once: one builds, the others wait for it and find what it left. A killed build goes on where it was.

    Args:
        frames: Which frames, each once (`avseg.data.dataset.unique_frames`).
        inputs: Their size and aspect.
        flow: Which flow, if any.
        where: ``auto``: beside the data, or None if that can't be; else a folder to keep the cache in.
        workers: Threads that build; None: one a core.
        progress: Called with how many frames are built, and of how many; not at all if none needs to be.

    Returns:
        The cache; None, with a `CacheWarning`, where ``auto`` finds no place to write to.

    Raises:
        AvsegError: a file of the data set is missing or faulty, or ``where`` can't be written to.
    """
    by_data: dict[DataSet, list[Frame]] = defaultdict(list)
    for frame in frames:
        by_data[frame.data].append(frame)
    slots: dict[tuple[DataSet, str], Mapping[str, Slot]] = {}
    for data, listed in by_data.items():
        part = _Part(data, listed, inputs, flow, where)
        if part.missing():
            try:
                part.build(workers, progress)
            except OSError as error:
                reason = f"{part.base} cannot be written to ({error.strerror or error})"
                if where != "auto":
                    raise AvsegError(f"{reason}: name another folder with --data.store.") from None
                warnings.warn(
                    f"{reason}, so images are decoded in every epoch: name a folder with room with --data.store.",
                    CacheWarning,
                    stacklevel=2,
                )
                return None
        slots.update(part.slots_by_frame())
    return Cache(slots, inputs.image_size)


class _Part:
    """What the cache holds, and should hold, of one data set."""

    def __init__(self, data: DataSet, frames: Sequence[Frame], inputs: InputConfig, flow: FlowSource, where: str):
        self.frames, self.inputs, self.flow = frames, inputs, flow
        self.base = data.cache
        if where != "auto":
            origin = data.folder if data.name == "distant" else data.root
            self.base = Path(where) / f"{origin.name}-{_digest(str(origin.resolve()))[:8]}" / data.cache.name
        size = f"{inputs.image_size}-{inputs.resize}"
        how = f"-{inputs.flow_bound:g}" if flow == "published" else ""
        if flow == "computed" and inputs.flow_method != "farneback":
            how = f"-{inputs.flow_method}"
        shrunk = "" if shrink_of(inputs) == "area" else f"-{shrink_of(inputs)}"
        names = {"image": f"frame-{size}{shrunk}", "log_mel": "log_mel", "flow": f"flow-{flow}{how}-{size}"}
        names["mask"] = f"mask-{size}"
        self.folders = {kind: self.base / f"{name}-v{FORMAT_VERSION}" for kind, name in names.items()}
        side = inputs.image_size
        self.shapes = {
            "image": ((3, side, side), _TYPES["U8"]),
            "flow": ((2, side, side), _TYPES["F16"]),
            "log_mel": (EXAMPLE, _TYPES["F32"]),
            "mask": ((-(-side * side // 8),), _TYPES["U8"]),  # packed bits
        }
        self.keys = [_keys(frame, inputs, flow) for frame in frames]
        self.slots = self._find()

    def missing(self) -> list[tuple[int, frozenset[str]]]:
        """Numbers of the frames that lack something, and the kinds that they lack."""
        lacking = [
            (number, frozenset(kind for kind in keys if (kind, keys[kind]) not in self.slots))
            for number, keys in enumerate(self.keys)
        ]
        return [(number, kinds) for number, kinds in lacking if kinds]

    def build(self, workers: int | None, progress: Progress | None) -> None:
        """Write what is missing, unless another process has done so meanwhile.

        Raises:
            OSError: no room, or no permission.
        """
        marker = self.base / "building"
        self.base.mkdir(parents=True, exist_ok=True)
        marker.open("a").close()
        with working_in(marker, [self.base], wait=True):
            self.slots = self._find()
            missing = self.missing()
            bytes_of = {kind: int(np.prod(shape)) * dtype.itemsize for kind, (shape, dtype) in self.shapes.items()}
            needed = sum(bytes_of[kind] for _, kinds in missing for kind in kinds)
            if needed > shutil.disk_usage(self.base).free:
                raise OSError(f"{needed / 1e9:.1f} GB are needed there")
            groups: dict[frozenset[str], list[int]] = defaultdict(list)
            for number, kinds in missing:
                groups[kinds].append(number)
            jobs = [
                (numbers[start : start + ROWS], sorted(kinds))
                for kinds, numbers in groups.items()
                for start in range(0, len(numbers), ROWS)
            ]
            # Decoding lets go of Python's lock, and processes would run a caller's script again.
            with ThreadPoolExecutor(cores() if workers is None else max(1, workers), "avseg-cache") as threads:
                futures = {threads.submit(self._write_shards, *job): len(job[0]) for job in jobs}
                done = 0
                try:
                    for future in as_completed(futures):
                        future.result()
                        done += futures[future]
                        if progress is not None:
                            progress(done, len(missing))
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
            self.slots = self._find(tidy=True)

    def slots_by_frame(self) -> dict[tuple[DataSet, str], dict[str, Slot]]:
        """Where everything is.

        Raises:
            AvsegError: something changed between looking and building.
        """
        if missing := self.missing():
            raise AvsegError(_changed(self.frames[missing[0][0]]))
        return {
            frame.id: {kind: self.slots[kind, key] for kind, key in keys.items()}
            for frame, keys in zip(self.frames, self.keys, strict=True)
        }

    def _find(self, tidy: bool = False) -> dict[tuple[str, str], Slot]:
        """Every row that is up to date, by kind and key.

        Args:
            tidy: Remove shards that are not.
        """
        slots: dict[tuple[str, str], Slot] = {}
        for kind, folder in self.folders.items():
            pairs = zip(self.frames, self.keys, strict=True)
            wanted = {frame.name: keys[kind] for frame, keys in pairs if kind in keys}
            for path in sorted(folder.glob("[!.]*.safetensors")) if wanted else ():
                try:
                    shard = Shard(path)
                    current = all(wanted.get(name, key) == key for name, key in shard.names)
                    current &= (shard.rows.shape[1:], shard.rows.dtype) == self.shapes[kind]
                except (OSError, ValueError):
                    current = False
                if current:
                    slots.update({(kind, key): (shard, row) for row, (_, key) in enumerate(shard.names)})
                elif tidy:
                    with suppress(OSError):
                        path.unlink()
        return slots

    def _write_shards(self, numbers: Sequence[int], kinds: Sequence[str]) -> None:
        """Write one shard of each of some kinds, which some frames lack."""
        rows: dict[str, list[npt.NDArray]] = {kind: [] for kind in kinds}
        for number in numbers:
            frame = replace(self.frames[number], labelled="mask" in rows)
            row = read_row(frame, self.inputs, self.flow if "flow" in rows else "none")
            for kind, listed in rows.items():
                listed.append(np.packbits(row[kind]) if kind == "mask" else row[kind])
            if _keys(self.frames[number], self.inputs, self.flow) != self.keys[number]:
                raise AvsegError(_changed(frame))
        for kind, listed in rows.items():
            names = json.dumps([(self.frames[number].name, self.keys[number][kind]) for number in numbers])
            with whole_file(self.folders[kind] / f"{_digest(names)}.safetensors") as temporary:
                # The library writes memory as it lies.
                array = np.ascontiguousarray(np.stack(listed))
                temporary.write_bytes(save({"rows": array}, metadata={"names": names}))


def _keys(frame: Frame, inputs: InputConfig, flow: FlowSource) -> dict[str, str]:
    """For each kind that a frame has, a digest of all that decides the row, but for what its folder's name says."""
    fit = fit_of(frame, inputs)
    image = [frame.name, fit.left, fit.top, fit.width, fit.height, _stamp(frame.image)]
    keys = {"image": _digest(image), "log_mel": _digest(frame.name, _stamp(frame.log_mel))}
    if flow != "none":
        files = (frame.flow(inputs.flow_method),) if flow == "computed" else frame.published_flow
        keys["flow"] = _digest(image, *map(_stamp, files))
    if frame.labelled:
        keys["mask"] = _digest(image, _stamp(frame.mask))
    return keys


def _stamp(path: Path) -> list[Any]:
    """Size and time of change; of a missing file as well, which reading it will report."""
    try:
        status = path.stat()
    except OSError:
        return [str(path), None]
    return [path.name, status.st_size, status.st_mtime_ns]


def _changed(frame: Frame) -> str:
    return f"A file of {frame.image} changed while it was read: start again."


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
