"""Checkpoints that the papers' authors published, recognised by their names and shapes and brought into ours."""

import re
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from avseg.config import InputConfig, ModelConfig
from avseg.errors import AvsegError
from avseg.models.base import build
from avseg.models.foreign import Names, Origin, adopt, pvt_authors, torchvision_resnet
from avseg.models.published_avsegformer import is_avsegformer, published_avsegformer
from avseg.models.vggish import VGGISH_UNUSED, VGGish

__all__ = ["Kind", "published_avsegformer", "published_tpavi", "published_vggish", "recognise"]

Kind = Literal["tpavi", "avsegformer", "vggish", "resnet50", "pvt_v2_b5"]


def recognise(state: dict[str, Tensor], source: str | Path) -> Kind:
    """Which published model a state dict is: a base model, ``vggish``, or the encoders ``resnet50`` and ``pvt_v2_b5``.

    Raises:
        AvsegError: none of them.
    """
    if "tpavi_b1.theta.weight" in state or "tpavi_b4.theta.weight" in state:
        return "tpavi"
    if is_avsegformer(state):
        return "avsegformer"
    if "features.0.weight" in state and "embeddings.0.weight" in state:
        return "vggish"
    if "bn1.weight" in state and "layer4.0.conv3.weight" in state:
        return "resnet50"
    if "patch_embed1.proj.weight" in state:
        return "pvt_v2_b5"
    first = ", ".join(list(state)[:3])
    raise AvsegError(
        f"{source} is not a checkpoint that is known here (it begins with {first}): give one of TPAVI, AVSegFormer, "
        "VGGish, torchvision's ResNet-50 or PVT-v2-b5."
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
    with torch.device("meta"):
        wanted = VGGish().state_dict()
    ours = adopt(state, wanted, source, unused=VGGISH_UNUSED)
    return {f"audio_encoder.{name}": tensor for name, tensor in ours.items()}


def _tpavi_config(state: dict[str, Tensor]) -> ModelConfig:
    motion = "flownet.conv1.weight" in state
    second = state.get("conv2_flow.conv2d_list.0.weight")
    return ModelConfig(
        base="tpavi",
        image_encoder="pvt_v2_b5" if "encoder_backbone.patch_embed1.proj.weight" in state else "resnet50",
        audio_encoder="vggish",
        neighbouring_frames=motion,
        flow_fusion="normalised",
        flow_stages=4 if second is not None and second.ndim == 4 and second.shape[1] == 128 else 1,
        # With UFE, one labelled frame at a time; without, whole clips.
        frames_per_clip=1 if motion else 5,
        inputs=InputConfig(flow_encoding="published"),
    )


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
        backbone = "image_encoder.backbone."
        if name.startswith(backbone):
            name = name.removeprefix(backbone)
            if image_encoder == "pvt_v2_b5":
                origin = pvt_authors(name)
                return Origin(f"encoder_backbone.{origin.name}", origin.half)
            # The published network has two copies of stages 3 and 4, of which the first is used.
            return Origin("resnet." + re.sub(r"^layer([34])\.", r"layer\1_1.", torchvision_resnet(name).name))
        for pattern, replacement in _TPAVI:
            name = re.sub(pattern, replacement, name)
        # Lists of ours count from zero, theirs from one.
        name = re.sub(r"^project\.(\d)\.", lambda found: f"conv{int(found[1]) + 1}.", name)
        name = re.sub(r"^paths\.(\d)\.", lambda found: f"path{int(found[1]) + 1}.", name)
        name = re.sub(r"^motion\.refine\.(\d)\.", lambda found: f"conv{int(found[1]) + 1}_flow.", name)
        return Origin(name)

    return names
