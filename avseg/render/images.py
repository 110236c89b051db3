"""Masks and flow on images: overlays, flow in colours, grids of frames."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from avseg.render.figures import MASK_COLOUR, TRUTH_COLOUR, Colour, Mask, Picture, blank_figure, grey, show_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


LEAST_BOUND = 1.0


def write_labels(image: Picture, labels: Sequence[tuple[str, tuple[float, float]]]) -> Picture:
    """Write texts on an image, each in light letters on a dark ground and whole within the image where there is room.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        labels: Texts, and where their left and lower end should be, as shares of width and height.

    Returns:
        A new ``(H, W, 3)`` uint8 image.
    """
    height, width = image.shape[:2]
    size = max(10, round(min(height, width) / 18))
    font, space = ImageFont.load_default(size), max(2, size // 5)
    drawn = Image.fromarray(image)
    draw = ImageDraw.Draw(drawn)
    for text, (left, lower) in labels:
        room = width - 2 * space
        while len(text) > 1 and draw.textlength(text, font) > room:
            text = f"{text.rstrip('…')[:-1]}…"
        wide, high = draw.textlength(text, font), size * 1.25
        x = min(max(left * width, 0), max(width - wide - 2 * space, 0))
        y = min(max(lower * height - high, 0), max(height - high, 0))
        draw.rectangle((x, y, x + wide + 2 * space, y + high), fill=(0, 0, 0))
        draw.text((x + space, y + high / 2), text, font=font, fill=(255, 255, 255), anchor="lm")
    return np.array(drawn)


def flow_colours(flow: npt.NDArray[np.floating], bound: float | None = None) -> Picture:
    """Optical flow as colours: hue is direction (right red, down green, left cyan, up violet), white is no motion.

    Args:
        flow: ``(2, H, W)``, ``u`` right and ``v`` down, in pixels.
        bound: Length in pixels that gets the full colour; None takes that of `flow_bound`.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        ValueError: the flow is not (2, H, W), or the bound is not positive.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"Flow must be (2, H, W), not {flow.shape}.")
    u, v = np.nan_to_num(flow.astype(np.float32))
    length = np.hypot(u, v)
    if bound is None:
        bound = flow_bound(flow[None])
    if bound <= 0:
        raise ValueError(f"The bound must be positive, not {bound}.")
    hue = np.degrees(np.arctan2(v, u)) % 360
    colours = np.stack([hue, np.clip(length / bound, 0, 1), np.ones_like(hue)], -1)
    return np.round(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


def flow_bound(flow: npt.NDArray[np.floating]) -> float:
    """Length in pixels to which colours reach: the 99th percentile, at least 1, so that noise in a still stays pale.

    Args:
        flow: ``(T, 2, H, W)`` in pixels.
    """
    u, v = np.nan_to_num(flow.astype(np.float32)).swapaxes(0, 1)
    return max(float(np.percentile(np.hypot(u, v), 99)), LEAST_BOUND)


def flow_wheel(size: int = 96) -> Picture:
    """The legend of `flow_colours`: each colour stands where its motion points to; the rim is the bound.

    Args:
        size: Pixels of both sides; beyond the wheel all is white.
    """
    steps = (np.arange(size) + 0.5) * 2 / size - 1
    flow = np.stack(np.meshgrid(steps, steps))
    inside = np.clip((1 - np.hypot(*flow)) * size / 2 + 0.5, 0, 1)[..., None]  # soft over one pixel
    coloured = flow_colours(flow, bound=1.0)
    return np.round(coloured * inside + 255 * (1 - inside)).astype(np.uint8)


TALLEST = 1.25
"""Height of a tile where its width is 1: portrait images are shown narrower, so that rows stay low."""


@dataclass(frozen=True)
class GridRow:
    """One row of a `qualitative_grid`: a moment of a video.

    Attributes:
        images: By column: ``(H, W, 3)`` uint8 images, or ``(H, W)`` bool masks, which are drawn on ``frame``.
        category: What sounds.
        seconds: The moment.
        name: The video's name, shown where the category is unknown.
    """

    pictures: Mapping[str, Picture | Mask]
    category: str = ""
    seconds: float | None = None
    name: str = ""

    @property
    def label(self) -> str:
        """What stands beside the row."""
        lines = [self.category.replace("_", " ") or self.name]
        if self.seconds is not None:
            lines.append(f"{self.seconds:.1f} s")
        return "\n".join(line for line in lines if line)


def qualitative_grid(
    rows: Sequence[GridRow],
    columns: Sequence[str] = ("frame", "flow", "truth", "baseline", "UFE"),
    tile: float = 1.5,
) -> "Figure":
    """Results side by side, as in the paper's Fig. 3: a row for each moment, labelled columns.

    Masks are drawn on the row's frame; beside ``truth``, they carry their Jaccard index with it. Images keep their
    aspect.

    Args:
        rows: At least one.
        columns: Which of each row's images to show, in order; a row that lacks one shows an empty tile.
        tile: Width of a tile in inches.

    Raises:
        ValueError: no rows or no columns.
    """
    if not rows or not columns:
        raise ValueError("A grid needs at least one row and one column.")
    gap, side, head, note = 0.06, 1.2, 0.28, 0.2
    aspects = [min(_aspect(row), TALLEST) for row in rows]
    noted = any("truth" in row.pictures for row in rows)
    below = note if noted else 0.0
    width = side + len(columns) * (tile + gap)
    height = head + sum(tile * aspect + below + gap for aspect in aspects)
    figure = blank_figure(width, height)
    for j, column in enumerate(columns):
        x = (side + j * (tile + gap) + tile / 2) / width
        figure.text(x, 1 - 0.6 * head / height, column, ha="center", va="center", fontsize=10, weight="bold")
    top = height - head
    for row, aspect in zip(rows, aspects, strict=True):
        tall = tile * aspect
        middle = (top - tall / 2) / height
        figure.text((side - 0.1) / width, middle, _wrap(row.label), ha="right", va="center", fontsize=9)
        for j, column in enumerate(columns):
            left = side + j * (tile + gap)
            axes = figure.add_axes((left / width, (top - tall) / height, tile / width, tall / height))
            show_picture(axes, _tile(row, column))
            found = _jaccard(row, column)
            if found is not None:
                x, y = (left + tile / 2) / width, (top - tall - 0.5 * note) / height
                figure.text(x, y, f"IoU {found:.2f}", ha="center", va="center", fontsize=8, color="#444444")
        top -= tall + below + gap
    return figure


def _aspect(row: GridRow) -> float:
    shapes = [picture.shape for picture in row.pictures.values()]
    return shapes[0][0] / shapes[0][1] if shapes else 1.0


def _tile(row: GridRow, column: str) -> Picture | None:
    picture, frame = row.pictures.get(column), row.pictures.get("frame")
    if picture is None or picture.ndim == 3:
        return None if picture is None else picture.astype(np.uint8)
    if frame is None or frame.shape[:2] != picture.shape:
        return grey(picture)
    colour = TRUTH_COLOUR if column == "truth" else MASK_COLOUR
    return enlarged(frame.astype(np.uint8), picture.astype(bool), colour)


def _jaccard(row: GridRow, column: str) -> float | None:
    truth, found = row.pictures.get("truth"), row.pictures.get(column)
    if column == "truth" or truth is None or found is None or found.ndim != 2 or truth.shape != found.shape:
        return None
    either = (truth | found).sum()
    return float((truth & found).sum() / either) if either else 1.0


def _wrap(label: str, width: int = 13) -> str:
    """Lines of at most ``width`` characters; names without spaces break where they must."""
    return "\n".join(part for line in label.split("\n") for part in textwrap.wrap(line, width))
