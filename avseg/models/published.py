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

Kind = Literal["tpavi", "avsegformer", "ecmvae", "catr", "sama", "vggish", "resnet50", "resnet18", "pvt_v2_b5"]


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
    if has(r"(mm_vae_model|cvae_model)\."):
        return "ecmvae"
    if has(r"transformer\.temporal_encoder\."):
        return "catr"
    if has(r"image_encoder\.prompt_generator\."):
        return "sama"
    if has(r"features\.\d") and has(r"embeddings\.\d"):
        return "vggish"
    if has(r"layer\d\.\d+\.conv\d\."):
        return "resnet50" if has(r"layer\d\.\d+\.conv3\.") else "resnet18"
    if has(r"patch_embed\d\."):
        return "pvt_v2_b5"
    first = ", ".join(list(state)[:3])
    raise AvsegError(
        f"{source} is not a checkpoint that is known here (it begins with {first}): give one of TPAVI, AVSegFormer, "
        "ECMVAE, CATR, SAMA-AVS, VGGish, PVT-v2-b5, or torchvision's ResNet-50 or ResNet-18."
    )


def hollow(config: ModelConfig) -> dict[str, Tensor]:
    """Names and shapes of the model that ``config`` describes, whose image encoder's values are written into it."""
    with torch.device("meta"):
        model = build(config)
    config.image_encoder_config = model.config.image_encoder_config
    return model.state_dict()


def without_audio_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What of ``state`` a checkpoint without its own audio encoder holds."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("audio_encoder.")}


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
    wanted = without_audio_encoder(hollow(config))
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
    wanted = hollow(config)
    unused = ["head.fpn.", "head.attn_fc.", *(f"vggish.{name}" for name in VGGISH_UNUSED)]
    if config.image_encoder == "resnet50":
        unused += ["backbone.layer3_2.", "backbone.layer4_2.", "backbone.fc."]
    if config.neighbouring_frames:
        unused += ["head.flownet.fc.", *(f"head.flownet.layer{stage}." for stage in (2, 3, 4))]
    return config, adopt(state, wanted, source, _avsegformer_names(config.image_encoder), tuple(unused))


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


