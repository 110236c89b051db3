"""What can be segmented, and a stretch of it as a model meets it: frames with their neighbours, sound, notes."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avseg.config import InputConfig
from avseg.errors import AvsegError
from avseg.inference.audio_windows import AudioWindows
from avseg.inference.recording import Recording
from avseg.media.audio import SAMPLE_RATE, iter_audio
from avseg.media.audio_writer import FileSound
from avseg.media.container import noted
from avseg.media.front_end import sampled_sound
from avseg.media.intact import intact_until
from avseg.media.resample import Mixer
from avseg.media.sound import SoundBlock, iter_sound
from avseg.media.video import FramePair, VideoInfo, iter_frames, iter_pairs, iter_shown, probe

AnySource = Any
"""A path, a `Recording`, a tuple ``(frames, wave)``, or video itself."""


class VideoSource(Protocol):
    """Frames and sound that can be walked through any number of times.

    Attributes:
        given: What a person named: a path, or a recording.
        info: Size, rate and length; its path names the video in messages.
    """

    given: Path | Recording
    info: VideoInfo

    def intact_until(self) -> float | None:
        """Where frames end before they should, in seconds; None for whole video."""

    def audio_windows(self, start: float, inputs: InputConfig) -> AudioWindows:
        """The sound, from ``start`` seconds on, as a model with these inputs hears it."""

    def wave(self, second: int) -> Iterator[np.ndarray]:
        """The sound in pieces ``(n,)`` float32 at 16 kHz, from a whole second on."""

    def frames(self, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
        """Every frame that begins in ``[start, end)``, with its time."""

    def pairs(self, fps: float, start: float, end: float | None) -> Iterator[FramePair]:
        """``fps`` moments a second, each with its frame and the neighbouring one."""

    def shown(self, times: Iterable[float]) -> Iterator[np.ndarray]:
        """The frames shown at rising moments."""

    def sound(self, start: float, end: float | None) -> dict[str, Any]:
        """Arguments that give `VideoWriter` the sound of a stretch."""


class FileSource:
    """VideoSource in a file that PyAV reads.

    Args:
        path: The file.
        audio_track: Which of its audio tracks is heard, counted from 0; the default one if not given.

    Raises:
        AvsegError: not a video.
    """

    def __init__(self, path: str | Path, audio_track: int | None = None):
        self.given: Path | Recording = Path(path)
        self.path = Path(path)
        self.audio_track = audio_track
        self.info = probe(path)

    def intact_until(self) -> float | None:
        return intact_until(self.path)

    def audio_windows(self, start: float, inputs: InputConfig) -> AudioWindows:
        def pieces(second: int) -> Iterator[np.ndarray]:
            if inputs.front_end == "avsbench":
                return sampled_sound(iter_sound(self.path, second, self.audio_track), second)
            return self.wave(second)

        return AudioWindows(pieces, start, str(self.path), inputs.audio_offset)

    def wave(self, second: int) -> Iterator[np.ndarray]:
        return iter_audio(self.path, start=second, track=self.audio_track)

    def frames(self, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
        return iter_frames(self.path, start, end)

    def pairs(self, fps: float, start: float, end: float | None) -> Iterator[FramePair]:
        return iter_pairs(self.path, fps, start=start, end=end)

    def shown(self, times: Iterable[float]) -> Iterator[np.ndarray]:
        return iter_shown(self.path, times)

    def sound(self, start: float, end: float | None) -> dict[str, Any]:
        return {"audio_from": FileSound(self.path, start, end, self.audio_track)}


class RecordingSource:
    """VideoSource in memory, or of image files."""

    def __init__(self, recording: Recording):
        self.given: Path | Recording = recording
        self.recording = recording
        height, width = recording.shape
        rate = len(recording.frames) / recording.duration
        longest = float(np.diff(recording.begins, append=recording.duration).max())
        seconds, notes = recording.duration, recording.notes
        self.info = VideoInfo(Path(recording.name), width, height, rate, seconds, True, longest=longest, notes=notes)

    def intact_until(self) -> float | None:
        return None

    def audio_windows(self, start: float, inputs: InputConfig) -> AudioWindows:
        recording = self.recording
        if inputs.front_end == "avsbench":
            return AudioWindows(self._sampled, start, recording.name, inputs.audio_offset)
        return AudioWindows(self.wave, start, recording.name, inputs.audio_offset)

    def wave(self, second: int) -> Iterator[np.ndarray]:
        wave = np.atleast_2d(self.recording.wave.T)  # (channels, n)
        rate, mixer = self.recording.sample_rate, Mixer(SAMPLE_RATE)
        before = min(second, 1)  # seconds: the filter hears what came before
        unwanted = before * SAMPLE_RATE
        for first in range((second - before) * rate, wave.shape[1], rate):
            made = mixer.push(wave[:, first : first + rate], rate)[0]
            yield np.clip(made[unwanted:], -1, 1)
            unwanted = max(0, unwanted - len(made))
        yield np.clip(mixer.finish()[0, unwanted:], -1, 1)

    def frames(self, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
        for index, time in enumerate(self.recording.begins):
            if time >= start - _TOLERANCE and (end is None or time < end - _TOLERANCE):
                yield float(time), self.recording.frame(index)

    def pairs(self, fps: float, start: float, end: float | None) -> Iterator[FramePair]:
        last = self.recording.duration if end is None else min(end, self.recording.duration)
        for k in count():
            time = start + k / fps
            if time >= last - _TOLERANCE:
                return
            yield self._pair(time)

    def shown(self, times: Iterable[float]) -> Iterator[np.ndarray]:
        for time in times:
            yield self.recording.frame(self._index(time))

    def sound(self, start: float, end: float | None) -> dict[str, Any]:
        recording = self.recording
        if recording.sound is not None:
            return {"audio_from": FileSound(recording.sound, start, end)}
        last = None if end is None else round(end * recording.sample_rate)
        wave = recording.wave[round(start * recording.sample_rate) : last]
        return {"audio": wave, "sample_rate": recording.sample_rate} if len(wave) else {}

    def _sampled(self, second: int) -> Iterator[np.ndarray]:
        rate = self.recording.sample_rate
        channels = np.atleast_2d(self.recording.wave.T)[:, second * rate :]
        blocks = (SoundBlock(channels[:, at : at + rate], rate) for at in range(0, channels.shape[1], rate))
        return sampled_sound(blocks, second)

    def _index(self, time: float) -> int:
        return max(0, int(np.searchsorted(self.recording.begins, time + _TOLERANCE, side="right")) - 1)

    def _pair(self, time: float) -> FramePair:
        index, begins = self._index(time), self.recording.begins
        other = index + 1 if index + 1 < len(begins) else index - 1
        if other < 0:
            return FramePair(time, self.recording.frame(index), None, 0.0)
        step = float(begins[other] - begins[index])
        return FramePair(time, self.recording.frame(index), self.recording.frame(other), step)


def frames_of(video: VideoSource, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame that begins in ``[start, end)``, with its time, and the one that a stretch finds held.

    A frame that has been held since before ``start``, and goes on for a while, comes first, as if it began there.
    """
    frames = video.frames(start, end)
    first = next(frames, None)
    if start < video.info.duration and (first is None or first[0] > start + LATE):
        yield start, next(iter(video.shown([start])))
    if first is not None:
        yield first
        yield from frames


