"""The configuration of a training run that takes seconds: the real base model, as small as it goes, untrained."""

from pathlib import Path

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig, WeightsConfig

TINY = """
data: {workers: 0}
model: {width: 16, image_encoder: efficientnet_lite0, audio_encoder: cnn, inputs: {image_size: 64}}
weights: {image: none, audio: none, flow: none}
optim: {batch_size: 2, epochs: 1}
run: {accelerator: cpu}
"""
"""The like as a file, for the command line."""


def small_config(
    root: Path,
    out: Path,
    ufe: UFEConfig,
    optim: OptimConfig,
    *,
    flow: bool = True,
    workers: int | None = 0,
    validate_every: int = 1,
) -> Config:
    """A run on 64-pixel images with seed 3 on the CPU; ``flow`` is the NF branch."""
    return Config(
        data=DataConfig(root=str(root), workers=workers),
        model=ModelConfig(
            width=16,
            dilations=(1, 3),
            image_encoder="efficientnet_lite0",
            audio_encoder="cnn",
            neighbouring_frames=flow,
            options={"matching_weight": 0.1, "initial_gain": 1.0},
            inputs=InputConfig(image_size=64),
        ),
        weights=WeightsConfig(image="none", audio="none", flow="none"),
        ufe=ufe,
        optim=optim,
        run=RunConfig(out=str(out), seed=3, accelerator="cpu", validate_every=validate_every, progress=False),
    )
