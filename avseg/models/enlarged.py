"""3×3 convolutions of maps that were just enlarged, computed before the enlarging, on a CPU; and their gradients.

Bilinear enlarging and convolving are both linear: ``Σ_t W_t shift_t(enlarge(x)) = Σ_t shift_t(enlarge(W_t x))``. On the
right the channels are mixed on the small map, for ``factor²`` times fewer multiplications, and what follows are a few
numbers a pixel: rows and columns are enlarged and summed over taps one axis after the other, by small matrices.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from avseg.models.winograd import TAPS, rewritable

_BLOCK = 16  # enlarged pixels that one small matrix makes
_CHUNK = 4 * 2**20  # bytes of mixed channels that are worked on together: they should stay in a processor's cache


def convolve_enlarged(x: Tensor, weight: Tensor, bias: Tensor | None, factor: int, align_corners: bool) -> Tensor:
    """A 3×3 convolution (padding 1) of ``x`` enlarged bilinearly, computed at the small size where that is faster.

    Args:
        x: ``(N, C, h, w)``.
        weight: ``(K, C, 3, 3)``.
        bias: ``(K,)`` or None.
        factor: How many times the sides grow.
        align_corners: As of `torch.nn.functional.interpolate`.

    Returns:
        ``(N, K, factor·h, factor·w)``.
    """
    if not _worthwhile(x, weight, factor):
        large = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=align_corners)
        return F.conv2d(large, weight, bias, padding=1)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        result: Tensor = _ConvolvedEnlarged.apply(x, weight, bias, factor, align_corners)
        return result
    return _forward(x, weight, bias, factor, align_corners)


def _worthwhile(x: Tensor, weight: Tensor, factor: int) -> bool:
    if not rewritable(x, weight):
        return False
    # On a small map the steps that follow cost more than the multiplications that are saved.
    return _BLOCK % factor == 0 and min(x.shape[2:]) >= 2 * _BLOCK // factor and x.shape[1] >= 32


class _ConvolvedEnlarged(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, factor: int, align_corners: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = factor, align_corners
        return _forward(x, weight, bias, factor, align_corners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight = _backward(x, weight, gradient, *ctx.how)
        of_bias = gradient.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None, None


@dataclass(frozen=True)
class _Axis:
    """How one axis of ``side`` pixels is enlarged and summed over taps, block by block.

    Attributes:
        matrices: ``(blocks, 16, reach·3)``: from a block's pixels, each with its three taps, to 16 enlarged pixels.
        step: Pixels from one block's first to the next's.
        reach: Pixels that a block reads.
        before, after: Zeros laid around the axis, so that every block finds its pixels.
        enlarged: Pixels after it.
    """

    matrices: Tensor
    step: int
    reach: int
    before: int
    after: int
    enlarged: int

    @property
    def blocks(self) -> int:
        """How many."""
        return len(self.matrices)


@lru_cache(maxsize=64)
def _axis(side: int, factor: int, align_corners: bool, dtype: torch.dtype) -> _Axis:
    with torch.inference_mode(False), torch.no_grad():
        unit = torch.eye(side, dtype=torch.float64)[None]
        enlarge = F.interpolate(unit, scale_factor=factor, mode="linear", align_corners=align_corners)[0].T
        # Tap t of an enlarged pixel is the pixel t − 1 further; outside the map is padding.
        taps = torch.stack([F.pad(enlarge, (0, 0, 1, 1))[t : t + side * factor] for t in range(TAPS)], dim=2)
        blocks = -(-side * factor // _BLOCK)
        step = _BLOCK // factor
        taps = F.pad(taps, (0, 0, 0, 0, 0, blocks * _BLOCK - side * factor)).unflatten(0, (blocks, _BLOCK))
        used = [taps[block].abs().sum(dim=(0, 2)).nonzero() for block in range(blocks)]
        first = min(int(item.min()) - block * step for block, item in enumerate(used))
        reach = max(int(item.max()) - block * step for block, item in enumerate(used)) - first + 1
        before = max(0, -first)
        after = max(0, first + (blocks - 1) * step + reach - side)
        starts = [before + first + block * step for block in range(blocks)]
        assert starts[0] == 0
        padded = F.pad(taps, (0, 0, before, after))
        windows = [padded[block, :, start : start + reach].flatten(1) for block, start in enumerate(starts)]
        return _Axis(torch.stack(windows).to(dtype), step, reach, before, after, side * factor)


class _Plan:
    """The two axes of a map, and the bands of its rows that are worked on together."""

    def __init__(self, x: Tensor, results: int, factor: int, align_corners: bool):
        self.rows = _axis(x.shape[2], factor, align_corners, x.dtype)
        self.columns = _axis(x.shape[3], factor, align_corners, x.dtype)
        self.results = results
        row = (x.shape[3] + self.columns.before + self.columns.after) * TAPS**2 * results * x.element_size()
        fitting = (_CHUNK // row - self.rows.reach) // self.rows.step + 1
        self.together = max(1, min(self.rows.blocks, fitting))

    def padded(self, x: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, h + …, w + …, C)`` with zeros around."""
        rows, columns = self.rows, self.columns
        return F.pad(x.permute(0, 2, 3, 1), (0, 0, columns.before, columns.after, rows.before, rows.after))

    def bands(self) -> list[tuple[slice, slice]]:
        """Blocks of rows, and the padded rows that they read."""
        rows, found = self.rows, []
        for start in range(0, rows.blocks, self.together):
            stop = min(start + self.together, rows.blocks)
            found.append((slice(start, stop), slice(start * rows.step, (stop - 1) * rows.step + rows.reach)))
        return found

    def column_matrices(self, count: int) -> Tensor:
        """Those of the columns for ``count`` rows: ``(count·blocks, 16, reach·3)``."""
        return self.columns.matrices.expand(count, -1, -1, -1).flatten(0, 1)


