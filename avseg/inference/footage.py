"""What can be segmented: a video file or a recording, behind one small interface that decodes it again and again."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avseg.errors import AvsegError
from avseg.files import scratch
from avseg.inference.hearing import Hearing
from avseg.inference.recording import Recording
from avseg.media.audio import SAMPLE_RATE, iter_audio
from avseg.media.cut import cut_sound
from avseg.media.intact import intact_until
from avseg.media.resample import resample
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

    def hearing(self, start: float) -> Hearing:
        """The sound, from ``start`` seconds on."""

    def frames(self, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
        """Every frame that begins in ``[start, end)``, with its time."""

    def pairs(self, fps: float, start: float, end: float | None) -> Iterator[FramePair]:
        """``fps`` moments a second, each with its frame and the neighbouring one."""

    def shown(self, times: Iterable[float]) -> Iterator[np.ndarray]:
        """The frames shown at rising moments."""

    def sound(self, stack: ExitStack, start: float, end: float | None) -> dict[str, Any]:
        """Arguments that give `VideoWriter` the sound of a stretch; what needs cleaning up goes on ``stack``."""


class VideoFile:
    """Footage in a file that PyAV reads.

    Raises:
        AvsegError: not a video.
    """

    def __init__(self, path: str | Path):
        self.given: Path | Recording = Path(path)
        self.path = Path(path)
        self.info = probe(path)

    def intact_until(self) -> float | None:
        return intact_until(self.path)

    def hearing(self, start: float) -> Hearing:
        return Hearing(lambda second: iter_audio(self.path, start=second), start, str(self.path))

    def frames(self, start: float, end: float | None) -> Iterator[tuple[float, np.ndarray]]:
        return iter_frames(self.path, start, end)

    def pairs(self, fps: float, start: float, end: float | None) -> Iterator[FramePair]:
        return iter_pairs(self.path, fps, start=start, end=end)

    def shown(self, times: Iterable[float]) -> Iterator[np.ndarray]:
        return iter_shown(self.path, times)

    def sound(self, stack: ExitStack, start: float, end: float | None) -> dict[str, Any]:
        return _sound_of(self.path, stack, start, end)


class Recorded:
    """Footage in memory, or of picture files."""

    def __init__(self, recording: Recording):
        self.given: Path | Recording = recording
        self.recording = recording
        height, width = recording.shape
        rate = len(recording.frames) / recording.duration
        self.info = VideoInfo(Path(recording.name), width, height, rate, recording.duration, True)

    def intact_until(self) -> float | None:
        return None

    def hearing(self, start: float) -> Hearing:
        recording = self.recording
        mono = np.asarray(recording.wave, dtype=np.float64)
        mono = resample(mono if mono.ndim == 1 else mono.mean(axis=1), recording.sample_rate, SAMPLE_RATE)
        wave = np.clip(mono.astype(np.float32), -1, 1)
        return Hearing(lambda second: iter([wave[second * SAMPLE_RATE :]]), start, recording.name)

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

    def sound(self, stack: ExitStack, start: float, end: float | None) -> dict[str, Any]:
        recording = self.recording
        if recording.sound is not None:
            return _sound_of(recording.sound, stack, start, end)
        last = None if end is None else round(end * recording.sample_rate)
        wave = recording.wave[round(start * recording.sample_rate) : last]
        return {"audio": wave, "sample_rate": recording.sample_rate} if len(wave) else {}

    def _index(self, time: float) -> int:
        return max(0, int(np.searchsorted(self.recording.begins, time + _TOLERANCE, side="right")) - 1)

    def _pair(self, time: float) -> FramePair:
        index, begins = self._index(time), self.recording.begins
        other = index + 1 if index + 1 < len(begins) else index - 1
        if other < 0:
            return FramePair(time, self.recording.frame(index), None, 0.0)
        step = float(begins[other] - begins[index])
        return FramePair(time, self.recording.frame(index), self.recording.frame(other), step)


_TOLERANCE = 1e-6  # seconds by which floating point may have moved a moment


def footage_of(given: Given, fps: float | None = None) -> Footage:
    """Footage from whatever a person may hand over.

    Args:
        given: The path of a video; the path of a folder of numbered pictures with a sound file
            (`Recording.from_folder`); a `Recording`; or a tuple ``(frames, wave)``, which stands for
            ``Recording(frames, fps, wave)``: frames at ``fps``, and sound at 16 kHz.
        fps: Frames per second of such a tuple.

    Raises:
        AvsegError: none of these, or one that can't be read.
    """
    if isinstance(given, (VideoFile, Recorded)):
        return given
    if isinstance(given, Recording):
        return Recorded(given)
    if isinstance(given, (str, Path)):
        path = Path(given)
        return Recorded(Recording.from_folder(path)) if _holds_pictures(path) else VideoFile(path)
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


def _sound_of(path: Path, stack: ExitStack, start: float, end: float | None) -> dict[str, Any]:
    if start <= 0:
        return {"audio_from": path}
    part = stack.enter_context(scratch("sound")) / "sound.wav"
    cut_sound(path, part, start, end)
    return {"audio_from": part}
