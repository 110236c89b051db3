"""What every segmenter shares: a video in, scored masks out, one moment at a time and in bounded memory."""

import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from avseg.errors import AvsegError
from avseg.inference.moments import Moment, Scored, Smoothing, View, smooth
from avseg.inference.result import Result, ScoreStore
from avseg.inference.source import AnySource, Source, open_source
from avseg.media.container import MediaWarning, noted
from avseg.prefetch import prefetch

FPS = 5.0
"""Moments per second that are looked at unless something else is asked for."""


class Segmenter(ABC):
    """Anything that turns a video into scored masks: a network (`AVSegmenter`), or a composition of models.

    A subclass implements `view` and `_scored`; streaming, results, files, the command line and the page need no more.

    Args:
        device: ``auto`` (a GPU where there is one), or a name that PyTorch knows, such as ``cpu`` or ``cuda:1``.
        threshold: Probability from which a pixel belongs to a mask, in (0, 1).
        name: What the segmenter is called where results say who made them.

    Attributes:
        weights: What tells its weights from others; empty where that isn't known.

    Raises:
        AvsegError: a device that is not there, or a threshold outside (0, 1).
    """

    names: bool = False
    """Whether moments say what was found, by name (`avseg.inference.moments.Found`)."""

    def __init__(self, device: str, threshold: float, name: str):
        self.device = choose_device(device)
        check_threshold(threshold)
        self.threshold = threshold
        self.name = name
        self.weights = ""

    @abstractmethod
    def view(self, source: Source) -> View:
        """Between the video's own size and what is seen of it."""

    @abstractmethod
    def _scored(self, source: Source, keep: bool) -> Iterator[Scored]:
        """The scores of a source's moments, in order and in bounded memory; with frames where ``keep`` says so."""

    @property
    def known(self) -> dict[str, Any]:
        """What results say of how they were made: ``threshold``, ``model`` and ``weights`` (see `Pretrained`)."""
        return {"threshold": self.threshold, "model": self.name, "weights": self.weights}

    def stream(
        self,
        source: AnySource,
        fps: float | None = FPS,
        start: float = 0.0,
        end: float | None = None,
        smoothing: Smoothing | float | None = None,
        audio_track: int | None = None,
    ) -> Iterator[Moment]:
        """Segment a video moment by moment, in order of time and in bounded memory.

        Only a few frames and about a second of sound are held; the first moments come before the video is decoded
        further. Decoding and motion run beside the model. The sound of a moment is the 0.96 s around
        ``inputs.audio_offset`` seconds after it (−0.46, as in AVSBench), shifted inside the track at its ends. A model
        that was trained with T frames per clip sees T consecutive moments at once; where their number is no multiple
        of T, the last window reaches back over moments that were already given (and repeats the last one in a video
        that has fewer than T).

        Notes about the video (damage, sound that ends early, a single frame) are given as `MediaWarning`.

        Args:
            source: A video with sound that PyAV reads; a folder of numbered images with a sound file; an
                `avseg.Recording`; or a tuple ``(frames, wave)``: frames, ``fps`` a second, and sound at 16 kHz.
            fps: Moments per second; None takes every frame.
            start: First moment, in seconds.
            end: Moments before this many seconds; None goes on to the last frame.
            smoothing: Seconds over which scores are averaged, or an `avseg.Smoothing`; None leaves them as they are.
            audio_track: Which audio track of a video file is heard, counted from 0; None takes the default one.

        Raises:
            AvsegError: not a video, no audio track or no such one, or a time span without frames.
        """
        how = Smoothing.of(smoothing)
        return self._stream(open_source(source, fps, start, end, audio_track), how)

    def __call__(
        self,
        source: AnySource,
        fps: float | None = FPS,
        start: float = 0.0,
        end: float | None = None,
        smoothing: Smoothing | float | None = None,
        progress: Callable[[int, int], None] | None = None,
        audio_track: int | None = None,
    ) -> Result:
        """Segment a video and keep the scores: at the model's size, in a temporary file where they are many.

        Args:
            source: See `stream`.
            fps: See `stream`.
            start: See `stream`.
            end: See `stream`.
            smoothing: See `stream`.
            progress: Called with the moments done and (about) their total.
            audio_track: See `stream`.

        Raises:
            AvsegError: as `stream`.
        """
        how = Smoothing.of(smoothing)
        opened = open_source(source, fps, start, end, audio_track)
        store = ScoreStore()
        for moment in self.scored(opened, how):
            store.add(moment)
            if progress is not None:
                progress(len(store), max(len(store), opened.moments))
        if progress is not None:
            progress(len(store), len(store))
        return store.result(opened, self.view(opened), self.threshold, self.name)

    def scored(self, source: Source, smoothing: Smoothing | None = None, keep: bool = False) -> Iterator[Scored]:
        """The scores of a source's moments at the model's size; frames are kept only where ``keep`` says so."""
        scored = self._scored(source, keep)
        return scored if smoothing is None else smooth(scored, smoothing)

    def _stream(self, source: Source, smoothing: Smoothing) -> Iterator[Moment]:
        view = self.view(source)
        told = 0
        # Frames that wait for later scores would fill the memory: they are decoded once more.
        again = smoothing.seconds > 0
        moments = self.scored(source, smoothing, keep=not again)
        for scored, frame in prefetch(_with_frames(moments, source), 1) if again else ((m, m.frame) for m in moments):
            told = _tell(source.notes, told)
            full = view.enlarge(scored.score)
            assert frame is not None
            yield Moment(scored.time, frame, full, full >= self.threshold, scored.loudness, scored.found)
        _tell(source.notes, told)


def check_threshold(threshold: float | None) -> None:
    """Raise AvsegError for a threshold outside (0, 1)."""
    if threshold is not None and not 0.0 < threshold < 1.0:
        raise AvsegError(f"threshold is {threshold}: give a probability between 0 and 1.")


def _tell(notes: list[str], told: int) -> int:
    """Warn of the notes after the first ``told``; how many there are now."""
    for note in notes[told:]:
        warnings.warn(note, MediaWarning, stacklevel=3)
    return len(notes)


def _with_frames(moments: Iterator[Scored], source: Source) -> Iterator[tuple[Scored, np.ndarray]]:
    """Moments with the frames that are shown then, decoded as they are asked for."""
    met: deque[Scored] = deque()

    def times() -> Iterator[float]:
        for moment in moments:
            met.append(moment)
            yield moment.time

    with noted(source.notes):
        for frame in source.video.shown(times()):
            yield met.popleft(), frame


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
        raise AvsegError(f"device '{name}' is not available here: give cpu, or auto to let it be chosen.") from None
    if device.type == "meta":
        raise AvsegError("device 'meta' computes nothing: give cpu, or auto to let it be chosen.")
    return device
