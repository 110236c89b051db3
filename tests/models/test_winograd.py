"""3×3 convolutions with fewer products: the plain function, its gradients, and never where it would be slower."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avseg.models import winograd
from avseg.models.winograd import convolve, tile_size


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


# Sides that are no multiple of any tile, of the dilation, or of one another.
CASES = [(2, 31, 23, 1), (1, 40, 29, 1), (1, 33, 41, 2), (1, 29, 47, 3), (1, 56, 56, 6), (4, 14, 14, 1)]


@pytest.mark.parametrize(("count", "height", "width", "dilation"), CASES)
@pytest.mark.parametrize("chunk", [2**16, 2**24])
def test_is_the_plain_convolution_with_its_gradients(
    count: int, height: int, width: int, dilation: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "_CHUNK", chunk)
    torch.manual_seed(0)
    x, weight, bias = drawn(count, 96, height, width), drawn(97, 96, 3, 3), drawn(97)
    assert tile_size(x, weight, dilation) is not None
    for item in (x, weight, bias):
        item.requires_grad_()
    ours, plain = convolve(x, weight, bias, dilation), F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)
    scale = plain.detach().abs().max()
    assert (ours - plain).abs().max() <= 1e-9 * scale
    slope = torch.randn_like(plain)
    mine = torch.autograd.grad((ours * slope).sum(), [x, weight, bias])
    theirs = torch.autograd.grad((plain * slope).sum(), [x, weight, bias])
    for one, other in zip(mine, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max()
    with torch.inference_mode():
        torch.testing.assert_close(convolve(x, weight, None, dilation), ours - bias[:, None, None], rtol=0, atol=1e-9)


@pytest.mark.parametrize("tile", [4, 5])
def test_gradients_of_each_tile_size(tile: int) -> None:
    torch.manual_seed(0)
    inputs = [drawn(1, 2, 7, 6).requires_grad_(), drawn(3, 2, 3, 3).requires_grad_(), drawn(3).requires_grad_()]

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        filters = winograd._transform(weight, tile)
        result: Tensor = winograd._Convolution.apply(x, weight, bias, filters, 2, tile)
        return result

    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("dilation", [1, 3])
def test_rounds_about_as_the_plain_convolution_does(dilation: int) -> None:
    torch.manual_seed(0)
    x, weight = drawn(1, 256, 56, 56), drawn(256, 256, 3, 3)
    exact = F.conv2d(x, weight, padding=dilation, dilation=dilation)
    single = convolve(x.float(), weight.float(), None, dilation)
    assert tile_size(x.float(), weight.float(), dilation) is not None
    assert (single - exact).square().mean().sqrt() <= 4e-6 * exact.std()


def test_any_layout_of_the_map_goes_in_and_no_graph_is_kept_without_need() -> None:
    torch.manual_seed(0)
    x, weight = drawn(1, 96, 30, 30), drawn(96, 96, 3, 3)
    plain = F.conv2d(x, weight, padding=1)
    turned = x.contiguous(memory_format=torch.channels_last)
    for item in (x, turned, x.transpose(2, 3).contiguous().transpose(2, 3)):
        ours = convolve(item, weight, None)
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
        assert not ours.requires_grad
    weight.requires_grad_()
    convolve(x, weight, None).sum().backward()
    assert weight.grad is not None


def test_the_plain_formula_where_it_is_faster_or_the_only_one() -> None:
    x, weight = torch.randn(1, 128, 30, 30), torch.randn(128, 128, 3, 3)
    assert tile_size(x, weight, 1) is not None
    assert tile_size(x.bfloat16(), weight.bfloat16(), 1) is None
    assert tile_size(x, weight[:8], 1) is None  # few channels
    assert tile_size(x[..., :7, :7], weight, 1) is None  # a small map
    assert tile_size(x, weight, 25) is None  # most taps see only padding
    with torch.autocast("cpu", torch.bfloat16):
        assert tile_size(x, weight, 1) is None
        assert convolve(x, weight, None).dtype == torch.bfloat16
    torch.testing.assert_close(convolve(x, weight, None, 25), F.conv2d(x, weight, padding=25, dilation=25))
