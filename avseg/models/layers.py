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
