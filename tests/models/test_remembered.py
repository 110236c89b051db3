"""What is made of parameters follows them, however they are written to."""

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from avseg.models.remembered import remember


class Counted:
    """Doubles a parameter and counts how often."""

    def __init__(self, weight: Tensor):
        self.weight, self.calls = weight, 0

    def __call__(self) -> Tensor:
        def make() -> Tensor:
            self.calls += 1
            return 2 * self.weight

        return remember([self.weight], "double", make)


def test_is_made_once_while_nothing_changes() -> None:
    double = Counted(nn.Parameter(torch.randn(4, 3)))
    with torch.inference_mode():
        first = double()
    assert double() is first
    assert double.calls == 1
    assert not first.is_inference()
    assert not first.requires_grad


def _sgd(p: Tensor) -> None:
    p.grad = torch.ones_like(p)
    torch.optim.SGD([p], lr=0.1).step()


def _fused_adam(p: Tensor) -> None:
    p.grad = torch.ones_like(p)
    torch.optim.AdamW([p], lr=0.1, fused=True).step()


def _in_place(p: Tensor) -> None:
    with torch.no_grad():
        p.mul_(1.1)


WRITERS = {
    "sgd": _sgd,
    "fused adam": _fused_adam,
    "in place": _in_place,
    "through data": lambda p: p.data.add_(0.5),
    "new data": lambda p: setattr(p, "data", p.data + 1),
    "double": lambda p: setattr(p, "data", p.data.double()),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_is_made_again_after_any_change(writer: str) -> None:
    torch.manual_seed(0)
    double = Counted(nn.Parameter(torch.randn(4, 3)))
    for _ in range(2):
        double()
        WRITERS[writer](double.weight)
        torch.testing.assert_close(double(), 2 * double.weight.detach())


def test_loading_weights_changes_it_and_a_copy_has_its_own() -> None:
    layer, other = nn.Linear(3, 4), nn.Linear(3, 4)
    double = Counted(layer.weight)
    double()
    twin = copy.deepcopy(layer)
    layer.load_state_dict(other.state_dict())
    torch.testing.assert_close(double(), 2 * other.weight.detach())
    assert not torch.equal(Counted(twin.weight)(), double())


def test_lives_no_longer_than_the_parameter() -> None:
    weight = nn.Parameter(torch.randn(2))
    made = weakref.ref(Counted(weight)())
    gc.collect()
    assert made() is not None
    del weight
    gc.collect()
    assert made() is None
