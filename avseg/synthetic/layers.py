"""Where a cut-out is at every moment, as numbers, and which of them is visible at a pixel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from avseg.synthetic.objects import Picture, read_picture

Curve = npt.NDArray[np.float64]  # one value a frame
Image = npt.NDArray[Any]  # float32


@dataclass
class Layer:
    """One cut-out of a scene, far or near. Lengths are in sides of the (square) picture, angles in radians."""

    picture: Picture
    mirrored: bool
    x: Curve
    y: Curve
    angle: Curve
    scale: Curve  # picture sides per pixel of the cut-out
    shear: Curve
    bend: Curve  # how far the moving part is displaced, in half sides of the cut-out
    bend_towards: float  # the direction in which the moving part lies
    gain: Curve
    cast: Curve  # (frames, 3): gain of red, green and blue
    parallax: float
    feather: float
    colour_match: float


@dataclass
class Camera:
    """Camera motion: shift, zoom and roll at every frame."""

    x: Curve
    y: Curve
    zoom: Curve
    roll: Curve
    still: bool = field(default=False)


@dataclass
class Patch:
    """A cut-out's pixels near the size at which they are shown: (H, W) alpha or (H, W, C), float32."""

    pixels: Image
    factor: float  # patch pixels per pixel of the cut-out
    half: tuple[float, float]  # half width and half height of the cut-out in patch pixels, without padding


def alpha_patch(layer: Layer, side: int) -> Patch:
    """The cut-out's alpha, shrunk to its largest size in a picture of ``side`` pixels."""
    alpha = read_picture(layer.picture)[..., 3].astype(np.float32) / 255
    if layer.mirrored:
        alpha = alpha[:, ::-1]
    factor = patch_factor(layer, side, alpha.shape)
    shape = [max(2, round(n * factor)) for n in alpha.shape]
    small = cv2.resize(np.ascontiguousarray(alpha), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return Patch(np.pad(small, 1), factor, (shape[1] / 2, shape[0] / 2))


def patch_factor(layer: Layer, side: int, shape: tuple[int, ...]) -> float:
    """How much to shrink the cut-out before it is warped, so that the warp never skips pixels."""
    return float(np.clip(layer.scale.max() * side, 4 / min(shape[:2]), 1))


def matrix(layer: Layer, camera: Camera, patch: Patch, frame: int, side: int) -> npt.NDArray[np.float64]:
    """The affine map (2, 3) from patch pixels to picture pixels at a frame, for `cv2.warpAffine`."""
    # plain floats: this runs for every layer of every frame, and arrays of two numbers cost more than they do
    height, width = patch.pixels.shape[:2]
    shear, scale = float(layer.shear[frame]), float(layer.scale[frame]) / patch.factor * side
    zoom, roll, angle = float(camera.zoom[frame]), float(camera.roll[frame]), float(layer.angle[frame])
    cos, sin = math.cos(roll + angle) * scale * zoom, math.sin(roll + angle) * scale * zoom
    a, b, c, d = cos, cos * shear - sin, sin, sin * shear + cos
    x, y = float(layer.x[frame]) - 0.5, float(layer.y[frame]) - 0.5
    turn_cos, turn_sin = math.cos(roll) * zoom, math.sin(roll) * zoom
    centre_x = turn_cos * x - turn_sin * y + 0.5 + layer.parallax * float(camera.x[frame])
    centre_y = turn_sin * x + turn_cos * y + 0.5 + layer.parallax * float(camera.y[frame])
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    shift_x = centre_x * side - 0.5 - a * middle_x - b * middle_y
    shift_y = centre_y * side - 0.5 - c * middle_x - d * middle_y
    return np.array([[a, b, shift_x], [c, d, shift_y]])


def bent(patch: Patch, layer: Layer, frame: int) -> Image:
    """The patch with its moving part displaced; unchanged where nothing bends."""
    bend = float(layer.bend[frame])
    if abs(bend) < 1e-4:
        return patch.pixels
    height, width = patch.pixels.shape[:2]
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None, :]
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    towards = np.array([np.cos(layer.bend_towards), np.sin(layer.bend_towards)])
    reach = abs(towards[0]) * patch.half[0] + abs(towards[1]) * patch.half[1]
    along = np.clip((x * towards[0] + y * towards[1]) / reach, 0, 1)
    shift = along * along * (3 - 2 * along) * bend * min(patch.half)
    map_x = (x + y * 0 + (width - 1) / 2 + shift * towards[1]).astype(np.float32)
    map_y = (y + x * 0 + (height - 1) / 2 - shift * towards[0]).astype(np.float32)
    return cv2.remap(patch.pixels, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def warped(pixels: Image, affine: npt.NDArray[np.float64], side: int) -> tuple[Image, tuple[slice, slice]] | None:
    """The patch in the picture: its pixels within the smallest window, and that window; None if outside."""
    height, width = pixels.shape[:2]
    (a, b, x), (c, d, y) = affine.tolist()
    xs = [a * u + b * v + x for u in (-1, width) for v in (-1, height)]
    ys = [c * u + d * v + y for u in (-1, width) for v in (-1, height)]
    left, top = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
    right, bottom = min(side, math.ceil(max(xs)) + 1), min(side, math.ceil(max(ys)) + 1)
    if left >= right or top >= bottom:
        return None
    local = affine.copy()
    local[:, 2] -= (left, top)
    out = cv2.warpAffine(pixels, local, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    return out, (slice(top, bottom), slice(left, right))


def index_map(
    layers: Sequence[Layer], camera: Camera, patches: Sequence[Patch], objects: Sequence[Layer], frame: int, side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Which object is visible at every pixel, and how many pixels each covers with and without occlusion.

    Args:
        layers: all cut-outs from far to near.
        camera: the camera.
        patches: one for each layer; alpha alone, or RGBA whose last channel is alpha.
        objects: the layers that count as objects; number i gets index i + 1.
        frame: which moment.
        side: pixels of the picture.

    Returns:
        the map (side, side), 0 where none, and pixels (objects, 2): visible, and inside the picture at all.
    """
    numbers = {id(layer): i for i, layer in enumerate(objects)}
    visible = np.zeros((side, side), np.uint8)
    counts = np.zeros((len(objects), 2), np.int64)
    for layer, patch in zip(layers, patches, strict=True):
        pixels = bent(patch, layer, frame)
        alpha = np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., -1])
        result = warped(alpha, matrix(layer, camera, patch, frame, side), side)
        if result is None:
            continue
        inside = result[0] > 0.5
        number = numbers.get(id(layer))
        visible[result[1]][inside] = 0 if number is None else number + 1
        if number is not None:
            counts[number, 1] = int(inside.sum())
    counts[:, 0] = np.bincount(visible.reshape(-1), minlength=len(objects) + 1)[1:]
    return visible, counts
