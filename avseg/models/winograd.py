"""3×3 convolutions on a CPU with a third of the multiplications (Winograd's minimal filtering), and their gradients.

``m`` neighbouring results of a convolution with three taps need ``m + 2`` products, not ``3 m``: multiply polynomials
by their values at ``m + 2`` points (Toom and Cook), and turn the scheme round. On both axes that makes 2.25 products a
result for m = 4, where the plain formula has 9. What is multiplied at one point, for all pixels and channels, is a
matrix product, and so are the steps before and after it. The function is the same; rounding is of the same order (the
points and scales below were chosen for the least error in float32).

A dilation ``d`` is ``d²`` plain convolutions of interleaved maps, which only changes where tiles are read from.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from avseg.models.remembered import remember

TAPS = 3
# Finite points at which polynomials are evaluated for tiles of m results; infinity is one more.
_POINTS: dict[int, tuple[float, ...]] = {4: (0, 1, -1, 0.5, -2), 5: (0, 1, -1, 0.5, 3, -0.6)}
_CHUNK = 4 * 2**20  # bytes of tiles that are worked on together: they should stay in a processor's cache
# Channels on both sides, pixels, and plain products over ours, from which the steps before and after are worth it.
_LEAST_CHANNELS, _LEAST_PIXELS, _LEAST_SAVING = 96, 700, 1.9


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> Tensor:
    """A 3×3 convolution with stride 1 that keeps the map's size (padding = dilation).

    It is computed with fewer multiplications where that is faster: on a CPU in float32 or float64, with many channels
    and a map that is large beside the dilation. Elsewhere it is `torch.nn.functional.conv2d`.

    Args:
        x: ``(N, C, H, W)``.
        weight: ``(K, C, 3, 3)``.
        bias: ``(K,)`` or None.
        dilation: Pixels between taps.

    Returns:
        ``(N, K, H, W)``.
    """
    tile = tile_size(x, weight, dilation)
    if tile is None:
        return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)
    filters = remember([weight], ("tiles", tile), lambda: _transform(weight, tile))
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        result: Tensor = _Convolution.apply(x, weight, bias, filters, dilation, tile)
        return result
    return _convolve(x, filters, bias, dilation, tile)


def rewritable(x: Tensor, *weights: Tensor) -> bool:
    """Whether convolutions of ``x`` may be computed in ways of our own, which pay on a CPU in full precision."""
    plain = x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    return not plain and x.dtype in (torch.float32, torch.float64) and all(w.dtype == x.dtype for w in weights)


def tile_size(x: Tensor, weight: Tensor, dilation: int) -> int | None:
    """Results on a side of the tiles that `convolve` works with; None where the plain formula is better."""
    if not rewritable(x, weight):
        return None
    if min(weight.shape[:2]) < _LEAST_CHANNELS or weight.shape[2:] != (TAPS, TAPS):
        return None
    count, _, height, width = x.shape
    if count * height * width < _LEAST_PIXELS:
        return None
    best = min(_POINTS, key=lambda tile: _points(height, dilation, tile) * _points(width, dilation, tile))
    ours = _points(height, dilation, best) * _points(width, dilation, best)
    # Rows and columns of taps that only see padding cost the plain formula nothing.
    plain = _useful(height, dilation) * _useful(width, dilation)
    return best if plain >= _LEAST_SAVING * ours else None


def _useful(side: int, dilation: int) -> int:
    return TAPS * side - 2 * min(dilation, side)


def _points(side: int, dilation: int, tile: int) -> int:
    """Products along one axis."""
    return dilation * _tiles(side, dilation, tile) * (tile + TAPS - 1)


def _tiles(side: int, dilation: int, tile: int) -> int:
    """How many lie along one axis of an interleaved map."""
    return math.ceil(math.ceil(side / dilation) / tile)


class _Convolution(torch.autograd.Function):
    """`convolve` whose graph keeps the map alone; tiles are made again for the gradient of the weight."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, filters: Tensor, dilation: int, tile: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation, ctx.tile = dilation, tile
        return _convolve(x, filters, bias, dilation, tile)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            turned = _transform(weight.flip(2, 3).transpose(0, 1), ctx.tile)
            of_x = _convolve(gradient, turned, None, ctx.dilation, ctx.tile)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, gradient, ctx.dilation, ctx.tile)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_x, of_weight, of_bias, None, None, None


