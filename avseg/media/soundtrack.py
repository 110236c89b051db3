"""The sound track of a video that is being written, added step by step beside its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from avseg.errors import AvsegError
from avseg.media.container import decode, find_audio, first_picture_time, open_media, packets, warn
from avseg.media.length import Length
from avseg.media.pictures import PictureReader
from avseg.media.resample import Resampler
from avseg.media.sound import SoundBlock, iter_sound

# What mp4 holds and players know there. Vorbis and PCM can be put into mp4, but hardly anything plays them.
_COPIED = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus", "flac"})
_AAC_RATES = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})
# Other numbers of channels are averaged to one: their order isn't known for sure.
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
# Seconds by which frames may miss the end of their source and still be called all of it.
_NEAR_END = Fraction(1, 5)


class Soundtrack(Protocol):
    """Sound that is written as far as the pictures have come."""

    def write_until(self, end: Fraction | None) -> None:
        """Write what is heard before ``end`` seconds, or all of it."""

    def finish(self, end: Fraction) -> None:
        """Write the rest, for pictures that end at ``end`` seconds."""


@contextmanager
def sound_of_file(output: OutputContainer, path: str | Path) -> Iterator[Soundtrack | None]:
    """The sound of a file, on the clock of that file's pictures: copied where mp4 can hold it, otherwise encoded.

    Yields:
        The sound track; None if the file has none.

    Raises:
        AvsegError: the file is missing or unreadable.
    """
    path = Path(path)
    with open_media(path) as source:
        stream = find_audio(source)
        length = _length(path)
        if stream is None:
            yield None
        elif _can_copy(stream):
            yield _Copied(output, source, stream, path, length)
        else:
            yield _Encoded(output, iter_sound(path), length)


def sound_of_samples(output: OutputContainer, samples: np.ndarray, rate: int) -> Soundtrack:
    """``(n,)`` or ``(n, channels)`` float samples in [−1, 1], encoded to AAC, all of them.

    Raises:
        ValueError: another shape or type.
    """
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating) or rate < 1:
        raise ValueError(f"audio must be (n,) or (n, channels) floats, not {samples.shape} {samples.dtype}")
    channels = np.atleast_2d(samples.T)
    if channels.shape[0] > 8 or channels.shape[0] == 0:
        raise ValueError(f"audio must be (n, channels) with at most 8 channels, not {samples.shape}")
    blocks = (
        SoundBlock(np.clip(channels[:, start : start + rate], -1, 1).astype(np.float32), rate)
        for start in range(0, channels.shape[1], rate)
    )
    return _Encoded(output, blocks, Length(0.0, 0.0, 0.0, 0.0))


class _Copied:
    """Packets of a file's sound track, as they are."""

    def __init__(
        self,
        output: OutputContainer,
        source: InputContainer,
        stream: AudioStream,
        path: Path,
        length: Length | None,
    ) -> None:
        self._output = output
        self._path = path
        self._length = length
        self._stream = output.add_stream_from_template(stream)
        self._origin = first_picture_time(path)
        self._packets = self._whole(packets(source, stream, path))
        self._next: Packet | None = next(self._packets, None)

    def write_until(self, end: Fraction | None) -> None:
        while self._next is not None and (end is None or _start_of(self._next) < end):
            packet = self._next
            packet.stream = self._stream
            self._output.mux(packet)
            self._next = next(self._packets, None)

    def finish(self, end: Fraction) -> None:
        self.write_until(_sound_end(end, self._length))

    def _whole(self, source: Iterator[Packet]) -> Iterator[Packet]:
        """Packets that decode, in order, from the one before the first picture on, on the pictures' clock."""
        early: Packet | None = None
        last: int | None = None
        damaged = False
        for packet in source:
            if not packet.size:
                continue
            try:
                decode(packet)
            except FFmpegError:
                damaged = True
                continue
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or (last is not None and stamp <= last):
                damaged = True
                continue
            last = stamp
            if self._origin is None:
                self._origin = max(Fraction(0), stamp * packet.time_base)
            packet.pts = packet.dts = stamp - round(self._origin / packet.time_base)
            if packet.pts + (packet.duration or 0) <= 0:
                # Decoders need the packet before the first one that is heard.
                early = packet
                continue
            if early is not None:
                yield early
                early = None
            yield packet
        if damaged:
            warn(self._path, "damaged packets of its sound track were left out.")


