"""Results side by side, as in the paper's Fig. 3."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avseg.render.colours import MASK_COLOUR, TRUTH_COLOUR, Mask, Picture
from avseg.render.figures import blank_figure, grey, show_picture
from avseg.render.marks import enlarged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TALLEST = 1.25
"""Height of a tile where its width is 1: portrait images are shown narrower, so that rows stay low."""


@dataclass(frozen=True)
class Moment:
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
    rows: Sequence[Moment],
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


def _aspect(row: Moment) -> float:
    shapes = [picture.shape for picture in row.pictures.values()]
    return shapes[0][0] / shapes[0][1] if shapes else 1.0


def _tile(row: Moment, column: str) -> Picture | None:
    picture, frame = row.pictures.get(column), row.pictures.get("frame")
    if picture is None or picture.ndim == 3:
        return None if picture is None else picture.astype(np.uint8)
    if frame is None or frame.shape[:2] != picture.shape:
        return grey(picture)
    colour = TRUTH_COLOUR if column == "truth" else MASK_COLOUR
    return enlarged(frame.astype(np.uint8), picture.astype(bool), colour)


def _jaccard(row: Moment, column: str) -> float | None:
    truth, found = row.pictures.get("truth"), row.pictures.get(column)
    if column == "truth" or truth is None or found is None or found.ndim != 2 or truth.shape != found.shape:
        return None
    either = (truth | found).sum()
    return float((truth & found).sum() / either) if either else 1.0


def _wrap(label: str, width: int = 13) -> str:
    """Lines of at most ``width`` characters; names without spaces break where they must."""
    return "\n".join(part for line in label.split("\n") for part in textwrap.wrap(line, width))
