"""Layers and losses that base models and the flow branch share."""

from collections.abc import Sequence
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PyramidConvolution(nn.Module):
    """The sum of dilated 3×3 convolutions that projects one map of an encoder to the pyramid's width.

    Args:
        in_channels: Channels of the encoder's map.
        width: Channels of the result.
        dilations: One biased convolution each; padding keeps the map's size.
    """

    def __init__(self, in_channels: int, width: int, dilations: Sequence[int]):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(in_channels, width, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, h, w)`` -> ``(N, width, h, w)``."""
        first, *others = [_dilated(branch, x) for branch in self.branches if isinstance(branch, nn.Conv2d)]
        return sum(others, start=first)

    def _bias(self) -> Tensor:
        return torch.stack([branch.bias for branch in self.branches if isinstance(branch.bias, Tensor)]).sum(dim=0)

    def sampled(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """`forward`, resized bilinearly to ``size`` (align_corners=False), for as little work as that needs.

        Shrinking by an even factor s reads the mean of 2×2 pixels at every s-th place, and a mean commutes with a
        convolution: so the input is averaged and convolved only there, for s² times fewer multiplications.
        """
        factors = [side // wanted for side, wanted in zip(x.shape[-2:], size, strict=True)]
        factor = factors[0]
        exact = all(side == factor * wanted for side, wanted in zip(x.shape[-2:], size, strict=True))
        if exact and factor == 1:
            return self(x)
        if not exact or factor % 2:
            return F.interpolate(self(x), size, mode="bilinear", align_corners=False)
        return self._shrunk(x, size, factor)

    def _shrunk(self, x: Tensor, size: tuple[int, int], factor: int) -> Tensor:
        """All convolutions at every ``factor``-th place (even) of the map's 2×2 means, as one matrix product."""
        branches = [branch for branch in self.branches if isinstance(branch, nn.Conv2d)]
        # Taps farther out than the map only ever see padding.
        reach = max([b.dilation[0] for b in branches if b.dilation[0] < max(x.shape[-2:])], default=0)
        margin = -(-reach // factor) * factor
        # Zeros are laid around first: the mean of a border pixel and the padding beside it is half the pixel.
        means = F.avg_pool2d(F.pad(x, (margin, margin + 1) * 2), 2, stride=1).permute(0, 2, 3, 1)
        # Pixels that are ``factor`` apart lie together, so that every tap is a plain window of one of these maps.
        phases = [row.unbind(3) for row in means.unflatten(2, (-1, factor)).unflatten(1, (-1, factor)).unbind(2)]
        taps, weights = [], []
        for branch in branches:
            offsets = [margin + factor // 2 - 1 + branch.dilation[0] * tap for tap in (-1, 0, 1)]
            near_rows, near_columns = ([1] if branch.dilation[0] >= side else [0, 1, 2] for side in x.shape[-2:])
            for row, column in product(near_rows, near_columns):
                (top, row_phase), (left, column_phase) = divmod(offsets[row], factor), divmod(offsets[column], factor)
                window = phases[row_phase][column_phase][:, top : top + size[0], left : left + size[1]]
                taps.append(window)
                weights.append(branch.weight[:, :, row, column])
        return F.linear(torch.cat(taps, dim=3), torch.cat(weights, dim=1), self._bias()).permute(0, 3, 1, 2)


def _dilated(branch: nn.Conv2d, x: Tensor) -> Tensor:
    """A dilated 3×3 convolution without the taps that only ever see padding.

    Where the dilation reaches the map's side, the outer taps of that axis lie outside for every pixel: what remains
    is the centre tap, with the same result for a third (or, on both axes, a ninth) of the work.
    """
    dilation = branch.dilation[0]
    outside = [dilation >= side for side in x.shape[-2:]]
    if not any(outside):
        result: Tensor = branch(x)
        return result
    rows, columns = (slice(1, 2) if out else slice(None) for out in outside)
    padding = [0 if out else dilation for out in outside]
    return F.conv2d(x, branch.weight[:, :, rows, columns], branch.bias, padding=padding, dilation=dilation)


def masked_bce(logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy (Eq. 3) over valid pixels.

    Mean over the valid pixels of each frame, then over the frames that have any: a frame without one contributes
    nothing. Zero (with gradient zero) where no frame has one.

    Args:
        logits: ``(B, T, 1, H, W)``.
        masks: The same shape: bool, or float in [0, 1] (pseudo masks).
        valid: The same shape, bool; or float weights of pixels.
    """
    logits = at_least_single(logits)
    weight = valid.to(logits.dtype).flatten(2)
    each = F.binary_cross_entropy_with_logits(logits.flatten(2), masks.to(logits.dtype).flatten(2), reduction="none")
    per_frame = (each * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1e-6)
    return mean_of_labelled(per_frame, valid)


def dice_loss(
    logits: Tensor, masks: Tensor, valid: Tensor, kind: Literal["squared", "plain"] = "squared", epsilon: float = 1e-3
) -> Tensor:
    """Dice loss per frame, then the mean over frames with any valid pixel.

    Args:
        logits: ``(B, T, 1, H, W)``.
        masks: The same shape, in [0, 1].
        valid: The same shape, bool.
        kind: ``squared`` as AVSegFormer computes it, ``1 - 2Σpy / (Σp² + Σy² + 2ε)``; ``plain`` as Eq. 4 is printed,
            without the squares.
        epsilon: ε of the denominator.
    """
    logits = at_least_single(logits)
    weight = valid.to(logits.dtype).flatten(2)
    probability = logits.sigmoid().flatten(2) * weight
    target = masks.to(logits.dtype).flatten(2) * weight
    power = 2 if kind == "squared" else 1
    total = probability.pow(power).sum(dim=2) + target.pow(power).sum(dim=2) + 2 * epsilon
    return mean_of_labelled(1 - 2 * (probability * target).sum(dim=2) / total, valid)


def enlarged_where_valid(coarse: Tensor, valid: Tensor) -> Tensor:
    """Coarse maps enlarged bilinearly to the size of ``valid``, from those cells alone that hold a valid pixel.

    Else a valid pixel beside the padding would be given part of what the map says of the padding.

    Args:
        coarse: ``(B·T, C, h, w)``.
        valid: ``(B, T, 1, H, W)`` bool.

    Returns:
        ``(B, T, C, H, W)``; 0 far from valid pixels.
    """
    size = valid.shape[-2:]
    kept = F.adaptive_max_pool2d(valid.flatten(0, 1).to(coarse.dtype), coarse.shape[-2:])
    both = torch.cat([coarse * kept, kept], dim=1)
    enlarged = F.interpolate(both, size, mode="bilinear", align_corners=False)
    large, weight = enlarged.split([coarse.shape[1], 1], dim=1)
    return (large / weight.clamp(min=1e-6)).unflatten(0, valid.shape[:2])


def mean_of_labelled(per_frame: Tensor, valid: Tensor) -> Tensor:
    """The mean of ``per_frame`` ``(B, T)`` over the frames of ``valid`` ``(B, T, 1, H, W)`` with any valid pixel."""
    labelled = valid.flatten(2).gt(0).any(dim=2).to(per_frame.dtype)
    return (per_frame * labelled).sum() / labelled.sum().clamp(min=1)


def at_least_single(x: Tensor) -> Tensor:
    """``x`` in float32 or better, which sums over thousands of pixels need."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
