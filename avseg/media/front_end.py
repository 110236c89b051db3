"""Frames and sound as AVSBench's authors made them of raw videos, faults included.

Models trained on the published files have learnt from such pixels and such sound. Frames are shrunk bilinearly, which
lets fine structure alias. Sound is decoded to 44.1 kHz stereo by moviepy 1.0.3, where one channel becomes two 3 dB
quieter ones, and every sample at 16 kHz is the nearest of those at 44.1 kHz, without a low-pass.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from av import AudioFrame, AudioResampler
from av.error import FFmpegError

from avseg.errors import AvsegError
from avseg.media.container import decode, find_audio, open_media, packets, warn
from avseg.media.images import resize
from avseg.media.sound import SoundBlock
from avseg.media.video import FramePair

_DECODED = 44_100  # samples a second that moviepy asks its decoder for
_WANTED = 16_000
_BUFFER = 200_000  # samples that moviepy holds
_CHUNK = 2_000  # samples at 16 kHz that moviepy writes together
_LOUDEST = 0.99  # moviepy clips there
_SAMPLED = 16  # frames that are sampled of each second; the last is kept
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def official_pairs(path: str | Path, numbers: Sequence[int], size: tuple[int, int]) -> list[FramePair]:
    """AVSBench's frames, each with its neighbouring frame.

    Frame k has the index ``int((k − 1) · rate + 15/16 · rate)``, the rate being rounded; past the end it is the last.

    Args:
        path: A video that `avseg.media.video.probe` takes.
        numbers: Frames k, from 1.
        size: ``(width, height)`` in pixels.

    Returns:
        One pair for each number; its time is what its index says.

    Raises:
        AvsegError: no frame of the file can be decoded.
    """
    exact = _rate(path)
    rate = round(exact)
    places = [int((k - 1) * rate + (_SAMPLED - 1) / _SAMPLED * rate) for k in numbers]
    frames, count = _frames(path, {place + i for place in places for i in (0, 1)}, size)
    places = [min(place, count - 1) for place in places]
    others = [place + 1 if place + 1 < count else place - 1 for place in places]
    missing = {*places, *(other for other in others if other >= 0)} - frames.keys()
    if missing:  # the end came sooner than the last of them
        frames |= _frames(path, missing, size)[0]
    return [
        FramePair(place / exact, frames[place], frames.get(other), (other - place) / exact if other >= 0 else 0.0)
        for place, other in zip(places, others, strict=True)
    ]


def _rate(path: str | Path) -> float:
    found = float(_open(path).get(cv2.CAP_PROP_FPS))
    return found if 0.5 <= found <= 1000 else 25.0


def _open(path: str | Path) -> cv2.VideoCapture:
    # A relative name with a colon would be taken for an address.
    return cv2.VideoCapture(str(Path(path).absolute()), cv2.CAP_FFMPEG)


def _frames(path: str | Path, wanted: set[int], size: tuple[int, int]) -> tuple[dict[int, np.ndarray], int]:
    """Frames by index, and how many there are, counted up to the last that is wanted."""
    capture, found, index = _open(path), {}, 0
    while index <= max(wanted) and capture.grab():
        if index in wanted:
            _, image = capture.retrieve()
            found[index] = cv2.cvtColor(resize(image, size, "bilinear"), cv2.COLOR_BGR2RGB)
        index += 1
    capture.release()
    if index == 0:
        raise AvsegError(f"{path} has no frame that can be decoded: copy or convert it again.")
    return found, index


def official_sound(path: str | Path) -> np.ndarray:
    """What ``VideoFileClip(path).audio.write_audiofile(wav, fps=16000)`` of moviepy 1.0.3 writes.

    It begins with the first sample of the track, whenever that is heard, and lasts as long as the file says.

    Returns:
        ``(n, 2)`` float32 in [−0.99, 0.99], 16 kHz.

    Raises:
        AvsegError: the file is missing, unreadable, without a audio track, or nothing of the track can be decoded.
    """
    path = Path(path)
    with open_media(path) as container:
        stream = find_audio(container)
        if stream is None:
            raise AvsegError(f"{path} has no audio track: name a file with sound.")
        duration = None if container.duration is None else (container.duration + 5_000) // 10_000 / 100
        pieces = list(_stereo(_decoded(packets(container, stream, path), path)))
    if not pieces:
        raise AvsegError(f"{path} has a audio track without any sound that can be decoded: copy or convert it again.")
    sound = np.concatenate(pieces)
    wanted = _read_by_moviepy(duration or len(sound) / _DECODED, len(sound))
    return _quantised(sound[np.clip(wanted, 0, len(sound) - 1)])


def sampled_sound(blocks: Iterable[SoundBlock], start: int = 0) -> Iterator[np.ndarray]:
    """The same sampling of any sound, piece by piece: `official_sound`, averaged, but in time with the frames.

    Args:
        blocks: What follows ``start``; see `avseg.media.sound.iter_sound`.
        start: A whole second, at which the first block begins.

    Yields:
        ``(n,)`` float32 at 16 kHz.
    """
    made, held, first = start * _WANTED, np.zeros((0, 2), dtype=np.int16), start * _DECODED
    for piece in _stereo(frame for block in blocks for frame in [_frame_of(block)]):
        held = np.concatenate([held, piece])
        reach = (first + len(held)) * _WANTED // _DECODED
        places = _nearest(np.arange(made, reach)) - first
        places = places[places < len(held)]
        if len(places):
            yield _quantised(held[places]).mean(axis=1, dtype=np.float64).astype(np.float32)
            made += len(places)
            held, first = held[places[-1] :], first + int(places[-1])


def _frame_of(block: SoundBlock) -> AudioFrame:
    layout = _LAYOUTS.get(len(block.samples))
    samples = block.samples if layout else block.samples.mean(axis=0, keepdims=True)
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples, dtype=np.float32), "fltp", layout or "mono")
    frame.sample_rate = block.rate
    return frame


def _decoded(source: Iterable, path: Path) -> Iterator[AudioFrame]:
    damaged = False
    for packet in source:
        try:
            yield from decode(packet)
        except FFmpegError:
            if not damaged:
                warn(path, "damaged packets of its audio track were skipped.")
            damaged = True


def _stereo(frames: Iterable[AudioFrame]) -> Iterator[np.ndarray]:
    """``(n, 2)`` int16 at 44.1 kHz, as ``ffmpeg -ar 44100 -ac 2 -f s16le`` gives it."""
    resampler, form = None, None
    for frame in frames:
        if frame.samples == 0 or frame.sample_rate < 1:
            continue
        frame.pts, frame.time_base = None, Fraction(1, frame.sample_rate)  # frames follow each other, whatever they say
        if resampler is None or form != (frame.format.name, frame.layout.name, frame.sample_rate):
            yield from _resampled(resampler, None)
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = AudioResampler("s16", "stereo", _DECODED)
        yield from _resampled(resampler, frame)
    yield from _resampled(resampler, None)


def _resampled(resampler: AudioResampler | None, frame: AudioFrame | None) -> list[np.ndarray]:
    found = [] if resampler is None else resampler.resample(frame)
    return [made.to_ndarray().reshape(-1, 2) for made in found if made.samples]


def _nearest(samples: np.ndarray) -> np.ndarray:
    """Samples at 16 kHz -> the nearest at 44.1 kHz, with moviepy's own roundings."""
    return np.round(_DECODED * (1.0 / _WANTED * samples)).astype(np.int64)


