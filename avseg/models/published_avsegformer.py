"""AVSegFormer's published checkpoints, with and without UFE, brought into our names."""

import re
from pathlib import Path

import torch
from torch import Tensor

from avseg.config import InputConfig, ModelConfig
from avseg.models.base import build
from avseg.models.foreign import Names, Origin, adopt, published_backbone
from avseg.models.vggish import VGGISH_UNUSED


def is_avsegformer(state: dict[str, Tensor]) -> bool:
    """Whether a state dict is a published AVSegFormer's, to judge by its names."""
    return any(name.startswith("head.query_generator.") for name in state)


def published_avsegformer(state: dict[str, Tensor], source: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """AVSegFormer as its authors or UFE's published it.

    Args:
        state: In the published names, as `avseg.models.weights.read_state` gives it.
        source: The file, for messages.

    Returns:
        The configuration and all weights, VGGish's among them, in our names.

    Raises:
        AvsegError: tensors are missing, unexpected or misshapen; the first few are named.
    """
    config = _config(state)
    with torch.device("meta"):
        model = build(config)
    config.image_encoder_config = model.config.image_encoder_config
    unused = ["head.fpn.", "head.attn_fc.", *(f"vggish.{name}" for name in VGGISH_UNUSED)]
    if config.image_encoder == "resnet50":
        unused += ["backbone.layer3_2.", "backbone.layer4_2.", "backbone.fc."]
    if config.neighbouring_frames:
        unused += ["head.flownet.fc.", *(f"head.flownet.layer{stage}." for stage in (2, 3, 4))]
    return config, adopt(state, model.state_dict(), source, _names(config.image_encoder), tuple(unused))


def _config(state: dict[str, Tensor]) -> ModelConfig:
    motion = any(name.startswith("head.flownet.") for name in state)
    bias = any(re.match(r"head\.query_generator\..*_attn\.in_proj_bias$", name) for name in state)
    return ModelConfig(
        base="avsegformer",
        image_encoder="pvt_v2_b5" if any(name.startswith("backbone.patch_embed") for name in state) else "resnet50",
        audio_encoder="vggish",
        neighbouring_frames=motion,
        flow_fusion="normalised",
        flow_stages=1,
        # Frames are independent: with UFE one labelled frame at a time was trained on, without, whole clips.
        frames_per_clip=1 if motion else 5,
        options={"generator_bias": bias, "dice": "squared"},
        inputs=InputConfig(flow_encoding="published", front_end="avsbench"),
    )


_RULES = (
    (r"^audio_encoder\.", "vggish."),
    (r"^audio_projection\.", "audio_proj."),
    (r"^project\.", "head.in_proj."),
    (r"^queries$", "head.learnable_query.weight"),
    # The query generator.
    (r"^query_generator\.queries$", "head.query_generator.query.weight"),
    (r"^query_generator\.(.*)\.audio_attention\.value\.", r"query_generator.\1.cross_attn.in_proj_"),
    (r"^query_generator\.(.*)\.audio_attention\.output\.", r"query_generator.\1.cross_attn.out_proj."),
    (r"^query_generator\.(.*)\.feed_forward\.0\.", r"query_generator.\1.ffn.0."),
    (r"^query_generator\.(.*)\.feed_forward\.3\.", r"query_generator.\1.ffn.2."),
    (r"^query_generator\.", "head.query_generator."),
    # The transformer.
    (r"^encoder\.level_embedding$", "head.level_embed"),
    (r"^encoder\.", "head.transformer.encoder."),
    (r"^decoder\.", "head.transformer.decoder.layers."),
    (r"\.attention\.offsets\.", ".self_attn.sampling_offsets."),
    (r"\.attention\.weights\.", ".self_attn.attention_weights."),
    (r"\.attention\.(value|output)\.", r".self_attn.\1_proj."),
    (r"\.self_attention\.", ".self_attn."),
    (r"\.pixel_attention\.", ".cross_attn."),
    (r"_attn\.input\.", "_attn.in_proj_"),
    (r"_attn\.output\.", "_attn.out_proj."),
    (r"\.feed_forward\.0\.", ".linear1."),
    (r"\.feed_forward\.3\.", ".linear2."),
    # Masks.
    (r"^mask_feature\.lateral\.", "head.lateral_conv."),
    (r"^mask_feature\.output\.", "head.out_conv."),
    (r"^mixer\.query\.", "head.fusion_block.q_proj."),
    (r"^mixer\.(key|value)\.", "head.fusion_block.kv_proj."),
    (r"^mixer\.output\.", "head.fusion_block.proj."),
    (r"^mask_head\.output1\.", "head.fc.0."),
    (r"^mask_head\.output2\.", "head.fc.2."),
    (r"^mask_head\.output3\.", "head.fc.4."),
    # Motion.
    (r"^motion\.encoder\.", "head.flownet."),
    (r"\.branches\.", ".conv2d_list."),
)


def _names(image_encoder: str) -> Names:
    def names(name: str) -> Origin:
        origin = published_backbone(name, image_encoder, resnet="backbone.", pvt="backbone.")
        if origin is not None:
            return origin
        part, parts = {"mixer.key.weight": 0, "mixer.value.weight": 1}.get(name), 2
        if ".audio_attention.value." in name:
            # One token of sound needs no queries and keys: of the three only the values matter.
            part, parts = 2, 3
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        # Maps of ours count from zero, theirs from one; with convolutions of the mask head it is the other way round.
        name = re.sub(r"^motion\.refine\.(\d)\.", lambda found: f"head.conv{int(found[1]) + 1}_flow.", name)
        name = re.sub(r"^mask_head\.conv(\d)\.", lambda found: f"head.mlp.layers.{int(found[1]) - 1}.", name)
        return Origin(name, part, parts)

    return names
