"""Base models learn: UFE with neighbouring and distant frames, eight clips by heart.

TPAVI is missing: as narrow as this, its last hidden layer has two channels, and both may die.
"""

from pathlib import Path

import pytest
from helpers import make_avsbench
from small_run import small_config

from avseg.config import OptimConfig, UFEConfig
from avseg.evaluation.evaluate import evaluate_checkpoint
from avseg.training.run import train

OPTIONS = {
    "avsegformer": {
        "queries": 8, "encoder_layers": 1, "decoder_layers": 1, "generator_layers": 1, "heads": 2, "feedforward": 32,
        "generator_feedforward": 32, "mask_hidden": 32, "dropout": 0.0,
    },
    "ecmvae": {},
    "sama": {"adapter_width": 32},
    "autr": {
        "queries": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "feedforward": 32, "dropout": 0.0,
    },
    "catr": {
        "queries": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "feedforward": 32, "dropout": 0.0,
        "mask_stride": 4,
    },
}  # fmt: skip

EPOCHS = {"avsegformer": 200}  # 100 for the others

SAM = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "global_attn_indexes": [1]}


@pytest.mark.heavy
@pytest.mark.parametrize("base", OPTIONS)
def test_a_base_model_overfits_eight_clips(tmp_path: Path, base: str) -> None:
    root, epochs = tmp_path / "bench", EPOCHS.get(base, 100)
    make_avsbench(root, "s4", {"train": 8, "val": 1, "test": 1}, prepared=True)
    config = small_config(
        root,
        tmp_path / "run",
        UFEConfig(distant_frames=True, burn_in=10),
        OptimConfig(batch_size=4, epochs=epochs, learning_rate=1e-3, name="adamw", schedule="cosine"),
        validate_every=epochs,
    )
    config.model.base, config.model.options = base, OPTIONS[base]
    if base == "sama":
        config.model.image_encoder, config.model.image_encoder_config = "sam_vit_b", SAM
        config.model.width, config.model.inputs.model_size = 64, 128
    train(config)
    found = evaluate_checkpoint(tmp_path / "run", root, "s4", "train", progress=False)
    assert found.scores["T=1"].miou >= 0.8
