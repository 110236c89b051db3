"""Checkpoints that the papers' authors published, recognised by their names and brought into ours by tables."""

import re
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from avseg.config import InputConfig, ModelConfig
from avseg.errors import AvsegError
from avseg.models.audio import VGGISH_UNUSED, VGGish
from avseg.models.base import build
from avseg.models.encoders import build_image_encoder
from avseg.models.foreign import Names, Origin, adopt, published_backbone, pvt_authors, torchvision_resnet
from avseg.models.motion import FlowEncoder, two_channel_stem

Kind = Literal["tpavi", "avsegformer", "vggish", "resnet50", "resnet18", "pvt_v2_b5"]


def recognise(state: dict[str, Tensor], source: str | Path) -> Kind:
    """Which published model a state dict is: a base model, ``vggish``, or an encoder of images or flow.

    Beginnings of names decide, so that a file that lacks some is still told what it lacks.

    Raises:
        AvsegError: none of them.
    """

    def has(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in state)

    if has(r"tpavi_b\d\."):
        return "tpavi"
    if is_avsegformer(state):
        return "avsegformer"
    if has(r"features\.\d") and has(r"embeddings\.\d"):
        return "vggish"
    if has(r"layer\d\.\d+\.conv\d\."):
        return "resnet50" if has(r"layer\d\.\d+\.conv3\.") else "resnet18"
    if has(r"patch_embed\d\."):
        return "pvt_v2_b5"
    first = ", ".join(list(state)[:3])
    raise AvsegError(
        f"{source} is not a checkpoint that is known here (it begins with {first}): give one of TPAVI, AVSegFormer, "
        "VGGish, PVT-v2-b5, or torchvision's ResNet-50 or ResNet-18."
    )


def published_tpavi(state: dict[str, Tensor], source: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """TPAVI as its authors or UFE's published it.

    Args:
        state: In the published names, as `avseg.models.weights.read_state` gives it.
        source: The file, for messages.

    Returns:
        The configuration, and all weights but the audio encoder's, which such a file does not hold, in our names.

    Raises:
        AvsegError: tensors are missing, unexpected or misshapen; the first few are named.
    """
    config = _tpavi_config(state)
    with torch.device("meta"):
        model = build(config)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("audio_encoder.")}
    config.image_encoder_config = model.config.image_encoder_config
    unused = ["path4.resConfUnit1."]
    if config.image_encoder == "resnet50":
        unused += ["resnet.layer3_2.", "resnet.layer4_2.", "resnet.fc."]
    if config.neighbouring_frames:
        unused += ["flownet.fc."] + [f"flownet.layer{stage}." for stage in range(config.flow_stages + 1, 5)]
    return config, adopt(state, wanted, source, _tpavi_names(config.image_encoder), tuple(unused))


