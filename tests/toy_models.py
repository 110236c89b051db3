"""Models for tests whose scores are known: they mark what is bright, what is heard or what moves, untrained."""

from pathlib import Path

import torch
from torch import Tensor

from avseg.config import InputConfig, ModelConfig, WeightsConfig
from avseg.models import AVSModel, Prediction, build, register


@register("toy")
class Toy(AVSModel):
    """``model.options.reads`` says what its logits are: ``light``, ``sound``, ``motion`` or ``window``."""

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        return [frames]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        raise NotImplementedError

    def embed_audio(self, log_mel: Tensor) -> Tensor:
        return log_mel.mean((2, 3, 4)).unsqueeze(-1).expand(-1, -1, 128)

    def forward(self, frames: Tensor, audio: Tensor, flow: Tensor | None = None) -> Prediction:
        spec = self.config.inputs
        light = (frames * frames.new_tensor(spec.std).view(3, 1, 1) + frames.new_tensor(spec.mean).view(3, 1, 1)).mean(
            2
        )
        reads = self.config.options["reads"]
        if reads == "light":
            logits = 20 * (light - 0.5)
        elif reads == "sound":
            logits = (audio[..., 0, None, None] + 3.5).expand_as(light)
        elif reads == "motion":
            assert flow is not None
            logits = flow[:, :, 0]
        else:
            logits = light.mean((1, 2, 3)).logit()[:, None, None, None].expand_as(light)
        return Prediction(logits.unsqueeze(2))

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


def toy(reads: str, frames_per_clip: int = 1, **inputs: object) -> AVSModel:
    """A `Toy` on images of 64 pixels."""
    config = ModelConfig(
        base="toy",
        width=16,
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        neighbouring_frames=reads == "motion",
        frames_per_clip=frames_per_clip,
        options={"reads": reads},
        inputs=InputConfig(**{"image_size": 64, **inputs}),  # type: ignore[arg-type]
    )
    return build(config, seed=0).eval()


def tiny_config(**more: object) -> ModelConfig:
    """The real base model, as small as it goes."""
    return ModelConfig(
        base="tpavi",
        width=16,
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        inputs=InputConfig(image_size=64),
        **more,  # type: ignore[arg-type]
    )


def save_tiny(folder: Path, **more: object) -> Path:
    """Save a random TPAVI and return its folder."""
    with torch.no_grad():
        model = build(tiny_config(**more), WeightsConfig(image="none", audio="none", flow="none"), seed=0)
    return model.save_pretrained(folder)
