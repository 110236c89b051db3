"""Convolutions of enlarged maps computed at the small size: the plain function and its gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avseg.models import enlarged
from avseg.models.enlarged import convolve_enlarged


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, factor: int, align_corners: bool) -> Tensor:
    large = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=align_corners)
    return F.conv2d(large, weight, bias, padding=1)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("count", "height", "width", "factor"), [(2, 18, 24, 2), (1, 17, 21, 2), (1, 9, 13, 4)])
@pytest.mark.parametrize("chunk", [2**12, 2**22])
def test_is_the_plain_formula_with_its_gradients(
    count: int,
    height: int,
    width: int,
    factor: int,
    align_corners: bool,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(enlarged, "_CHUNK", chunk)
    torch.manual_seed(0)
    double = {"dtype": torch.float64, "requires_grad": True}
    x, weight, bias = (torch.randn(*shape, **double) for shape in ((count, 32, height, width), (5, 32, 3, 3), (5,)))  # type: ignore[arg-type]
    assert enlarged._worthwhile(x, weight, factor)
    ours = convolve_enlarged(x, weight, bias, factor, align_corners)
    expected = plain(x, weight, bias, factor, align_corners)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    slope = torch.randn_like(expected)
    mine = torch.autograd.grad((ours * slope).sum(), [x, weight, bias])
    theirs = torch.autograd.grad((expected * slope).sum(), [x, weight, bias])
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    with torch.inference_mode():
        torch.testing.assert_close(
            convolve_enlarged(x, weight, None, factor, align_corners),
            plain(x, weight, None, factor, align_corners),
            rtol=1e-9,
            atol=1e-9,
        )


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((1, 2, 9, 8), (2, 2, 3, 3), (2,))]
    assert torch.autograd.gradcheck(lambda *item: enlarged._ConvolvedEnlarged.apply(*item, 2, False), inputs)


def test_rounds_as_the_plain_formula_does() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 128, 56, 56, dtype=torch.float64), torch.randn(32, 128, 3, 3, dtype=torch.float64)
    exact = plain(x, weight, None, 2, True)
    single = convolve_enlarged(x.float(), weight.float(), None, 2, True)
    assert (single - exact).abs().max() <= 1e-5 * exact.std()


def test_the_plain_formula_elsewhere() -> None:
    x, weight = torch.randn(1, 32, 20, 20), torch.randn(4, 32, 3, 3)
    assert not enlarged._worthwhile(x[..., :3, :3], weight, 2)
    assert not enlarged._worthwhile(x, weight, 3)
    torch.testing.assert_close(convolve_enlarged(x, weight, None, 3, False), plain(x, weight, None, 3, False))
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve_enlarged(x, weight, None, 2, False).dtype == torch.bfloat16
