"""Folded models: the same answers from fewer modules, and the original untouched."""

import pytest
import torch
from torch import Tensor, nn

from avseg.config import InputConfig, ModelConfig, WeightsConfig
from avseg.models import AVSModel, build
from avseg.models.folding import fold_norms

RANDOM = WeightsConfig(image="none", audio="none", flow="none")


def trained(**changes: object) -> AVSModel:
    """A model whose norms have statistics and scales of their own."""
    config = ModelConfig(
        width=16,
        dilations=(1, 3),
        audio_encoder="cnn",
        neighbouring_frames=True,
        inputs=InputConfig(image_size=64),
        **changes,  # type: ignore[arg-type]
    )
    model = build(config, RANDOM, seed=0)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            for item in (module.weight, module.bias, module.running_mean, module.running_var):
                assert isinstance(item, Tensor)
                item.data = torch.rand(item.shape, generator=generator) + 0.5
    return model.double().eval()


SMALL = {"queries": 8, "heads": 4, "feedforward": 16, "generator_feedforward": 16, "mask_hidden": 16}
RESNET = {"model_type": "resnet", "depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40], "embedding_size": 8}


@pytest.mark.parametrize(
    "changes",
    [
        {"image_encoder": "efficientnet_lite0"},
        {"image_encoder": "resnet50", "image_encoder_config": RESNET},
        {"image_encoder": "efficientnet_lite0", "base": "avsegformer", "options": SMALL},
    ],
    ids=["tpavi", "resnet", "avsegformer"],
)
@torch.no_grad()
def test_answers_the_same_with_fewer_norms(changes: dict[str, object]) -> None:
    model = trained(**changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_norms(model)
    frames, audio = torch.randn(2, 1, 3, 64, 64).double(), torch.randn(2, 1, 128).double()
    flow = torch.randn(2, 1, 2, 64, 64).double()
    expected = model(frames, audio, flow).logits
    torch.testing.assert_close(folded(frames, audio, flow).logits, expected, rtol=1e-9, atol=1e-9)

    def norms(model: nn.Module) -> int:
        return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())

    assert norms(folded) <= norms(model) // 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@torch.no_grad()
def test_norms_without_a_convolution_before_them_stay() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 3, 5, 5)
    folded = fold_norms(layers)
    assert isinstance(folded[0], nn.BatchNorm2d)
    assert isinstance(folded[3], nn.BatchNorm2d)
    torch.testing.assert_close(folded(x), layers(x))
