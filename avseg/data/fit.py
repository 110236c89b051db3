"""The transform from the size of stored images, masks and flow to the square that a model sees."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avseg.config import InputConfig
from avseg.media.flow import resize_flow
from avseg.media.images import Shrink, resize


@dataclass(frozen=True)
class Fit:
    """Where a stored image comes to lie in the square that a model sees.

    ``stretch`` fills the square. ``letterbox`` gives an image of the video's own aspect, in the middle of a square of
    zeros: stored frames are square already, so it un-stretches them.

    Attributes:
        side: The square's side.
        left, top, width, height: The image within it.
        shrink: How images get smaller; masks and flow always by area.
    """

    side: int
    left: int
    top: int
    width: int
    height: int
    shrink: Shrink = "area"

    @classmethod
    def stretch(cls, side: int) -> "Fit":
        """The image fills the square."""
        return cls(side, 0, 0, side, side)

    @classmethod
    def letterbox(cls, side: int, width: int, height: int) -> "Fit":
        """The image has the aspect ``width`` : ``height``."""
        scale = side / max(width, height)
        new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(side, (side - new_width) // 2, (side - new_height) // 2, new_width, new_height)

    @property
    def padded(self) -> bool:
        """Whether the square shows more than the image."""
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
        """``(side, side)``: where the image is."""
        return self._place(np.ones((self.height, self.width), dtype=np.bool_))

    def _place(self, picture: npt.NDArray) -> npt.NDArray:
        if not self.padded:
            return picture
        square = np.zeros((self.side, self.side, *picture.shape[2:]), dtype=picture.dtype)
        square[self.top : self.top + self.height, self.left : self.left + self.width] = picture
        return square


def shrink_of(inputs: InputConfig) -> Shrink:
    """How a front end makes images smaller."""
    return "bilinear" if inputs.front_end == "avsbench" else "area"
