"""The sound around moments, read no further than they have come."""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from avseg.config import AUDIO_OFFSET
from avseg.errors import AvsegError
from avseg.media.audio import EXAMPLE_SAMPLES, SAMPLE_RATE, log_mel_at, window_starts

SILENCE = -100.0
"""The lowest loudness that is told apart, in decibels relative to full scale."""

EXAMPLE = 0.96
"""Seconds that one log-mel example shows."""

HALF = EXAMPLE_SAMPLES / SAMPLE_RATE / 2
"""Seconds from where an example begins to the moment that it is centred on."""

_AHEAD = EXAMPLE_SAMPLES  # samples after the middle of a window that are known before it is heard


class AudioWindows:
    """A audio track that is walked through forwards, holding about a second of it.

    The sound of a moment is the 0.96 s around ``offset`` seconds after it, shifted inside the track at its ends.

    Args:
        open: Gives the track's samples piece by piece, ``(n,)`` float32 at 16 kHz, from a whole second on.
        start: The earliest moment that will be asked for, in seconds.
        name: What the track is called where it can't be heard.
        offset: See `avseg.media.audio.window_starts`.

    Raises:
        AvsegError: there is no sound to hear.
    """

    def __init__(
        self,
        open: Callable[[int], Iterator[np.ndarray]],
        start: float = 0.0,
        name: str = "the sound",
        offset: float = AUDIO_OFFSET,
    ):
        self._open = open
        self._offset = offset
        self._begin(max(0, math.floor(start + offset) - 1))
        self._read_until(self._first + 1)
        if not len(self._held):
            self._restart()
            if not len(self._held):
                raise AvsegError(
                    f"{name} has a audio track without any sound that can be decoded from the first image on: copy "
                    "or convert it again."
                )

    @property
    def seconds(self) -> float | None:
        """How long the track is; None until its end was reached."""
        return (self._first + len(self._held)) / SAMPLE_RATE if self._ended else None

    def at(self, time: float) -> tuple[np.ndarray, float]:
        """The log-mel example ``(1, 96, 64)`` float32 of a moment, and its loudness.

        Args:
            time: Seconds, no earlier than the moment before.
        """
        middle = max(0, round((time + self._offset) * SAMPLE_RATE))
        self._read_until(middle + _AHEAD)
        if len(self._held) < EXAMPLE_SAMPLES and self._first:
            self._restart()  # the track ended before the moment: its last sound lies further back
        self._forget(min(middle, self._first + len(self._held)) - 2 * EXAMPLE_SAMPLES)
        near = time - self._first / SAMPLE_RATE
        example = log_mel_at(self._held, [near], offset=self._offset)[0]
        return example, loudness_at(self._held, near, self._offset)

    def _begin(self, second: int) -> None:
        self._pieces = _in_seconds(self._open(second))
        self._held = np.zeros(0, dtype=np.float32)
        self._first = second * SAMPLE_RATE
        self._ended = False

    def _restart(self) -> None:
        """Hear the track from its beginning to its end, holding its last sound."""
        self._begin(0)
        while not self._ended:
            self._read_until(self._first + len(self._held) + 60 * SAMPLE_RATE)
            self._forget(self._first + len(self._held) - 2 * EXAMPLE_SAMPLES)

    def _read_until(self, sample: int) -> None:
        fresh = [self._held]
        reached = self._first + len(self._held)
        while not self._ended and reached < sample:
            piece = next(self._pieces, None)
            if piece is None:
                self._ended = True
            else:
                fresh.append(piece)
                reached += len(piece)
        if len(fresh) > 1:
            self._held = np.concatenate(fresh)

    def _forget(self, sample: int) -> None:
        spent = sample - self._first
        if spent > 0:
            self._held = self._held[spent:].copy()
            self._first += spent


def _in_seconds(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same sound in pieces of a second at most: what is held is copied for each moment."""
    for piece in pieces:
        for first in range(0, len(piece), SAMPLE_RATE):
            yield piece[first : first + SAMPLE_RATE]


def loudness_at(wave: np.ndarray, time: float, offset: float = AUDIO_OFFSET) -> float:
    """Root mean square of the sound that belongs to a moment, in decibels relative to full scale.

    Args:
        wave: ``(n,)`` float, 16 kHz mono.
        time: Seconds from its first sample.
        offset: See `avseg.media.audio.window_starts`.
    """
    first = int(window_starts(time, len(wave), offset)[0])
    power = float(np.mean(np.square(wave[first : first + EXAMPLE_SAMPLES], dtype=np.float64)))
    return max(SILENCE, 10 * math.log10(power)) if power > 0 else SILENCE
