"""What can be segmented: a video file or a recording, behind one small interface that decodes it again and again."""

from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avseg.config import InputConfig
from avseg.errors import AvsegError
from avseg.inference.hearing import Hearing
from avseg.inference.recording import Recording
from avseg.media.audio import SAMPLE_RATE, iter_audio
from avseg.media.avsbench_front_end import sampled_sound
from avseg.media.intact import intact_until
from avseg.media.mix import Mixer
from avseg.media.sound import SoundBlock, iter_sound
from avseg.media.soundtrack import FileSound
from avseg.media.video import FramePair, VideoInfo, iter_frames, iter_pairs, iter_shown, probe

Given = Any
"""A path, a `Recording`, a tuple ``(frames, wave)``, or footage itself."""


class Footage(Protocol):
    """Frames and sound that can be walked through any number of times.

    Attributes:
        given: What a person named: a path, or a recording.
        info: Size, rate and length; its path names the footage in messages.
    """

    given: Path | Recording
    info: VideoInfo

    def intact_until(self) -> float | None:
        """Where frames end before they should, in seconds; None for whole footage."""

    def hearing(self, start: float, inputs: InputConfig) -> Hearing:
        """The sound, from ``start`` seconds on, as a model with these inputs hears it."""

    def frames(self, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
        """Every frame that begins in ``[start, end)``, with its time."""

    def pairs(self, fps: float, start: float, end: float | None) -> Iterator[FramePair]:
        """``fps`` moments a second, each with its frame and the neighbouring one."""

    def shown(self, times: Iterable[float]) -> Iterator[np.ndarray]:
        """The frames shown at rising moments."""

    def sound(self, start: float, end: float | None) -> dict[str, Any]:
        """Arguments that give `VideoWriter` the sound of a stretch."""


class VideoFile:
    """Footage in a file that PyAV reads.

    Args:
        path: The file.
        audio_track: Which of its sound tracks is heard, counted from 0; the default one if not given.

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

    def hearing(self, start: float, inputs: InputConfig) -> Hearing:
        def pieces(second: int) -> Iterator[np.ndarray]:
            if inputs.front_end == "avsbench":
                return sampled_sound(iter_sound(self.path, second, self.audio_track), second)
            return iter_audio(self.path, start=second, track=self.audio_track)

        return Hearing(pieces, start, str(self.path), inputs.audio_offset)

    def frames(self, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
        return iter_frames(self.path, start, end)

    def pairs(self, fps: float, start: float, end: float | None) -> Iterator[FramePair]:
        return iter_pairs(self.path, fps, start=start, end=end)

    def shown(self, times: Iterable[float]) -> Iterator[np.ndarray]:
        return iter_shown(self.path, times)

    def sound(self, start: float, end: float | None) -> dict[str, Any]:
        return {"audio_from": FileSound(self.path, start, end, self.audio_track)}


class Recorded:
    """Footage in memory, or of picture files."""

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

    def hearing(self, start: float, inputs: InputConfig) -> Hearing:
        recording = self.recording
        if inputs.front_end == "avsbench":
            return Hearing(self._sampled, start, recording.name, inputs.audio_offset)
        wave = np.atleast_2d(recording.wave.T)  # (channels, n)
        rate = recording.sample_rate

        def pieces(second: int) -> Iterator[np.ndarray]:
            mixer = Mixer(SAMPLE_RATE)
            before = min(second, 1)  # seconds: the filter hears what came before
            unwanted = before * SAMPLE_RATE
            for first in range((second - before) * rate, wave.shape[1], rate):
                made = mixer.push(wave[:, first : first + rate], rate)[0]
                yield np.clip(made[unwanted:], -1, 1)
                unwanted = max(0, unwanted - len(made))
            yield np.clip(mixer.finish()[0, unwanted:], -1, 1)

        return Hearing(pieces, start, recording.name, inputs.audio_offset)

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


def frames_of(footage: Footage, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
    """Every frame that begins in ``[start, end)``, with its time, and the one that a stretch finds held.

    A frame that has been held since before ``start``, and goes on for a while, comes first, as if it began there.
    """
    frames = footage.frames(start, end)
    first = next(frames, None)
    if start < footage.info.duration and (first is None or first[0] > start + LATE):
        yield start, next(iter(footage.shown([start])))
    if first is not None:
        yield first
        yield from frames


LATE = 0.05
"""Seconds that a mask may wait for a frame to be drawn on; then the one that is held comes again."""

_TOLERANCE = 1e-6  # seconds by which floating point may have moved a moment


def footage_of(given: Given, fps: float | None = None, audio_track: int | None = None) -> Footage:
    """Footage from whatever a person may hand over.

    Args:
        given: The path of a video; the path of a folder of numbered pictures with a sound file
            (`Recording.from_folder`); a `Recording`; or a tuple ``(frames, wave)``, which stands for
            ``Recording(frames, fps, wave)``: frames at ``fps``, and sound at 16 kHz.
        fps: Frames per second of such a tuple.
        audio_track: Which sound track of a video file is heard, counted from 0; the default one if not given.

    Raises:
        AvsegError: none of these, or one that can't be read.
    """
    if isinstance(given, (VideoFile, Recorded)):
        return given
    if isinstance(given, (str, Path)) and not _holds_pictures(Path(given)):
        return VideoFile(given, audio_track)
    if audio_track is not None:
        raise AvsegError(f"audio_track is {audio_track}, but only video files have sound tracks to choose among.")
    if isinstance(given, Recording):
        return Recorded(given)
    if isinstance(given, (str, Path)):
        return Recorded(Recording.from_folder(given))
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
        return Recorded(recording)
    raise AvsegError(
        f"{type(given).__name__} is nothing that can be segmented: give a video's path, a folder of pictures with a "
        "sound file, (frames, wave), or an avseg.Recording."
    )


def _holds_pictures(path: Path) -> bool:
    from avseg.inference.recording import listing

    return path.is_dir() and bool(listing(path)[0])
