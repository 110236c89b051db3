"""A video in, the sounding objects' masks out, one moment at a time."""

import time as clock
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avseg import models
from avseg.data.clip import Batch
from avseg.data.pictures import Fit, write_mask
from avseg.errors import AvsegError
from avseg.files import whole_folder, write_json
from avseg.media.cut import cut_sound
from avseg.media.flow import neighbour_flow
from avseg.media.resize import resize
from avseg.media.video import FramePair, VideoWriter, iter_frames
from avseg.models import AVSModel
from avseg.render import overlay
from avseg.source import Source, hear, loudness_at, open_video

FPS = 5.0
"""Moments per second that are looked at unless something else is asked for."""

_MOMENTS = {"cpu": 8, "cuda": 32}  # that pass through the model together
_FRAME_BYTES = 64 * 2**20  # of full-size frames that wait for one pass of the model


@dataclass(frozen=True)
class Moment:
    """What a model says about one moment of a video.

    Attributes:
        time: Seconds from the video's first frame.
        frame: ``(H, W, 3)`` uint8 RGB at the video's own size.
        score: ``(H, W)`` float32, probability that a pixel belongs to an object that sounds.
        mask: ``(H, W)`` bool, where the score reaches the threshold.
        loudness: Of the sound that the model heard: root mean square in decibels relative to full scale, at least
            −100.
    """

    time: float
    frame: np.ndarray
    score: np.ndarray
    mask: np.ndarray
    loudness: float

    @property
    def share(self) -> float:
        """Share of the picture that sounds, in [0, 1]."""
        return float(self.mask.mean())


@dataclass(frozen=True)
class _Glimpse:
    """A moment as the model sees it: everything at the model's size."""

    time: float
    frame: Tensor
    flow: Tensor
    fit: Fit


