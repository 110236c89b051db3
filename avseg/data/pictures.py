"""Frames and masks as stored, and the transform from a stored size to the one that a model sees."""

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from avseg.config import InputConfig
from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.media.flow import resize_flow
from avseg.media.picture_files import decode, picture_bytes
from avseg.media.resize import Shrink, resize


def read_image(path: str | Path) -> npt.NDArray[np.uint8]:
    """A picture as RGB, ``(H, W, 3)`` uint8.

    Raises:
        AvsegError: missing, unreadable, cut off, or larger than any frame.
    """
    prepare = "`avseg data prepare`"
    image = decode(path, cv2.IMREAD_COLOR, f"run {prepare} to make it", f"delete it and run {prepare}")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def write_image(path: str | Path, image: npt.NDArray[np.uint8]) -> None:
    """Write RGB ``(H, W, 3)`` or grey ``(H, W)`` uint8 as PNG, whole or not at all."""
    if image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), dtype=np.uint8)
    done, data = cv2.imencode(".png", image)
    if not done:
        raise AvsegError(f"{path} could not be encoded as PNG: check the picture's size {image.shape[:2]}.")
    with whole_file(path) as temporary:
        temporary.write_bytes(data.tobytes())


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
    """A mask, ``(H, W)`` bool: a pixel is on where its value is above 0.

    Values are the grey level of modes 1 and L and the palette's index of mode P (whatever colour it stands for); a
    coloured mask is on where any colour channel is.

    Args:
        path: PNG of mode 1, L or P, or in colour.
        size: ``(width, height)`` that it must have; None admits any.

    Raises:
        AvsegError: missing, unreadable, cut off, or of another size.
    """
    mend = "restore the mask, or prepare the frames at its size" if size else "restore the mask from the data set"
    data = picture_bytes(path, "restore the mask, or take its video out of the CSV", mend, size)
    try:
        with Image.open(io.BytesIO(data)) as image:
            colours = {"RGBA": 3, "LA": 1}.get(image.mode)
            values: npt.NDArray = np.asarray(image)
    except Exception:  # a damaged file can raise nearly any
        raise AvsegError(f"{path} is not a whole picture: restore the mask from the data set.") from None
    if values.ndim == 3:
        values = np.asarray(values[..., :colours].any(axis=-1))
    return np.asarray(values > 0)


def write_mask(path: str | Path, mask: npt.NDArray[np.bool_]) -> None:
    """Write ``(H, W)`` bool as a grey PNG of 0 and 255, whole or not at all."""
    write_image(path, mask.astype(np.uint8) * np.uint8(255))


@dataclass(frozen=True)
class Fit:
    """Where a stored picture comes to lie in the square that a model sees.

    ``stretch`` fills the square. ``letterbox`` gives a picture of the video's own aspect, in the middle of a square of
    zeros: stored frames are square already, so it un-stretches them.

    Attributes:
        side: The square's side.
        left, top, width, height: The picture within it.
        shrink: How pictures get smaller; masks and flow always by area.
    """

    side: int
    left: int
    top: int
    width: int
    height: int
    shrink: Shrink = "area"

    @classmethod
    def stretch(cls, side: int) -> "Fit":
        """The picture fills the square."""
        return cls(side, 0, 0, side, side)

    @classmethod
    def letterbox(cls, side: int, width: int, height: int) -> "Fit":
        """The picture has the aspect ``width`` : ``height``."""
        scale = side / max(width, height)
        new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(side, (side - new_width) // 2, (side - new_height) // 2, new_width, new_height)

    @property
    def padded(self) -> bool:
        """Whether the square shows more than the picture."""
        return (self.width, self.height) != (self.side, self.side)

    def image(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 -> ``(side, side, 3)``."""
        return self._place(self.resized(image))

    def resized(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 -> ``(height, width, 3)``."""
        return resize(image, (self.width, self.height), self.shrink)

    def mask(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """``(H, W)`` bool -> ``(side, side)``: on where more than half of a new pixel's area is on."""
        if mask.shape != (self.height, self.width):
            mask = np.asarray(resize(mask.astype(np.float32), (self.width, self.height)) > 0.5)
        return self._place(mask)

    def flow(self, flow: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """``(2, H, W)`` -> ``(2, side, side)``, in pixels of the new size: ``u`` and ``v`` scale each by its factor."""
        if flow.shape[1:] != (self.height, self.width):
            flow = resize_flow(flow, (self.width, self.height))
        return self._place(flow.transpose(1, 2, 0)).transpose(2, 0, 1)

    def inside(self) -> npt.NDArray[np.bool_]:
        """``(side, side)``: where the picture is."""
        return self._place(np.ones((self.height, self.width), dtype=np.bool_))

    def _place(self, picture: npt.NDArray) -> npt.NDArray:
        if not self.padded:
            return picture
        square = np.zeros((self.side, self.side, *picture.shape[2:]), dtype=picture.dtype)
        square[self.top : self.top + self.height, self.left : self.left + self.width] = picture
        return square


def shrink_of(inputs: InputConfig) -> Shrink:
    """How a front end makes pictures smaller."""
    return "bilinear" if inputs.front_end == "avsbench" else "area"