def published_ecmvae(state: dict[str, Tensor], source: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """ECMVAE as its authors' program saves it, the posterior's weights too, which training goes on with.

    Args:
        state: In the published names, as `avseg.models.weights.read_state` gives it.
        source: The file, for messages.

    Returns:
        The configuration, and all weights but the audio encoder's, which such a file does not hold, in our names.

    Raises:
        AvsegError: an ablation that is not built here, or tensors that are missing, unexpected or misshapen; the first
            few are named.
    """
    for sign, variant in _OTHER_ECMVAES:
        if any(re.match(sign, name) for name in state):
            raise AvsegError(f"{source} is an ECMVAE {variant}, which is not built here: give the model of the paper.")
    config = _ecmvae_config(state)
    wanted = without_audio_encoder(hollow(config))
    unused = ("audio_neck.", *(f"decoder_{path}.fusion_block_1.resConfUnit1." for path in ("prior", "post")))
    return config, adopt(state, wanted, source, _ecmvae_names(config.image_encoder), unused)


_OTHER_ECMVAES = (
    (r"cvae_model\.", "of images alone"),
    (r"mm_vae_model\.sc_prior\.", "without factorised latents"),
    (r"encoder\.patch_embed\.", "with a Swin transformer"),
    (r"neck_prior\.conv_list\.0\.conv2d_list\.", "with dilated necks"),
    (r"decoder_prior\.(short_connect|racb_)", "with another decoder"),
    (r"fusion_modules\.0\.conv1\.", "with another fusion"),
)


def _ecmvae_config(state: dict[str, Tensor]) -> ModelConfig:
    def shape(name: str, axis: int, default: int) -> int:
        tensor = state.get(f"mm_vae_model.{name}.weight")
        return tensor.shape[axis] if tensor is not None and tensor.ndim > axis else default

    return ModelConfig(
        base="ecmvae",
        width=128,
        image_encoder="pvt_v2_b5" if any(name.startswith("encoder.patch_embed1.") for name in state) else "resnet50",
        audio_encoder="vggish",
        neighbouring_frames=False,
        frames_per_clip=5,
        options={
            "latent_size": shape("sc1_prior", 0, 16),
            "mutual_size": shape("ba_lower_bound_mu_prior", 0, 6),
        },
        # Five halvings, then 128 channels of all that is left.
        inputs=InputConfig(
            image_size=32 * max(round((shape("enc_vs.fc1", 1, 6272) / 128) ** 0.5), 1), front_end="avsbench"
        ),
    )


_ECMVAE = (
    (r"\.(own|heard|shared)\.mean\.", r".\1.fc1."),
    (r"\.(own|heard|shared)\.logvar\.", r".\1.fc2."),
    (r"\.(own|heard|shared)\.image\.", r".\1.fc_gt_vector."),
    (r"^prior\.own\.", "mm_vae_model.enc_vs."),
    (r"^prior\.heard\.", "mm_vae_model.enc_as."),
    (r"^prior\.shared\.", "mm_vae_model.enc_vac."),
    (r"^posterior\.own\.", "mm_vae_model.enc_vs_y."),
    (r"^posterior\.heard\.", "mm_vae_model.enc_as_y."),
    (r"^posterior\.shared\.", "mm_vae_model.enc_vac_y."),
    (r"^(prior|posterior)\.codes\.visual\.", r"mm_vae_model.sc1_\1."),
    (r"^(prior|posterior)\.codes\.audible\.", r"mm_vae_model.sc2_\1."),
    (r"^posterior\.", "post."),  # as every other name says it
    (r"^(prior|post)\.codes\.mix\.", r"mm_vae_model.noise_model_\1.noise_conv."),
    (r"^(prior|post)\.codes\.mutual_mean\.", r"mm_vae_model.ba_lower_bound_mu_\1."),
    (r"^(prior|post)\.codes\.mutual_logvar\.", r"mm_vae_model.ba_lower_bound_logvar_\1."),
    (r"^(prior|post)\.codes\.mutual_sound\.", r"mm_vae_model.ba_lower_bound_sc_a_\1."),
    (r"^(prior|post)\.(neck|decoder)\.", r"\2_\1."),
    (r"^fusion\.", "fusion_modules."),
    (r"\.out\.", ".W_z.0."),
    (r"\.out_norm\.", ".W_z.1."),
    (r"^(fusion_modules\.\d)\.norm\.", r"\1.norm_layer."),
    (r"\.(conv|norm)([12])\.(weight|bias|running_mean|running_var|num_batches_tracked)$", r".ConvBNReLU\2.\1.\3"),
    (r"^(decoder_\w+)\.ConvBNReLU1\.conv\.", r"\1.head_up_2.output_conv.0."),
    (r"^(decoder_\w+)\.ConvBNReLU2\.conv\.", r"\1.head_up_2.output_conv.2."),
    (r"^(decoder_\w+)\.conv3\.", r"\1.head_up_2.output_conv.4."),
)


def _ecmvae_names(image_encoder: str) -> Names:
    def names(name: str) -> Origin:
        origin = published_backbone(name, image_encoder, resnet="encoder.", pvt="encoder.", copies=False)
        if origin is not None:
            return origin
        for pattern, replacement in _ECMVAE:
            name = re.sub(pattern, replacement, name)
        # Three layers to a step of a sequence of ours (convolution, norm, leaky ReLU), two to one of a neck.
        name = re.sub(
            r"\.convolutions\.(\d+)\.",
            lambda found: f".{('layer', 'bn')[int(found[1]) % 3]}{int(found[1]) // 3 + 1}.",
            name,
        )
        name = re.sub(
            r"^(neck_\w+)\.(\d)\.(\d)\.",
            lambda found: (
                f"{found[1]}.conv_list.{found[2]}.reduce.{int(found[3]) // 2}.{('conv', 'norm')[int(found[3]) % 2]}."
            ),
            name,
        )
        # Theirs count from the coarsest scale.
        return Origin(
            re.sub(
                r"\.(laterals|refine)\.(\d)\.",
                lambda found: f".fusion_block_{4 - int(found[2])}.resConfUnit{1 if found[1] == 'laterals' else 2}.",
                name,
            )
        )

    return names
