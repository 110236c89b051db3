"""Masks drawn on frames: a tint and a contour, in eight-bit arithmetic so that a video is drawn as fast as decoded."""

import cv2
import numpy as np
import numpy.typing as npt

from avseg.render.colours import MASK_COLOUR, Colour, Mask, Picture

DARK = 20  # grey of the lines on both sides of a contour
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_SQUARE = np.ones((3, 3), np.uint8)


def overlay(
    frame: Picture,
    mask: Mask,
    score: npt.NDArray[np.floating] | None = None,
    colour: Colour = MASK_COLOUR,
    alpha: float = 0.45,
    contour: bool = True,
) -> Picture:
    """Mark a mask on a frame: a tint, and a contour between two dark lines that shows on any background.

    Args:
        frame: ``(H, W, 3)`` uint8, RGB.
        mask: ``(H, W)`` bool.
        score: ``(H, W)`` in [0, 1]: the tint's opacity follows it everywhere. None tints the mask evenly.
        colour: RGB of tint and contour.
        alpha: Opacity of the tint where the score is 1.
        contour: Whether the contour is drawn.

    Returns:
        A new ``(H, W, 3)`` uint8 image.

    Raises:
        ValueError: shapes or types are not as above, or ``alpha`` is not in [0, 1].
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"A frame must be (H, W, 3) uint8, not {frame.shape} {frame.dtype}.")
    for name, given in (("mask", mask), ("score", score)):
        if given is not None and given.shape != frame.shape[:2]:
            raise ValueError(f"The {name} is {given.shape} where the frame is {frame.shape[:2]}.")
    if mask.dtype != np.bool_:
        raise ValueError(f"A mask must be bool, not {mask.dtype}.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}.")
    drawn: Picture = np.array(frame, order="C")
    inside = np.ascontiguousarray(mask).view(np.uint8)
    width = max(1, round(min(mask.shape) / 150))
    # All the work is done where the mask is, which is a small part of most images.
    around = _box(inside, 2 * width + 2)
    if score is not None:
        drawn = _veil(drawn, score, colour, alpha)
    elif around is not None:
        mixing = np.column_stack([(1 - alpha) * np.eye(3), alpha * np.array(colour)])
        cv2.copyTo(cv2.transform(drawn[around], mixing), inside[around], drawn[around])
    if contour and around is not None:
        drawn[around] = _contoured(drawn[around], inside[around], colour, width)
    return drawn


def enlarged(frame: Picture, mask: Mask, colour: Colour, least: int = 400) -> Picture:
    """`overlay` of a small image, made larger first so that the contour stays thin beside the object.

    Args:
        frame: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` bool.
        colour: RGB of tint and contour.
        least: Pixels that the shorter side is brought near, by a whole factor.
    """
    scale = max(1, round(least / min(mask.shape)))
    size = (mask.shape[1] * scale, mask.shape[0] * scale)
    large: Picture = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    shape = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return overlay(large, shape, colour=colour)


def _box(inside: npt.NDArray[np.uint8], margin: int) -> tuple[slice, slice] | None:
    """Rows and columns of what is set, and a margin around them."""
    x, y, width, height = cv2.boundingRect(inside)
    if not width:
        return None
    rows = slice(max(0, y - margin), y + height + margin)
    return rows, slice(max(0, x - margin), x + width + margin)


def _veil(frame: Picture, score: npt.NDArray[np.floating], colour: Colour, alpha: float) -> Picture:
    weight = alpha * np.clip(score, 0, 1, dtype=np.float32)
    flat = np.empty_like(frame)
    cv2.rectangle(flat, (0, 0), flat.shape[1::-1], colour, cv2.FILLED)
    # blendLinear rounds once, where eight-bit products would round twice.
    return np.asarray(cv2.blendLinear(flat, frame, weight, 1 - weight), np.uint8)


def _contoured(picture: Picture, inside: npt.NDArray[np.uint8], colour: Colour, width: int) -> Picture:
    """A line of ``width`` pixels along the inner edge of what is set, as wide a dark one on either side."""
    # Beyond the image nothing is set, so that a mask that reaches the border has a contour there, too.
    edge = 255 * (inside - cv2.erode(inside, _SQUARE, borderType=cv2.BORDER_CONSTANT, borderValue=0))
    line, dark = (cv2.GaussianBlur(_grown(edge, size // 2), (3, 3), 0.6) for size in (width, 3 * width))
    kept = cv2.multiply(255 - line, 255 - dark, scale=1 / 255)
    shade = cv2.multiply(255 - line, dark, scale=DARK / 255**2)
    paint = cv2.merge([cv2.convertScaleAbs(line, alpha=part / 255) for part in colour])
    drawn = cv2.multiply(picture, cv2.cvtColor(kept, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    return np.asarray(cv2.add(cv2.add(drawn, paint), cv2.cvtColor(shade, cv2.COLOR_GRAY2RGB)), np.uint8)


def _grown(edge: npt.NDArray, radius: int) -> npt.NDArray:
    """Dilation by an octagon: a square and a diamond one after the other, which small kernels do at speed."""
    square = round(0.414 * radius)
    for kernel, times in ((_SQUARE, square), (_CROSS, radius - square)):
        if times:
            edge = cv2.dilate(edge, kernel, iterations=times)
    return edge
