"""Between our optical flow and the 8-bit trees that UFE published."""

from collections.abc import Iterator
from pathlib import Path

from avseg.data.index import read_distant_index, read_index
from avseg.data.layout import FRAMES, DistantLayout, Layout, Subset
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
    for ours, published in _pairs(root, subset):
        if not all(path.is_file() for path in published):
            continue
        found += 1
        if overwrite or not ours.is_file():
            write_flow_png(ours, decode_published(read_published(*published), bound))
            written += 1
    if not found:
        example = next(_pairs(root, subset))[1][0]
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
    for ours, published in _pairs(root, subset):
        if ours.is_file():
            write_published(*published, read_flow_png(ours), bound)
            written += 1
    if not written:
        raise AvsegError(
            f"{next(_pairs(root, subset))[0]} does not exist, nor any other flow: run `avseg data prepare`."
        )
    return written


def _pairs(root: str | Path, subset: Subset) -> Iterator[tuple[Path, tuple[Path, Path]]]:
    """Our file and the two published ones, of every frame."""
    layout = Layout(root, subset)
    for video in read_index(root, subset):
        for k in range(1, FRAMES + 1):
            yield layout.flow(video, k), layout.published_flow(video, k)
    if subset == "ms3" and layout.distant.is_dir():
        distant = DistantLayout(layout.distant)
        for frame in read_distant_index(layout.distant):
            yield distant.flow(frame), distant.published_flow(frame)
