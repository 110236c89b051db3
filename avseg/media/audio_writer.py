"""The audio track of a video that is being written, added step by step beside its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from avseg.media.container import decode, find_audio, first_frame_time, frame_time, open_media, packets
from avseg.media.resample import LAYOUTS, Mixer
from avseg.media.sound import TOLERANCE, SoundBlock, check_stream, iter_sound

# What mp4 holds and players know there. Vorbis and PCM can be put into mp4, but hardly anything plays them.
_COPIED = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus", "flac"})
_AAC_RATES = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})


@dataclass(frozen=True)
class FileSound:
    """A stretch of a file's sound.

    Attributes:
        path: A file with sound, or without, which gives silence.
        start: Seconds after its first frame (or sample, in a file without frames).
        end: The same; None takes all that follows.
        track: Which audio track, counted from 0; None takes the default one.
    """

    path: Path
    start: float = 0.0
    end: float | None = None
    track: int | None = None


class Soundtrack(Protocol):
    """Sound that is written as far as the frames have come."""

    def write_until(self, end: Fraction | None) -> None:
        """Write what is heard before ``end`` seconds, or all of it."""

    def finish(self) -> None:
        """Write the rest."""


@contextmanager
def sound_of_file(output: OutputContainer, sound: FileSound) -> Iterator[Soundtrack | None]:
    """A file's sound: copied if it is whole, wanted from the beginning and of a kind for mp4, otherwise encoded.

    Sound with gaps is encoded, with silence in them: many players close up what follows.

    Yields:
        The audio track; None if there is none.

    Raises:
        AvsegError: the file is missing or unreadable, or has no such track.
    """
    with open_media(sound.path) as source:
        stream = find_audio(source, sound.track)
        if stream is None:
            yield None
            return
        check_stream(sound.path, stream)
        if sound.start <= 0 and _can_copy(stream) and _is_whole(sound):
            heard = _on_the_clock(packets(source, stream, sound.path), first_frame_time(sound.path), sound.end)
            yield _Copied(output, stream, heard)
        else:
            yield _Encoded(output, _stretch(sound))


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
    blocks = (SoundBlock(channels[:, start : start + rate], rate) for start in range(0, channels.shape[1], rate))
    return _Encoded(output, blocks)


class _Copied:
    """Packets of a file's audio track, as they are."""

    def __init__(self, output: OutputContainer, stream: AudioStream, heard: Iterator[Packet]) -> None:
        self._output = output
        self._stream = output.add_stream_from_template(stream)
        self._packets = heard
        self._next: Packet | None = next(heard, None)

    def write_until(self, end: Fraction | None) -> None:
        while self._next is not None and (end is None or _start_of(self._next) < end):
            packet = self._next
            packet.stream = self._stream
            self._output.mux(packet)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        self.write_until(None)


class _Encoded:
    """Decoded sound, encoded to AAC."""

    def __init__(self, output: OutputContainer, blocks: Iterator[SoundBlock]) -> None:
        self._output = output
        self._blocks = blocks
        self._waiting = next(blocks, None)
        self._read = Fraction(0)  # seconds of sound taken from the blocks
        self._made = 0  # samples given to the encoder
        if self._waiting is None:
            return
        channels, rate = len(self._waiting.samples), self._waiting.rate
        self._mixer = Mixer(rate if rate in _AAC_RATES else 48_000, channels if channels in LAYOUTS else 1)
        layout = LAYOUTS[self._mixer.channels]
        self._stream = output.add_stream("aac", rate=self._mixer.rate, layout=layout)

    def write_until(self, end: Fraction | None) -> None:
        while self._waiting is not None and (end is None or self._read < end):
            block, self._waiting = self._waiting, next(self._blocks, None)
            self._read += block.seconds
            self._encode(self._mixer.push(block.samples, block.rate, block.layout))

    def finish(self) -> None:
        if self._waiting is None and not self._made:
            return
        self.write_until(None)
        self._encode(self._mixer.finish())
        self._output.mux(self._stream.encode(None))

    def _encode(self, samples: np.ndarray) -> None:
        if samples.shape[1] == 0:
            return
        packed = np.ascontiguousarray(np.clip(samples, -1, 1).T).reshape(1, -1)
        frame = AudioFrame.from_ndarray(packed, format="flt", layout=LAYOUTS[len(samples)])
        frame.sample_rate = self._mixer.rate
        frame.pts, frame.time_base = self._made, Fraction(1, self._mixer.rate)
        self._made += samples.shape[1]
        self._output.mux(self._stream.encode(frame))


def _on_the_clock(source: Iterator[Packet], origin: Fraction | None, end: float | None) -> Iterator[Packet]:
    """Packets on the frames' clock, in order, from the one before the first frame on."""
    early: Packet | None = None
    for packet in source:
        stamp, tick = _stamp(packet)
        if not packet.size or stamp is None:
            continue
        if origin is None:
            origin = max(Fraction(0), stamp * tick)
        packet.pts = packet.dts = stamp - round(origin / tick)
        if packet.pts + (packet.duration or 0) <= 0:
            # Decoders need the packet before the first one that is heard.
            early = packet
            continue
        if end is not None and _start_of(packet) >= end:
            return
        if early is not None:
            yield early
            early = None
        yield packet


def _is_whole(sound: FileSound) -> bool:
    """Whether all of the wanted packets can be decoded, to sound of one form without a gap."""
    origin = first_frame_time(sound.path) or Fraction(0)
    due: Fraction | None = None
    first: tuple[int, str] | None = None
    with open_media(sound.path) as source:
        stream = find_audio(source, sound.track)
        assert stream is not None
        for packet in packets(source, stream, sound.path):
            try:
                frames = decode(packet)
            except FFmpegError:
                return False
            for frame in frames:  # packets' own durations include the gaps
                time, form = frame_time(frame), (frame.sample_rate, frame.layout.name)
                if time is None or form != (first := first or form):
                    return False
                if due is not None and abs(time - due) > TOLERANCE + frame.time_base:
                    return False
                if sound.end is not None and time - origin > sound.end:
                    return True
                due = time + Fraction(frame.samples, frame.sample_rate)
    return True


def _stretch(sound: FileSound) -> Iterator[SoundBlock]:
    start, end = Fraction(max(0.0, sound.start)), None if sound.end is None else Fraction(sound.end)
    second = max(0, int(start) - 1)  # what comes right after a jump may be off
    reached = Fraction(second)
    for block in iter_sound(sound.path, second, sound.track):
        first = max(0, round((start - reached) * block.rate))
        last = None if end is None else max(first, round((end - reached) * block.rate))
        reached += block.seconds
        part = block.between(first, last)
        if part.samples.shape[1]:
            yield part
        if end is not None and reached >= end:
            return


def _stamp(packet: Packet) -> tuple[int | None, Fraction]:
    return packet.pts if packet.pts is not None else packet.dts, packet.time_base or Fraction(1)


def _start_of(packet: Packet) -> Fraction:
    stamp, tick = _stamp(packet)
    return (stamp or 0) * tick


def _can_copy(stream: AudioStream) -> bool:
    context = stream.codec_context
    # AAC without a header of its own comes from transport streams, in a form that mp4 doesn't hold.
    return context.name in _COPIED and (context.name != "aac" or bool(context.extradata))
