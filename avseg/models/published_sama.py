"""SAMA-AVS's checkpoints: what a file of its authors' program holds, told by names and shapes."""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from avseg.config import InputConfig, ModelConfig
from avseg.models.audio import VGGISH_UNUSED
from avseg.models.foreign import adopt
from avseg.models.published import hollow
from avseg.models.sam import ENCODERS, PATCH, sama_names


def published_sama(state: dict[str, Tensor], source: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """SAMA-AVS as its authors' program saves it.

    Args:
        state: In the published names, as `avseg.models.weights.read_state` gives it.
        source: The file, for messages.

    Returns:
        The configuration, and all weights, VGGish's among them, in our names.

    Raises:
        AvsegError: tensors are missing, unexpected or misshapen; the first few are named.
    """
    config = _sama_config(state)
    unused = tuple(f"audio_encoder.audio_backbone.{name}" for name in VGGISH_UNUSED)
    return config, adopt(state, hollow(config), source, sama_names, unused)


def _sama_config(state: dict[str, Tensor]) -> ModelConfig:
    """Width and depth name the encoder; of any other, relative positions tell heads and layers with full attention."""
    place = state.get("image_encoder.pos_embed")
    tokens, width = (place.shape[1], place.shape[3]) if place is not None and place.ndim == 4 else (64, 1280)
    layers = {int(found[1]) for name in state if (found := re.match(r"image_encoder\.blocks\.(\d+)\.", name))}
    sizes = (width, len(layers))
    known = [name for name, (v, _) in ENCODERS.items() if (v["hidden_size"], v["num_hidden_layers"]) == sizes]
    hidden = state.get("image_encoder.prompt_generator.shared_mlp.weight")
    return ModelConfig(
        base="sama",
        width=256,
        image_encoder=known[0] if known else "sam_vit_h",
        image_encoder_config=None if known else _encoder(state, width, len(layers), tokens),
        audio_encoder="vggish",
        neighbouring_frames=False,
        frames_per_clip=1,
        options={"adapter_width": hidden.shape[1] if hidden is not None and hidden.ndim == 2 else 512},
        inputs=InputConfig(image_size=PATCH * tokens, front_end="avsbench"),
    )


def _encoder(state: dict[str, Tensor], width: int, layers: int, tokens: int) -> dict[str, Any]:
    relative = {layer: state.get(f"image_encoder.blocks.{layer}.attn.rel_pos_h") for layer in range(layers)}
    shapes = {layer: tensor.shape for layer, tensor in relative.items() if tensor is not None and tensor.ndim == 2}
    return {
        "hidden_size": width,
        "num_hidden_layers": max(layers, 1),
        "num_attention_heads": next((width // max(shape[1], 1) for shape in shapes.values()), 16),
        "global_attn_indexes": [layer for layer, shape in shapes.items() if shape[0] == 2 * tokens - 1],
    }
