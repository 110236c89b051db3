"""A stretch of footage as a model meets it: frames with their neighbours, its sound, and what is unusual about it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from avseg.config import InputConfig
from avseg.errors import AvsegError
from avseg.inference.footage import Footage, Given, footage_of, frames_of
from avseg.inference.hearing import Hearing
from avseg.media.container import noted
from avseg.media.video import FramePair, VideoInfo

_HELD = 0.2 + 1e-3  # seconds that a frame may stay and still have one moment, however many are asked for
_SHORT_SOUND = 0.5  # seconds that a sound track may lack at its end without a word


@dataclass
class Source:
    """Everything about a stretch of footage that a model needs.

    Attributes:
        footage: What the stretch is of.
        pairs: The asked moments in order, each frame at its own size and with its neighbouring frame. Can be walked
            through once.
        hearing: The sound around moments.
        start: Where the stretch begins, in seconds.
        end: Where it ends.
        asked_end: The end that was asked for, if any.
        moments: About how many moments there are.
        notes: Sentences about what a person should know, as far as it is known.
        inputs: Whose hearing ``hearing`` is; see `heard_by`.
    """

    footage: Footage
    pairs: Iterator[FramePair]
    hearing: Hearing
    start: float
    end: float
    asked_end: float | None
    moments: int
    notes: list[str] = field(default_factory=list)
    inputs: InputConfig = field(default_factory=InputConfig)

    @property
    def info(self) -> VideoInfo:
        """What the footage says of itself."""
        return self.footage.info

    def heard_by(self, inputs: InputConfig) -> None:
        """Listen as a model with these inputs does."""
        if (inputs.front_end, inputs.audio_offset) != (self.inputs.front_end, self.inputs.audio_offset):
            self.inputs, self.hearing = inputs, self.footage.hearing(self.start, inputs)

    def note_short_sound(self) -> None:
        """Add a note where the sound turned out to end well before the stretch."""
        heard = self.hearing.seconds
        if heard is not None and heard < self.end - _SHORT_SOUND:
            text = f"{self.info.path}: the sound ends at {heard:.2f} of {self.info.duration:.2f} s; "
            text += "its last window is repeated."
            if text not in self.notes:
                self.notes.append(text)


def open_source(
    given: Given,
    fps: float | None,
    start: float = 0.0,
    end: float | None = None,
    audio_track: int | None = None,
) -> Source:
    """Check footage and make a stretch of it ready to be walked through.

    Args:
        given: See `avseg.footage.footage_of`.
        fps: Moments per second; None takes every frame, and so does more than there are frames, as long as none is held
            for more than 0.2 s.
        start: First moment, in seconds.
        end: Moments before this many seconds; None goes on to the last frame.
        audio_track: See `avseg.footage.footage_of`.

    Raises:
        AvsegError: nothing that can be segmented, cut off before ``end``, no sound, or a stretch without frames.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise AvsegError(f"fps is {fps}: give a number of moments per second above 0.")
    footage = footage_of(given, fps, audio_track)
    info = footage.info
    notes = list(info.notes)
    name = info.path
    if not info.has_audio:
        raise AvsegError(f"{name} has no sound track: give a video with sound, since what sounds is what is marked.")
    if not (math.isfinite(start) and start >= 0):
        raise AvsegError(f"start is {start}: give seconds from the video's beginning, 0 or more.")
    if start > 0 and start >= info.duration:
        raise AvsegError(f"start is {start:g} s, but {name} lasts {info.duration:.2f} s: give an earlier one.")
    if end is not None and not end > start:
        raise AvsegError(f"end is {end:g} s, which is not after start ({start:g} s): give a later one.")
    cut = footage.intact_until()
    if cut is not None and (end is None or end > cut):
        raise AvsegError(
            f"{name} is cut off after {cut:.2f} of {info.duration:.2f} s: copy or download it again, "
            f"or segment what is there with --end {math.floor(cut * 100) / 100:g}."
        )
    with noted(notes):
        hearing = footage.hearing(start, InputConfig())
    last = info.duration if end is None else min(end, info.duration)
    every = fps is None or (fps >= info.fps * (1 - 1e-9) and info.longest <= _HELD)
    pairs = _every_pair(footage, start, end) if every else footage.pairs(fps or info.fps, start, end)
    with noted(notes):
        first, second = next(pairs, None), next(pairs, None)
    if first is None:
        raise AvsegError(f"{name} shows no new frame between {start:g} and {last:g} s: give a longer stretch.")
    moments = max(1, math.ceil((last - start) * (info.fps if every or fps is None else fps) - 1e-6))
    start_again = [pair for pair in (first, second) if pair is not None]
    source = Source(footage, chain(start_again, pairs), hearing, start, last, end, moments, notes)
    if first.neighbour is None:
        source.notes.append(f"{name} has a single frame: nothing moves in it.")
    return source


def _every_pair(footage: Footage, start: float, end: float | None) -> Iterator[FramePair]:
    """Every frame that begins in ``[start, end)`` with the next one; the last of the video with the one before."""
    before: tuple[float, np.ndarray] | None = None
    shown: tuple[float, np.ndarray] | None = None
    for time, frame in frames_of(footage, start, None):
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
