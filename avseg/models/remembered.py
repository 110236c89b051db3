"""Tensors made of parameters, remembered until the parameters' numbers change."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_KNOWN: Any = WeakTensorKeyDictionary()  # first parameter -> what was asked -> state and tensor


def remember(weights: Sequence[Tensor], what: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """What ``make`` returned when ``weights`` were as they are now; it is called again once they are not.

    Args:
        weights: Parameters; the result lives as long as the first of them.
        what: Which function of the parameters is meant.
        make: Computes it; no gradient is recorded.
    """
    state = tuple(_state(weight) for weight in weights)
    results = _KNOWN.setdefault(weights[0], {})
    known = results.get(what)
    if known is not None and known[0] == state:
        result: Tensor = known[1]
        return result
    known = results[what] = None  # the old one's memory is free before the new one takes its own
    # A tensor made in inference mode could not be used in training later.
    with torch.inference_mode(False), torch.no_grad():
        result = make()
    results[what] = (state, result)
    return result


def _state(weight: Tensor) -> tuple[Hashable, ...]:
    # Whoever writes through ``.data`` leaves no trace but the numbers, whose sum costs next to nothing.
    version = 0 if weight.is_inference() else weight._version
    return version, weight.data_ptr(), weight.dtype, float(weight.detach().sum(dtype=torch.float64))
