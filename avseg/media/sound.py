"""The audio track of a file, decoded piece by piece on the clock of its frames."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph

from avseg.errors import AvsegError
from avseg.media.container import (
    decode,
    find_audio,
    first_frame_time,
    frame_time,
    open_media,
    packets,
    timeline,
    warn,
)
from avseg.media.resample import graph, pulled

MOST_CHANNELS = 64
"""Channels of one audio track that are believed."""

RATES = range(1_000, 1_000_001)
"""Samples per second that are believed."""

TOLERANCE = Fraction(1, 1000)
"""Seconds by which a timestamp may be off: containers round, to a millisecond at the coarsest."""

# Blocks after a gap that must be late as well: one timestamp that is off by itself is jitter or wrong.
_WITNESSES = 8
# Seconds; timestamps that jump further must agree with those of all packets.
_LONGEST_GAP = 600
# Beyond this many times full scale a sample is no sound.
_LOUDEST = 16.0
# Formats that find a moment of the audio track reliably; in others all that comes before it is decoded.
_SEEKABLE = frozenset({"mp4", "matroska", "wav"})
# Seconds before the wanted timestamp from which sound is decoded after a jump: decoders need a little to get going.
_RUN_UP = 1.0


@dataclass(frozen=True)
class SoundBlock:
    """A stretch of sound that follows the one before without a gap.

    Attributes:
        samples: ``(channels, n)`` float32, finite, full scale is 1.
        rate: samples per second.
        layout: FFmpeg's name of the channels; empty for the usual one of their number.
    """

    samples: np.ndarray
    rate: int
    layout: str = ""

    @property
    def seconds(self) -> Fraction:
        """How long it sounds."""
        return Fraction(self.samples.shape[1], self.rate)

    def between(self, first: int, last: int | None = None) -> "SoundBlock":
        """Some of its samples."""
        return replace(self, samples=self.samples[:, first:last])


def check_form(path: str | Path, rate: int, channels: int) -> None:
    """Refuse sound that can't be meant: it would be heard as silence, or need hours.

    Raises:
        AvsegError: a number of channels or of samples per second that no sound has.
    """
    if channels > MOST_CHANNELS:
        raise AvsegError(f"{path} says that its sound has {channels} channels: copy it again, or convert it to stereo.")
    if rate not in RATES:
        raise AvsegError(
            f"{path} says that its sound has {rate} samples a second: copy it again, or convert it to 48,000."
        )


def iter_sound(path: str | Path, start: int = 0, track: int | None = None) -> Iterator[SoundBlock]:
    """Decode a audio track from the timestamp of the first frame on, or from ``start`` seconds after it.

    Sound from before the first frame is dropped; where there is none yet, or none for a while, silence stands in, so
    that sample ``i`` is heard at ``i / rate`` seconds after the first frame. A file without frames starts at its
    first sample. Damaged packets are skipped, samples that are no sound silenced or clipped, both with a
    :class:`avseg.media.container.MediaWarning`.

    Args:
        path: any file with sound.
        start: the first sample's whole second; nothing is given of a track that ends before it.
        track: which audio track, counted from 0; the default one if not given.

    Raises:
        AvsegError: the file is missing or unreadable, has no audio track or no such one, or one of impossible form.
    """
    path = Path(path)
    origin = first_frame_time(path)
    with open_media(path) as container:
        stream = find_audio(container, track)
        if stream is None:
            raise AvsegError(f"{path} has no audio track: name a file with sound.")
        check_stream(path, stream)
        jumped = _jump(container, stream, origin, start)
        if jumped and origin is None:
            origin = (stream.start_time or 0) * (stream.time_base or Fraction(1))
        timeline = _Timeline(path, origin, _stated_end(container), start if jumped else 0)
        unwanted = Fraction(0 if jumped else start)  # seconds
        for block in timeline.placed(_decoded(container, stream, path)):
            spent = min(block.samples.shape[1], round(unwanted * block.rate))
            unwanted -= Fraction(spent, block.rate)
            if spent < block.samples.shape[1]:
                yield block.between(spent) if spent else block


def _decoded(
    container: InputContainer, stream: AudioStream, path: Path
) -> Iterator[tuple[SoundBlock, Fraction | None]]:
    """The track's frames as floats, each with its time on the file's own clock."""
    floats = _Floats()
    damaged = wild = False
    for packet in packets(container, stream, path):
        try:
            frames = decode(packet)
            blocks = [(floats.of(frame), frame_time(frame)) for frame in frames if frame.samples]
        except (FFmpegError, ValueError):
            if not damaged:
                warn(path, "damaged packets of its audio track were skipped.")
            damaged = True
            continue
        for block, time in blocks:
            tame = _tame(block.samples)
            if tame is not block.samples and not wild:
                warn(path, "samples of its sound are not finite or far too loud: they were silenced or clipped.")
                wild = True
            yield replace(block, samples=tame), time


class _Floats:
    """Decoded frames as floats. PyAV reads beyond the end of planar frames of eight channels, so they are packed."""

    def __init__(self) -> None:
        self._form: tuple[str, str, int] | None = None
        self._graph: Graph | None = None

    def of(self, frame: Any) -> SoundBlock:
        """
        Raises:
            ValueError: samples of impossible form, as a damaged packet may state.
        """
        rate, layout, channels = frame.sample_rate, frame.layout.name, frame.layout.nb_channels
        form = (frame.format.name, layout, rate)
        if form != self._form:
            if rate not in RATES or not 0 < channels <= MOST_CHANNELS:
                raise ValueError(f"{channels} channels of {rate} samples a second")
            self._graph = graph(rate, form[0], layout, [("aformat", "sample_fmts=flt")])
            self._form = form
        assert self._graph is not None
        time, frame.pts = frame.pts, None
        self._graph.push(frame)
        frame.pts = time
        packed = pulled(self._graph)
        assert packed is not None
        return SoundBlock(packed.to_ndarray().reshape(-1, channels).T, rate, layout)


class _Timeline:
    """Puts decoded blocks where their timestamps say, by inserting silence or dropping samples."""

    def __init__(self, path: Path, origin: Fraction | None, stated_end: Fraction | None, start: int = 0) -> None:
        self._path = path
        self._origin = origin
        self._stated_end = stated_end
        self._end = Fraction(start)  # seconds from the origin to the end of what was placed
        self._started = False
        self._waiting: deque[tuple[SoundBlock, Fraction | None]] = deque()

    def placed(self, blocks: Iterator[tuple[SoundBlock, Fraction | None]]) -> Iterator[SoundBlock]:
        for block, time in blocks:
            if self._origin is None:
                self._origin = time or Fraction(0)
            self._waiting.append((block, time))
            if len(self._waiting) > _WITNESSES:
                yield from self._place()
        while self._waiting:
            yield from self._place()

    def _place(self) -> Iterator[SoundBlock]:
        shift = self._gap()
        block, _ = self._waiting.popleft()
        count = round(shift * block.rate)
        if count > 0:
            silence = np.zeros((len(block.samples), block.rate), np.float32)
            for done in range(0, count, block.rate):
                yield replace(block, samples=silence[:, : count - done])
        elif count < 0:
            block = block.between(-count)
        self._end += Fraction(max(count, 0), block.rate) + block.seconds
        if block.samples.shape[1]:
            self._started = True
            yield block

    def _gap(self) -> Fraction:
        """Seconds by which the first block that waits is late (or, below 0, early) for what was placed."""
        gaps: list[Fraction] = []
        end, origin = self._end, self._origin or Fraction(0)
        for block, time in self._waiting:
            if time is not None and self._believed(time, time - origin - end):
                gaps.append(time - origin - end)
            end += block.seconds
        if len(gaps) == 1 and abs(gaps[0]) > _LONGEST_GAP:
            return Fraction(0)  # too far for one witness
        if gaps and not self._started:
            return next((gap for gap, after in pairwise(gaps) if abs(gap - after) <= _LONGEST_GAP), gaps[0])
        if gaps and min(gaps) > TOLERANCE:
            return min(gaps)
        return max(gaps) if gaps and max(gaps) < -TOLERANCE else Fraction(0)

    def _believed(self, time: Fraction, gap: Fraction) -> bool:
        if gap <= 0 or (self._stated_end is not None and time <= self._stated_end and gap <= _LONGEST_GAP):
            return gap > -_LONGEST_GAP
        return time <= timeline(self._path).end + 1  # headers may be wrong, and believe wrong timestamps


def check_stream(path: Path, stream: AudioStream) -> None:
    """`check_form` of a audio track."""
    context = stream.codec_context
    # A track that begins late may not have been looked at yet: its rate is 0.
    if context.sample_rate:
        check_form(path, context.sample_rate, context.layout.nb_channels)


def _tame(samples: np.ndarray) -> np.ndarray:
    """The same array, or a copy in which what isn't finite is silence and what is far too loud is clipped."""
    if samples.size == 0 or float(np.abs(samples).max()) <= _LOUDEST:  # false for NaN
        return samples
    return np.clip(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0), -_LOUDEST, _LOUDEST)


def _jump(container: InputContainer, stream: AudioStream, origin: Fraction | None, start: int) -> bool:
    """Go to shortly before ``start`` where the format allows; whether that was done."""
    target = start - _RUN_UP
    if target <= _RUN_UP or stream.time_base is None or _SEEKABLE.isdisjoint(container.format.name.split(",")):
        return False
    moment = Fraction(target) + (origin if origin is not None else (stream.start_time or 0) * stream.time_base)
    try:
        container.seek(int(moment / stream.time_base), stream=stream, backward=True)
    except FFmpegError:
        return False
    return True


def _stated_end(container: InputContainer) -> Fraction | None:
    """Seconds on the file's own clock, with a second to spare; None where the file doesn't say."""
    if not container.duration:
        return None
    return Fraction((container.start_time or 0) + container.duration, 1_000_000) + 1
