"""Image encoders: four maps, weights under anyone's names, and no network where none is needed."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.reference import Reference
from torch import Tensor

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models import build, load
from avseg.models.encoders import HuggingFaceEncoder, build_image_encoder, channels_of
from avseg.models.foreign import adopt, pvt_authors, torchvision_resnet

RANDOM = WeightsConfig(image="none", audio="none", flow="none")


def tiny_convnext(folder: Path) -> Path:
    """A folder as transformers saves a classifier: its backbone's weights carry a prefix."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], num_labels=3)
    ConvNextForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("efficientnet_lite0", (24, 40, 112, 320)),
        ("resnet50", (256, 512, 1024, 2048)),
        ("pvt_v2_b5", (64, 128, 320, 512)),
    ],
)
def test_channels_and_strides(name: str, channels: tuple[int, ...]) -> None:
    encoder = build_image_encoder(ModelConfig(image_encoder=name), RANDOM).eval()
    assert channels_of(encoder) == channels
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, 64, 96))
    assert [tuple(item.shape[1:]) for item in maps] == [
        (count, 64 // stride, 96 // stride) for count, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_any_backbone_by_folder_with_its_own_weights(tmp_path: Path) -> None:
    from transformers import ConvNextBackbone

    folder = tiny_convnext(tmp_path / "convnext")
    encoder = build_image_encoder(ModelConfig(image_encoder=str(folder)), WeightsConfig()).eval()
    theirs = ConvNextBackbone.from_pretrained(folder, out_indices=[1, 2, 3, 4]).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for ours, expected in zip(encoder(images), theirs(images).feature_maps, strict=True):
            torch.testing.assert_close(ours, expected)


def test_saved_model_needs_neither_the_hub_nor_the_folder(tmp_path: Path, no_network: None) -> None:
    folder = tiny_convnext(tmp_path / "convnext")
    config = ModelConfig(image_encoder=str(folder), audio_encoder="cnn", width=16, dilations=(1, 2))
    model = build(config, RANDOM, seed=0).eval()
    model.save_pretrained(tmp_path / "saved")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    again = load(tmp_path / "saved")
    frames, audio = torch.randn(1, 1, 3, 64, 64), torch.randn(1, 1, 128)
    with torch.no_grad():
        assert torch.equal(again(frames, audio).logits, model(frames, audio).logits)


@pytest.mark.parametrize("name", ["resnet50", "pvt_v2_b5"])
def test_weights_out_of_reach_say_what_to_download(
    name: str, no_network: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(AvsegError) as refusal:
        build_image_encoder(ModelConfig(image_encoder=name), WeightsConfig())
    for part in ("https://huggingface.co/", ".pth", "weights.image=FILE", "weights.image=none"):
        assert part in str(refusal.value)


def test_unknown_encoder(no_network: None) -> None:
    with pytest.raises(AvsegError, match=r"model\.image_encoder 'nobody/nothing' is neither efficientnet_lite0"):
        build_image_encoder(ModelConfig(image_encoder="nobody/nothing"), RANDOM)


def test_backbone_without_four_strides_is_refused(tmp_path: Path) -> None:
    from transformers import Dinov2Config

    Dinov2Config(hidden_size=12, num_hidden_layers=4, num_attention_heads=2, image_size=28).save_pretrained(tmp_path)
    with pytest.raises(AvsegError, match="strides 4, 8, 16 and 32"):
        build_image_encoder(ModelConfig(image_encoder=str(tmp_path)), RANDOM)


def part_of(reference: str, prefix: str, renames: dict[str, str]) -> dict[str, Tensor]:
    """An image encoder's share of a published checkpoint, as that encoder alone is published."""
    state = {}
    for name, tensor in Reference(reference).hollow_state().items():
        if name.startswith(prefix) and "_2." not in name:
            name = name.removeprefix(prefix)
            for old, new in renames.items():
                name = name.replace(old, new)
            state[name] = tensor
    return state


def test_every_tensor_of_torchvision_and_of_pvt_has_its_place() -> None:
    with torch.device("meta"):
        resnet = build_image_encoder(ModelConfig(image_encoder="resnet50"), None)
        pvt = build_image_encoder(ModelConfig(image_encoder="pvt_v2_b5"), None)
    assert isinstance(resnet, HuggingFaceEncoder)
    assert isinstance(pvt, HuggingFaceEncoder)
    torchvision = part_of("tpavi_resnet50_n5t5", "resnet.", {"layer3_1": "layer3", "layer4_1": "layer4"})
    wanted = resnet.backbone.state_dict()
    assert set(adopt(torchvision, wanted, "a", torchvision_resnet)) == set(wanted)
    authors = part_of("ufe_tpavi_pvt_n2t1", "encoder_backbone.", {})
    wanted = pvt.backbone.state_dict()
    assert set(adopt(authors, wanted, "a", pvt_authors)) == set(wanted)


def test_torchvision_file_loads_and_its_faults_are_named(tmp_path: Path) -> None:
    state = part_of("tpavi_resnet50_n5t5", "resnet.", {"layer3_1": "layer3", "layer4_1": "layer4"})
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in state.items()}
    state |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    state["layer2.1.conv2.weight"].fill_(0.5)
    config, file = ModelConfig(image_encoder="resnet50"), tmp_path / "resnet50.pth"
    torch.save(state, file)
    encoder = build_image_encoder(config, WeightsConfig(image=str(file)))
    loaded = encoder.state_dict()["backbone.encoder.stages.1.layers.1.layer.1.convolution.weight"]
    assert torch.all(loaded == 0.5)
    state["layer5.weight"] = state.pop("layer1.0.bn3.running_var")
    torch.save(state, file)
    with pytest.raises(AvsegError) as refusal:
        build_image_encoder(config, WeightsConfig(image=str(file)))
    assert "layer1.0.bn3.running_var is missing; layer5.weight is unexpected" in str(refusal.value)
