"""Files of a segmented video: the overlay, masks, COCO, JSON lines."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avseg.errors import AvsegError
from avseg.files import json_bytes, whole_file
from avseg.inference.moments import Found, View
from avseg.inference.source import LATE, VideoSource, frames_of
from avseg.media.images import encode_rle
from avseg.media.writer import MOST_FPS, VideoWriter
from avseg.prefetch import prefetch
from avseg.render import overlay, write_labels

Label = tuple[str, tuple[float, float]]
"""A text, and the left and upper end of what it belongs to as shares of width and height."""


class Masked(NamedTuple):
    """A moment's time, its ``(H, W)`` bool mask, and what is written beside it."""

    time: float
    mask: np.ndarray
    labels: tuple[Label, ...] = ()


def label_places(found: Sequence[Found], view: View) -> tuple[Label, ...]:
    """What is heard, at the upper left corner of each object; a name that several share comes once."""
    places: dict[str, Label] = {}
    for one in found:
        mask = view.region(one)
        if mask.any() and one.name not in places:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            places[one.name] = (one.name, (columns[0] / mask.shape[1], rows[0] / mask.shape[0]))
    return tuple(places.values())


def image_name(index: int, time: float) -> str:
    """What a moment's image is called, such as ``000003_1.500.png``."""
    return f"{index:06d}_{time:.3f}.png"


def write_overlay(
    path: str | Path,
    video: VideoSource,
    start: float,
    end: float | None,
    masks: Iterable[tuple[float, np.ndarray] | Masked],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a stretch of video at its own size and rate, with its sound and with masks drawn over it.

    A mask holds until the next moment; a frame that is held beyond a moment comes again there, with the new mask, and
    the last one stays as long as the stretch lasts. Decoding, drawing and encoding run side by side; frames are decoded
    for this alone, so that memory doesn't grow with the time between moments.

    Args:
        path: The mp4.
        video: What to draw on.
        start: First frame, in seconds.
        end: Frames before this many seconds; None goes on to the last.
        masks: In order of time. All of them are taken, also those after the last frame.
        progress: Called with the number of moments that were passed.

    Raises:
        AvsegError: no frame begins in the stretch, or it can't be decoded or written.
    """
    last = video.info.duration if end is None else min(end, video.info.duration)
    drawn = prefetch(_drawn(prefetch(frames_of(video, start, end)), last, masks, progress))
    try:
        with _opened_late(path, video, start, end, last) as write:
            for time, frame in drawn:
                write(frame, time)
    finally:
        drawn.close()  # type: ignore[attr-defined]


def _drawn(
    frames: Iterator[tuple[float, np.ndarray]],
    last: float,
    masks: Iterable[tuple[float, np.ndarray] | Masked],
    progress: Callable[[int], None] | None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame with the mask of the last moment before it; again where the mask changes while the frame is held."""
    moments = (Masked(*each) for each in masks)
    shown: Masked | None = None
    held: np.ndarray | None = None
    done = 0
    upcoming = next(moments, None)
    try:
        for time, frame in chain(frames, [(last, None), (math.inf, None)]):
            while upcoming is not None and upcoming[0] <= time + 1e-3:
                if held is not None and LATE < time - upcoming.time < math.inf and not _alike(upcoming, shown):
                    yield upcoming.time, _marked(held, upcoming)
                shown, done = upcoming, done + 1
                if progress is not None:
                    progress(done)
                upcoming = next(moments, None)
            if frame is not None:
                yield time, _marked(frame, shown)
                held = frame
    finally:
        for stage in (frames, moments, masks):
            if hasattr(stage, "close"):
                stage.close()


def _alike(one: Masked, other: Masked | None) -> bool:
    if other is None:
        return not one.mask.any()
    return one.labels == other.labels and np.array_equal(one.mask, other.mask)


def _marked(frame: np.ndarray, shown: Masked | None) -> np.ndarray:
    if shown is None or not shown.mask.any():
        return frame
    marked = overlay(frame, shown.mask)
    return write_labels(marked, shown.labels) if shown.labels else marked


@contextmanager
def _opened_late(
    path: str | Path, video: VideoSource, start: float, end: float | None, last: float
) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Opens the video at its first frame, whose time its sound begins at."""
    opened: list[tuple[VideoWriter, float]] = []
    info = video.info
    with ExitStack() as stack:

        def write(frame: np.ndarray, time: float) -> None:
            if not opened:
                sound = video.sound(time, end)
                fps = min(info.fps, MOST_FPS)
                writer = VideoWriter(path, info.width, info.height, fps, aspect=info.aspect, **sound)
                opened.append((stack.enter_context(writer), time))
            writer, first = opened[0]
            writer.write(frame, time - first)

        yield write
        if opened:
            writer, first = opened[0]
            writer.hold_until(last - first)
        else:
            raise AvsegError(f"{info.path} shows no new frame between {start:g} and {last:g} s: give a longer stretch.")


def write_json_line(path: str | Path, value: object) -> None:
    """Write JSON without indentation, for files that machines read; whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(json_bytes(value))


CATEGORY = {"id": 1, "name": "sounding object", "supercategory": "sound"}


def annotation(number: int, image: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """What COCO says of one mask that isn't empty: area in pixels, box as left, top, width and height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORY["id"],
        "segmentation": encode_rle(mask),
        "area": int(mask.sum()),
        "bbox": box,
        "iscrowd": 0,
        **more,
    }


def document(
    names: Iterable[str],
    times: Iterable[float],
    parts: Iterable[Sequence[tuple[str, np.ndarray]]],
    size: tuple[int, int],
    about: dict[str, Any],
) -> dict[str, Any]:
    """A COCO file's content: an image for each moment, and an annotation for each thing that sounds then.

    Args:
        names: Of the images.
        times: Seconds of the moments.
        parts: Of each moment, categories with their masks ``(H, W)`` bool; empty masks are left out.
        size: ``(width, height)``.
        about: What stands under ``info``.
    """
    images: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    numbers = {str(CATEGORY["name"]): CATEGORY["id"]}
    for number, (name, time, masks) in enumerate(zip(names, times, parts, strict=True), 1):
        seconds = round(float(time), 6)
        images.append({"id": number, "file_name": name, "width": size[0], "height": size[1], "time": seconds})
        for category, mask in masks:
            if mask.any():
                kind = numbers.setdefault(category, len(numbers) + 1)
                found.append(annotation(len(found) + 1, number, mask, category_id=kind, time=seconds))
    categories = [{**CATEGORY, "id": number, "name": name} for name, number in numbers.items()]
    return {"info": about, "licenses": [], "images": images, "annotations": found, "categories": categories}
