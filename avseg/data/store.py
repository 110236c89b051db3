"""Prepared clips as memory-mapped arrays, built once: what a training loop reads in place of picture files.

Each kind of array has a folder below ``ROOT/.avseg/store/<subset>/``, named by the settings that decide its values. A
file there, a shard, holds up to `ROWS` rows of one kind, and tells of each row which frame it is of and a key made of
its source files' sizes and times of change. Shards never change: they appear whole under their name, and one of which
any source file has changed counts as absent, is built anew and removed.
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
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save

from avseg.config import InputConfig
from avseg.data.avsbench import DistantFrame, DistantLayout, FlowSource, Layout, Video, fit_of
from avseg.data.log_mel import EXAMPLE
from avseg.data.pictures import Fit, shrink_of
from avseg.data.pool import Progress, cores
from avseg.data.stills import Still, load_stills
from avseg.data.unfinished import working_in
from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.reading import parse_json

FORMAT_VERSION = 1
"""Part of every folder's name: raise it when what is stored, or how it is made of its files, changes."""

ROWS = 64
"""Frames in a shard: what is built anew when a file has changed, and what a killed build loses."""

Place: TypeAlias = tuple["Shard", int]
"""Where a row is."""


_TYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}


_HEADER = 2**26  # bytes


class StoreWarning(UserWarning):
    """The store can't be had, and files are read in its place."""


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


@dataclass(frozen=True)
class Stored:
    """Where the parts of one frame are.

    Attributes:
        frame: ``(3, S, S)`` uint8.
        log_mel: ``(1, 96, 64)`` float32.
        flow: ``(2, S, S)`` float16; None where none is read.
        mask: ``(S·S / 8,)`` uint8, packed bits; None where none was asked for.
        fit: Where the picture lies in its square.
    """

    frame: Place
    log_mel: Place
    flow: Place | None
    mask: Place | None
    fit: Fit


Store: TypeAlias = Mapping[tuple[Layout | DistantLayout, Video | DistantFrame, int], Stored]
"""Where the parts of each frame are, by layout, source and number k."""


