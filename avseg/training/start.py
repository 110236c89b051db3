"""Beginning with the weights of a model that was trained before (the paper's Table 4)."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from typing import Any

from avseg.config import ModelConfig, WeightsConfig
from avseg.models import AVSModel
from avseg.models.loading import load_state


class StartWarning(UserWarning):
    """Weights that training starts from were used in another way before."""


def start_from(model: AVSModel, start: AVSModel, source: str) -> None:
    """Begin with a saved model's weights (Table 4). A flow branch that they lack keeps its own start.

    What fits in shape and yet means something else, such as another encoding of flow, gives a `StartWarning`.

    Args:
        model: Takes the weights.
        start: Has them.
        source: Where ``start`` is from, for messages.

    Raises:
        AvsegError: the weights are of another architecture.
    """
    state = start.state_dict()
    if model.motion is not None and not any(name.startswith("motion.") for name in state):
        state.update({name: value for name, value in model.state_dict().items() if name.startswith("motion.")})
    load_state(model, state, source)
    both_move = model.motion is not None and start.motion is not None
    for name, before, now in _differences(start.config, model.config, both_move):
        warnings.warn(
            f"weights.start: {source} was trained with model.{name} {before}, and this run says {now}.",
            StartWarning,
            stacklevel=2,
        )


def _differences(before: ModelConfig, now: ModelConfig, flow: bool) -> Iterator[tuple[str, Any, Any]]:
    """Settings that shapes don't tell apart: name, before, now."""
    names = ["inputs.mean", "inputs.std", "inputs.front_end", "inputs.audio_offset"]
    if flow:
        names += ["flow_fusion", "inputs.flow_encoding", "inputs.flow_method"]
    if flow and before.inputs.flow_encoding == now.inputs.flow_encoding == "published":
        names.append("inputs.flow_bound")
    for name in names:
        old, new = (attrgetter(name)(config) for config in (before, now))
        if old != new:
            yield name, old, new


def own_start(weights: WeightsConfig, start: AVSModel | None) -> WeightsConfig:
    """What must be had besides ``start``'s weights: nothing but a flow branch where they lack one."""
    if start is None:
        return weights
    return replace(weights, image="none", audio="none", flow="none" if start.motion is not None else weights.flow)
