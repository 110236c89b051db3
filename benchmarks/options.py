"""What is tried on a model besides running it as it is, and what each changes in the masks."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor

from avseg.errors import AvsegError
from avseg.models import AVSModel

Context = Callable[[], AbstractContextManager]
"""Makes the context that a model runs in."""


def _eager(model: AVSModel, device: str) -> Context:
    return nullcontext


def _channels_last(model: AVSModel, device: str) -> Context:
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return nullcontext


def _bf16(model: AVSModel, device: str) -> Context:
    return lambda: torch.autocast(device.split(":")[0], dtype=torch.bfloat16)


def _compiled(model: AVSModel, device: str) -> Context:
    model.compile(dynamic=False)
    return nullcontext


OPTIONS: dict[str, Callable[[AVSModel, str], Context]] = {
    "eager": _eager,
    "channels_last": _channels_last,
    "bf16": _bf16,
    "compile": _compiled,
}


def check(names: tuple[str, ...]) -> None:
    """Raise AvsegError naming the first option that there is not."""
    for name in names:
        for part in name.split("+"):
            if part not in OPTIONS:
                raise AvsegError(
                    f"--options: '{part}' is none: there are {', '.join(OPTIONS)}, and sums such as bf16+compile."
                )


def accelerate(model: AVSModel, option: str, device: str) -> Context:
    """Change a model in place as ``option`` says.

    Args:
        model: On its device.
        option: A name of `OPTIONS`, or several joined by ``+``.
        device: Where it runs.

    Returns:
        Makes the context that the model must run in.
    """
    contexts = [OPTIONS[part](model, device) for part in option.split("+")]

    def entered() -> AbstractContextManager:
        stack = ExitStack()
        for context in contexts:
            stack.enter_context(context())
        return stack

    return entered


def difference(ours: Tensor, reference: Tensor) -> dict[str, float]:
    """How far probabilities are apart, and which share of the pixels changes sides.

    A random model has no mask at 0.5, so the threshold is the median of the reference's probabilities: half of all
    pixels belong to the mask, and as many as possible lie close to its border.

    Args:
        ours: Logits of any shape.
        reference: Logits of the same shape.

    Returns:
        ``largest`` and ``mean`` difference of probabilities, and ``flipped``.
    """
    mine, theirs = ours.float().sigmoid(), reference.float().sigmoid()
    apart = (mine - theirs).abs()
    threshold = theirs.median()
    flipped = (mine >= threshold) != (theirs >= threshold)
    return {"largest": float(apart.max()), "mean": float(apart.mean()), "flipped": float(flipped.float().mean())}