def _mixing(weight: Tensor) -> Tensor:
    """``(K, C, 3, 3)`` -> ``(C, 3·3·K)``, the tap of the column first."""
    return weight.permute(1, 3, 2, 0).flatten(1)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, factor: int, align_corners: bool) -> Tensor:
    results = weight.shape[0]
    plan = _Plan(x, results, factor, align_corners)
    rows, columns = plan.rows, plan.columns
    padded, mixing = plan.padded(x), _mixing(weight)
    out = x.new_empty(len(x), rows.enlarged, columns.enlarged, results)
    for image, target in zip(padded, out, strict=True):
        for blocks, reading in plan.bands():
            mixed = image[reading].flatten(0, 1) @ mixing
            count, wide = reading.stop - reading.start, columns.blocks * _BLOCK
            # Blocks of one row follow one another at the same distance; those of the next row, after what it has left.
            windows = mixed.view(count, -1, mixing.shape[1]).as_strided(
                (count, columns.blocks, columns.reach * TAPS, TAPS * results),
                (image.shape[1] * mixing.shape[1], columns.step * mixing.shape[1], TAPS * results, 1),
            )
            enlarged = plan.column_matrices(count) @ windows.flatten(0, 1)
            lines = enlarged.view(count, wide, TAPS, results)[:, : columns.enlarged].transpose(1, 2).contiguous()
            length = columns.enlarged * results
            windows = lines.as_strided(
                (blocks.stop - blocks.start, rows.reach * TAPS, length), (rows.step * TAPS * length, length, 1)
            )
            band = (rows.matrices[blocks] @ windows).view(-1, columns.enlarged, results)
            place = target[blocks.start * _BLOCK : blocks.stop * _BLOCK]
            band = band[: len(place)]
            torch.add(band, bias, out=place) if bias is not None else place.copy_(band)
    return out.permute(0, 3, 1, 2)


def _backward(x: Tensor, weight: Tensor, gradient: Tensor, factor: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and ``weight``: every step of `_forward` turned round."""
    results = weight.shape[0]
    plan = _Plan(x, results, factor, align_corners)
    rows, columns = plan.rows, plan.columns
    padded, mixing = plan.padded(x), _mixing(weight)
    of_padded, of_mixing = torch.zeros_like(padded), torch.zeros_like(mixing)
    slopes = gradient.permute(0, 2, 3, 1)
    wide, length = columns.blocks * _BLOCK, columns.enlarged * results
    for image, of_image, slope in zip(padded, of_padded, slopes, strict=True):
        for blocks, reading in plan.bands():
            count = reading.stop - reading.start
            band = slope[blocks.start * _BLOCK : blocks.stop * _BLOCK].reshape(-1, length)
            band = F.pad(band, (0, 0, 0, (blocks.stop - blocks.start) * _BLOCK - len(band)))
            lines = x.new_zeros(count * TAPS, length)
            for index, matrix in enumerate(rows.matrices[blocks]):
                start = index * rows.step * TAPS
                lines[start : start + rows.reach * TAPS].addmm_(matrix.T, band[index * _BLOCK : (index + 1) * _BLOCK])
            lines = lines.view(count, TAPS, columns.enlarged, results).transpose(1, 2)
            lines = F.pad(lines, (0, 0, 0, 0, 0, wide - columns.enlarged)).reshape(-1, _BLOCK, TAPS * results)
            shares = (plan.column_matrices(count).transpose(1, 2) @ lines).view(
                count, columns.blocks, columns.reach, mixing.shape[1]
            )
            mixed = x.new_zeros(count, image.shape[1], mixing.shape[1])
            for index in range(columns.blocks):
                start = index * columns.step
                mixed[:, start : start + columns.reach] += shares[:, index]
            mixed = mixed.flatten(0, 1)
            of_mixing.addmm_(image[reading].flatten(0, 1).T, mixed)
            of_image[reading] += (mixed @ mixing.T).view(count, image.shape[1], -1)
    inner = of_padded[:, rows.before : rows.before + x.shape[2], columns.before : columns.before + x.shape[3]]
    of_weight = of_mixing.view(weight.shape[1], TAPS, TAPS, results).permute(3, 0, 2, 1)
    return inner.permute(0, 3, 1, 2), of_weight
