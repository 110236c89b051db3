"""Layers that base models and the flow branch share."""

from collections.abc import Sequence
from itertools import product

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
