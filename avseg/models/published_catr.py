"""CATR's checkpoints: their authors' names of its tensors, and what of them its program stores and never uses."""

import re
from pathlib import Path

from torch import Tensor

from avseg.config import InputConfig, ModelConfig
from avseg.models.foreign import Names, Origin, adopt, published_backbone
from avseg.models.published import hollow, without_audio_encoder


def published_catr(state: dict[str, Tensor], source: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """CATR as its authors' program saves it.

    Args:
        state: In the published names, as `avseg.models.weights.read_state` gives it.
        source: The file, for messages.

    Returns:
        The configuration, and all weights but the audio encoder's, which such a file does not hold, in our names.

    Raises:
        AvsegError: tensors are missing, unexpected or misshapen; the first few are named.
    """
    config = ModelConfig(
        base="catr",
        image_encoder="resnet50" if any(name.startswith("resnet.") for name in state) else "pvt_v2_b5",
        audio_encoder="vggish",
        neighbouring_frames=False,
        frames_per_clip=5,
        # Its authors enlarge frames to 448 and judge masks at 224.
        inputs=InputConfig(image_size=224, model_size=448, front_end="avsbench"),
    )
    wanted = without_audio_encoder(hollow(config))
    return config, adopt(state, wanted, source, _names(config.image_encoder), _UNUSED)


_TEMPORAL = "transformer.temporal_encoder."
_UNUSED = (
    "conv1.",  # of the finest map, which nothing reads
    "fusion_module.",
    *(f"path{step}." for step in (1, 2, 3, 4)),
    *(f"{_TEMPORAL}{which}_atten." for which in ("av", "va")),
    *(f"{_TEMPORAL}layers.{layer}.{which}_atten.vid_embed_proj." for layer in (0, 1, 2) for which in ("av", "va")),
    f"{_TEMPORAL}layers.2.va_atten.",
    "resnet.fc.",
    "resnet.layer3_2.",
    "resnet.layer4_2.",
)
_RULES = (
    (r"\.branches\.", ".conv2d_list."),
    (r"^pixels\.", "vid_embed_proj."),
    (r"^sounds\.0\.", "transformer.audio_proj.fc."),
    (r"^sounds\.1\.", "transformer.audio_proj.layer_norm."),
    (r"^spatial\.", "transformer.spatial_encoder.layers."),
    (r"^temporal\.", f"{_TEMPORAL}layers."),
    (r"\.within\.", "."),
    (r"\.to_pixels\.", ".av_atten.multihead_attn."),
    (r"\.to_sounds\.", ".va_atten.multihead_attn."),
    (r"^join\.gate\.", f"{_TEMPORAL}attention_feature.0."),
    (r"^join\.second\.", f"{_TEMPORAL}output1."),
    (r"^join\.third\.", f"{_TEMPORAL}output2."),
    (r"^queries$", "obj_queries.weight"),
    (r"^decoder_norm\.", "transformer.decoder.norm."),
    (r"^decoder\.", "transformer.decoder.layers."),
    (r"\.self_attention\.", ".self_attn."),
    (r"\.token_attention\.", ".multihead_attn."),
    (r"_attn\.input\.", "_attn.in_proj_"),
    (r"_attn\.output\.", "_attn.out_proj."),
    (r"\.feed_forward\.0\.", ".linear1."),
    (r"\.feed_forward\.3\.", ".linear2."),
    (r"^mask_feature\.coarse\.", "spatial_decoder.adapter1."),
    (r"^mask_feature\.fine\.", "spatial_decoder.adapter2."),
    (r"^mask_feature\.output\.", "spatial_decoder.out_lay."),
    (r"^kernels\.0\.", "instance_kernels_head.layers.0."),
    (r"^kernels\.2\.", "instance_kernels_head.layers.1."),
    (r"^score\.", "is_referred_head."),
)


def _names(image_encoder: str) -> Names:
    def names(name: str) -> Origin:
        origin = published_backbone(name, image_encoder, resnet="resnet.", pvt="encoder_backbone.")
        if origin is not None:
            return origin
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        # The first map of ours is their second; layers of ours count from zero, theirs from one.
        name = re.sub(r"^project\.(\d)\.", lambda found: f"conv{int(found[1]) + 2}.", name)
        return Origin(
            re.sub(
                r"^mask_feature\.layers\.(\d)\.([01])\.",
                lambda found: f"spatial_decoder.{('lay', 'gn')[int(found[2])]}{int(found[1]) + 1}.",
                name,
            )
        )

    return names
