"""Drawing cut-outs: filled shapes with volume and texture on a transparent ground."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

SIDE = 256
_FINE = 2  # drawn at twice the size, for smooth edges

Point = tuple[float, float]
Colour = tuple[float, float, float]


class Drawing:
    """A cut-out in the making. Coordinates run from 0 to 1, y downwards; colours are RGB in 0..1."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        side = SIDE * _FINE
        self.rgb = np.zeros((side, side, 3), np.float32)
        self.alpha = np.zeros((side, side), np.float32)

    def polygon(self, points: Sequence[Point], colour: Colour, rough: float = 0.25) -> None:
        """A filled polygon."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        cv2.fillPoly(mask, [self._pixels(points)], 255, cv2.LINE_AA)
        self._paint(mask, colour, rough)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, turn: float = 0, rough: float = 0.25
    ) -> None:
        """A filled ellipse, turned by degrees."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        side = SIDE * _FINE
        cv2.ellipse(
            mask,
            (int(x * side), int(y * side)),
            (max(1, int(rx * side)), max(1, int(ry * side))),
            turn,
            0,
            360,
            255,
            -1,
            cv2.LINE_AA,
        )
        self._paint(mask, colour, rough)

    def line(self, points: Sequence[Point], width: float, colour: Colour, rough: float = 0.15) -> None:
        """A line of some width through the points, its ends round."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        cv2.polylines(mask, [self._pixels(points)], False, 255, max(1, int(width * SIDE * _FINE)), cv2.LINE_AA)
        self._paint(mask, colour, rough)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour, rough: float = 0.25) -> None:
        """A filled rectangle from its upper left corner."""
        self.polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], colour, rough)

    def finish(self) -> npt.NDArray[np.uint8]:
        """The drawing as (SIDE, SIDE, 4) RGBA."""
        premultiplied = np.dstack([self.rgb * self.alpha[..., None], self.alpha])
        small: npt.NDArray[Any] = cv2.resize(premultiplied, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        small[..., :3] = small[..., :3] / np.maximum(small[..., 3:], 1e-3)
        return (np.clip(small, 0, 1) * 255).astype(np.uint8)

    def _paint(self, mask: npt.NDArray[np.uint8], colour: Colour, rough: float) -> None:
        """Lay a part over what is there: rounded towards its rim, lit from above, rough."""
        x, y, width, height = cv2.boundingRect(mask)
        box = slice(y, y + height), slice(x, x + width)
        part = np.pad(mask[box], 1)
        depth = cv2.distanceTransform((part > 127).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        round_off = np.clip(depth / max(float(depth.max()) * 0.6, 1), 0, 1) ** 0.5
        ramp = np.linspace(1.12, 0.82, mask.shape[0], dtype=np.float32)[box[0], None]
        shade = (0.62 + 0.38 * round_off) * ramp * (1 + rough * (self._texture(width, height) - 0.5) * 2)
        painted = np.clip(np.asarray(colour, np.float32) * shade[..., None], 0, 1)
        weight = (mask[box] / 255).astype(np.float32)
        self.rgb[box] += (painted - self.rgb[box]) * weight[..., None]
        self.alpha[box] = np.maximum(self.alpha[box], weight)

    def _texture(self, width: int, height: int) -> npt.NDArray[np.float32]:
        total = np.zeros((height, width), np.float32)
        stretch = int(self.rng.integers(1, 4))
        for cells, weight in ((90, 0.4), (26, 0.3), (8, 0.3)):  # a cell's pixels
            rows, columns = 2 + height // cells, 2 + stretch * width // cells
            grid = self.rng.random((rows, columns)).astype(np.float32)
            total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        return total

    def _pixels(self, points: Sequence[Point]) -> npt.NDArray[np.int32]:
        return np.round(np.asarray(points) * SIDE * _FINE).astype(np.int32).reshape(-1, 1, 2)


def draw_colour(
    d: Drawing,
    hues: tuple[float, float],
    saturation: tuple[float, float] = (0.5, 0.9),
    value: tuple[float, float] = (0.55, 0.95),
) -> Colour:
    """A colour of a range of hues (degrees), saturation and value."""
    hsv = np.array([[[d.rng.uniform(*hues) % 360, d.rng.uniform(*saturation), d.rng.uniform(*value)]]], np.float32)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]
    return float(red), float(green), float(blue)


def darker(colour: Colour, by: float = 0.5) -> Colour:
    """The colour times a factor."""
    return colour[0] * by, colour[1] * by, colour[2] * by