LATE = 0.05
"""Seconds that a mask may wait for a frame to be drawn on; then the one that is held comes again."""

_TOLERANCE = 1e-6  # seconds by which floating point may have moved a moment


def video_source(given: AnySource, fps: float | None = None, audio_track: int | None = None) -> VideoSource:
    """VideoSource from whatever a person may hand over.

    Args:
        given: The path of a video; the path of a folder of numbered images with a sound file
            (`Recording.from_folder`); a `Recording`; or a tuple ``(frames, wave)``, which stands for
            ``Recording(frames, fps, wave)``: frames at ``fps``, and sound at 16 kHz.
        fps: Frames per second of such a tuple.
        audio_track: Which audio track of a video file is heard, counted from 0; the default one if not given.

    Raises:
        AvsegError: none of these, or one that can't be read.
    """
    if isinstance(given, (FileSource, RecordingSource)):
        return given
    if isinstance(given, (str, Path)) and not _holds_pictures(Path(given)):
        return FileSource(given, audio_track)
    if audio_track is not None:
        raise AvsegError(f"audio_track is {audio_track}, but only video files have audio tracks to choose among.")
    if isinstance(given, Recording):
        return RecordingSource(given)
    if isinstance(given, (str, Path)):
        return RecordingSource(Recording.from_folder(given))
    if isinstance(given, tuple) and len(given) == 2:
        if fps is None:
            raise AvsegError("frames without their rate: give it as fps, or give an avseg.Recording.")
        recording = Recording(given[0], fps, np.asarray(given[1]))
        heard = len(recording.wave) / recording.sample_rate
        if not 0.5 < recording.duration / heard < 2:
            raise AvsegError(
                f"{recording.duration:.1f} s of frames came with {heard:.1f} s of sound: give the frames' own rate as "
                "fps and sound at 16 kHz, or an avseg.Recording."
            )
        return RecordingSource(recording)
    raise AvsegError(
        f"{type(given).__name__} is nothing that can be segmented: give a video's path, a folder of images with a "
        "sound file, (frames, wave), or an avseg.Recording."
    )


def _holds_pictures(path: Path) -> bool:
    from avseg.inference.recording import listing

    return path.is_dir() and bool(listing(path)[0])


