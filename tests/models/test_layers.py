"""The pyramid convolution is the sum of its dilated convolutions, also where taps are left out."""

import pytest
import torch
import torch.nn.functional as F
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


@pytest.mark.parametrize("side", [(56, 56), (24, 40), (28, 28), (57, 57), (48, 24)])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_convolving_where_it_is_sampled_is_convolving_and_then_resizing(side, factor):
    torch.manual_seed(0)
    convolution = PyramidConvolution(3, 4, (1, 3, 6, 12, 18, 60)).double()
    x = torch.randn(2, 3, *side, dtype=torch.float64, requires_grad=True)
    size = (max(1, side[0] // factor), max(1, side[1] // factor))
    plain = sum(branch(x) for branch in convolution.branches)
    expected = F.interpolate(plain, size, mode="bilinear", align_corners=False)
    result = convolution.sampled(x, size)
    torch.testing.assert_close(result, expected, atol=1e-9, rtol=0)
    weight = torch.randn_like(expected)
    parameters = [x, *convolution.parameters()]
    for a, b in zip(
        torch.autograd.grad((result * weight).sum(), parameters),
        torch.autograd.grad((expected * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
