"""Segment Anything's parts, from Hugging Face transformers, and where their weights come from."""

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamVisionConfig
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamVisionEncoder

from avseg.config import ModelConfig
from avseg.errors import AvsegError
from avseg.models.catalogue import folder_of
from avseg.models.foreign import Origin, adopt
from avseg.models.weights import from_hub, read_state

ENCODERS: dict[str, tuple[dict[str, Any], str]] = {
    "sam_vit_b": (
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "global_attn_indexes": [2, 5, 8, 11]},
        "facebook/sam-vit-base",
    ),
    "sam_vit_l": (
        {
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "global_attn_indexes": [5, 11, 17, 23],
        },
        "facebook/sam-vit-large",
    ),
    "sam_vit_h": (
        {
            "hidden_size": 1280,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "global_attn_indexes": [7, 15, 23, 31],
        },
        "facebook/sam-vit-huge",
    ),
}
"""Image encoders by name: what they are made of, and the hub's repository of the weights trained on SA-1B."""

PATCH, WINDOW = 16, 14
_MOST = {"hidden_size": 8192, "num_hidden_layers": 128, "num_attention_heads": 256}


def build_sam_encoder(config: ModelConfig) -> SamVisionEncoder:
    """The vision transformer that ``config.image_encoder`` names, for images of ``config.inputs.seen_size`` pixels.

    What it is made of is stored in ``config.image_encoder_config``; where it is there already, that counts.

    Raises:
        AvsegError: an unknown name, or numbers that make no vision transformer.
    """
    name = config.image_encoder
    if config.image_encoder_config is None and name not in ENCODERS:
        raise AvsegError(
            f"model.image_encoder is '{name}', but SAMA-AVS looks through Segment Anything's: choose "
            f"{', '.join(ENCODERS)}."
        )
    values = _checked(config.image_encoder_config or ENCODERS[name][0], name)
    config.image_encoder_config = values
    made: dict[str, Any] = {
        **values,
        "output_channels": config.width,
        "image_size": config.inputs.seen_size,
        "patch_size": PATCH,
        "window_size": WINDOW,
        "mlp_dim": 4 * values["hidden_size"],
        "layer_norm_eps": 1e-6,
        "initializer_range": 0.02,  # the default of transformers, 1e-10, leaves nothing of the image
        "attn_implementation": "sdpa",
    }
    encoder = SamVisionEncoder(SamVisionConfig(**made))
    assert encoder.pos_embed is not None
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    return encoder


