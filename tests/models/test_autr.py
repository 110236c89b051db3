"""Our reading of AuTR: every option hears the sound, weights learn, frames are independent of each other."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from avseg.config import InputConfig, ModelConfig
from avseg.errors import AvsegError
from avseg.models import build
from avseg.models.autr import AuTR

OPTIONS = list(product(["gate", "add"], ["sum", "concatenation", "none"]))


def tiny(**options: Any) -> AuTR:
    few = {"queries": 5, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 2, "points": 2}
    config = ModelConfig(
        base="autr",
        width=16,
        dilations=(1,),
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        neighbouring_frames=True,
        options={**few, "dropout": 0.0, **options},
        inputs=InputConfig(image_size=64),
    )
    built = build(config, seed=0)
    assert isinstance(built, AuTR)
    return built


def example(times: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, times, 3, 64, 64), (2, times, 128), (2, times, 2, 64, 64)]
    frames, audio, flow = (torch.randn(shape, generator=generator) for shape in shapes)
    return frames, audio, flow


@pytest.mark.parametrize(("fusion", "query_sound"), OPTIONS)
def test_every_option_hears_and_every_weight_learns(fusion: str, query_sound: str) -> None:
    model = tiny(fusion=fusion, query_sound=query_sound)
    frames, audio, flow = example()
    with torch.no_grad():
        model.motion.gain.fill_(0.5)  # type: ignore[union-attr]  # flow starts unheard
        model.eval()
        said = model(frames, audio, flow)
        assert said.logits.shape == (2, 1, 1, 64, 64)
        assert (model(frames, -audio, flow).logits - said.logits).abs().max() > 1e-5
        assert (model(frames, audio, -flow).logits - said.logits).abs().max() > 1e-5
    model.train()
    masks = (torch.arange(64) > 24).float().expand(2, 1, 1, 64, 64)
    terms = model.loss(model(frames, audio, flow), masks, torch.ones_like(masks, dtype=torch.bool))
    assert set(terms) == {"score", "dice", "bce"}
    torch.stack(list(terms.values())).sum().backward()
    weights = {name: w for name, w in model.named_parameters() if not name.startswith(("audio_encoder.", "image_enc"))}
    assert [name for name, weight in weights.items() if weight.grad is None] == []
    still = {name for name, weight in weights.items() if not weight.grad.abs().sum() and "bias" not in name}  # type: ignore[union-attr]
    # A deformable attention chooses by weights that start as zeros: what they are multiplied with learns a step later.
    assert {name for name in still if ".attention." not in name} <= {"encoder.level_embedding"}


def test_frames_are_independent_and_confident_for_themselves() -> None:
    model = tiny().eval()
    frames, audio, flow = example(3)
    with torch.no_grad():
        together = model(frames, audio, flow)
        alone = model(frames[:, 1:2], audio[:, 1:2], flow[:, 1:2])
    torch.testing.assert_close(together.logits[:, 1:2], alone.logits, atol=1e-4, rtol=1e-4)
    assert together.confidence is not None
    assert together.confidence.shape == (2, 3)


def test_widths_that_do_not_fit_are_named() -> None:
    with pytest.raises(AvsegError, match=r"model\.options\.group_channels is 5: it must divide model\.width"):
        tiny(group_channels=5)
    with pytest.raises(AvsegError, match=r"model\.options\.fusion"):
        tiny(fusion="attention")