def _quantised(sound: np.ndarray) -> np.ndarray:
    """int16 -> float32, clipped and cut off to 16 bits as moviepy does."""
    clipped = np.clip(sound / 2**15, -_LOUDEST, _LOUDEST)
    return (np.trunc(2**15 * clipped) / 2**15).astype(np.float32)


def _read_by_moviepy(duration: float, available: int) -> np.ndarray:
    """Which decoded sample each written one is: the nearest, but for how moviepy moves its buffer.

    With each move it keeps one sample more than it accounts for, and past the track's end it loses count.

    Args:
        duration: Seconds, as the decoder prints them.
        available: Decoded samples.
    """
    size = min(int(_DECODED * duration) + 1, _BUFFER)
    total = int(_WANTED * duration)
    borders = np.linspace(0, total, total // _CHUNK + 2, endpoint=True, dtype=int)
    # What the buffer calls its first sample, which sample that is, and how many it holds.
    start, first, held = 0, 0, min(size, available)
    places = []
    for begin, end in pairwise(borders):
        if begin == end:
            continue
        nearest = _nearest(np.arange(begin, end))
        outside = [int(place) for place in nearest[[0, -1]] if not 0 <= place - start < held]
        if outside:
            new = max(0, outside[0] - size // 2)
            if new < start + size < new + size:
                asked = start + size - new + 1
                kept = min(held, asked)
                first += held - kept
                held = kept + min(size - asked, available - first - kept)
            else:
                first, held = new, min(size, max(0, available - new))
            start = new
        inside = nearest - start - (size // 2 - held + 1 if held < size // 2 else 0)
        places.append(first + np.minimum(inside, held - 1) % max(1, held))
    return np.concatenate(places) if places else np.zeros(0, dtype=np.int64)
