"""A timestamp of a video: as a model sees it, as a model scores it, smoothed over time, and as a person gets it."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from avseg.config import InputConfig
from avseg.data.fit import Fit, shrink_of
from avseg.errors import AvsegError
from avseg.media.flow import neighbour_flow
from avseg.media.images import decode_rle, resize
from avseg.media.video import FramePair


@dataclass(frozen=True)
class Found:
    """An object that a segmenter with names marked.

    Attributes:
        name: What is heard, such as ``Bark``.
        noun: What it was looked for as, such as ``dog``.
        score: ``sound · sight · motion^½``, with ``sound · sight`` summed over its names; in [0, 1], as the three are.
        sound: How surely it is heard.
        sight: How surely it is seen.
        motion: How much of the motion beside the camera's is its own.
        region: Its mask at the model's size, as COCO's compressed run-length encoding.
    """

    name: str
    noun: str
    score: float
    sound: float
    sight: float
    motion: float
    region: Mapping[str, Any] = field(repr=False, compare=False)

    def facts(self) -> dict[str, Any]:
        """What files say of it."""
        numbers = {key: round(getattr(self, key), 4) for key in ("score", "sound", "sight", "motion")}
        return {"name": self.name, "noun": self.noun, **numbers}


@dataclass(frozen=True, eq=False)
class Moment:
    """What a model says about one moment of a video.

    Attributes:
        time: Seconds from the video's first frame.
        frame: ``(H, W, 3)`` uint8 RGB at the video's own size.
        score: ``(H, W)`` float32, probability that a pixel belongs to an object that sounds.
        mask: ``(H, W)`` bool, where the score reaches the threshold.
        loudness: Of the sound that the model heard: root mean square in decibels relative to full scale, at least
            −100.
        found: What the mask is made of, by name, where the segmenter has names.
    """

    time: float
    frame: np.ndarray
    score: np.ndarray
    mask: np.ndarray
    loudness: float
    found: tuple[Found, ...] = ()

    @property
    def share(self) -> float:
        """Share of the image that sounds, in [0, 1]."""
        return float(self.mask.mean())


@dataclass(frozen=True, eq=False)
class Scored:
    """A moment's score as the model gives it.

    Attributes:
        time: Seconds.
        score: ``(S, S)`` float16, probabilities at the model's size. Streams and results hold the same rounded values
            (to 1/2048 of themselves), so that their masks agree pixel by pixel.
        loudness: See `Moment`.
        frame: ``(H, W, 3)`` uint8 at the video's own size, where it is wanted.
        found: See `Moment`.
    """

    time: float
    score: np.ndarray
    loudness: float
    frame: np.ndarray | None = None
    found: tuple[Found, ...] = ()


@dataclass(frozen=True, eq=False)
class Glimpse:
    """A moment as the model sees it: everything at the model's size ``S``.

    Attributes:
        time: Seconds.
        pixels: ``(3, S, S)`` uint8.
        flow: ``(2, S, S)`` float16.
        log_mel: ``(1, 96, 64)`` float32.
        loudness: See `Moment`.
        frame: See `Scored`.
    """

    time: float
    pixels: np.ndarray
    flow: np.ndarray
    log_mel: np.ndarray
    loudness: float
    frame: np.ndarray | None


@dataclass(frozen=True)
class View:
    """Between a video's own size and the square that a model sees.

    Attributes:
        fit: Where the image lies in the square.
        width: Of the video.
        height: Of the video.
    """

    fit: Fit
    width: int
    height: int

    @classmethod
    def of(cls, spec: InputConfig, width: int, height: int) -> "View":
        """The view of a model with these inputs on a video of this size."""
        letterbox = spec.resize == "letterbox"
        fit = Fit.letterbox(spec.image_size, width, height) if letterbox else Fit.stretch(spec.image_size)
        return cls(replace(fit, shrink=shrink_of(spec)), width, height)

    def glimpse(self, pair: FramePair, sound: tuple[np.ndarray, float], flow_method: str | None, keep: bool) -> Glimpse:
        """What the model sees and hears of a moment.

        Args:
            pair: The frame and its neighbour.
            sound: Log-mel example and loudness.
            flow_method: How motion is measured; None for a model that takes none.
            keep: Whether the full-size frame is wanted afterwards.
        """
        fit = self.fit
        frame = fit.resized(pair.frame)
        flow = np.zeros((2, fit.height, fit.width), dtype=np.float32)
        if flow_method is not None and pair.neighbour is not None:
            small = FramePair(pair.time, frame, fit.resized(pair.neighbour), pair.step)
            flow = neighbour_flow(small, flow_method)  # type: ignore[arg-type]
        pixels = np.ascontiguousarray(fit.image(frame).transpose(2, 0, 1))
        return Glimpse(pair.time, pixels, fit.flow(flow).astype(np.float16), *sound, pair.frame if keep else None)

    def enlarge(self, score: np.ndarray) -> np.ndarray:
        """Scores at the model's size ``(S, S)`` -> ``(H, W)`` float32 at the video's own."""
        fit = self.fit
        inside = score[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
        return resize(np.ascontiguousarray(inside, dtype=np.float32), (self.width, self.height))

    def region(self, found: Found) -> np.ndarray:
        """An object's mask at the video's own size, ``(H, W)`` bool."""
        return self.enlarge(decode_rle(found.region)) >= 0.5


@dataclass(frozen=True)
class Smoothing:
    """How scores are smoothed over time, pixel by pixel, at the model's size.

    First each score becomes the average of its neighbours in time with the weights of a triangle, 1 at the moment
    itself and 0 at ``seconds`` before and after it. Then a dead band follows: a pixel's score moves only as far as it
    must to stay within ``margin`` of the averaged one. Whatever the threshold, a pixel then enters the mask once its
    average reaches ``threshold + margin`` and leaves it once that falls below ``threshold - margin``: hysteresis, but
    kept in the score, so that another threshold needs no other pass.

    A moment is known ``seconds`` after it: streaming goes on in bounded memory. Nothing is known of cuts: an object
    may shine over one for up to ``seconds``.

    Attributes:
        seconds: Half the triangle's width; 0 averages nothing.
        margin: Half the dead band's width, in probability; 0 leaves it out.

    Raises:
        AvsegError: outside [0, 10] seconds or [0, 0.5).
    """

    seconds: float = 0.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and 0 <= self.seconds <= 10):
            raise AvsegError(f"smoothing over {self.seconds} s is not available: give 0 to 10 seconds.")
        if not (math.isfinite(self.margin) and 0 <= self.margin < 0.5):
            raise AvsegError(f"a hysteresis margin of {self.margin} is not available: give 0 or more, below 0.5.")

    @classmethod
    def of(cls, given: "Smoothing | float | None") -> "Smoothing":
        """What a person gave: nothing, seconds, or both numbers."""
        return given if isinstance(given, Smoothing) else cls(float(given or 0.0))


def smooth(moments: Iterable[Scored], how: Smoothing) -> Iterator[Scored]:
    """The same moments with smoothed scores, each as soon as it can be known."""
    averaged = _averaged(moments, how.seconds) if how.seconds else iter(moments)
    return _latched(averaged, how.margin) if how.margin else averaged


def _averaged(moments: Iterable[Scored], seconds: float) -> Iterator[Scored]:
    past: deque[Scored] = deque()  # without images, which are large
    waiting: deque[Scored] = deque()
    for moment in moments:
        waiting.append(moment)
        while waiting[0].time <= moment.time - seconds:
            yield _average(past, waiting, seconds)
    while waiting:
        yield _average(past, waiting, seconds)


def _average(past: deque[Scored], waiting: deque[Scored], seconds: float) -> Scored:
    current = waiting[0]
    total, weights = np.zeros(current.score.shape, np.float32), 0.0
    for group in (past, waiting):
        for other in group:
            weight = 1 - abs(other.time - current.time) / seconds
            if weight > 0:
                total += np.float32(weight) * other.score
                weights += weight
    waiting.popleft()
    past.append(replace(current, frame=None))
    while past[0].time <= current.time - seconds:
        past.popleft()
    return replace(current, score=(total / np.float32(weights)).astype(np.float16))


def _latched(moments: Iterable[Scored], margin: float) -> Iterator[Scored]:
    held: np.ndarray | None = None
    for moment in moments:
        score = moment.score.astype(np.float32)
        held = score if held is None else np.clip(held, score - np.float32(margin), score + np.float32(margin))
        yield replace(moment, score=held.astype(np.float16))
