"""The data that a table is run on: AVSBench or anything in its layout, or a benchmark generated for it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from avseg.data.avsbench import avsbench, read_frames
from avseg.data.frames import Subset, by_video
from avseg.errors import AvsegError
from avseg.reproduce.definition import Scale

Say = Callable[[str], None]


@dataclass(frozen=True)
class TableData:
    """One subset's data.

    Attributes:
        root: The folder that holds ``Single-source/`` and ``Multi-sources/``.
        subset: ``s4`` or ``ms3``.
        hash: The generated benchmark's own, or a digest of the index; results of different hashes aren't compared.
        facts: What a result says of its data; ``hash`` is among them.
    """

    root: Path
    subset: str
    hash: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)


def given_source(root: str | Path, subset: str) -> TableData:
    """The data in ``root``.

    Raises:
        AvsegError: there is no index of that subset.
    """
    from avseg.synthetic import read_benchmark

    data = avsbench(root, cast(Subset, subset))
    videos = [video[0] for video in by_video(read_frames(data))]
    counts = {split: sum(video.split == split for video in videos) for split in ("train", "val", "test")}
    if not counts["test"]:
        raise AvsegError(f"{data.index} lists no test videos, so nothing can be scored.")
    try:
        info = read_benchmark(root, subset)
    except AvsegError:
        listed = "\n".join(sorted(f"{video.split}/{video.category}/{video.video}" for video in videos))
        digest = hashlib.sha256(listed.encode()).hexdigest()[:12]
        return TableData(Path(root), subset, digest, {"kind": "AVSBench's layout", "hash": digest, "counts": counts})
    facts = {
        "kind": "generated benchmark",
        "edition": info.edition,
        "version": info.version,
        "hash": info.hash,
        "objects": info.objects,
        "counts": info.counts,
    }
    return TableData(Path(root), subset, info.hash, facts)


def has_generated(scale: Scale, subset: str, folder: Path) -> bool:
    """Whether `generated_source` has written its benchmark's list of videos, so that runs can be named."""
    return avsbench(folder / f"{scale.name}_{subset}", cast(Subset, subset)).index.is_file()


def generated_source(scale: Scale, subset: str, folder: Path, say: Say) -> TableData:
    """The scale's own benchmark below ``folder``, written and prepared where it isn't yet.

    Objects are stamps where they are available, else the built-in set; the source's facts say which.

    Raises:
        AvsegError: the folder holds something else, or a video could not be prepared.
    """
    from avseg.data.prepare import prepare
    from avseg.synthetic import read_benchmark, write_benchmark
    from avseg.synthetic.stamps import stamps_if_any

    root = folder / f"{scale.name}_{subset}"
    try:
        objects: Path | None = None if read_benchmark(root, subset).objects == "procedural" else folder / "stamps"
    except AvsegError:
        objects = stamps_if_any(folder / "stamps", say)
    say(f"writing and preparing the generated benchmark in {root} (what is there is kept)")
    info = write_benchmark(root, subset, objects=objects, **scale.data[subset])
    found = prepare(root, cast(Subset, subset), size=info.knobs.size)
    if found.failures:
        name, reason = found.failures[0]
        raise AvsegError(f"{name}: {reason} ({len(found.failures)} in all; delete {root} and run again.)")
    return given_source(root, subset)
