"""The pyramid convolution is the sum of its dilated convolutions, also where taps are left out."""

import pytest
import torch
from torch import nn

from avseg.models.layers import PyramidConvolution


@pytest.mark.parametrize("size", [(20, 20), (7, 20), (6, 6), (3, 3), (1, 2)])
def test_equals_the_plain_sum(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = PyramidConvolution(5, 8, (3, 6, 12)).double()
    x = torch.randn(2, 5, *size, dtype=torch.float64, requires_grad=True)
    plain = sum(branch(x) for branch in layer.branches if isinstance(branch, nn.Conv2d))
    assert isinstance(plain, torch.Tensor)
    result = layer(x)
    torch.testing.assert_close(result, plain)
    (expected,) = torch.autograd.grad(plain.square().sum(), x, retain_graph=True)
    (gradient,) = torch.autograd.grad(result.square().sum(), x)
    torch.testing.assert_close(gradient, expected)
