"""The video track of a file: decoding from any timestamp on, one frame after the other, as it is displayed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avseg.errors import AvsegError
from avseg.media.colours import ToRGB, wide_colours
from avseg.media.container import (
    LONGEST_PAUSE,
    decode,
    find_video,
    frame_time,
    is_stamped,
    open_media,
    packets,
    warn,
)
from avseg.media.images import resize
from avseg.media.intact import cut_off

# Pixels further from square than this come from damage.
_LONGEST_PIXEL = 8


class DecodedFrame:
    """One decoded frame; its pixels are converted when they are asked for.

    Attributes:
        time: seconds from the file's first frame.
    """

    def __init__(
        self, frame: VideoFrame, time: float, convert: ToRGB, form: Form, size: tuple[int, int] | None
    ) -> None:
        self.time = time
        self._frame = frame
        self._convert = convert
        self._form = form
        self._size = size
        self._small: np.ndarray | None = None

    def rgb(self) -> np.ndarray:
        """``(H, W, 3)`` uint8 as displayed. The array belongs to the caller."""
        if self._size is None:
            return self._form.fit(upright(self._frame, self._convert))
        if self._small is None:
            self._small = resize(self._form.fit(upright(self._frame, self._convert)), self._size)
        return self._small.copy()


@dataclass(frozen=True)
class Form:
    """What every frame of a track is shown as: the form of its first one.

    Attributes:
        width: pixels, as displayed: after the file's rotation.
        height: the same.
        aspect: width of a pixel over its height.
    """

    width: int
    height: int
    aspect: Fraction

    @classmethod
    def of(cls, frame: VideoFrame, stream: VideoStream) -> Form:
        """A frame's own."""
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if not Fraction(1, _LONGEST_PIXEL) <= aspect <= _LONGEST_PIXEL:
            aspect = Fraction(1)
        if _display_matrix(frame)[0] == 0:
            return cls(frame.height, frame.width, 1 / aspect)
        return cls(frame.width, frame.height, aspect)

    def fit(self, image: np.ndarray) -> np.ndarray:
        """A frame of another shape, within this one and between black bars; pixels are taken to be alike."""
        height, width = image.shape[:2]
        if (width, height) == (self.width, self.height):
            return image
        scale = min(self.width / width, self.height / height)
        small = resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
        fitted = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        top, left = (self.height - small.shape[0]) // 2, (self.width - small.shape[1]) // 2
        fitted[top : top + small.shape[0], left : left + small.shape[1]] = small
        return fitted