_HELD = 0.2 + 1e-3  # seconds that a frame may stay and still have one moment, however many are asked for
_SHORT_SOUND = 0.5  # seconds that a audio track may lack at its end without a word


@dataclass
class Source:
    """Everything about a stretch of video that a model needs.

    Attributes:
        video: What the stretch is of.
        pairs: The asked moments in order, each frame at its own size and with its neighbouring frame. Can be walked
            through once.
        audio: The sound around moments.
        start: Where the stretch begins, in seconds.
        end: Where it ends.
        asked_end: The end that was asked for, if any.
        moments: About how many moments there are.
        notes: Sentences about what a person should know, as far as it is known.
        inputs: Whose audio ``audio`` is; see `use_inputs`.
    """

    video: VideoSource
    pairs: Iterator[FramePair]
    audio: AudioWindows
    start: float
    end: float
    asked_end: float | None
    moments: int
    notes: list[str] = field(default_factory=list)
    inputs: InputConfig = field(default_factory=InputConfig)

    @property
    def info(self) -> VideoInfo:
        """What the video says of itself."""
        return self.video.info

    def use_inputs(self, inputs: InputConfig) -> None:
        """Listen as a model with these inputs does."""
        if (inputs.front_end, inputs.audio_offset) != (self.inputs.front_end, self.inputs.audio_offset):
            self.inputs, self.audio = inputs, self.video.audio_windows(self.start, inputs)

    def note_short_sound(self) -> None:
        """Add a note where the sound turned out to end well before the stretch."""
        heard = self.audio.seconds
        if heard is not None and heard < self.end - _SHORT_SOUND:
            text = f"{self.info.path}: the sound ends at {heard:.2f} of {self.info.duration:.2f} s; "
            text += "its last window is repeated."
            if text not in self.notes:
                self.notes.append(text)


def open_source(
    given: AnySource,
    fps: float | None,
    start: float = 0.0,
    end: float | None = None,
    audio_track: int | None = None,
) -> Source:
    """Check video and make a stretch of it ready to be walked through.

    Args:
        given: See `video_source`.
        fps: Moments per second; None takes every frame, and so does more than there are frames, as long as none is held
            for more than 0.2 s.
        start: First moment, in seconds.
        end: Moments before this many seconds; None goes on to the last frame.
        audio_track: See `video_source`.

    Raises:
        AvsegError: nothing that can be segmented, cut off before ``end``, no sound, or a stretch without frames.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise AvsegError(f"fps is {fps}: give a number of moments per second above 0.")
    video = video_source(given, fps, audio_track)
    info = video.info
    notes = list(info.notes)
    name = info.path
    if not info.has_audio:
        raise AvsegError(f"{name} has no audio track: give a video with sound, since what sounds is what is marked.")
    if not (math.isfinite(start) and start >= 0):
        raise AvsegError(f"start is {start}: give seconds from the video's beginning, 0 or more.")
    if start > 0 and start >= info.duration:
        raise AvsegError(f"start is {start:g} s, but {name} lasts {info.duration:.2f} s: give an earlier one.")
    if end is not None and not end > start:
        raise AvsegError(f"end is {end:g} s, which is not after start ({start:g} s): give a later one.")
    cut = video.intact_until()
    if cut is not None and (end is None or end > cut):
        raise AvsegError(
            f"{name} is cut off after {cut:.2f} of {info.duration:.2f} s: copy or download it again, "
            f"or segment what is there with --end {math.floor(cut * 100) / 100:g}."
        )
    with noted(notes):
        audio = video.audio_windows(start, InputConfig())
    last = info.duration if end is None else min(end, info.duration)
    every = fps is None or (fps >= info.fps * (1 - 1e-9) and info.longest <= _HELD)
    pairs = _every_pair(video, start, end) if every else video.pairs(fps or info.fps, start, end)
    with noted(notes):
        first, second = next(pairs, None), next(pairs, None)
    if first is None:
        raise AvsegError(f"{name} shows no new frame between {start:g} and {last:g} s: give a longer stretch.")
    moments = max(1, math.ceil((last - start) * (info.fps if every or fps is None else fps) - 1e-6))
    start_again = [pair for pair in (first, second) if pair is not None]
    source = Source(video, chain(start_again, pairs), audio, start, last, end, moments, notes)
    if first.neighbour is None:
        source.notes.append(f"{name} has a single frame: nothing moves in it.")
    return source


def _every_pair(video: VideoSource, start: float, end: float | None) -> Iterator[FramePair]:
    """Every frame that begins in ``[start, end)`` with the next one; the last of the video with the one before."""
    before: tuple[float, np.ndarray] | None = None
    shown: tuple[float, np.ndarray] | None = None
    for time, frame in frames_of(video, start, None):
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