class _Encoded:
    """Decoded sound, encoded to AAC."""

    def __init__(self, output: OutputContainer, blocks: Iterator[SoundBlock], length: Length | None) -> None:
        self._output = output
        self._blocks = blocks
        self._length = length
        self._waiting = next(blocks, None)
        self._read = Fraction(0)  # seconds of sound taken from the blocks
        self._made = 0  # samples given to the encoder
        if self._waiting is None:
            return
        channels, rate = len(self._waiting.samples), self._waiting.rate
        self._channels = channels if channels in _LAYOUTS else 1
        self._rate = rate if rate in _AAC_RATES else 48_000
        self._stream = output.add_stream("aac", rate=self._rate, layout=_LAYOUTS[self._channels])
        self._start(rate)

    def write_until(self, end: Fraction | None) -> None:
        while self._waiting is not None and (end is None or self._read < end):
            samples, rate = _with_channels(self._waiting.samples, self._channels), self._waiting.rate
            if rate != self._source_rate:
                self._encode(np.stack([resampler.finish() for resampler in self._resamplers]))
                self._start(rate)
            kept = samples.shape[1] if end is None else min(samples.shape[1], round((end - self._read) * rate))
            if kept < samples.shape[1]:
                self._waiting = SoundBlock(samples[:, kept:], rate)
            else:
                self._waiting = next(self._blocks, None)
            if kept < 1:
                return
            self._read += Fraction(kept, rate)
            pieces = zip(self._resamplers, samples[:, :kept], strict=True)
            self._encode(np.stack([resampler.push(channel) for resampler, channel in pieces]))

    def finish(self, end: Fraction) -> None:
        if self._waiting is None and not self._made:
            return
        self.write_until(_sound_end(end, self._length))
        self._encode(np.stack([resampler.finish() for resampler in self._resamplers]))
        self._output.mux(self._stream.encode(None))

    def _start(self, rate: int) -> None:
        self._source_rate = rate
        self._resamplers = [Resampler(rate, self._rate) for _ in range(self._channels)]

    def _encode(self, samples: np.ndarray) -> None:
        if samples.shape[1] == 0:
            return
        frame = AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, dtype=np.float32), format="fltp", layout=_LAYOUTS[self._channels]
        )
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._made, Fraction(1, self._rate)
        self._made += samples.shape[1]
        self._output.mux(self._stream.encode(frame))


def _start_of(packet: Packet) -> Fraction:
    return (packet.pts or 0) * (packet.time_base or Fraction(1))


def _can_copy(stream: AudioStream) -> bool:
    context = stream.codec_context
    # AAC without a header of its own comes from transport streams, in a form that mp4 doesn't hold.
    return context.name in _COPIED and (context.name != "aac" or bool(context.extradata))


def _with_channels(samples: np.ndarray, channels: int) -> np.ndarray:
    if len(samples) == channels:
        return samples
    return np.repeat(samples.mean(axis=0, keepdims=True), channels, axis=0)


def _sound_end(end: Fraction, source: Length | None) -> Fraction | None:
    """Where sound ends: with the pictures, or nowhere (None) when they reach the end of their source."""
    if source is None:
        return end
    at_end = end > source.duration - _NEAR_END or abs(end - source.pictures) < _NEAR_END
    return None if at_end else end


def _length(path: Path) -> Length | None:
    try:
        with PictureReader(path) as reader:
            return Length.of(reader)
    except AvsegError:
        return None
