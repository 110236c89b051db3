"""One video in, finished files out: the work that `avseg segment` does for each."""

import os
import time as clock
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avseg.files import clear, write_json
from avseg.inference.base import FPS, Segmenter
from avseg.inference.export import Masked, image_name, label_places, write_overlay
from avseg.inference.moments import Smoothing
from avseg.inference.output_paths import Outputs, content_of, kinds_of, size_of
from avseg.inference.result import ScoreStore
from avseg.inference.source import AnySource, RecordingSource, Source, open_source, video_source
from avseg.media.container import noted
from avseg.media.images import write_mask
from avseg.prefetch import prefetch
from avseg.progress import Progress

SAVE = ("video", "masks")
"""What is written unless something else is asked for."""


@dataclass(frozen=True)
class SegmentReport:
    """What `segment_video` did.

    Attributes:
        source: The video.
        outputs: Where its files are.
        saved: What was asked for, and what else was replaced.
        moments: How many moments were looked at.
        seconds: How much of the video they stand for.
        sounding: Share of the moments with a sounding object.
        elapsed: Seconds that it took.
        notes: What a person should know about the video.
        skipped: All outputs were there already and nothing was done.
    """

    source: Path
    outputs: Outputs
    saved: tuple[str, ...]
    moments: int
    seconds: float
    sounding: float
    elapsed: float = 0.0
    notes: tuple[str, ...] = ()
    skipped: bool = False

    @property
    def video(self) -> Path:
        """The overlay."""
        return self.outputs.path("video")

    @property
    def masks(self) -> Path:
        """The folder of masks, one PNG per moment."""
        return self.outputs.path("masks")

    @property
    def summary(self) -> Path:
        """``moments.json``."""
        return self.outputs.summary

    @property
    def written(self) -> list[Path]:
        """Every file and folder that was asked for, and the summary."""
        return [*(self.outputs.path(kind) for kind in self.saved), self.summary]


def segment_video(
    path: AnySource,
    segmenter: Segmenter | Callable[[], Segmenter],
    out_dir: str | Path,
    fps: float | None = FPS,
    start: float = 0.0,
    end: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    save: Iterable[str] = SAVE,
    smoothing: Smoothing | float | None = None,
    name: str | None = None,
    audio_track: int | None = None,
    labels: bool = True,
) -> SegmentReport:
    """Segment a video and write what was found: one path in, finished files out.

    ``OUT/NAME.mp4`` is the video at its own size and frame rate, with its sound and the masks drawn over it (a mask
    holds until the next moment). ``OUT/NAME/`` holds ``masks/INDEX_SECONDS.png``, 0 and 255; ``coco.json``;
    ``scores.npz``; ``strip.png``; and in any case ``moments.json``, which lists the moments with the share of the
    image that sounds and the loudness. Files get their names once all of them are complete.

    Decoding, motion, model, drawing and encoding run side by side. The video is decoded once for the model and once for
    the overlay, so that memory doesn't grow with the time between moments.

    Args:
        path: Any video with sound that PyAV reads, or whatever else `Segmenter.stream` takes.
        segmenter: The model, or a function that loads it when it turns out to be needed.
        out_dir: OUT; made where it doesn't exist.
        fps: Moments per second; None takes every frame.
        start: First moment, in seconds.
        end: Stop before this many seconds; None goes on to the last frame.
        overwrite: Replace all outputs that exist, whatever ``save`` is. Otherwise a video whose outputs exist is
            skipped, and where only some exist, made with the same options, the others are added.
        progress: Called with the moments done and (about) their total; from another thread.
        save: Any of ``video``, ``masks``, ``coco``, ``npz`` and ``strip``.
        smoothing: See `Segmenter.stream`.
        name: NAME; the video's own without its ending if not given.
        audio_track: Which audio track of a video file is heard and kept, counted from 0; the default one if not given.
        labels: Write what is heard beside each mask of the overlay, where the segmenter has names for it.

    Raises:
        AvsegError: see `Segmenter.stream`; or the overlay would replace the video itself, or what stands there is
            something else.
    """
    began = clock.monotonic()
    kinds = kinds_of(save)
    how = Smoothing.of(smoothing)
    video = video_source(path, fps, audio_track)
    source_path = video.info.path
    outputs = Outputs(Path(out_dir), name or output_name(source_path))
    options: dict[str, Any] = {
        "fps": fps,
        "start": start,
        "end": end,
        "smoothing": how.seconds,
        "hysteresis": how.margin,
        "audio_track": audio_track,
    }
    if isinstance(video, RecordingSource):
        options["frame_rate"] = video.info.fps
    for folder in (outputs.out, outputs.folder):
        clear(folder)
    kinds = outputs.replaced(kinds) if overwrite else kinds
    outputs.check(kinds, video)
    content = content_of(video)
    missing = kinds if overwrite else outputs.missing(kinds, video, options, content)
    if not missing:
        return _kept(source_path, outputs, kinds, options | getattr(segmenter, "known", {}))

    source = open_source(video, fps, start, end)
    model = segmenter if isinstance(segmenter, Segmenter) else segmenter()
    options |= model.known
    if outputs.summary.is_file() and not overwrite:
        outputs.check_options(options)
    about = {"content": content, "weights": options.pop("weights")}
    with noted(source.notes), outputs.staged() as stage:
        rows, store = _write(source, model, how, stage, missing, progress, labels)
        result = store.result(source, model.view(source), model.threshold, model.name)
        for kind, make in (("coco", result.to_coco), ("npz", result.save_npz), ("strip", result.plot)):
            if kind in missing:
                make(stage.path(kind))
        write_json(stage.summary, _summary(source, options, rows, outputs.overlay_bytes(stage)) | about)
    seconds, elapsed = source.end - source.start, clock.monotonic() - began
    return SegmentReport(source_path, outputs, kinds, len(rows), seconds, _sounding(rows), elapsed, tuple(source.notes))


