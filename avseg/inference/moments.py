"""A moment of a video: as a model sees it, as a model scores it, and as a person gets it."""

from dataclasses import dataclass, replace

import numpy as np

from avseg.config import InputConfig
from avseg.data.pictures import Fit, shrink_of
from avseg.media.flow import neighbour_flow
from avseg.media.resize import resize
from avseg.media.video import FramePair


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


@dataclass(frozen=True, eq=False)
class Scored:
    """A moment's score as the model gives it.

    Attributes:
        time: Seconds.
        score: ``(S, S)`` float16, probabilities at the model's size. Streams and results hold the same rounded values
            (to 1/2048 of themselves), so that their masks agree pixel by pixel.
        loudness: See `Moment`.
        frame: ``(H, W, 3)`` uint8 at the video's own size, where it is wanted.
    """

    time: float
    score: np.ndarray
    loudness: float
    frame: np.ndarray | None = None


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
        fit: Where the picture lies in the square.
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