def _checked(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Of a stored configuration, the four numbers that count here; AvsegError where they make no sense."""
    try:
        found = {key: int(values[key]) for key in _MOST}
        layers = sorted({int(layer) for layer in values["global_attn_indexes"]})
    except (KeyError, TypeError, ValueError):
        raise AvsegError(f"model.image_encoder '{name}' is no vision transformer of Segment Anything.") from None
    within = all(1 <= found[key] <= most for key, most in _MOST.items())
    if not within or found["hidden_size"] % found["num_attention_heads"]:
        raise AvsegError(f"model.image_encoder '{name}' has sizes that make no vision transformer: {found}.")
    return {**found, "global_attn_indexes": [layer for layer in layers if 0 <= layer < found["num_hidden_layers"]]}


def build_mask_decoder(width: int) -> SamMaskDecoder:
    """Segment Anything's mask decoder, ``width`` channels wide (256 in every published one)."""
    made: dict[str, Any] = {
        "hidden_size": width,
        "mlp_dim": 8 * width,
        "iou_head_hidden_dim": width,
        "layer_norm_eps": 1e-5,  # SAM's own; the default of transformers, 1e-6, is not
        "attn_implementation": "sdpa",
    }
    decoder = SamMaskDecoder(SamMaskDecoderConfig(**made))
    # Of the four masks only the first is used, and nobody asks how good it is: these never get a gradient.
    decoder.iou_prediction_head.requires_grad_(False)
    for unused in list(decoder.output_hypernetworks_mlps)[1:]:
        unused.requires_grad_(False)
    return decoder


# Tensors of `avseg.models.sama.SAMA` in the names of Meta's own files, which SAMA-AVS keeps; the order matters.
_OFFICIAL = (
    (r"^image_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^image_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^image_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^image_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^image_encoder\.layers\.", "image_encoder.blocks."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.layers.1."),
    (r"(mlps\.\d|iou_prediction_head)\.proj_in\.", r"\1.layers.0."),
    (r"(mlps\.\d|iou_prediction_head)\.proj_out\.", r"\1.layers.2."),
)
_SAMA = (
    *_OFFICIAL,
    (r"^adapters\.each\.(\d+)\.", r"image_encoder.prompt_generator.lightweight_mlp_\1.0."),
    (r"^adapters\.shared\.", "image_encoder.prompt_generator.shared_mlp."),
    (r"^positions$", "pe_layer.positional_encoding_gaussian_matrix"),
    (r"^no_mask$", "no_mask_embed.weight"),
    (r"^audio_encoder\.", "audio_encoder.audio_backbone."),
)
_META = (
    *_OFFICIAL,
    (r"^positions$", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^no_mask$", "prompt_encoder.no_mask_embed.weight"),
)
_TRANSFORMERS = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^positions$", "shared_image_embedding.positional_embedding"),
    (r"^no_mask$", "prompt_encoder.no_mask_embed.weight"),
)


def _named(rules: tuple[tuple[str, str], ...], name: str) -> Origin:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return Origin(name)


def sama_names(name: str) -> Origin:
    """A tensor of our SAMA-AVS in its authors' names."""
    return _named(_SAMA, name)


def sa1b_weights(name: str, given: str, model: nn.Module) -> dict[str, Tensor]:
    """Segment Anything's weights for ``model``, a SAMA-AVS, in its names; positions are brought to its size.

    Args:
        name: The image encoder's.
        given: ``sa1b``, the hub's; or a file, as Meta or transformers write it.
        model: Tells names and shapes.

    Raises:
        AvsegError: weights that can't be had or belong to something else.
    """
    file = _from_hub(name) if given == "sa1b" else Path(given)
    state = read_state(file)
    theirs = "image_encoder.pos_embed" in state
    rules = _META if theirs else _TRANSFORMERS
    ours = {
        key: tensor
        for key, tensor in model.state_dict().items()
        if key.startswith(("image_encoder.", "mask_decoder.", "positions", "no_mask"))
    }
    fitted = dict(state)
    for key, like in ours.items():
        origin = _named(rules, key).name
        if origin in state and key.startswith("image_encoder.") and ("pos_embed" in key or "rel_pos" in key):
            fitted[origin] = _at_size(state[origin], like)
    unused = ("prompt_encoder.", "shared_image_embedding.")
    return adopt(fitted, ours, file, lambda key: _named(rules, key), unused)


def _from_hub(name: str) -> Path:
    if (here := folder_of(name)) is not None:
        return here / "model.safetensors"
    repository = ENCODERS[name][1] if name in ENCODERS else ""
    try:
        return from_hub(repository, "model.safetensors")
    except Exception as error:
        raise AvsegError(
            f"weights.image: Segment Anything's weights of '{name}' cannot be had from "
            f"https://huggingface.co/{repository} ({type(error).__name__}): download its model.safetensors by other "
            "means and give the path as weights.image=FILE, or ask for random weights with weights.image=none."
        ) from error


def _at_size(stored: Tensor, like: Tensor) -> Tensor:
    """Absolute ``(1, h, w, C)`` or relative ``(2n − 1, c)`` positions, brought to another number of tokens."""
    if stored.shape == like.shape or stored.ndim != like.ndim or stored.shape[-1] != like.shape[-1]:
        return stored
    if stored.ndim == 4:
        grid = F.interpolate(stored.float().permute(0, 3, 1, 2), like.shape[1:3], mode="bicubic", antialias=True)
        return grid.permute(0, 2, 3, 1)
    line = F.interpolate(stored.float().T[None], like.shape[0], mode="linear")
    return line[0].T


def dense_positions(matrix: Tensor, side: int) -> Tensor:
    """Where each of ``side`` × ``side`` cells is, ``(1, 2·n, side, side)``, of random frequencies ``(2, n)``.

    Cells' centres in [−1, 1], x before y, times the frequencies, times 2π; sine before cosine.
    """
    centres = 2 * (torch.arange(side, device=matrix.device, dtype=matrix.dtype) + 0.5) / side - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    angles = 2 * torch.pi * (torch.stack([x, y], dim=-1) @ matrix)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).permute(2, 0, 1)[None]
