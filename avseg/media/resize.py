"""One way to change the size of a picture or a map, used for frames and flow alike."""

from typing import Literal

import cv2
import numpy as np

Shrink = Literal["area", "bilinear"]
"""How an axis gets shorter: averaged over area, or, as AVSBench's authors do, interpolated, which lets detail alias."""


def resize(image: np.ndarray, size: tuple[int, int], shrink: Shrink = "area") -> np.ndarray:
    """Resize to exactly ``size``, without keeping the aspect.

    Each axis that shrinks is averaged over area, each axis that grows is interpolated linearly, so that a picture
    that gets wider and lower at once is treated well on both axes.

    Args:
        image: ``(H, W)`` or ``(H, W, C)`` with C ≤ 4, uint8, uint16 or float32.
        size: ``(width, height)`` in pixels.
        shrink: ``bilinear`` interpolates axes that shrink as well.

    Returns:
        The picture with the same type, ``(height, width)`` or ``(height, width, C)``.

    Raises:
        ValueError: ``size`` isn't two positive whole numbers.
    """
    width, height = size
    if int(width) != width or int(height) != height or width < 1 or height < 1:
        raise ValueError(f"size must be (width, height) in whole pixels, at least 1 each, not {size}")
    old_height, old_width = image.shape[:2]
    if (width, height) == (old_width, old_height):
        return image
    if shrink == "bilinear":
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    shrinks = (width < old_width, height < old_height)
    if shrinks == (True, False) and height > old_height:
        image = cv2.resize(image, (width, old_height), interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if shrinks == (False, True) and width > old_width:
        image = cv2.resize(image, (old_width, height), interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    method = cv2.INTER_AREA if any(shrinks) else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)
