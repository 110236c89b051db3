"""Between our optical flow and the 8-bit trees that UFE published."""

from collections.abc import Iterator
from pathlib import Path

from avseg.data.avsbench import avsbench, distant_folder, distant_frames, read_frames
from avseg.data.frames import Frame, Subset
from avseg.errors import AvsegError
from avseg.media.flow import decode_published, read_flow_png, read_published, write_flow_png, write_published


def import_published_flow(root: str | Path, subset: Subset, bound: float = 20.0, overwrite: bool = False) -> int:
    """Make our 16-bit flow files of UFE's 8-bit trees (``S4_flows``, ``MS3_flows``, ``MS3_Extend``).

    How the published values were scaled is not known: ``bound`` is an assumption, and what comes out is as coarse as
    2·bound/255 pixels. Training on the published form itself needs no import (``data.flow: published``).

    Args:
        root, subset: Which data set.
        bound: Pixels per 40 ms that grey values 0 and 255 stand for.
        overwrite: Replace flow that is there.

    Returns:
        How many files were written. Frames that the trees lack are passed over.

    Raises:
        AvsegError: no published flow at all, or a faulty file of it.
    """
    found = written = 0
    for frame in _frames(root, subset):
        ours, published = frame.flow(), frame.published_flow
        if not all(path.is_file() for path in published):
            continue
        found += 1
        if overwrite or not ours.is_file():
            write_flow_png(ours, decode_published(read_published(*published), bound))
            written += 1
    if not found:
        example = next(_frames(root, subset)).published_flow[0]
        raise AvsegError(f"{example} does not exist, nor any other file of UFE's published flow: put its trees there.")
    return written


def export_published_flow(root: str | Path, subset: Subset, bound: float = 20.0) -> int:
    """Make 8-bit trees in UFE's form of our 16-bit flow, for code that reads those.

    Returns:
        How many pairs of files were written. Frames without flow are passed over.

    Raises:
        AvsegError: there is no flow of ours at all, or a faulty file of it.
    """
    written = 0
    for frame in _frames(root, subset):
        if frame.flow().is_file():
            write_published(*frame.published_flow, read_flow_png(frame.flow()), bound)
            written += 1
    if not written:
        raise AvsegError(
            f"{next(_frames(root, subset)).flow()} does not exist, nor any other flow: run `avseg data prepare`."
        )
    return written


def _frames(root: str | Path, subset: Subset) -> Iterator[Frame]:
    yield from read_frames(avsbench(root, subset))
    distant = distant_frames(distant_folder(root))
    if subset == "ms3" and distant.folder.is_dir():
        yield from read_frames(distant)
