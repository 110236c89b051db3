"""TPAVI's attention alone, the whole block, and the flow branch behind its encoder, against their plain forms.

python -m benchmarks.attention [--quick]
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from avseg.config import ModelConfig
from avseg.models.motion import MotionBranch
from avseg.models.tpavi import TPAVIBlock
from benchmarks.alone import run_alone
from benchmarks.case import Case, compare
from benchmarks.plain import PlainMotion
from benchmarks.reference import PlainTPAVIBlock, attention
from benchmarks.timing import Function, Maker, Row, Settings

GROUP = "attention"
WIDTH = 256
SIDE = 56  # of stage 1 at 224 pixels


def measure(settings: Settings) -> list[Row]:
    """Forward, and forward with backward, for T = 1, 5 and 10 (1 and 5 if ``quick``)."""
    return [compare(GROUP, case, settings, _memory(case, settings)) for case in cases(settings)]


def _memory(case: Case, settings: Settings) -> str | None:
    """Beyond input and output; where it has to be quick, of what a goal asks for alone."""
    asked = case.tags["part"] != "flow" and case.tags["frames"] == 5
    return "between" if asked or not settings.quick else None


def cases(settings: Settings) -> Iterator[Case]:
    """All cases of the group."""
    for part, words in (("attention", "TPAVI attention"), ("block", "TPAVI block"), ("flow", "flow branch")):
        for frames in (1, 5) if settings.quick else (1, 5, 10):
            for training in (False, True):
                if settings.quick and training and (part, frames) != ("block", 1):
                    continue
                name = f"{words}, T = {frames}{', forward + backward' if training else ''}"
                spec = {"part": part, "frames": frames, "training": training}
                yield Case("benchmarks.attention", spec, name, spec)


def make(device: str, part: str, frames: int, training: bool) -> dict[str, Maker]:
    """One clip at stage 1 (``(1, T, 256, 56, 56)``); the flow branch's four scales of T frames.

    The reference of ``attention`` starts from θ, φ and g, ours from the map and the sound.
    """
    torch.manual_seed(0)
    if part == "flow":
        return _flow(device, frames, training)
    block = TPAVIBlock(WIDTH, gain=1.0).to(device).train(training)
    x = torch.randn(1, frames, WIDTH, SIDE, SIDE, device=device)
    given = [x, torch.randn(1, frames, 128, device=device)]
    if part == "block":
        return {
            "ours": lambda: _runs(deepcopy(block), given, training),
            "reference": lambda: _runs(PlainTPAVIBlock(deepcopy(block)), given, training),
        }
    return {
        "ours": lambda: _runs(lambda *inputs: factored(block, *inputs), given, training),
        "reference": lambda: _runs(attention, _projections(device, frames), training),
    }


def _projections(device: str, frames: int) -> list[Tensor]:
    """θ, φ and g of every pixel."""
    return [torch.randn(1, frames * SIDE * SIDE, WIDTH // 2, device=device) for _ in range(3)]


def factored(block: TPAVIBlock, x: Tensor, audio: Tensor) -> Tensor:
    """TPAVI's ``y = θ φᵀ g / N`` from the map and the sound, without the N×N matrix.

    The key of a frame is the same for all its pixels: a pixel needs its T products with the keys, and each of them
    weighs the mean of the values of a frame.

    Args:
        block: Its projections count.
        x: ``(B, T, C, h, w)``.
        audio: ``(B, T, 128)``.

    Returns:
        ``(B, T·h·w, C/2)``.
    """
    attend = getattr(block, "attend", None)
    if attend is not None:
        found: Tensor = attend(x, audio)
        return found
    key = block.phi(block.audio(audio))
    # Frame by frame, so that the map need not be laid out anew: (B, T, T, h·w).
    scores = (key @ block.theta.weight).unsqueeze(1) @ x.flatten(3) + (key @ block.theta.bias)[:, None, :, None]
    value = block.g(x.mean(dim=(3, 4))) / x.shape[1]
    return scores.transpose(2, 3).flatten(1, 2) @ value


class _Given(nn.Module):
    """Stands in for the flow encoder: its map is known already."""

    def __init__(self, maps: list[Tensor]):
        super().__init__()
        self.maps = maps

    def forward(self, flow: Tensor) -> list[Tensor]:
        return self.maps


def _flow(device: str, frames: int, training: bool) -> dict[str, Maker]:
    branch = MotionBranch(ModelConfig(flow_fusion="normalised"), [(s, WIDTH) for s in (4, 8, 16, 32)]).to(device)
    reference = PlainMotion(deepcopy(branch), "normalised")
    features = torch.randn(frames, 64, SIDE, SIDE, device=device)
    pyramid = [torch.randn(frames, WIDTH, SIDE >> stage, SIDE >> stage, device=device) for stage in range(4)]
    flow = torch.empty(0, device=device)

    def ours(features: Tensor, *maps: Tensor) -> list[Tensor]:
        branch.encoder = _Given([features])  # type: ignore[assignment]
        return branch(list(maps), flow)

    def plainly(features: Tensor, *maps: Tensor) -> list[Tensor]:
        return reference.fuse(list(maps), [features])

    given = [features, *pyramid]
    return {
        "ours": lambda: _runs(ours, given, training, branch.refine),
        "reference": lambda: _runs(plainly, given, training, reference.refine),
    }


def _runs(function: Any, inputs: list[Tensor], training: bool, module: nn.Module | None = None) -> Function:
    """A call without a gradient, or one with backward from the sum of all it gives to its inputs and weights."""
    if not training:

        def forward() -> Any:
            with torch.inference_mode():
                return function(*inputs)

        return forward
    module = function if isinstance(function, nn.Module) else module
    leaves = [item.clone().requires_grad_() for item in inputs]
    weights = [] if module is None else list(module.parameters())

    def backward() -> None:
        result = function(*leaves)
        results = [result] if isinstance(result, Tensor) else list(result)
        torch.autograd.backward(results, [torch.ones_like(item) for item in results])
        for leaf in (*leaves, *weights):
            leaf.grad = None

    return backward


if __name__ == "__main__":
    run_alone(measure)