def open_store(
    stills: Iterable[Still],
    inputs: InputConfig,
    flow: FlowSource,
    where: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Store | None:
    """Find ``stills`` in the store, and put there what is missing or has changed.

    Reading a row gives bit for bit what `avseg.data.avsbench.load_clip` reads from the files. Masks are stored of
    those frames alone that are asked for with their mask; hidden masks never are.

    Several processes may call this at once: one builds, the others wait for it and find what it left. A killed build
    goes on where it was.

    Args:
        stills: Which frames.
        inputs: Their size and aspect.
        flow: Which flow, if any.
        where: ``auto``: beside the data, or None if that can't be; else a folder to keep the store in.
        workers: Threads that build; None: one a core.
        progress: Called with how many frames are built, and of how many; not at all if none needs to be.

    Returns:
        The store; None, with a `StoreWarning`, where ``auto`` finds no place to write to.

    Raises:
        AvsegError: a file of the data set is missing or faulty, or ``where`` can't be written to.
    """
    layouts: dict[Layout | DistantLayout, dict[tuple[Video | DistantFrame, int], Still]] = defaultdict(dict)
    for still in stills:
        known = layouts[still.layout].get((still.source, still.k))
        if known is None or still.labelled:
            layouts[still.layout][still.source, still.k] = still
    found: dict[tuple[Layout | DistantLayout, Video | DistantFrame, int], Stored] = {}
    for layout, listed in layouts.items():
        part = _Part(layout, list(listed.values()), inputs, flow, where)
        if part.missing():
            try:
                part.build(workers, progress)
            except OSError as error:
                told = f"{part.base} cannot be written to ({error.strerror or error})"
                if where != "auto":
                    raise AvsegError(f"{told}: name another folder with --data.store.") from None
                warnings.warn(
                    f"{told}, so pictures are decoded in every epoch: name a folder with room with --data.store.",
                    StoreWarning,
                    stacklevel=2,
                )
                return None
        found.update(part.stored())
    return found


class _Part:
    """What the store holds, and should hold, of one layout."""

    def __init__(
        self, layout: Layout | DistantLayout, stills: list[Still], inputs: InputConfig, flow: FlowSource, where: str
    ):
        self.stills, self.inputs, self.flow = stills, inputs, flow
        self.base = layout.store
        if where != "auto":
            origin = layout.root if isinstance(layout, Layout) else layout.folder
            self.base = Path(where) / f"{origin.name}-{_digest(str(origin.resolve()))[:8]}" / layout.store.name
        size = f"{inputs.image_size}-{inputs.resize}"
        how = f"-{inputs.flow_bound:g}" if flow == "published" else ""
        if flow == "computed" and inputs.flow_method != "farneback":
            how = f"-{inputs.flow_method}"
        shrunk = "" if shrink_of(inputs) == "area" else f"-{shrink_of(inputs)}"
        names = {"frame": f"frame-{size}{shrunk}", "log_mel": "log_mel", "flow": f"flow-{flow}{how}-{size}"}
        names["mask"] = f"mask-{size}"
        self.folders = {kind: self.base / f"{name}-v{FORMAT_VERSION}" for kind, name in names.items()}
        self.keys = [_keys(still, inputs, flow) for still in stills]
        self.places = self._find()

    def missing(self) -> list[tuple[int, frozenset[str]]]:
        """Numbers of the stills that lack something, and the kinds that they lack."""
        lacking = [
            (number, frozenset(kind for kind in keys if (kind, keys[kind]) not in self.places))
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
            self.places = self._find()
            missing = self.missing()
            self._check_room(missing)
            groups: dict[frozenset[str], list[int]] = defaultdict(list)
            for number, kinds in missing:
                groups[kinds].append(number)
            jobs = [
                _Job(
                    tuple(self.stills[number] for number in numbers[start : start + ROWS]),
                    tuple(self.keys[number] for number in numbers[start : start + ROWS]),
                    {kind: self.folders[kind] for kind in sorted(kinds)},
                    self.inputs,
                    self.flow,
                )
                for kinds, numbers in groups.items()
                for start in range(0, len(numbers), ROWS)
            ]

            def tell(done: int, total: int) -> None:
                if progress is not None and missing:
                    progress(min(done * ROWS, len(missing)) if done < total else len(missing), len(missing))

            _run(jobs, cores() if workers is None else max(1, workers), tell)
            self.places = self._find(tidy=True)

    def stored(self) -> Store:
        """Where everything is.

        Raises:
            AvsegError: something changed between looking and building.
        """
        if missing := self.missing():
            still = self.stills[missing[0][0]]
            raise AvsegError(_changed(still))
        return {
            (still.layout, still.source, still.k): Stored(
                self.places["frame", keys["frame"]],
                self.places["log_mel", keys["log_mel"]],
                self.places.get(("flow", keys["flow"])) if "flow" in keys else None,
                self.places.get(("mask", keys["mask"])) if "mask" in keys else None,
                fit_of(still.layout, still.source.name, self.inputs),
            )
            for still, keys in zip(self.stills, self.keys, strict=True)
        }

    def _find(self, tidy: bool = False) -> dict[tuple[str, str], Place]:
        """Every row that is up to date, by kind and key.

        Args:
            tidy: Remove shards that are not.
        """
        places: dict[tuple[str, str], Place] = {}
        for kind, folder in self.folders.items():
            pairs = zip(self.stills, self.keys, strict=True)
            wanted = {still.name: keys[kind] for still, keys in pairs if kind in keys}
            for path in sorted(folder.glob("[!.]*.safetensors")) if wanted else ():
                try:
                    shard = Shard(path)
                    current = all(wanted.get(name, key) == key for name, key in shard.names)
                    current &= (shard.rows.shape[1:], shard.rows.dtype) == self._row(kind)
                except (OSError, ValueError):
                    current = False
                if current:
                    places.update({(kind, key): (shard, row) for row, (_, key) in enumerate(shard.names)})
                elif tidy:
                    with suppress(OSError):
                        path.unlink()
        return places

    def _row(self, kind: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of a row of ``kind``."""
        side = self.inputs.image_size
        kinds = {"frame": ((3, side, side), "U8"), "flow": ((2, side, side), "F16"), "log_mel": (EXAMPLE, "F32")}
        shape, dtype = kinds.get(kind, ((-(-side * side // 8),), "U8"))
        return shape, _TYPES[dtype]

    def _check_room(self, missing: Sequence[tuple[int, frozenset[str]]]) -> None:
        pixels = self.inputs.image_size**2
        sizes = {"frame": 3 * pixels, "flow": 4 * pixels, "mask": pixels // 8, "log_mel": 4 * 96 * 64}
        needed = sum(sizes[kind] for _, kinds in missing for kind in kinds)
        if needed > shutil.disk_usage(self.base).free:
            raise OSError(f"{needed / 1e9:.1f} GB are needed there")


@dataclass(frozen=True)
class _Job:
    """Frames that lack the same kinds, and where these go."""

    stills: tuple[Still, ...]
    keys: tuple[dict[str, str], ...]
    folders: Mapping[str, Path]
    inputs: InputConfig
    flow: FlowSource


def _run(jobs: Sequence[_Job], workers: int, tell: Progress) -> None:
    """Do ``jobs`` in threads: decoding lets go of Python's lock, and processes would run a caller's script again."""
    with ThreadPoolExecutor(workers, "avseg-store") as threads:
        futures = [threads.submit(_write_shards, job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                tell(done, len(jobs))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _write_shards(job: _Job) -> None:
    """Write one shard of each kind that is missing."""
    rows: dict[str, list[npt.NDArray]] = {kind: [] for kind in job.folders}
    flow: FlowSource = job.flow if "flow" in job.folders else "none"
    for _, group in groupby(job.stills, lambda still: still.source):
        stills = [replace(still, labelled="mask" in rows) for still in group]
        clip = load_stills(stills, job.inputs, flow)
        parts = {"frame": clip.frames, "log_mel": clip.log_mel, "flow": clip.flow, "mask": clip.masks}
        for kind, listed in rows.items():
            part = parts[kind]
            assert part is not None
            listed += [np.packbits(row) for row in part.numpy()] if kind == "mask" else list(part.numpy())
    for still, keys in zip(job.stills, job.keys, strict=True):
        if _keys(still, job.inputs, job.flow) != keys:
            raise AvsegError(_changed(still))
    for kind, folder in job.folders.items():
        names = json.dumps([(still.name, keys[kind]) for still, keys in zip(job.stills, job.keys, strict=True)])
        with whole_file(folder / f"{_digest(names)}.safetensors") as temporary:
            # The library writes memory as it lies.
            array = np.ascontiguousarray(np.stack(rows[kind]))
            temporary.write_bytes(save({"rows": array}, metadata={"names": names}))


def _keys(still: Still, inputs: InputConfig, flow: FlowSource) -> dict[str, str]:
    """For each kind that ``still`` has, a digest of all that decides the row, but for what its folder's name says."""
    fit = fit_of(still.layout, still.source.name, inputs)
    picture = [still.name, fit.left, fit.top, fit.width, fit.height, _stamp(still.image)]
    keys = {"frame": _digest(picture), "log_mel": _digest(still.name, _stamp(still.log_mel))}
    if flow != "none":
        files = (still.flow(inputs.flow_method),) if flow == "computed" else still.published_flow
        keys["flow"] = _digest(picture, *map(_stamp, files))
    if still.labelled:
        keys["mask"] = _digest(picture, _stamp(still.mask))
    return keys


def _stamp(path: Path) -> list[Any]:
    """Size and time of change; of a file that is missing too, which reading it will tell about."""
    try:
        status = path.stat()
    except OSError:
        return [str(path), None]
    return [path.name, status.st_size, status.st_mtime_ns]


def _changed(still: Still) -> str:
    return f"A file of {still.image} changed while it was read: start again."


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
