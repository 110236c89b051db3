"""Sound of any form, rate and layout -> floats of one rate and layout, piece by piece, by FFmpeg's swresample."""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.filter import Graph

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
"""What a number of channels means where nothing else is said."""

# The Kaiser-windowed sinc that the reference log-mel values were made with (resampy's "kaiser_best"): its 100 zero
# crossings are 91 of the narrower sinc. The top mel band ends at 7.5 kHz, inside the filter's edge, so another edge
# shows there: with swresample's own settings it is off by 0.3.
_FILTER = "filter_type=kaiser:filter_size=91:kaiser_beta=12.9846:exact_rational=1:linear_interp=1"
_EDGE = 0.917347  # of half the slower rate
_HALF = 120  # samples of the slower rate, more than half of the filters
# Stereo to mono is the mean; more channels are mixed as FFmpeg does, without making all of it quieter.
_MEAN = ":rematrix_maxval=1"


class Mixer:
    """Sound of one rate and layout from pieces of any, which may change on the way.

    Output sample ``m`` stands at ``m / rate`` seconds; outside the input is silence. Of ``t`` seconds in all come
    ``floor(t · rate)`` samples. Mono is the mean of stereo, and FFmpeg's standard down-mix of further channels: of 5.1
    ``centre + 0.71 (left + right) + 0.5 (surround left + right)``. Channels in no layout that FFmpeg can mix are
    averaged.

    Args:
        rate: Samples per second.
        channels: 1, 2, 6 or 8.
    """

    def __init__(self, rate: int, channels: int = 1) -> None:
        self.rate, self.channels = rate, channels
        self._stage: _Stage | None = None
        self._form: tuple[int, int, str] | None = None
        self._received = Fraction(0)  # seconds
        self._made = 0

    def push(self, samples: np.ndarray, rate: int, layout: str = "") -> np.ndarray:
        """Take a piece, return what it completes.

        Args:
            samples: ``(channels, n)`` floats.
            rate: Its samples per second.
            layout: FFmpeg's name for its channels, such as ``5.1(side)``; the usual one for their number if not given.

        Returns:
            ``(self.channels, m)`` float32, not clipped.
        """
        form = (rate, len(samples), layout)
        rest = self.finish() if form != self._form else None
        if self._stage is None:
            self._form, self._stage = form, _Stage(*form, self.rate, self.channels)
        self._received += Fraction(samples.shape[1], rate)
        made = self._kept(self._stage.push(samples))
        return made if rest is None else np.concatenate([rest, made], axis=1)

    def finish(self) -> np.ndarray:
        """What was waiting for what comes after the last sample; ``(self.channels, m)`` float32."""
        made = np.zeros((self.channels, 0), np.float32) if self._stage is None else self._kept(self._stage.finish())
        self._stage = self._form = None
        return made

    def _kept(self, made: np.ndarray) -> np.ndarray:
        kept = made[:, : int(self._received * self.rate) - self._made]
        self._made += kept.shape[1]
        return kept


class _Stage:
    """swresample with one form of input."""

    def __init__(self, rate: int, count: int, layout: str, target: int, channels: int) -> None:
        if not layout or layout == f"{count} channels":
            layout = LAYOUTS.get(count, layout)
        self._rate, self._channels = rate, channels
        self._passed = rate == target and (layout == LAYOUTS[channels] or count == channels == 1)
        if self._passed:
            return
        mixed = f"out_sample_fmt=flt:out_chlayout={LAYOUTS[channels]}" + (_MEAN if count <= 2 else "")
        try:  # FFmpeg would make a single channel quieter in two
            made = None if count == 1 else graph(rate, "flt", layout, _filters(rate, target, mixed))
        except (av.error.FFmpegError, ValueError):
            made = None
        self._alone = made is None  # averaged in front, repeated behind
        self._layout = "mono" if made is None else layout
        self._graph = made or graph(rate, "flt", "mono", _filters(rate, target, "out_sample_fmt=flt"))
        # Without silence in front swresample would mirror the sound's beginning there. It is whole samples of both.
        divisor = gcd(rate, target)
        down, up = rate // divisor, target // divisor
        steps = -(-_HALF * max(1, -(-rate // target)) // down) if rate != target else 0
        self._silence, self._unwanted = np.zeros((count, steps * down), np.float32), steps * up
        self._give(self._silence)

    def push(self, samples: np.ndarray) -> np.ndarray:
        if self._passed:
            return samples.astype(np.float32, copy=False)
        self._give(samples)
        return self._taken()

    def finish(self) -> np.ndarray:
        if self._passed:
            return np.zeros((self._channels, 0), np.float32)
        self._give(self._silence)
        self._graph.push(None)
        return self._taken()

    def _give(self, samples: np.ndarray) -> None:
        if self._alone:
            samples = samples.mean(axis=0, keepdims=True)
        if samples.shape[1]:
            packed = np.ascontiguousarray(samples.T, dtype=np.float32).reshape(1, -1)
            frame = AudioFrame.from_ndarray(packed, format="flt", layout=self._layout)
            frame.sample_rate = self._rate
            self._graph.push(frame)

    def _taken(self) -> np.ndarray:
        channels = 1 if self._alone else self._channels
        pieces: list[np.ndarray] = [np.zeros((0, channels), np.float32)]
        while (frame := pulled(self._graph)) is not None:
            pieces.append(frame.to_ndarray().reshape(-1, channels))
        made = np.concatenate(pieces)
        unwanted = min(self._unwanted, len(made))
        self._unwanted -= unwanted
        return np.repeat(made[unwanted:].T, self._channels // channels, axis=0)


def _filters(rate: int, target: int, mixed: str) -> list[tuple[str, str]]:
    """Down-mixing and resampling. swresample removes nothing on the way up, so that comes down again."""
    filters = []
    if rate < target:
        between = rate * 2 * -(-target // rate)
        filters.append(("aresample", f"{between}:{mixed}:{_FILTER}"))
    cutoff = _EDGE * min(rate, target) / target
    return [*filters, ("aresample", f"{target}:{mixed}:{_FILTER}:cutoff={cutoff:.6f}")]


def graph(rate: int, form: str, layout: str, filters: Sequence[tuple[str, str]]) -> Graph:
    """Filters, by name and options, one after the other, ready for sound of one form.

    Raises:
        FFmpegError: FFmpeg can't do that to such sound.
    """
    made = Graph()
    source = made.add("abuffer", sample_rate=str(rate), sample_fmt=form, channel_layout=layout, time_base=f"1/{rate}")
    made.link_nodes(source, *(made.add(*each) for each in filters), made.add("abuffersink"))
    made.configure()
    return made


def pulled(made: Graph) -> AudioFrame | None:
    """The next frame that a filter has ready; None as long as there is none."""
    try:
        return made.pull()  # type: ignore[return-value]
    except (av.error.BlockingIOError, av.error.EOFError):
        return None


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resample one channel.

    Args:
        samples: ``(n,)``.
        rate: Its samples per second.
        target: The wanted ones.

    Returns:
        ``(floor(n · target / rate),)``: float32, or as it was where the rates are equal.
    """
    if rate == target:
        return samples
    mixer = Mixer(target)
    return np.concatenate([mixer.push(samples[None], rate), mixer.finish()], axis=1)[0]