def output_name(path: Path) -> str:
    """What the results of a file or folder are called."""
    return Path(os.path.realpath(path)).name if path.is_dir() else path.stem


def _kept(path: Path, outputs: Outputs, kinds: tuple[str, ...], options: dict[str, Any]) -> SegmentReport:
    known = outputs.read_summary()
    rows, seconds = known["moments"], known["end"] - known["start"]
    notes: tuple[str, ...] = ()
    differ = outputs.differ(options)
    if differ:
        notes = (f"{outputs.folder} was made with other options and was kept: replace it with --overwrite ({differ}).",)
    return SegmentReport(path, outputs, kinds, len(rows), seconds, _sounding(rows), notes=notes, skipped=True)


def _write(
    source: Source,
    model: Segmenter,
    smoothing: Smoothing,
    stage: Outputs,
    kinds: tuple[str, ...],
    progress: Progress | None,
    labels: bool,
) -> tuple[list[dict[str, Any]], ScoreStore]:
    """Run the model; write overlay and masks on the way."""
    rows: list[dict[str, Any]] = []
    store = ScoreStore()
    pictures = stage.path("masks") if "masks" in kinds else None
    if pictures is not None:
        pictures.mkdir()

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, max(done, source.moments))

    masks = prefetch(_masks(source, model, smoothing, pictures, rows, store, labels))
    if "video" in kinds:
        write_overlay(stage.path("video"), source.video, source.start, source.asked_end, masks, tell)
    else:
        for done, _ in enumerate(masks, 1):
            tell(done)
    if progress is not None:
        progress(len(rows), len(rows))
    return rows, store


def _masks(
    source: Source,
    model: Segmenter,
    smoothing: Smoothing,
    pictures: Path | None,
    rows: list[dict[str, Any]],
    store: ScoreStore,
    labels: bool,
) -> Iterator[Masked]:
    """The moments' masks; each is saved and described on the way."""
    view = model.view(source)
    for index, moment in enumerate(prefetch(model.scored(source, smoothing))):
        mask = view.enlarge(moment.score) >= model.threshold
        name = image_name(index, moment.time)
        if pictures is not None:
            write_mask(pictures / name, mask)
        store.add(moment)
        row = {
            "index": index,
            "time": round(moment.time, 6),
            "mask": f"masks/{name}",
            "share": round(float(mask.mean()), 6),
            "loudness": round(moment.loudness, 2),
        }
        if model.names:
            row["found"] = [found.facts() for found in moment.found]
        rows.append(row)
        yield Masked(moment.time, mask, label_places(moment.found, view) if labels else ())


def _summary(
    source: Source, options: dict[str, Any], rows: list[dict[str, Any]], overlay: int | None
) -> dict[str, Any]:
    info = source.info
    return {
        "video": info.path.name,
        "bytes": size_of(source.video),
        "overlay_bytes": overlay,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "start": source.start,
        "end": source.end,
        "threshold": options["threshold"],
        "options": options,
        "notes": list(source.notes),
        "moments": rows,
    }


def _sounding(rows: list[dict[str, Any]]) -> float:
    return sum(row["share"] > 0 for row in rows) / max(1, len(rows))
