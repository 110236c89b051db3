"""Resampling sound with a windowed sinc, the same on every machine."""

from math import ceil, gcd

import numpy as np

# A Kaiser-windowed sinc with these three numbers is what the reference log-mel values were made with
# (resampy's "kaiser_best"). The top mel band ends at 7.5 kHz, inside the filter's edge, so another edge shows there.
_ZERO_CROSSINGS = 50
_ROLL_OFF = 0.917347
_KAISER_BETA = 12.9846

_BLOCK = 4096


class Resampler:
    """Resample one channel piece by piece: the pieces' outputs, joined, are those of the whole.

    Output sample ``m`` stands at the time ``m / target`` of the input; outside the input is silence. In all there are
    ``floor(n · target / rate)`` of them.

    Args:
        rate: sampling rate of the input, in Hz.
        target: sampling rate of the output, in Hz.
    """

    def __init__(self, rate: int, target: int) -> None:
        if rate < 1 or target < 1:
            raise ValueError(f"sampling rates must be positive, not {rate} and {target}")
        divisor = gcd(rate, target)
        self._up, self._down = target // divisor, rate // divisor
        scale = min(1.0, target / rate)
        self._half = 0 if rate == target else ceil(_ZERO_CROSSINGS / scale)
        self._filters = _filters(self._up, self._half, scale)
        self._input = np.zeros(self._half)
        self._dropped = 0  # samples no longer held, those of the leading zeros included
        self._received = 0
        self._made = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take ``(n,)`` samples; return the ``(m,)`` float64 outputs that they complete."""
        self._received += len(samples)
        self._input = np.concatenate([self._input, samples])
        # The newest output that only needs what has come: floor(m · down / up) + half < received.
        ready = max(0, -(-(self._received - self._half) * self._up // self._down))
        return self._make(min(ready, self._total()))

    def finish(self) -> np.ndarray:
        """The outputs that were waiting for what comes after the last sample."""
        self._input = np.concatenate([self._input, np.zeros(self._half + 1)])
        return self._make(self._total())

    def _total(self) -> int:
        return self._received * self._up // self._down

    def _make(self, end: int) -> np.ndarray:
        width = 2 * self._half + 1
        pieces = []
        while self._made < end:
            count = min(_BLOCK, end - self._made)
            ticks = np.arange(self._made, self._made + count) * self._down
            first = ticks // self._up - self._dropped
            windows = np.lib.stride_tricks.sliding_window_view(self._input, width)
            if self._up == 1:
                pieces.append(windows[first] @ self._filters[0])
            else:
                pieces.append(np.einsum("ij,ij->i", windows[first], self._filters[ticks % self._up]))
            self._made += count
        spent = min(self._made * self._down // self._up - self._dropped, len(self._input))
        if spent > 0:
            self._input = self._input[spent:]
            self._dropped += spent
        return np.concatenate(pieces) if pieces else np.zeros(0)


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resample one channel.

    Args:
        samples: ``(n,)``.
        rate: its sampling rate, in Hz.
        target: the wanted sampling rate, in Hz.

    Returns:
        ``(floor(n · target / rate),)`` float64.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if rate == target:
        return samples
    resampler = Resampler(rate, target)
    return np.concatenate([resampler.push(samples), resampler.finish()])


def _filters(phases: int, half: int, scale: float) -> np.ndarray:
    if half == 0:
        return np.ones((1, 1))
    distance = np.arange(-half, half + 1) - np.arange(phases)[:, None] / phases
    crossing = distance * scale
    inside = np.sqrt(np.maximum(0, 1 - (crossing / _ZERO_CROSSINGS) ** 2))
    window = np.where(np.abs(crossing) < _ZERO_CROSSINGS, np.i0(_KAISER_BETA * inside) / np.i0(_KAISER_BETA), 0)
    return scale * _ROLL_OFF * np.sinc(_ROLL_OFF * crossing) * window