def published_vggish(state: dict[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """VGGish's published weights, to complete a TPAVI: under the names that a model's state dict gives them.

    Raises:
        AvsegError: tensors are missing, unexpected or misshapen; the first few are named.
    """
    ours = published_encoder(state, source, "vggish")
    return {f"audio_encoder.{name}": tensor for name, tensor in ours.items()}


def published_encoder(state: dict[str, Tensor], source: str | Path, kind: Kind) -> dict[str, Tensor]:
    """An encoder's published weights in the names of ours, for a section ``weights`` to start from.

    Args:
        state: In the published names.
        source: The file, for messages.
        kind: ``vggish``; ``resnet50`` or ``pvt_v2_b5``, of images; ``resnet18``, of flow, whose stem is averaged to
            two channels.

    Raises:
        AvsegError: tensors are missing, unexpected or misshapen; the first few are named.
    """
    names: Names = Origin
    unused: tuple[str, ...] = ("fc.",)
    module: nn.Module
    with torch.device("meta"):
        if kind == "vggish":
            module, unused = VGGish(), VGGISH_UNUSED
        elif kind == "resnet18":
            module, state = FlowEncoder(stages=4), two_channel_stem(state)
        else:
            module = build_image_encoder(ModelConfig(image_encoder=kind), None).get_submodule("backbone")
            names = torchvision_resnet if kind == "resnet50" else pvt_authors
            unused = ("fc.",) if kind == "resnet50" else ("head.",)
    return adopt(state, module.state_dict(), source, names, unused)


def _tpavi_config(state: dict[str, Tensor]) -> ModelConfig:
    motion = any(name.startswith("flownet.") or "_flow." in name for name in state)
    return ModelConfig(
        base="tpavi",
        image_encoder="pvt_v2_b5" if any(name.startswith("encoder_backbone.") for name in state) else "resnet50",
        audio_encoder="vggish",
        neighbouring_frames=motion,
        flow_fusion="normalised",
        flow_stages=4 if _reads_every_stage(state) else 1,
        # With UFE, one labelled frame at a time; without, whole clips.
        frames_per_clip=1 if motion else 5,
        inputs=InputConfig(flow_encoding="published", front_end="avsbench"),
    )


def _reads_every_stage(state: dict[str, Tensor]) -> bool:
    """Whether each scale's refinement of flow reads a stage of its own, told by the channels that it takes."""
    found = ((re.match(r"conv([2-4])_flow\..*weight$", name), tensor) for name, tensor in state.items())
    return any(scale and tensor.ndim == 4 and tensor.shape[1] == 32 << int(scale[1]) for scale, tensor in found)


_TPAVI = (
    (r"^output\.conv1\.", "output_conv.0."),
    (r"^output\.conv2\.", "output_conv.2."),
    (r"^output\.conv3\.", "output_conv.4."),
    (r"\.lateral\.", ".resConfUnit1."),
    (r"\.refine\.(conv\d)", r".resConfUnit2.\1"),
    (r"\.branches\.", ".conv2d_list."),
    (r"^(fusion\.stage\d)\.audio\.", r"\1.align_channel."),
    (r"^(fusion\.stage\d)\.norm\.", r"\1.norm_layer."),
    (r"^(fusion\.stage\d)\.out\.", r"\1.W_z.0."),
    (r"^(fusion\.stage\d)\.out_norm\.", r"\1.W_z.1."),
    (r"^fusion\.stage(\d)\.", r"tpavi_b\1."),
    (r"^motion\.encoder\.", "flownet."),
)


def _tpavi_names(image_encoder: str) -> Names:
    def names(name: str) -> Origin:
        origin = published_backbone(name, image_encoder, resnet="resnet.", pvt="encoder_backbone.")
        if origin is not None:
            return origin
        for pattern, replacement in _TPAVI:
            name = re.sub(pattern, replacement, name)
        # Lists of ours count from zero, theirs from one.
        name = re.sub(r"^project\.(\d)\.", lambda found: f"conv{int(found[1]) + 1}.", name)
        name = re.sub(r"^paths\.(\d)\.", lambda found: f"path{int(found[1]) + 1}.", name)
        name = re.sub(r"^motion\.refine\.(\d)\.", lambda found: f"conv{int(found[1]) + 1}_flow.", name)
        return Origin(name)

    return names


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
    config = _avsegformer_config(state)
    with torch.device("meta"):
        model = build(config)
    config.image_encoder_config = model.config.image_encoder_config
    unused = ["head.fpn.", "head.attn_fc.", *(f"vggish.{name}" for name in VGGISH_UNUSED)]
    if config.image_encoder == "resnet50":
        unused += ["backbone.layer3_2.", "backbone.layer4_2.", "backbone.fc."]
    if config.neighbouring_frames:
        unused += ["head.flownet.fc.", *(f"head.flownet.layer{stage}." for stage in (2, 3, 4))]
    return config, adopt(state, model.state_dict(), source, _avsegformer_names(config.image_encoder), tuple(unused))


def _avsegformer_config(state: dict[str, Tensor]) -> ModelConfig:
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


_AVSEGFORMER = (
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


def _avsegformer_names(image_encoder: str) -> Names:
    def names(name: str) -> Origin:
        origin = published_backbone(name, image_encoder, resnet="backbone.", pvt="backbone.")
        if origin is not None:
            return origin
        part, parts = {"mixer.key.weight": 0, "mixer.value.weight": 1}.get(name), 2
        if ".audio_attention.value." in name:
            # One token of sound needs no queries and keys: of the three only the values matter.
            part, parts = 2, 3
        for pattern, replacement in _AVSEGFORMER:
            name = re.sub(pattern, replacement, name)
        # Maps of ours count from zero, theirs from one; with convolutions of the mask head it is the other way round.
        name = re.sub(r"^motion\.refine\.(\d)\.", lambda found: f"head.conv{int(found[1]) + 1}_flow.", name)
        name = re.sub(r"^mask_head\.conv(\d)\.", lambda found: f"head.mlp.layers.{int(found[1]) - 1}.", name)
        return Origin(name, part, parts)

    return names
