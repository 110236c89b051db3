"""Layers that base models and the flow branch share."""

from collections.abc import Sequence

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
        first, *others = [_dilated(branch, x) for branch in self.branches]
        return sum(others, start=first)

    def sampled(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """`forward`, resized bilinearly to ``size`` (align_corners=False), for as little work as that needs.

        Shrinking by an even factor s reads the mean of 2×2 pixels at every s-th place, and a mean commutes with a
        convolution: so the input is averaged and the convolution has stride s, for s² times fewer multiplications.
        """
        factors = [side // wanted for side, wanted in zip(x.shape[-2:], size, strict=True)]
        factor = factors[0]
        exact = all(side == factor * wanted for side, wanted in zip(x.shape[-2:], size, strict=True))
        if exact and factor == 1:
            return self(x)
        if not exact or factor % 2:
            return F.interpolate(self(x), size, mode="bilinear", align_corners=False)
        first, *others = [_dilated_and_shrunk(branch, x, factor) for branch in self.branches]
        return sum(others, start=first)


def _dilated(branch: nn.Module, x: Tensor) -> Tensor:
    """A dilated 3×3 convolution without the taps that only ever see padding.

    Where the dilation reaches the map's side, the outer taps of that axis lie outside for every pixel: what remains
    is the centre tap, with the same result for a third (or, on both axes, a ninth) of the work.
    """
    assert isinstance(branch, nn.Conv2d)
    dilation = branch.dilation[0]
    outside = [dilation >= side for side in x.shape[-2:]]
    if not any(outside):
        return branch(x)
    rows, columns = (slice(1, 2) if out else slice(None) for out in outside)
    padding = [0 if out else dilation for out in outside]
    return F.conv2d(x, branch.weight[:, :, rows, columns], branch.bias, padding=padding, dilation=dilation)


def _dilated_and_shrunk(branch: nn.Module, x: Tensor, factor: int) -> Tensor:
    """A dilated 3×3 convolution at every ``factor``-th place of the map's 2×2 means, ``factor`` even."""
    assert isinstance(branch, nn.Conv2d)
    dilation = branch.dilation[0]
    offset = factor // 2 - 1
    if all(dilation >= side for side in x.shape[-2:]):  # the centre tap alone, as in `_dilated`
        means = F.avg_pool2d(x, 2, stride=1)[..., offset::factor, offset::factor]
        return F.conv2d(means, branch.weight[:, :, 1:2, 1:2], branch.bias)
    # Zeros are laid around first: the mean of a border pixel and the padding beside it is half the pixel.
    means = F.avg_pool2d(F.pad(x, [dilation] * 4), 2, stride=1)[..., offset:, offset:]
    return F.conv2d(means, branch.weight, branch.bias, stride=factor, dilation=dilation)
