"""What a video is: probe it, decode the frames at given times, walk through all of them, and write one.

Times are seconds from the first frame, whatever the file's own clock says. The frame *shown* at a time is the last one
that begins at or before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, pairwise, takewhile
from pathlib import Path
from statistics import median

import numpy as np

from avseg.media.container import find_audio, noted, open_media, timeline
from avseg.media.frames import DecodedFrame, FrameReader
from avseg.media.intact import cut_off

# Seconds that sound may go on after the last frame without that frame being held for it.
_HELD = 0.5
# Share by which the rate that a file states may miss the number of its frames and still be the better figure.
_STEADY = 0.02


@dataclass(frozen=True)
class Length:
    """How long a video track is shown, and how evenly.

    Attributes:
        duration: seconds from the first frame until the last one has been shown, which stays with sound that goes
            on for more than half a second.
        frames: seconds from the first frame to the end of the last one by itself.
        fps: frames per second on average.
        longest: seconds that a frame stays at most.
    """

    duration: float
    pictures: float
    fps: float
    longest: float

    @classmethod
    def of(cls, reader: FrameReader) -> Length:
        """As the packets say: headers count decoding times, or know nothing."""
        found = timeline(reader.path)
        rate, origin = reader.frame_rate, reader.origin
        shown = [] if origin is None else [float(stamp - origin) for stamp in found.stamps if stamp >= origin]
        if origin is None or not shown:  # frames follow each other at a constant rate
            shown = [k / rate for k in range(max(1, found.pictures))]
            origin = Fraction(0)
        stay = float(found.last) or (shown[-1] / (len(shown) - 1) if len(shown) > 1 else 1 / rate)
        if reader.stays_are_guessed:
            usual = median(after - before for before, after in pairwise(shown)) if len(shown) > 1 else 1 / rate
            stay = min(stay, max(usual, (reader.header_end or 0) - shown[-1]))
        end = shown[-1] + stay
        heard = 0.0 if found.sound_end is None else float(found.sound_end - origin)
        duration = heard if heard > end + _HELD else end
        holds = [after - before for before, after in pairwise([*shown, duration])]
        average = len(shown) / end
        return cls(duration, end, rate if abs(rate / average - 1) < _STEADY else average, max(holds))


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself.

    Attributes:
        path: the file.
        width: pixels, as displayed: after the file's rotation; the aspect of a pixel is left alone.
        height: the same.
        fps: frames per second on average.
        duration: seconds from the first frame until the last one has been shown. Where sound goes on for more than
            half a second the last frame stays with it. Of a file that was cut off it is what the file states.
        has_audio: whether there is a audio track that can be decoded.
        aspect: width of a pixel over its height; 1 unless the video is anamorphic.
        longest: seconds that a frame stays at most.
        notes: sentences about what a person should know of how the file is read.
    """

    path: Path
    width: int
    height: int
    fps: float
    duration: float
    has_audio: bool
    aspect: Fraction = Fraction(1)
    longest: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def display_size(self) -> tuple[int, int]:
        """``(width, height)`` of a frame in square pixels, as players show it."""
        return max(1, round(self.width * self.aspect)), self.height


@dataclass(frozen=True, eq=False)
class FramePair:
    """A frame and its neighbouring frame.

    Attributes:
        time: the asked time, seconds.
        frame: ``(H, W, 3)`` uint8 RGB, the frame shown at that time.
        neighbour: the same shape: the next raw frame; for the last frame the previous one; None if there is only one.
        step: seconds from frame to neighbour, negative when the neighbour is the previous frame; 0 without one.
    """

    time: float
    frame: np.ndarray
    neighbour: np.ndarray | None
    step: float


