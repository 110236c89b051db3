"""Sums of dilated convolutions by their spectra: the plain function, its gradients, and only where it pays."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avseg.models import spectral
from avseg.models.layers import PyramidConvolution
from avseg.models.spectral import convolve_sum


def plain(x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, dilations: Sequence[int]) -> Tensor:
    parts = [F.conv2d(x, w, None, padding=d, dilation=d) for w, d in zip(weights, dilations, strict=True)]
    total = torch.stack(parts).sum(0)
    return total if bias is None else total + bias[:, None, None]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps too, for which the spectra would not pay."""
    monkeypatch.setattr(spectral, "_LEAST_SAVING", 0.0)
    spectral._chosen.cache_clear()
    yield
    spectral._chosen.cache_clear()


# Common divisors 3, 2 and 1; odd and even transforms; taps that leave the map on one axis or on both; shared centres.
CASES = [
    (2, 20, 17, (3, 6, 12, 18)),
    (1, 13, 16, (2, 4)),
    (3, 9, 8, (1, 2, 3)),
    (1, 7, 20, (3, 12)),
    (1, 5, 5, (1, 6)),
    (2, 12, 12, (4, 4)),
]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("count", "height", "width", "dilations"), CASES)
@pytest.mark.parametrize("chunk", [1, 2**26])
def test_is_the_sum_of_the_convolutions_with_its_gradients(
    count: int, height: int, width: int, dilations: tuple[int, ...], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectral, "_CHUNK", chunk)
    torch.manual_seed(0)
    x = torch.randn(count, 32, height, width, dtype=torch.float64, requires_grad=True)
    weights = [torch.randn(33, 32, 3, 3, dtype=torch.float64, requires_grad=True) for _ in dilations]
    bias = torch.randn(33, dtype=torch.float64, requires_grad=True)
    ours, expected = convolve_sum(x, weights, bias, dilations), plain(x, weights, bias, dilations)
    assert ours is not None
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    slope = torch.randn_like(expected)
    mine = torch.autograd.grad((ours * slope).sum(), [x, *weights, bias])
    theirs = torch.autograd.grad((expected * slope).sum(), [x, *weights, bias])
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    with torch.inference_mode():
        again = convolve_sum(x, weights, None, dilations)
        assert again is not None
        torch.testing.assert_close(again, plain(x, weights, None, dilations), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("always")
def test_frozen_weights_and_first_layers_get_no_gradient() -> None:
    torch.manual_seed(0)
    x, weights = torch.randn(1, 32, 8, 8), [torch.randn(32, 32, 3, 3) for _ in range(2)]
    moved = x.clone().requires_grad_()
    result = convolve_sum(moved, weights, None, (1, 2))
    assert result is not None
    result.sum().backward()
    expected = x.clone().requires_grad_()
    plain(expected, weights, None, (1, 2)).sum().backward()
    torch.testing.assert_close(moved.grad, expected.grad, rtol=1e-4, atol=1e-4)
    learned = [weight.clone().requires_grad_() for weight in weights]
    result = convolve_sum(x, learned, None, (1, 2))
    assert result is not None
    result.sum().backward()
    assert all(weight.grad is not None for weight in learned)


def test_rounds_no_worse_than_the_plain_convolutions() -> None:
    torch.manual_seed(0)
    dilations = (3, 6, 12, 18)
    x, weights = torch.randn(1, 128, 56, 56), [torch.randn(64, 128, 3, 3) for _ in dilations]
    exact = plain(x.double(), [w.double() for w in weights], None, dilations)
    ours = convolve_sum(x, weights, None, dilations)
    assert ours is not None
    assert (ours - exact).abs().max() <= (plain(x, weights, None, dilations) - exact).abs().max()


def test_only_where_it_pays() -> None:
    full = (3, 6, 12, 18)
    each = 256 * 256 * 4
    assert spectral._chosen(1, 56, 56, full, False, each) is not None
    assert spectral._chosen(4, 28, 28, full, False, each) is not None
    assert spectral._chosen(4, 7, 7, full, False, each) is None  # so small that most taps see only padding
    assert spectral._chosen(1, 28, 28, full, False, each) is None  # reading the filters outweighs the products
    assert spectral._chosen(1, 56, 56, full, True, each) is None  # so does making them anew in every training step
    assert spectral._chosen(1, 224, 224, (1,), False, each) is None  # filters larger than the memory that they may take
    x, weights = torch.randn(1, 64, 56, 56), [torch.randn(64, 64, 3, 3) for _ in full]
    assert convolve_sum(x, weights, None, full) is not None
    assert convolve_sum(x[:, :8], [w[:, :8] for w in weights], None, full) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve_sum(x, weights, None, full) is None


def test_the_pyramid_convolution_follows_its_weights() -> None:
    torch.manual_seed(0)
    layer = PyramidConvolution(64, 64, (3, 6, 12, 18)).double()
    x = torch.randn(2, 64, 56, 56, dtype=torch.float64)
    branches = [branch for branch in layer.branches if isinstance(branch, torch.nn.Conv2d)]
    with torch.no_grad():
        for _ in range(2):
            expected = torch.stack([branch(x) for branch in branches]).sum(0)
            torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
            branches[2].weight.mul_(1.5)
            assert branches[0].bias is not None
            branches[0].bias.add_(1.0)