class AVSegmenter:
    """A model, ready to run on videos.

    Args:
        model: Any model of avseg.
        device: ``auto`` (a GPU where there is one), or a name that PyTorch knows, such as ``cpu`` or ``cuda:1``.
        threshold: Probability from which a pixel belongs to a mask; None takes the model's own.

    Raises:
        AvsegError: a device that is not there, or a threshold outside (0, 1).
    """

    def __init__(self, model: AVSModel, device: str = "auto", threshold: float | None = None):
        self.device = choose_device(device)
        self.model = model.to(self.device).eval()
        self.threshold = model.config.threshold if threshold is None else threshold
        if not 0.0 < self.threshold < 1.0:
            raise AvsegError(f"threshold is {threshold}: give a probability between 0 and 1.")

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, device: str = "auto", threshold: float | None = None
    ) -> "AVSegmenter":
        """Load a trained model.

        Args:
            source: A folder with ``config.json`` and ``model.safetensors``, a training checkpoint (``.ckpt``), or the
                id of a repository on the Hugging Face hub.
            device: See `AVSegmenter`.
            threshold: See `AVSegmenter`.

        Raises:
            AvsegError: no source, or nothing there that is a model of avseg.
        """
        if source is None:
            raise AvsegError(
                "No model was named and none comes with this version: give the folder of one, such as runs/demo/ufe."
            )
        return cls(models.load(source), device, threshold)

    def stream(
        self, path: str | Path, fps: float | None = FPS, start: float = 0.0, end: float | None = None
    ) -> Iterator[Moment]:
        """Segment a video moment by moment, in order of time and in bounded memory.

        Only the sound (64 kB a second) and a few frames are held. The sound of a moment is the 0.96 s
        centred on it, shifted inside the file at its ends. A model that was trained with T frames per clip sees T
        consecutive moments at once; where their number is no multiple of T, the last window reaches back over moments
        that were already given (and repeats the last one in a video that has fewer than T).

        Notes about the video (sound that ends early, a single frame) are given as `UserWarning`.

        Args:
            path: Any video with sound that PyAV reads.
            fps: Moments per second; None takes every frame.
            start: First moment, in seconds.
            end: Moments before this many seconds; None goes on to the last frame.

        Raises:
            AvsegError: not a video, no sound track, or a time span without frames.
        """
        source = open_video(path, fps, start, end)
        for note in source.notes:
            warnings.warn(note, stacklevel=2)
        return self._moments(source.pairs, source.wave)

    def _moments(self, pairs: Iterable[FramePair], wave: np.ndarray) -> Iterator[Moment]:
        """Moments for frames with their neighbours and the whole sound, 16 kHz mono."""
        length = max(1, self.model.config.frames_per_clip)
        pairs = iter(pairs)
        before: list[_Glimpse] = []
        for first in pairs:
            frames, glimpses = [], []
            # A neighbouring frame is let go as soon as the flow to it is known.
            for pair in chain([first], islice(pairs, self._moments_at_once(first.frame.nbytes, length) - 1)):
                frames.append(pair.frame)
                glimpses.append(self._look(pair))
            scores = self._scores(glimpses, before, wave)
            before = (before + glimpses)[-(length - 1) :] if length > 1 else []
            for frame, glimpse, score in zip(frames, glimpses, scores, strict=True):
                height, width = frame.shape[:2]
                fit = glimpse.fit
                inside = score[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
                full = resize(np.ascontiguousarray(inside), (width, height))
                yield Moment(glimpse.time, frame, full, full >= self.threshold, loudness_at(wave, glimpse.time))

    def _moments_at_once(self, frame_bytes: int, length: int) -> int:
        """How many moments pass through the model together: a multiple of T that keeps waiting frames few."""
        wanted = min(_MOMENTS.get(self.device.type, 8), _FRAME_BYTES // frame_bytes)
        return max(1, wanted // length) * length

    def _look(self, pair: FramePair) -> _Glimpse:
        spec = self.model.config.inputs
        height, width = pair.frame.shape[:2]
        letterbox = spec.resize == "letterbox"
        fit = Fit.letterbox(spec.image_size, width, height) if letterbox else Fit.stretch(spec.image_size)
        size = (fit.width, fit.height)
        frame = resize(pair.frame, size)
        flow = np.zeros((2, fit.height, fit.width), dtype=np.float32)
        if self.model.config.neighbouring_frames and pair.neighbour is not None:
            small = FramePair(pair.time, frame, resize(pair.neighbour, size), pair.step)
            flow = neighbour_flow(small, spec.flow_method)
        pixels = np.ascontiguousarray(fit.image(frame).transpose(2, 0, 1))
        return _Glimpse(pair.time, torch.from_numpy(pixels), torch.from_numpy(fit.flow(flow).astype(np.float16)), fit)

    @torch.inference_mode()
    def _scores(self, glimpses: list[_Glimpse], before: list[_Glimpse], wave: np.ndarray) -> np.ndarray:
        """``(len(glimpses), S, S)`` float32 probabilities; ``before`` fills the first window up to T moments."""
        length = max(1, self.model.config.frames_per_clip)
        missing = -len(glimpses) % length
        lead = before[len(before) - missing :] if 0 < missing <= len(before) else []
        seen = lead + glimpses
        seen += [seen[-1]] * (-len(seen) % length)

        def windows(parts: list[Tensor]) -> Tensor:
            return torch.stack(parts).unflatten(0, (-1, length))

        times = np.array([glimpse.time for glimpse in seen])
        clips = len(seen) // length
        batch = Batch(
            frames=windows([glimpse.frame for glimpse in seen]),
            flow=windows([glimpse.flow for glimpse in seen]),
            log_mel=windows(list(torch.from_numpy(hear(wave, times)))),
            masks=None,
            valid=windows([torch.from_numpy(glimpse.fit.valid())[None] for glimpse in seen]),
            names=("",) * clips,
            categories=("",) * clips,
            times=torch.from_numpy(times).unflatten(0, (-1, length)),
        )
        logits = self.model.predict(models.normalise(batch, self.model.config, self.device)).logits
        probability = logits.float().sigmoid().flatten(0, 1)[len(lead) : len(lead) + len(glimpses), 0]
        scores: np.ndarray = probability.cpu().numpy()
        return scores


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

    source = open_video(path, fps, start, end)
    made = [parent for parent in (folder, out_dir) if not parent.exists()]
    try:
        with whole_folder(masks) as pictures, _overlay_writer(video, source, end) as write:
            moments = segmenter._moments(source.pairs, source.wave)
            rows = [_record(moment, index, pictures) for index, moment in _drawn(source, end, moments, write, progress)]
        write_json(summary, _summary(source, segmenter, rows))
    except BaseException:
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise
    sounding = sum(row["share"] > 0 for row in rows) / len(rows)
    seconds, elapsed = source.end - source.start, clock.monotonic() - began
    return SegmentReport(path, video, masks, summary, len(rows), seconds, sounding, elapsed, source.notes)


def choose_device(name: str) -> torch.device:
    """The device that ``name`` means; ``auto`` is a GPU where there is one, otherwise the CPU.

    Raises:
        AvsegError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise AvsegError(f"device '{name}' is not to be had here: give cpu, or auto to let it be chosen.") from None
    if device.type == "meta":
        raise AvsegError("device 'meta' computes nothing: give cpu, or auto to let it be chosen.")
    return device


def _drawn(
    source: Source,
    end: float | None,
    moments: Iterator[Moment],
    write: Callable[[np.ndarray, float], None],
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, Moment]]:
    """Write every frame with the mask of the last moment before it; gives the moments as they come up."""
    index, current = -1, None
    upcoming = next(moments, None)
    for time, frame in iter_frames(source.info.path, source.start, end):
        while upcoming is not None and upcoming.time <= time + 1e-3:
            index, current = index + 1, upcoming
            yield index, current
            if progress is not None:
                progress(index + 1, max(index + 1, source.moments))
            upcoming = next(moments, None)
        write(frame if current is None else overlay(frame, current.mask), time)
    for moment in moments if upcoming is None else chain([upcoming], moments):
        index += 1
        yield index, moment
    if progress is not None:
        progress(index + 1, index + 1)


@contextmanager
def _overlay_writer(path: Path, source: Source, end: float | None) -> Iterator[Callable[[np.ndarray, float], None]]:
    """Opens the overlay at its first frame, whose time its sound begins at."""
    opened: list[tuple[VideoWriter, float]] = []
    info = source.info
    with ExitStack() as stack:

        def write(frame: np.ndarray, time: float) -> None:
            if not opened:
                sound = info.path
                if time > 0:
                    sound = Path(stack.enter_context(TemporaryDirectory())) / "sound.wav"
                    cut_sound(info.path, sound, time, end)
                writer = VideoWriter(path, info.width, info.height, info.fps, audio_from=sound)
                opened.append((stack.enter_context(writer), time))
            writer, first = opened[0]
            writer.write(frame, time - first)

        yield write
        if not opened:
            raise AvsegError(
                f"{info.path} shows no new frame between {source.start:g} and {source.end:g} s: give a longer stretch."
            )


def _record(moment: Moment, index: int, pictures: Path) -> dict[str, Any]:
    """Save a moment's mask and describe it."""
    name = f"{index:06d}_{moment.time:.3f}.png"
    write_mask(pictures / name, moment.mask)
    return {
        "index": index,
        "time": round(moment.time, 6),
        "mask": f"masks/{name}",
        "share": round(moment.share, 6),
        "loudness": round(moment.loudness, 2),
    }


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