def probe(path: str | Path) -> VideoInfo:
    """Look at a video file: its first frame is decoded, and its packets are walked through for times.

    Raises:
        AvsegError: the file is missing, a folder, empty, not a video, cut off without its index, has no video track,
            or no frame of it can be decoded.
    """
    path = Path(path)
    notes: list[str] = []
    with noted(notes), FrameReader(path) as reader:
        form, length = reader.form, Length.of(reader)
        if reader.colours is not None:
            notes.append(f"{path} has {reader.colours} colours: they are converted to SDR (BT.709).")
    cut = cut_off(path)
    duration = length.duration if cut is None else max(length.duration, cut[1])
    if timeline(path).next_part is not None:
        notes.append(f"{path}: its timestamps start anew after {duration:.2f} s; what follows is left out.")
    with open_media(path) as container:
        has_audio = find_audio(container) is not None
    return VideoInfo(
        path, form.width, form.height, length.fps, duration, has_audio, form.aspect, length.longest, tuple(notes)
    )


def read_pairs(
    path: str | Path, times: Sequence[float] | np.ndarray, size: tuple[int, int] | None = None
) -> list[FramePair]:
    """The frames shown at some times, each with its neighbouring frame.

    Before the first frame it is the first, past the end the last. Only what is needed is decoded: from the key frame
    before a time up to the frame after it. Of a damaged file what decodes is used, with a :class:`MediaWarning`.

    Args:
        path: any video that PyAV reads.
        times: seconds, in any order.
        size: ``(width, height)`` to resize to, without keeping the aspect; as displayed if None.

    Returns:
        One pair for each time, in the order of ``times``.

    Raises:
        AvsegError: as :func:`probe`.
        ValueError: a time that isn't finite.
    """
    moments = _finite(times)
    pairs: dict[int, FramePair] = {}
    with FrameReader(path, size) as reader:
        cursor = _Cursor(reader)
        for k in sorted(range(len(moments)), key=lambda k: moments[k]):
            pairs[k] = cursor.pair(moments[k])
    return [pairs[k] for k in range(len(moments))]


def read_frames(
    path: str | Path, times: Sequence[float] | np.ndarray, size: tuple[int, int] | None = None
) -> np.ndarray:
    """The frames shown at some times: ``(N, H, W, 3)`` uint8 RGB. Otherwise as :func:`read_pairs`."""
    moments = _finite(times)
    frames: np.ndarray | None = None
    with FrameReader(path, size) as reader:
        cursor = _Cursor(reader)
        for k in sorted(range(len(moments)), key=lambda k: moments[k]):
            cursor.go_to(moments[k])
            frame = cursor.shown.rgb()
            if frames is None:
                frames = np.empty((len(moments), *frame.shape), dtype=np.uint8)
            frames[k] = frame
        return np.empty((0, *reader.first.rgb().shape), dtype=np.uint8) if frames is None else frames


