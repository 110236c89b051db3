"""One decoded picture as it is displayed: upright, in the form of the first one, RGB."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avseg.media.colours import ToRGB
from avseg.media.resize import resize

# Pixels further from square than this come from damage.
_LONGEST_PIXEL = 8


class Picture:
    """One decoded picture; its pixels are converted when they are asked for.

    Attributes:
        time: seconds from the file's first picture.
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
    """What every picture of a track is shown as: the form of its first one.

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
        """A picture of another shape, within this one and between black bars; pixels are taken to be alike."""
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
