"""One video in, finished files out: the work that `avseg segment` does for each."""

import time as clock
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avseg.ahead import ahead
from avseg.data.pictures import write_mask
from avseg.errors import AvsegError
from avseg.files import whole_folder, write_json
from avseg.inference.outputs import Masked, picture_name, write_overlay
from avseg.inference.segmenter import FPS, AVSegmenter
from avseg.inference.smoothing import Smoothing
from avseg.inference.source import Source, open_source


@dataclass(frozen=True)
class SegmentReport:
    """What `segment_video` did.

    Attributes:
        source: The video.
        video: The overlay.
        masks: The folder of masks, one PNG per moment.
        summary: ``moments.json``.
        moments: How many moments were looked at.
        seconds: How much of the video they stand for.
        sounding: Share of the moments with a sounding object.
        elapsed: Seconds that it took.
        notes: What a person should know about the video.
        skipped: The outputs were there already and nothing was done.
    """

    source: Path
    video: Path
    masks: Path
    summary: Path
    moments: int = 0
    seconds: float = 0.0
    sounding: float = 0.0
    elapsed: float = 0.0
    notes: tuple[str, ...] = ()
    skipped: bool = False


def segment_video(
    path: str | Path,
    segmenter: AVSegmenter,
    out_dir: str | Path,
    fps: float | None = FPS,
    start: float = 0.0,
    end: float | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SegmentReport:
    """Segment a video and write what was found: one path in, finished files out.

    ``OUT/NAME.mp4`` is the video at its own size and frame rate, with its sound and the masks drawn over it (a mask
    holds until the next moment); ``OUT/NAME/masks/INDEX_SECONDS.png`` are the masks, 0 and 255;
    ``OUT/NAME/moments.json`` lists the moments with the share of the picture that sounds and the loudness. Files get
    their names once all of them are complete. The video is decoded twice side by side, so that memory doesn't grow with
    the time between moments.

    Args:
        path: Any video with sound that PyAV reads.
        segmenter: The model.
        out_dir: OUT; made where it doesn't exist.
        fps: Moments per second; None takes every frame.
        start: First moment, in seconds.
        end: Stop before this many seconds; None goes on to the last frame.
        overwrite: Replace outputs that exist; otherwise a video whose outputs exist is skipped.
        progress: Called with the moments done and (about) their total.

    Raises:
        AvsegError: see `AVSegmenter.stream`; or the overlay would replace the video itself, or only some outputs exist.
    """
    began = clock.monotonic()
    path, out_dir = Path(path), Path(out_dir)
    folder = out_dir / path.stem
    video, masks, summary = out_dir / f"{path.stem}.mp4", folder / "masks", folder / "moments.json"
    if video.exists() and path.exists() and video.samefile(path):
        raise AvsegError(f"{video} is the video itself: choose another folder for the results (--out).")
    there = [item for item in (video, masks, summary) if item.exists()]
    if there and not overwrite:
        if len(there) < 3:
            raise AvsegError(f"{there[0]} exists: choose another folder (--out), or replace it with --overwrite.")
        return SegmentReport(path, video, masks, summary, skipped=True)
    for parent in (out_dir, folder):
        if parent.exists() and not parent.is_dir():
            raise AvsegError(f"{parent} is a file: choose another folder for the results (--out).")

    source = open_source(path, fps, start, end)
    made = [parent for parent in (folder, out_dir) if not parent.exists()]
    rows: list[dict[str, Any]] = []

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, max(done, source.moments))

    try:
        with whole_folder(masks) as pictures:
            write_overlay(video, source.footage, start, end, ahead(_masks(source, segmenter, pictures, rows)), tell)
        if progress is not None:
            progress(len(rows), len(rows))
        write_json(summary, _summary(source, segmenter, rows))
    except BaseException:
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise
    sounding = sum(row["share"] > 0 for row in rows) / len(rows)
    seconds, elapsed = source.end - source.start, clock.monotonic() - began
    return SegmentReport(path, video, masks, summary, len(rows), seconds, sounding, elapsed, tuple(source.notes))


def _masks(source: Source, segmenter: AVSegmenter, pictures: Path, rows: list[dict[str, Any]]) -> Iterator[Masked]:
    """The moments' masks; each is saved and described on the way."""
    view = segmenter.view(source)
    for index, moment in enumerate(segmenter.scored(source, Smoothing())):
        mask = view.enlarge(moment.score) >= segmenter.threshold
        name = picture_name(index, moment.time)
        write_mask(pictures / name, mask)
        rows.append(
            {
                "index": index,
                "time": round(moment.time, 6),
                "mask": f"masks/{name}",
                "share": round(float(mask.mean()), 6),
                "loudness": round(moment.loudness, 2),
            }
        )
        yield moment.time, mask


def _summary(source: Source, segmenter: AVSegmenter, rows: list[dict[str, Any]]) -> dict[str, Any]:
    info = source.info
    return {
        "video": info.path.name,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "start": source.start,
        "end": source.end,
        "threshold": segmenter.threshold,
        "notes": list(source.notes),
        "moments": rows,
    }
