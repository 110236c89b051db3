"""The sound track of a file, decoded piece by piece on the clock of its pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from avseg.errors import AvsegError
from avseg.media.container import decode, find_audio, first_picture_time, frame_time, open_media, packets, warn

# Time stamps that are off by less than this are jitter: many containers round them, none by a tenth of a second.
_TOLERANCE = 0.1
# Time stamps that jump further than this are wrong; filling such a gap with silence could fill the memory.
_LONGEST_GAP = 600
# Formats that find a moment of the sound track reliably; in others all that comes before it is decoded.
_SEEKABLE = frozenset({"mp4", "matroska", "wav"})
# Seconds before the wanted moment from which sound is decoded after a jump: decoders need a little to get going.
_RUN_UP = 1.0


@dataclass(frozen=True)
class SoundBlock:
    """A stretch of sound that follows the one before without a gap.

    Attributes:
        samples: ``(channels, n)`` float32.
        rate: samples per second.
    """

    samples: np.ndarray
    rate: int


def iter_sound(path: str | Path, start: int = 0) -> Iterator[SoundBlock]:
    """Decode the first sound track from the moment of the first picture on, or from ``start`` seconds after it.

    Sound from before the first picture is dropped; where there is none yet, or none for a while, silence stands in, so
    that sample ``i`` is heard at ``i / rate`` seconds after the first picture. A file without pictures starts at its
    first sample. Damaged packets are skipped with a :class:`avseg.media.container.MediaWarning`.

    Args:
        path: any file with sound.
        start: the first sample's whole second; nothing is given of a track that ends before it.

    Raises:
        AvsegError: the file is missing or unreadable, or has no sound track.
    """
    path = Path(path)
    origin = first_picture_time(path)
    with open_media(path) as container:
        stream = find_audio(container)
        if stream is None:
            raise AvsegError(f"{path} has no sound track: name a file with sound.")
        jumped = _jump(container, stream, origin, start)
        if jumped and origin is None:
            origin = (stream.start_time or 0) * (stream.time_base or Fraction(1))
        timeline = _Timeline(origin, _stated_end(container), start if jumped else 0)
        unwanted = Fraction(0 if jumped else start)  # seconds
        damaged = False
        for packet in packets(container, stream, path):
            try:
                frames = decode(packet)
            except FFmpegError:
                if not damaged:
                    warn(path, "damaged packets of its sound track were skipped.")
                damaged = True
                continue
            for frame in frames:
                for block in timeline.place(frame):
                    spent = min(block.samples.shape[1], round(unwanted * block.rate))
                    unwanted -= Fraction(spent, block.rate)
                    if spent < block.samples.shape[1]:
                        yield SoundBlock(block.samples[:, spent:], block.rate) if spent else block


class _Timeline:
    """Puts decoded frames where their time stamps say, by inserting silence or dropping samples."""

    def __init__(self, origin: Fraction | None, latest: Fraction, start: int = 0) -> None:
        self._origin = origin
        self._latest = latest  # no sound can begin later than this on the file's own clock
        self._end = Fraction(start)  # seconds from the origin to the end of what was placed
        self._started = False

    def place(self, frame: Any) -> Iterator[SoundBlock]:
        samples, rate = _as_float(frame), frame.sample_rate
        if samples.shape[1] == 0 or rate < 1:
            return
        time = frame_time(frame)
        if self._origin is None:
            self._origin = time or Fraction(0)
        gap = Fraction(0) if time is None else time - self._origin - self._end
        wrong = abs(gap) > _LONGEST_GAP or (time is not None and gap > 0 and time > self._latest)
        # The first sample is put exactly where it belongs, the others only when they are clearly elsewhere.
        if wrong or (self._started and abs(gap) < _TOLERANCE):
            gap = Fraction(0)
        shift = round(gap * rate)
        if shift > 0:
            for start in range(0, shift, rate):
                yield SoundBlock(np.zeros((len(samples), min(rate, shift - start)), dtype=np.float32), rate)
        elif shift < 0:
            samples = samples[:, -shift:]
        self._end += Fraction(max(shift, 0) + samples.shape[1], rate)
        if samples.shape[1]:
            self._started = True
            yield SoundBlock(samples, rate)


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


def _stated_end(container: InputContainer) -> Fraction:
    """Seconds on the file's own clock, with a second to spare; a gap's longest length where the file doesn't say."""
    start = Fraction(container.start_time or 0, 1_000_000)
    return start + (Fraction(container.duration, 1_000_000) + 1 if container.duration else Fraction(_LONGEST_GAP))


def _as_float(frame: Any) -> np.ndarray:
    """``(channels, n)`` float32 in about [−1, 1], whatever form the decoder gives."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if np.issubdtype(data.dtype, np.integer):
        return (data / -float(np.iinfo(data.dtype).min)).astype(np.float32)
    return np.nan_to_num(data.astype(np.float32), posinf=0.0, neginf=0.0)