def upright(frame: VideoFrame, convert: ToRGB | None = None) -> np.ndarray:
    """``(H, W, 3)`` uint8 RGB, turned and mirrored as the file asks for.

    Args:
        frame: as decoded.
        convert: what earlier frames of the file were converted with.
    """
    rgb = (convert or ToRGB())(frame)
    a, b, c, d = _display_matrix(frame)
    if (a, b, c, d) == (1, 0, 0, 1):
        return rgb
    # The matrix maps a stored pixel (x, y) to (a·x + c·y, b·x + d·y).
    across, down = (a, d)
    if a == 0:
        rgb, across, down = rgb.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(rgb[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """Signs (a, b, c, d) of the quarter turn and mirroring nearest to what the file asks for."""
    # Not frame.side_data, which makes a circle of references: frames would stay in memory until Python looks for such.
    data: Any = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]
    if data is None:
        return 1, 0, 0, 1
    matrix = np.frombuffer(bytes(data), dtype=np.int32)[:9].astype(float)
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if a * d - b * c == 0:
        return 1, 0, 0, 1
    if abs(a) >= abs(b):
        return int(np.sign(a)), 0, 0, int(np.sign(d))
    return 0, int(np.sign(b)), int(np.sign(c)), 0


# How far ahead a moment must lie before it is worth jumping there in a file that doesn't list its key frames.
_PATIENCE = 2.0
# MPEG program streams give wrong timestamps after a jump.
_NOT_SEEKABLE = frozenset({"mpeg"})
# Seconds that a timestamp may lie behind the one before and still be a slip; further back another recording begins.
_BACKWARDS = 1.0
# Frames per second; more come from damage.
_MOST_PICTURES = 1_000_000


class FrameReader:
    """Decodes the frames of a file in the order they are shown, from its start or from any timestamp on.

    Args:
        path: the video.
        size: ``(width, height)`` that frames are resized to; as displayed if None.
        threads: decode several frames at once: quicker for long stretches, wasteful for single frames.

    Raises:
        AvsegError: the file can't be opened or has no video track, or no frame of it can be decoded.
    """

    def __init__(self, path: str | Path, size: tuple[int, int] | None = None, threads: bool = False) -> None:
        self.path = Path(path)
        self.decoded = 0
        self._size = size
        self._threads = threads
        self._stack = ExitStack()
        self._origin: Fraction | None = None
        self._warned: set[str] = set()
        self._stamped = True
        self._patience = _PATIENCE
        self._container: InputContainer
        self.stream: VideoStream
        self._waiting: list[DecodedFrame] = []
        self._convert = ToRGB()
        self._form: Form | None = None
        self._skimmed_to = float("-inf")
        self.skipped = False
        self.colours: str | None = None  # where an SDR screen can't show them as they are
        try:
            self.restart()
            first = next(self._pictures, None)
            if first is None:
                raise AvsegError(f"{self.path} has no frame that can be decoded: copy or convert it again.")
            self.first = first
            self._waiting = [first]
            self._seekable = (
                self._stamped
                and not self._counted
                and self.stated_end is not None
                and self._container.format.name not in _NOT_SEEKABLE
            )
            self._index_whole = self._has_whole_index()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[DecodedFrame]:
        return self

    def __next__(self) -> DecodedFrame:
        return self._waiting.pop() if self._waiting else next(self._pictures)

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    @property
    def tolerance(self) -> float:
        """Seconds by which the file's clock may have rounded a moment."""
        tick = float(self.stream.time_base or 1)
        return (tick / 2 if tick <= 0.001 else 0) + 1e-6

    @property
    def frame_rate(self) -> float:
        """Frames per second, on average, as the file says; 25 where it says nothing that can be."""
        rate = self.stream.average_rate or self.stream.guessed_rate or 0
        return float(rate) if 1 / LONGEST_PAUSE <= rate <= _MOST_PICTURES else 25.0

    @property
    def stated_duration(self) -> float | None:
        """Seconds that the video track lasts, as the file says; None where it says so only of the file."""
        stream = self.stream
        if stream.duration is not None and stream.time_base is not None and stream.duration > 0:
            return float(stream.duration * stream.time_base)
        if (stream.start_time or 0) != 0:
            return None
        # Matroska's tag for one track, such as 00:00:05.040000000. Some writers count it from the file's zero.
        try:
            hours, minutes, seconds = (float(part) for part in stream.metadata.get("DURATION", "").split(":"))
        except ValueError:
            return None
        return hours * 3600 + minutes * 60 + seconds or None

    @property
    def stated_end(self) -> float | None:
        """Seconds from the first frame to the track's or else the file's end, as the file says."""
        if self.stated_duration is not None:
            start = float((self.stream.start_time or 0) * (self.stream.time_base or 0))
            return start + self.stated_duration - float(self._origin or 0)
        if self._container.duration is not None:
            start = self._container.start_time or 0
            return float(Fraction(start + self._container.duration, 1_000_000) - (self._origin or 0))
        return None

    @property
    def form(self) -> Form:
        """That of the first frame."""
        assert self._form is not None
        return self._form

    @property
    def origin(self) -> Fraction | None:
        """The first frame's timestamp on the file's own clock, in seconds; None where that has no say."""
        return None if self._counted or not self._stamped else self._origin

    @property
    def stays_are_guessed(self) -> bool:
        """Whether packets don't say how long frames stay: the demuxer takes an average then."""
        return "mp4" not in self._container.format.name.split(",")

    @property
    def header_end(self) -> float | None:
        """`stated_end`, of files that begin with it; elsewhere it is measured at the file's end."""
        return self.stated_end if "matroska" in self._container.format.name else None

    def restart(self) -> None:
        """Go back to the first frame."""
        self._stack.close()
        self._container = self._stack.enter_context(open_media(self.path))
        self.stream = find_video(self._container, self.path)
        self._skipping = "DEFAULT"
        if self._threads:
            self.stream.thread_type = "AUTO"
        self._counted = not is_stamped(self._container, self.stream)
        self._begin(at_start=True)

    def seek(self, time: float) -> None:
        """Go to a frame at or before ``time``, near to it where the file allows."""
        back = 0.0
        end = self.stated_end
        while self._seekable and end is not None:
            target = min(time, end) - back
            if target <= 0:
                break
            picture = self._jump(target)
            if picture is not None and picture.time <= time + self.tolerance:
                self._waiting = [picture]
                return
            # Some formats find a later key frame than asked for, and a damaged file may hold none near.
            back = max(1.0, 2 * back)
        self.restart()

    def worth_seeking(self, now: float, time: float) -> bool:
        """Whether a key frame lies between ``now``, the next frame to be decoded, and ``time``."""
        if not self._seekable or time <= now or self.stream.time_base is None:
            return False
        if self._index_whole:
            index = self.stream.index_entries
            entry = index.search_timestamp(self._ticks(time), backward=True)
            return entry >= 0 and float(index[entry].timestamp * self.stream.time_base - (self._origin or 0)) > now
        return time - now > self._patience

    def skim(self, time: float) -> None:
        """Be told that of the frames up to ``time`` only the last is wanted.

        Others that nothing refers to aren't decoded from now on, where decoders allow it. ``skipped`` says whether
        that happened: the frame before another may then be missing.
        """
        self._skimmed_to = time

    def seek_was_vain(self) -> None:
        """Be told that a jump led back to where the reader was: jump less readily from now on."""
        self._patience *= 2

    def _begin(self, at_start: bool) -> None:
        self._at_start = at_start
        self._last: float | None = None
        self._latest = float("-inf")
        self._skip("DEFAULT")
        self._waiting = []
        self._pictures = self._decode()

    def _jump(self, target: float) -> DecodedFrame | None:
        try:
            self._container.seek(self._ticks(target), stream=self.stream, backward=True)
        except FFmpegError:
            return None
        self._begin(at_start=False)
        return next(self._pictures, None)

    def _ticks(self, time: float) -> int:
        return int((Fraction(time + self.tolerance) + (self._origin or 0)) / (self.stream.time_base or 1))

    def _has_whole_index(self) -> bool:
        index = getattr(self.stream, "index_entries", None)
        end = self.stated_end
        if not index or end is None or self.stream.time_base is None:
            return False
        return float(index[len(index) - 1].timestamp * self.stream.time_base - (self._origin or 0)) > end - 1

    def _decode(self) -> Iterator[DecodedFrame]:
        usable = self._at_start
        for packet in packets(self._container, self.stream, self.path):
            if packet.size and packet.pts is None:
                self._stamped = self._seekable = False
            self._skip("NONREF" if self._unwanted(packet) else "DEFAULT")
            try:
                frames = decode(packet)
            except FFmpegError:
                self._warn("packet", "damaged packets of its video track were skipped.")
                continue
            for frame in frames:
                self.decoded += 1
                # After a jump the decoder may begin with frames that lack what they refer to.
                usable = usable or not frame.is_corrupt or frame.key_frame
                if not usable:
                    continue
                picture = self._place(frame)
                if picture is not None:
                    yield picture
        self._check_end()

    def _unwanted(self, packet: Packet) -> bool:
        """Whether a packet's frame is neither shown at the moment that is skimmed to nor later."""
        if self._skimmed_to == float("-inf") or self._counted or not self._stamped or self._origin is None:
            return False
        if packet.pts is None or packet.time_base is None:
            return False
        time = float(packet.pts * packet.time_base - self._origin)
        # A later frame that is shown by then takes this one's place. Frames that refer to others come after them.
        unwanted = time < self._latest
        if time <= self._skimmed_to:
            self._latest = max(self._latest, time)
        return unwanted

    def _skip(self, which: Literal["DEFAULT", "NONREF"]) -> None:
        if which != self._skipping:
            self.stream.codec_context.skip_frame = which
            self._skipping = which
        self.skipped = self.skipped or which == "NONREF"

    def _place(self, frame: VideoFrame) -> DecodedFrame | None:
        time = self._time_of(frame)
        if time is None:
            return None
        if frame.is_corrupt:
            self._warn("picture", f"the frame at {time:.2f} s is damaged.")
        if self._last is not None and time - self._last > LONGEST_PAUSE:
            self._warn("pause", f"a timestamp after {self._last:.2f} s can't be right; its frame was left out.")
            return None
        if self._last is not None and time <= self._last:
            if self._last - time > _BACKWARDS:
                self._warn("order", f"timestamps run backwards at {self._last:.2f} s; what follows was left out.")
                return None
            time = self._last + 0.5 / self.frame_rate
        self._last = time
        return DecodedFrame(frame, time, self._convert, self._form_of(frame), self._size)

    def _form_of(self, frame: VideoFrame) -> Form:
        form = Form.of(frame, self.stream)
        if self._form is None:
            self._form, self.colours = form, wide_colours(frame)
        if (form.width, form.height) != (self.form.width, self.form.height):
            self._warn("form", f"its frames change to {form.width}×{form.height} pixels; they get black bars.")
        return self.form

    def _time_of(self, frame: VideoFrame) -> float | None:
        """Seconds from the first frame; None right after a jump to a frame without a timestamp."""
        stamp = None if self._counted else frame_time(frame)
        if stamp is not None:
            if self._origin is None:
                self._origin = stamp - Fraction(self._expected or 0)
            return float(stamp - self._origin)
        return self._expected

    @property
    def _expected(self) -> float | None:
        if self._last is not None:
            return self._last + 1 / self.frame_rate
        return 0.0 if self._at_start else None

    def _check_end(self) -> None:
        cut = cut_off(self.path)
        if cut is not None and self._last is not None:
            end = self._last + 1 / self.frame_rate
            self._warn("end", f"its frames end at {end:.1f} s instead of {cut[1]:.1f} s: the file is cut off.")

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warn(self.path, text)
