"""Sums of dilated 3×3 convolutions of one map as products of spectra, on a CPU; and their gradients.

Dilations with a common divisor g never mix pixels whose places differ modulo g: the map falls apart into g × g
interleaved ones, small enough that a discrete Fourier transform takes each of them whole. There all taps of all
dilations are one product a frequency, however many they are: for dilations 3, 6, 12 and 18 on a map of 56×56, 11,700
real products where the plain convolutions have 88,700 that see more than padding. The transforms are matrix products
over two short axes, the same for every channel. The function is the same, rounding is no worse.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from avseg.models.remembered import remember
from avseg.models.winograd import rewritable

_CHUNK = 48 * 2**20  # bytes of spectra that are worked on together
_MOST_FILTERS = 2**28  # bytes that the filters' spectra may take
_READING = 26  # products for which a processor could compute while it reads one number of the filters
_LEAST_SAVING = 2.0  # estimated work of the plain convolutions over ours

Taps = tuple[tuple[int, int], ...]


def convolve_sum(x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, dilations: Sequence[int]) -> Tensor | None:
    """The sum of 3×3 convolutions with padding = dilation, or None where the plain formula is as good.

    Args:
        x: ``(N, C, H, W)``.
        weights: ``(K, C, 3, 3)``, one for each dilation.
        bias: ``(K,)``, the sum of the convolutions' own, or None.
        dilations: In pixels.

    Returns:
        ``(N, K, H, W)``, channels last.
    """
    grid = _worthwhile(x, weights, tuple(dilations))
    if grid is None:
        return None
    spectra = remember(weights, ("spectra", grid), lambda: _filters(_taps(weights, grid), grid))
    if torch.is_grad_enabled() and (x.requires_grad or any(weight.requires_grad for weight in weights)):
        result: Tensor = _ConvolvedSum.apply(x, _taps(weights, grid), bias, spectra, grid)
        return result
    return _forward(x, spectra, bias, grid)


@dataclass(frozen=True)
class _Grid:
    """How a map is cut up and which taps reach it.

    Attributes:
        step: g, the dilations' greatest common divisor.
        height, width: Of the map.
        dilations: Of the convolutions.
    """

    step: int
    height: int
    width: int
    dilations: tuple[int, ...]

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of an interleaved map."""
        return -(-self.height // self.step), -(-self.width // self.step)

    @property
    def offsets(self) -> Taps:
        """Places of the taps that see more than padding, in pixels of an interleaved map."""
        places = [
            (row // self.step, column // self.step)
            for dilation in self.dilations
            for row, column in product((-dilation, 0, dilation), repeat=2)
            if abs(row) < self.height and abs(column) < self.width
        ]
        return tuple(dict.fromkeys(places))

    @property
    def lengths(self) -> tuple[int, int]:
        """Lengths of the transforms: a tap that leaves the map on one side must not come in again on the other."""
        rows, columns = zip(*self.offsets, strict=True)
        return self.sides[0] + max(rows), self.sides[1] + max(columns)

    @property
    def frequencies(self) -> int:
        """Of the half plane that tells a real map's spectrum."""
        return self.lengths[0] * (self.lengths[1] // 2 + 1)


def _worthwhile(x: Tensor, weights: Sequence[Tensor], dilations: tuple[int, ...]) -> _Grid | None:
    if not rewritable(x, *weights):
        return None
    count, channels, height, width = x.shape
    if min(channels, len(weights[0])) < 32:
        return None
    training = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
    return _chosen(count, height, width, dilations, training, weights[0].shape[:2].numel() * x.element_size())


@lru_cache(maxsize=256)
def _chosen(
    count: int, height: int, width: int, dilations: tuple[int, ...], training: bool, filter_bytes: int
) -> _Grid | None:
    """The grid, if the work is less. Work is counted in products of each pair of channels."""
    grid = _Grid(math.gcd(*dilations), height, width, dilations)
    if 2 * grid.frequencies * filter_bytes > _MOST_FILTERS:
        return None
    # Rows and columns of taps that only see padding cost the plain convolutions nothing.
    useful = sum((3 * height - 2 * min(d, height)) * (3 * width - 2 * min(d, width)) for d in dilations)
    passes = 3 if training else 1
    plain = passes * count * useful
    reading = 2 * grid.frequencies * _READING
    ours = passes * count * grid.step**2 * 4 * grid.frequencies + reading
    if training:  # the filters' spectra are made of the taps in every step, and their gradient goes back
        ours += 4 * grid.frequencies * len(grid.offsets) + 4 * reading
    return grid if plain >= _LEAST_SAVING * ours else None


class _ConvolvedSum(torch.autograd.Function):
    """`convolve_sum` whose graph keeps the map alone; its spectrum is made again for the gradient of the taps."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, taps: Tensor, bias: Tensor | None, spectra: Tensor, grid: _Grid
    ) -> Tensor:
        ctx.save_for_backward(x, spectra)
        ctx.grid = grid
        return _forward(x, spectra, bias, grid)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, spectra = ctx.saved_tensors
        of_x, of_taps = _backward(x, spectra, gradient, ctx.grid, *ctx.needs_input_grad[:2])
        of_bias = gradient.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, of_taps, of_bias, None, None


def _taps(weights: Sequence[Tensor], grid: _Grid) -> Tensor:
    """``(taps, C, K)`` in the order of ``grid.offsets``; taps that fall together are summed."""
    found: dict[tuple[int, int], Tensor] = {}
    for weight, dilation in zip(weights, grid.dilations, strict=True):
        for row, column in product(range(3), repeat=2):
            place = ((row - 1) * dilation // grid.step, (column - 1) * dilation // grid.step)
            tap = weight[:, :, row, column]
            found[place] = found[place] + tap if place in found else tap
    return torch.stack([found[place].T for place in grid.offsets])


def _filters(taps: Tensor, grid: _Grid) -> Tensor:
    """Spectra of the filters: real and imaginary parts ``(2, frequencies, C, K)``."""
    spectrum = _matrices(grid, taps.dtype).filters
    return (spectrum @ taps.flatten(1)).view(2, -1, *taps.shape[1:])


@dataclass(frozen=True)
class _Matrices:
    """The transforms of a grid. Frequencies are ordered (column, row); parts are real and imaginary.

    Attributes:
        columns: ``(2·Q, width)``: part and frequency of a row of pixels.
        rows: ``(2·P, 2·height)``: frequency and part, from row and part.
        back_rows: ``(2, 2·height, 2·P)``: for each part of the filter, part and row from frequency and the map's part.
        back_columns: ``(width, 2·Q)``: pixels from frequency and part.
        filters: ``(2·Q·P, taps)``: parts of all frequencies from taps.
    """

    columns: Tensor
    rows: Tensor
    back_rows: Tensor
    back_columns: Tensor
    filters: Tensor


@lru_cache(maxsize=32)
def _matrices(grid: _Grid, dtype: torch.dtype) -> _Matrices:
    with torch.inference_mode(False), torch.no_grad():
        (height, width), (tall, wide) = grid.sides, grid.lengths
        q, p = torch.arange(wide // 2 + 1, dtype=torch.float64), torch.arange(tall, dtype=torch.float64)
        a, b = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
        turn = 2 * math.pi * torch.outer(q, b) / wide
        columns = torch.cat([turn.cos(), -turn.sin()])
        lag = 2 * math.pi * torch.outer(p, a) / tall
        cos, sin = lag.cos(), lag.sin()
        rows = torch.stack([torch.stack([cos, sin], 2), torch.stack([-sin, cos], 2)], 1)  # (P, part, height, part)
        # exp(i·lag) times i to the number of imaginary factors, as real and imaginary part.
        powers = [(cos, sin), (-sin, cos), (-cos, -sin)]
        back = [[torch.stack(powers[mine + theirs]) for mine in (0, 1)] for theirs in (0, 1)]
        back_rows = torch.stack([torch.stack(item, 3).transpose(1, 2) for item in back])  # (2, part, height, P, part)
        twice = torch.full_like(q, 2.0)
        twice[0] = 1.0
        if wide % 2 == 0:
            twice[-1] = 1.0
        scale = (twice / (tall * wide))[:, None]
        back_columns = torch.stack([scale * turn.cos(), -scale * turn.sin()], 1).flatten(0, 1).T
        places = torch.tensor(grid.offsets, dtype=torch.float64)
        angle = q[:, None, None] * places[:, 1] / wide + p[None, :, None] * places[:, 0] / tall
        filters = torch.cat([(2 * math.pi * angle).cos(), (2 * math.pi * angle).sin()]).flatten(0, 1)
        made = (
            columns,
            rows.reshape(2 * tall, 2 * height),
            back_rows.reshape(2, 2 * height, -1),
            back_columns,
            filters,
        )
        return _Matrices(*(item.to(dtype).contiguous() for item in made))


def _pixels(x: Tensor, grid: _Grid) -> Tensor:
    """``(N, C, H, W)`` -> ``(height, width, N·g·g, C)``, pixel by pixel of all interleaved maps."""
    step, (height, width) = grid.step, grid.sides
    pixels = x.permute(0, 2, 3, 1)
    pixels = F.pad(pixels, (0, 0, 0, width * step - grid.width, 0, height * step - grid.height))
    parts = pixels.unflatten(2, (width, step)).unflatten(1, (height, step))
    return parts.permute(1, 3, 0, 2, 4, 5).flatten(2, 4).contiguous()


def _place(pixels: Tensor, out: Tensor, bias: Tensor | None, grid: _Grid) -> None:
    """The inverse of `_pixels`, into ``out`` ``(N, H, W, K)``, plus the bias."""
    step, (height, width) = grid.step, grid.sides
    parts = pixels.view(height, width, len(out), step, step, -1).permute(2, 0, 3, 1, 4, 5)
    whole = parts.reshape(len(out), height * step, width * step, -1)[:, : grid.height, : grid.width]
    if bias is None:
        out.copy_(whole)
    else:
        torch.add(whole, bias, out=out)


def _spectrum(pixels: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """``(height, width, maps, C)`` -> ``(frequencies, 2·maps, C)``."""
    height, width, maps, channels = pixels.shape
    parts = columns @ pixels.view(height, width, -1)  # (height, part·Q, maps·C)
    halves = parts.view(2 * height, len(columns) // 2, -1).transpose(0, 1)  # (Q, height·part, maps·C)
    return (rows @ halves).view(-1, 2 * maps, channels)


def _portions(count: int, channels: int, results: int, element: int, grid: _Grid) -> list[slice]:
    each = 2 * grid.frequencies * grid.step**2 * (channels + 2 * results) * element
    together = max(1, _CHUNK // each)
    return [slice(start, min(start + together, count)) for start in range(0, count, together)]


def _forward(x: Tensor, spectra: Tensor, bias: Tensor | None, grid: _Grid) -> Tensor:
    matrices = _matrices(grid, x.dtype)
    channels, results = spectra.shape[2:]
    height, width = grid.sides
    out = x.new_empty(len(x), grid.height, grid.width, results)
    for portion in _portions(len(x), channels, results, x.element_size(), grid):
        values = _spectrum(_pixels(x[portion], grid), matrices.columns, matrices.rows)
        halves: Tensor | None = None
        for part in (0, 1):
            products = torch.bmm(values, spectra[part]).view(grid.lengths[1] // 2 + 1, 2 * grid.lengths[0], -1)
            turned = matrices.back_rows[part] @ products  # (Q, part·height, maps·K)
            halves = turned if halves is None else halves.add_(turned)
        assert halves is not None
        lines = halves.view(-1, height, halves.shape[2]).transpose(0, 1)  # (height, Q·part, maps·K)
        _place((matrices.back_columns @ lines).view(height, width, -1, results), out[portion], bias, grid)
    return out.permute(0, 3, 1, 2)


def _backward(
    x: Tensor, spectra: Tensor, gradient: Tensor, grid: _Grid, wants_x: bool, wants_taps: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the map and of the taps: every step of `_forward` turned round."""
    matrices = _matrices(grid, x.dtype)
    channels, results = spectra.shape[2:]
    (height, width), tall, half = grid.sides, grid.lengths[0], grid.lengths[1] // 2 + 1
    of_x = x.new_empty(len(x), grid.height, grid.width, channels) if wants_x else None
    of_spectra = torch.zeros_like(spectra) if wants_taps else None
    for portion in _portions(len(x), channels, results, x.element_size(), grid):
        slopes = _pixels(gradient[portion], grid)
        lines = matrices.back_columns.T @ slopes.view(height, width, -1)  # (height, Q·part, maps·K)
        halves = lines.transpose(0, 1).reshape(half, 2 * height, -1)
        values = _spectrum(_pixels(x[portion], grid), matrices.columns, matrices.rows) if wants_taps else None
        of_values: Tensor | None = None
        for part in (0, 1):
            products = (matrices.back_rows[part].T @ halves).view(half * tall, -1, results)
            if of_spectra is not None and values is not None:
                torch.baddbmm(of_spectra[part], values.transpose(1, 2), products, out=of_spectra[part])
            if of_x is not None:
                share = torch.bmm(products, spectra[part].transpose(1, 2))
                of_values = share if of_values is None else of_values.add_(share)
        if of_x is not None and of_values is not None:
            parts = matrices.rows.T @ of_values.view(half, 2 * tall, -1)  # (Q, height·part, maps·C)
            parts = parts.transpose(0, 1).reshape(height, 2 * half, -1)
            pixels = (matrices.columns.T @ parts).view(height, width, -1, channels)
            _place(pixels, of_x[portion], None, grid)
    of_taps = None
    if of_spectra is not None:
        of_taps = (matrices.filters.T @ of_spectra.view(2 * grid.frequencies, -1)).view(-1, channels, results)
    return None if of_x is None else of_x.permute(0, 3, 1, 2), of_taps
