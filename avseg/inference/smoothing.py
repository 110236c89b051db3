"""Calmer masks over time: averaging of scores, and a dead band that keeps a pixel from flickering."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from avseg.errors import AvsegError
from avseg.inference.moments import Scored


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
            raise AvsegError(f"smoothing over {self.seconds} s is not to be had: give 0 to 10 seconds.")
        if not (math.isfinite(self.margin) and 0 <= self.margin < 0.5):
            raise AvsegError(f"a hysteresis margin of {self.margin} is not to be had: give 0 or more, below 0.5.")

    @classmethod
    def of(cls, given: "Smoothing | float | None") -> "Smoothing":
        """What a person gave: nothing, seconds, or both numbers."""
        return given if isinstance(given, Smoothing) else cls(float(given or 0.0))


def smooth(moments: Iterable[Scored], how: Smoothing) -> Iterator[Scored]:
    """The same moments with smoothed scores, each as soon as it can be known."""
    averaged = _averaged(moments, how.seconds) if how.seconds else iter(moments)
    return _latched(averaged, how.margin) if how.margin else averaged


def _averaged(moments: Iterable[Scored], seconds: float) -> Iterator[Scored]:
    past: deque[Scored] = deque()  # without pictures, which are large
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
