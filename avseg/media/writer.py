"""Writing an mp4 that plays anywhere: H.264 frames at their true times, and a audio track that stays with them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.codec.context import Flags as CodecFlags
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.media.audio_writer import FileSound, Soundtrack, sound_of_file, sound_of_samples

# Ticks per second. 25, 30000/1001, 50 and 60 frames per second are whole numbers of them.
MOST_FPS = 90_000
_TIME_BASE = Fraction(1, MOST_FPS)
# Fixed, since x264 writes other bytes for another number of threads.
_THREADS = 2


class VideoWriter:
    """Write frames to an H.264 mp4 (yuv420p, BT.709), with sound or without.

    A context manager: the file gets its name when the block ends well, and nothing is there when it raises. A width
    or height that is odd is made even by repeating the last column or row, because players ask for it. The same
    input gives the same bytes with the same versions of the encoders.

    Sound of ``audio_from`` is copied as it is where mp4 can hold it (AAC, MP3, AC-3, E-AC-3, ALAC, Opus, FLAC) and
    otherwise encoded to AAC. It stays with the frames: what was heard at the source's first frame is heard at
    the first frame. All of it is taken, however long the frames are, or the stretch that a
    :class:`avseg.media.audio_writer.FileSound` names. Sound with gaps is encoded, with silence in them; damaged packets
    leave gaps, with a :class:`avseg.media.container.MediaWarning`. A source without a audio track gives a silent file.

    Args:
        path: the mp4 to write.
        width: pixels of every frame.
        height: pixels of every frame.
        fps: frames per second: the step between frames that come without a time, and the last frame's duration
            where `hold_until` doesn't say otherwise.
        audio_from: a video or audio file whose sound is taken, or a stretch of one.
        audio: or sound itself: ``(n,)`` or ``(n, channels)`` float in [−1, 1], its first sample at time 0.
        sample_rate: of ``audio``.
        crf: x264's quality, 0 (best) to 51.
        preset: x264's speed.
        aspect: width of a pixel over its height, which players are told.

    Raises:
        AvsegError: ``audio_from`` is missing or unreadable, or no frame was written.
        ValueError: sizes, rates or arrays that make no sense.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float,
        audio_from: str | Path | FileSound | None = None,
        audio: np.ndarray | None = None,
        sample_rate: int | None = None,
        crf: int = 20,
        preset: str = "veryfast",
        aspect: Fraction = Fraction(1),
    ) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"a video of {width}×{height} pixels can't be written")
        if not (np.isfinite(fps) and 0 < fps <= MOST_FPS):
            raise ValueError(f"fps must lie in (0, {MOST_FPS}], not {fps}")
        if audio is not None and audio_from is not None:
            raise ValueError("give audio or audio_from, not both")
        if audio is not None and not sample_rate:
            raise ValueError("audio needs its sample_rate")
        self.path = Path(path)
        self.width, self.height, self.fps = width, height, float(fps)
        self._audio_from = FileSound(Path(audio_from)) if isinstance(audio_from, (str, Path)) else audio_from
        self._audio, self._sample_rate = audio, sample_rate
        # Without the last x264's bits vary from run to run even on one machine. With frames that are stored in another
        # order than shown, mp4's header is wrong about the length where the last ones are far apart.
        self._options = {"crf": str(crf), "preset": preset, "bf": "0", "x264-params": "cpu-independent=1"}
        self._aspect = aspect
        self._stack = ExitStack()
        self._converter = VideoReformatter()  # setting one up for each frame costs as much as its work
        self._waiting: VideoFrame | None = None  # the last frame, until it is known how long it stays
        self._last: int | None = None
        self._end: int | None = None
        self._count = 0
        self._base = (0, 0)  # ticks and number of the last frame that came with a time
        self._time = 0.0  # that time
        self._sound: Soundtrack | None = None

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(whole_file(self.path))
            # Nothing of the timestamp or the machine goes into the file, and players can start before they have it all.
            options = {"movflags": "+faststart", "fflags": "+bitexact"}
            self._container: OutputContainer = av.open(f"file:{temporary}", "w", format="mp4", options=options)
            stack.callback(self._container.close)
            self._stream = self._add_pictures()
            if self._audio_from is not None:
                self._sound = stack.enter_context(sound_of_file(self._container, self._audio_from))
            elif self._audio is not None and self._sample_rate is not None:
                self._sound = sound_of_samples(self._container, self._audio, self._sample_rate)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: np.ndarray, time: float | None = None) -> None:
        """Add a frame.

        Args:
            frame: ``(height, width, 3)`` uint8 RGB.
            time: seconds from the beginning of the file; one step after the previous frame if None. A frame that is
                later by less than the file's clock can tell (1/90,000 s) is left out.

        Raises:
            ValueError: another shape or type, or a time that isn't later than the previous frame's.
        """
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise ValueError(f"frames must be ({self.height}, {self.width}, 3) uint8, not {frame.shape} {frame.dtype}")
        ticks = self._ticks(time)
        if ticks is None:
            return
        picture = self._picture(frame)
        picture.pts, picture.time_base = ticks, _TIME_BASE
        self._let_go(ticks)
        self._waiting, self._last = picture, ticks
        self._count += 1

    def hold_until(self, time: float) -> None:
        """Say how long the last frame stays: until ``time`` seconds from the beginning of the file."""
        self._end = round(time / _TIME_BASE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            if self._last is None:
                raise AvsegError(f"{self.path} would be empty: there was no frame to write.")
            end = max(self._last + 1, self._last + self._step if self._end is None else self._end)
            self._let_go(end)
            self._mux(None)
            if self._sound is not None:
                self._sound.finish()

    @property
    def _step(self) -> int:
        return max(1, round(1 / (self.fps * _TIME_BASE)))

    def _ticks(self, time: float | None) -> int | None:
        if time is None:
            # Counted, not added up, so that 30000/1001 doesn't drift.
            ticks = self._base[0] + round((self._count - self._base[1]) / (self.fps * _TIME_BASE))
            self._time = float(ticks * _TIME_BASE)
        else:
            if not (np.isfinite(time) and time >= 0):
                raise ValueError(f"a frame's time must be 0 or later, not {time}")
            ticks = round(time / _TIME_BASE)
            if ticks == self._last and time > self._time + 1e-9:
                return None
            self._base, self._time = (ticks, self._count), time
        if self._last is not None and ticks <= self._last:
            raise ValueError(
                f"a frame at {time} s isn't later than the one before, at {float(self._last * _TIME_BASE)} s"
            )
        return ticks

    def _add_pictures(self) -> VideoStream:
        rate = Fraction(self.fps).limit_denominator(1001)
        stream = self._container.add_stream("libx264", rate=rate or 1, options=self._options)
        context = stream.codec_context
        context.width, context.height = self.width + self.width % 2, self.height + self.height % 2
        context.pix_fmt = "yuv420p"
        context.sample_aspect_ratio = self._aspect
        context.time_base = _TIME_BASE
        context.thread_count = _THREADS
        context.flags |= int(CodecFlags.frame_duration)
        # Without these players guess from the size.
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return stream

    def _picture(self, frame: np.ndarray) -> VideoFrame:
        odd = (self.height % 2, self.width % 2)
        even = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else frame
        picture = VideoFrame.from_numpy_buffer(np.ascontiguousarray(even), format="rgb24")
        return self._converter.reformat(
            picture, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )

    def _let_go(self, end: int) -> None:
        """Encode the frame that waits, which stays until ``end``."""
        if self._waiting is not None and self._waiting.pts is not None:
            self._waiting.duration = end - self._waiting.pts
            self._mux(self._waiting)
            self._waiting = None

    def _mux(self, picture: VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            if self._sound is not None and packet.dts is not None and packet.time_base is not None:
                self._sound.write_until(packet.dts * packet.time_base)
            self._container.mux(packet)


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    audio_from: str | Path | FileSound | None = None,
    audio: np.ndarray | None = None,
    sample_rate: int | None = None,
    crf: int = 20,
    preset: str = "veryfast",
) -> None:
    """Write frames, ``fps`` of them a second, as an mp4. Arguments and errors are those of :class:`VideoWriter`.

    Args:
        path: the mp4 to write.
        frames: ``(H, W, 3)`` uint8 RGB each, all of one size.
        fps: frames per second.
        audio_from: see :class:`VideoWriter`.
        audio: see :class:`VideoWriter`.
        sample_rate: see :class:`VideoWriter`.
        crf: see :class:`VideoWriter`.
        preset: see :class:`VideoWriter`.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise AvsegError(f"{path} would be empty: there was no frame to write.")
    height, width = first.shape[:2]
    with VideoWriter(path, width, height, fps, audio_from, audio, sample_rate, crf, preset) as writer:
        for frame in chain([first], remaining):
            writer.write(frame)