def iter_pairs(
    path: str | Path,
    times: Iterable[float] | float,
    size: tuple[int, int] | None = None,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[FramePair]:
    """The streaming form of :func:`read_pairs`: a few frames are held at any time, however long the video.

    Args:
        path: any video that PyAV reads.
        times: timestamps in seconds (best in rising order), or how many there are per second, counted from ``start``.
        size: as in :func:`read_pairs`.
        start: timestamps before it are left out.
        end: timestamps from it on are left out. Of a number per second they end with the video in any case.

    Yields:
        One pair for each timestamp.

    Raises:
        AvsegError: as :func:`probe`.
        ValueError: a rate that isn't positive, or a time that isn't finite.
    """
    by_rate = isinstance(times, (int, float, Fraction, np.number))
    moments = _moments(times, start, end)
    with FrameReader(path, size, threads=True) as reader:
        cursor = _Cursor(reader)
        last = Length.of(reader).duration - reader.tolerance if by_rate else float("inf")
        for moment in takewhile(lambda moment: moment < last, moments):
            yield cursor.pair(moment)


def iter_shown(path: str | Path, times: Iterable[float]) -> Iterator[np.ndarray]:
    """The frames shown at some timestamps, one after the other: :func:`read_frames` in bounded memory.

    Args:
        path: any video that PyAV reads.
        times: seconds, rising.

    Yields:
        ``(H, W, 3)`` uint8 RGB as displayed.

    Raises:
        AvsegError: as :func:`probe`.
        ValueError: a time that isn't finite.
    """
    with FrameReader(path, threads=True) as reader:
        cursor = _Cursor(reader)
        for time in times:
            cursor.go_to(_finite([time])[0])
            yield cursor.shown.rgb()


def iter_frames(path: str | Path, start: float = 0.0, end: float | None = None) -> Iterator[tuple[float, np.ndarray]]:
    """Every raw frame that begins in ``[start, end)``, one at a time.

    Yields:
        ``(time, frame)``: seconds from the first frame, and ``(H, W, 3)`` uint8 RGB as displayed.

    Raises:
        AvsegError: as :func:`probe`.
    """
    with FrameReader(path, threads=True) as reader:
        if reader.worth_seeking(0.0, start):
            reader.seek(start)
        for picture in reader:
            if end is not None and picture.time >= end - reader.tolerance:
                return
            if picture.time >= start - reader.tolerance:
                yield picture.time, picture.rgb()


class _Cursor:
    """Holds the frame shown at the moment, the one before it and the one after it."""

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader
        self._fill()

    def pair(self, time: float) -> FramePair:
        self.go_to(time)
        if self.after is None and (self.before is None or self._reader.skipped) and self.shown.time > 0:
            self._find_before()
        neighbour = self.after or self.before
        if neighbour is None:
            return FramePair(time, self.shown.rgb(), None, 0.0)
        return FramePair(time, self.shown.rgb(), neighbour.rgb(), neighbour.time - self.shown.time)

    def go_to(self, time: float) -> None:
        limit = time + self._reader.tolerance
        self._reader.skim(limit)
        if time < self.shown.time - self._reader.tolerance and self.shown.time > 0:
            self._seek(max(0.0, time))
        elif self.after is not None and self._reader.worth_seeking(self.after.time, time):
            reached = self.shown.time
            self._seek(time)
            if self.shown.time <= reached:
                self._reader.seek_was_vain()
        while self.after is not None and self.after.time <= limit:
            self._advance()

    def _seek(self, time: float) -> None:
        self._reader.seek(time)
        self._fill()

    def _fill(self) -> None:
        self.before: DecodedFrame | None = None
        self.shown: DecodedFrame = next(self._reader)
        self.after: DecodedFrame | None = next(self._reader, None)

    def _advance(self) -> None:
        assert self.after is not None
        self.before, self.shown, self.after = self.shown, self.after, next(self._reader, None)

    def _find_before(self) -> None:
        """A jump may land on the last frame itself: the one before it lies before that key frame."""
        last = self.shown.time
        self._reader.skim(float("-inf"))
        self._reader.skipped = False
        self._seek(max(0.0, last - 4 * self._reader.tolerance))
        while self.after is not None and self.shown.time < last:
            self._advance()


def _moments(times: Iterable[float] | float, start: float, end: float | None) -> Iterator[float]:
    """The asked timestamps within ``[start, end)``; without an end those of a rate never stop."""
    if isinstance(times, (int, float, Fraction, np.number)):
        rate = float(times)
        if not (np.isfinite(rate) and rate > 0):
            raise ValueError(f"timestamps per second must be positive, not {times}")
        moments = (start + k / rate for k in count())
        return takewhile(lambda moment: end is None or moment < end, moments)
    finite = (_finite([time])[0] for time in times)
    return (moment for moment in finite if moment >= start and (end is None or moment < end))


def _finite(times: Sequence[float] | np.ndarray) -> list[float]:
    moments = [float(time) for time in times]
    if not np.isfinite(moments).all():
        raise ValueError("times must be finite")
    return moments
