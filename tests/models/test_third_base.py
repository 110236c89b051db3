"""UFE is versatile: a base model that avseg has never seen trains with neighbouring and distant frames."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import make_avsbench
from torch import Tensor, nn

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig, WeightsConfig
from avseg.inference import AVSegmenter
from avseg.models import AVSModel, Prediction, base, load, register
from avseg.models.audio import EMBEDDING
from avseg.models.encoders import channels_of
from avseg.models.layers import dice_loss, masked_bce
from avseg.training.run import train


class DotProduct(AVSModel):
    """The logit of a pixel is the dot product of its feature with the sound's; the coarse map gives a second opinion.

    ``aux["coarse"]`` ``(B·T, 1, h, w)`` is that opinion, which only this model's loss knows.
    """

    def __init__(self, config: ModelConfig, weights: WeightsConfig | None = None):
        super().__init__(config, weights)
        self.project = nn.ModuleList(nn.Conv2d(n, config.width, 1) for n in channels_of(self.image_encoder))
        self.norms = nn.ModuleList(nn.BatchNorm2d(config.width) for _ in self.project)
        self.sound = nn.Linear(EMBEDDING, config.width)

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        return [project(item) for project, item in zip(self.project, self.image_encoder(frames), strict=True)]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        maps = [norm(item) for norm, item in zip(self.norms, pyramid, strict=True)]
        size = maps[0].shape[-2:]
        merged = torch.stack([F.interpolate(item, size, mode="bilinear") for item in maps]).sum(0)
        sound = self.sound(audio).flatten(0, 1)
        fine, coarse = (torch.einsum("nchw,nc->nhw", item, sound).unsqueeze(1) for item in (merged, maps[3]))
        logits = F.interpolate(fine, scale_factor=4, mode="bilinear").unflatten(0, audio.shape[:2])
        return Prediction(logits, {"coarse": coarse})

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        coarse = F.interpolate(prediction.aux["coarse"], masks.shape[-2:]).view_as(masks)
        return {
            "bce": masked_bce(prediction.logits, masks, valid),
            "coarse": 0.1 * dice_loss(coarse, masks, valid),
        }


def configuration(root: Path, out: Path, **ufe: object) -> Config:
    return Config(
        data=DataConfig(root=str(root), workers=0),
        model=ModelConfig(
            base="dot_product",
            width=8,
            dilations=(1, 2),
            image_encoder="efficientnet_lite0",
            audio_encoder="cnn",
            neighbouring_frames=True,
            inputs=InputConfig(image_size=64),
        ),
        weights=WeightsConfig(image="none", audio="none", flow="none"),
        ufe=UFEConfig(distant_frames=True, burn_in=1, **ufe),  # type: ignore[arg-type]
        optim=OptimConfig(batch_size=2, epochs=2, learning_rate=1e-3),
        run=RunConfig(out=str(out), accelerator="cpu", validate_every=2, progress=False),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 4, "val": 1, "test": 1}, prepared=True)
    return folder


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register("dot_product")(DotProduct)
    yield
    del base._BASES["dot_product"]


# A joint batch cuts the prediction in two, ``aux`` included; the base model's own loss then judges pseudo masks.
@pytest.mark.parametrize("ufe", [{}, {"student": "joint", "unsup_loss": "base"}], ids=["defaults", "joint"])
def test_a_new_base_model_trains_with_unlabelled_frames(root: Path, tmp_path: Path, ufe: dict[str, object]) -> None:
    config = configuration(root, tmp_path / "run", **ufe)
    start = base.build(config.model, config.weights, seed=config.run.seed).state_dict()

    result = train(config)

    assert result.steps == 4
    with (result.folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss/bce"]]
    own = ["loss/unsup_bce", "loss/unsup_coarse"] if ufe else ["loss/unsup"]
    for row in rows:
        assert math.isfinite(float(row["loss"]))
        assert float(row["loss/coarse"]) > 0
        for name in own:  # two steps of burn-in, then two with distant frames
            assert bool(row[name]) == (int(row["step"]) >= 2), (name, row)
    assert int(rows[-1]["step"]) == 3

    model = load(result.folder)
    assert isinstance(model, DotProduct)
    after = model.state_dict()
    for name in ("sound.weight", "project.0.weight", "image_encoder.stem.0.weight", "motion.refine.0.branches.0.bias"):
        assert not torch.equal(start[name], after[name]), f"{name} did not learn"


def test_a_new_base_model_segments_a_video(root: Path, tmp_path: Path) -> None:
    model = base.build(configuration(root, tmp_path).model, seed=0)
    model.save_pretrained(tmp_path / "model")
    video = next(root.glob("**/raw_videos/test/*/*.mp4"))
    moments = list(AVSegmenter.from_pretrained(tmp_path / "model", "cpu").stream(video, fps=1))
    assert [moment.mask.shape for moment in moments] == [(64, 64)] * 5
