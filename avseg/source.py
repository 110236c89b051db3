"""A video as a model meets it: frames with their neighbours, the whole sound, and what is unusual about them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from avseg.errors import AvsegError
from avseg.media.audio import EXAMPLE_SAMPLES, SAMPLE_RATE, load_audio, log_mel_at
from avseg.media.intact import intact_until
from avseg.media.video import FramePair, VideoInfo, iter_frames, iter_pairs, probe

SILENCE = -100.0
"""The lowest loudness that is told apart, in decibels relative to full scale."""

_SHORT_SOUND = 0.5  # seconds that a sound track may lack at its end without a word


@dataclass(frozen=True)
class Source:
    """Everything about a stretch of video that a model needs.

    Attributes:
        info: What the file says of itself.
        pairs: The asked moments in order, each frame at the video's own size and with its neighbouring frame. Can be
            walked through once.
        wave: ``(n,)`` float32, the file's whole sound, 16 kHz mono.
        start: Where the stretch begins, in seconds.
        end: Where it ends.
        moments: About how many moments there are.
        notes: Sentences about what a person should know.
    """

    info: VideoInfo
    pairs: Iterator[FramePair]
    wave: np.ndarray
    start: float
    end: float
    moments: int
    notes: tuple[str, ...]


def open_video(path: str | Path, fps: float | None, start: float = 0.0, end: float | None = None) -> Source:
    """Check a video file and make it ready to be walked through. All of its sound is decoded at once.

    Args:
        path: Any video with sound that PyAV reads.
        fps: Moments per second; None, or more than the video has, takes every frame.
        start: First moment, in seconds.
        end: Moments before this many seconds; None goes on to the last frame.

    Raises:
        AvsegError: not a video, cut off before ``end``, no sound track, or a stretch without frames.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise AvsegError(f"fps is {fps}: give a number of moments per second above 0.")
    info = probe(path)
    if not info.has_audio:
        raise AvsegError(f"{path} has no sound track: give a video with sound, since what sounds is what is marked.")
    if not (math.isfinite(start) and start >= 0):
        raise AvsegError(f"start is {start}: give seconds from the video's beginning, 0 or more.")
    if start > 0 and start >= info.duration:
        raise AvsegError(f"start is {start:g} s, but {path} lasts {info.duration:.2f} s: give an earlier one.")
    if end is not None and not end > start:
        raise AvsegError(f"end is {end:g} s, which is not after start ({start:g} s): give a later one.")
    cut = intact_until(path)
    if cut is not None and (end is None or end > cut):
        raise AvsegError(
            f"{path} is cut off after {cut:.2f} of {info.duration:.2f} s: copy or download it again, "
            f"or segment what is there with --end {math.floor(cut * 100) / 100:g}."
        )
    wave = load_audio(path)
    last = info.duration if end is None else min(end, info.duration)
    every = fps is None or fps >= info.fps
    pairs = _every_pair(path, start, end) if every else iter_pairs(path, fps or info.fps, start=start, end=end)
    first, second = next(pairs, None), next(pairs, None)
    if first is None:
        raise AvsegError(f"{path} shows no new frame between {start:g} and {last:g} s: give a longer stretch.")
    notes = []
    if first.neighbour is None:
        notes.append(f"{path} has a single frame: nothing moves in it.")
    heard = len(wave) / SAMPLE_RATE
    if heard < last - _SHORT_SOUND:
        notes.append(f"{path}: the sound ends at {heard:.2f} of {info.duration:.2f} s; its last window is repeated.")
    moments = max(1, math.ceil((last - start) * (info.fps if every or fps is None else fps) - 1e-6))
    start_again = [pair for pair in (first, second) if pair is not None]
    return Source(info, chain(start_again, pairs), wave, start, last, moments, tuple(notes))


def hear(wave: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The log-mel example of each moment, ``(len(times), 1, 96, 64)`` float32.

    It is that of the 0.96 s centred on the moment, shifted inside the sound at its ends. Only the part of the sound
    that matters is looked at, so that an hour costs no more than a minute.
    """
    first = int(
        np.clip(math.floor(times.min() * SAMPLE_RATE) - EXAMPLE_SAMPLES, 0, max(0, len(wave) - EXAMPLE_SAMPLES))
    )
    last = max(first, math.ceil(times.max() * SAMPLE_RATE)) + EXAMPLE_SAMPLES
    return log_mel_at(wave[first:last], times - first / SAMPLE_RATE)


def loudness_at(wave: np.ndarray, time: float) -> float:
    """Root mean square of the sound that `hear` gives for a moment, in decibels relative to full scale."""
    centred = round(time * SAMPLE_RATE - EXAMPLE_SAMPLES / 2)
    first = min(max(0, centred), max(0, len(wave) - EXAMPLE_SAMPLES))
    power = float(np.mean(np.square(wave[first : first + EXAMPLE_SAMPLES], dtype=np.float64)))
    return max(SILENCE, 10 * math.log10(power)) if power > 0 else SILENCE


def _every_pair(path: str | Path, start: float, end: float | None) -> Iterator[FramePair]:
    """Every frame that begins in ``[start, end)`` with the next one; the last of the video with the one before."""
    before: tuple[float, np.ndarray] | None = None
    shown: tuple[float, np.ndarray] | None = None
    for time, frame in iter_frames(path, start):
        if shown is not None:
            yield FramePair(shown[0], shown[1], frame, time - shown[0])
        if end is not None and time >= end:
            return
        before, shown = shown, (time, frame)
    if shown is not None:
        if before is None:
            yield FramePair(shown[0], shown[1], None, 0.0)
        else:
            yield FramePair(shown[0], shown[1], before[1], before[0] - shown[0])