class _Tiles:
    """Where the tiles of maps ``(N, H, W, channels)`` lie, and in which portions they are worked on.

    Attributes:
        rows, columns: Of tiles in each of the ``d × d`` interleaved maps.
        images, bands: Images, and rows of tiles, of one portion.
    """

    def __init__(self, shape: torch.Size, channels: int, dilation: int, tile: int, bytes_each: int):
        self.count, self.height, self.width = shape[0], shape[1], shape[2]
        self.dilation, self.tile, self.side = dilation, tile, tile + TAPS - 1
        self.rows, self.columns = (_tiles(side, dilation, tile) for side in (self.height, self.width))
        row = self.side**2 * dilation**2 * self.columns * channels * bytes_each
        self.bands = max(1, min(self.rows, _CHUNK // row))
        self.bands = -(-self.rows // -(-self.rows // self.bands))
        self.images = max(1, min(self.count, _CHUNK // (row * self.rows)))

    def padded(self, x: Tensor) -> Tensor:
        """``x`` with zeros around it, so that every tile has all its pixels."""
        step = self.tile * self.dilation
        below, right = self.rows * step - self.height, self.columns * step - self.width
        return F.pad(x, (0, 0, self.dilation, right + self.dilation, self.dilation, below + self.dilation))

    def portions(self) -> "list[tuple[slice, slice]]":
        """Images and rows of tiles of every portion."""
        images = [slice(i, min(i + self.images, self.count)) for i in range(0, self.count, self.images)]
        bands = [slice(i, min(i + self.bands, self.rows)) for i in range(0, self.rows, self.bands)]
        return [(image, band) for image in images for band in bands]

    def read(self, padded: Tensor, portion: tuple[slice, slice], side: int) -> Tensor:
        """The tiles of a portion, ``(side², …·channels)``: pixel by pixel, all tiles of it side by side."""
        images, bands = portion
        image, row, column, channel = padded.stride()
        step, far = self.dilation, self.dilation * self.tile
        shape = (side, side, images.stop - images.start, step, bands.stop - bands.start, step, self.columns)
        strides = (step * row, step * column, image, row, far * row, column, far * column)
        offset = images.start * image + bands.start * far * row
        view = padded.as_strided((*shape, padded.shape[3]), (*strides, channel), padded.storage_offset() + offset)
        return view.reshape(side * side, -1)

    def write(self, tiles: Tensor, out: Tensor, portion: tuple[slice, slice], bias: Tensor | None) -> None:
        """Put ``(tile², …·channels)`` back where they belong in ``out`` ``(N, H, W, channels)``."""
        images, bands = portion
        step, far = self.dilation, self.dilation * self.tile
        count, band = images.stop - images.start, bands.stop - bands.start
        parts = tiles.view(self.tile, self.tile, count, step, band, step, self.columns, out.shape[3])
        parts = parts.permute(2, 4, 0, 3, 6, 1, 5, 7)  # image, band, u, phase, column, v, phase, channel
        top, bottom = bands.start * far, min(bands.stop * far, self.height)
        whole = parts.reshape(count, band * far, self.columns * far, out.shape[3])[:, : bottom - top, : self.width]
        target = out[images, top:bottom]
        if bias is None:
            target.copy_(whole)
        else:
            torch.add(whole, bias, out=target)


def _convolve(x: Tensor, filters: Tensor, bias: Tensor | None, dilation: int, tile: int) -> Tensor:
    """``x`` ``(N, C, H, W)`` with transformed ``filters`` ``((m + 2)², C, K)`` -> ``(N, K, H, W)``, channels last."""
    pixels = x.permute(0, 2, 3, 1)
    after, before, _ = _matrices(tile, x.dtype)
    tiles = _Tiles(pixels.shape, max(filters.shape[1:]), dilation, tile, x.element_size())
    padded = tiles.padded(pixels)
    out = x.new_empty(*pixels.shape[:3], filters.shape[2])
    for portion in tiles.portions():
        values = (before @ tiles.read(padded, portion, tiles.side)).view(len(before), -1, filters.shape[1])
        products = torch.bmm(values, filters).view(len(before), -1)
        tiles.write(after @ products, out, portion, bias)
    return out.permute(0, 3, 1, 2)


def _weight_gradient(x: Tensor, gradient: Tensor, dilation: int, tile: int) -> Tensor:
    """Gradient of the weight ``(K, C, 3, 3)``: products at the same points, summed over all tiles."""
    pixels, slopes = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    after, before, filtering = _matrices(tile, x.dtype)
    channels, results = pixels.shape[3], slopes.shape[3]
    tiles = _Tiles(pixels.shape, max(channels, results), dilation, tile, x.element_size())
    padded = tiles.padded(pixels)
    step = tile * dilation
    slopes = F.pad(slopes, (0, 0, 0, tiles.columns * step - tiles.width, 0, tiles.rows * step - tiles.height))
    total = x.new_zeros(len(before), channels, results)
    for portion in tiles.portions():
        values = (before @ tiles.read(padded, portion, tiles.side)).view(len(before), -1, channels)
        spread = (after.T @ tiles.read(slopes, portion, tile)).view(len(before), -1, results)
        torch.baddbmm(total, values.transpose(1, 2), spread, out=total)
    return (filtering.T @ total.flatten(1)).view(TAPS, TAPS, channels, results).permute(3, 2, 0, 1)


def _transform(weight: Tensor, tile: int) -> Tensor:
    """``(K, C, 3, 3)`` -> ``((m + 2)², C, K)``: the filters' values at all pairs of points."""
    filtering = _matrices(tile, weight.dtype)[2]
    taps = weight.detach().permute(2, 3, 1, 0).reshape(TAPS * TAPS, -1)
    return (filtering @ taps).view(len(filtering), weight.shape[1], weight.shape[0])


@lru_cache(maxsize=8)
def _matrices(tile: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """``A ⊗ A`` from products to results, ``B ⊗ B`` from pixels to values, ``G ⊗ G`` from taps to values."""
    points = _POINTS[tile]

    def values(terms: int) -> np.ndarray:
        finite = [[point**power for power in range(terms)] for point in points]
        return np.array([*finite, [0.0] * (terms - 1) + [1.0]])

    results, taps = values(tile).T, values(TAPS)
    pixels = np.linalg.inv(values(tile + TAPS - 1)).T
    # Rows of both sides made equally large lose the fewest digits.
    balance = np.sqrt(np.abs(pixels).sum(1) / np.abs(taps).sum(1))
    taps, pixels = taps * balance[:, None], pixels / balance[:, None]
    with torch.inference_mode(False):
        made = [torch.from_numpy(np.kron(item, item)).to(dtype) for item in (results, pixels, taps)]
    return made[0], made[1], made[2]
