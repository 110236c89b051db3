"""What a base model decides for itself: scales, encoder, frozen parts, size, confidence and what should agree."""

import csv
from pathlib import Path

import pytest
import torch
from helpers import make_avsbench
from torch import Tensor, nn

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig, RunConfig, UFEConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.evaluation.evaluate import evaluate_checkpoint
from avseg.inference import AVSegmenter
from avseg.models import AVSModel, Prediction, base, build, load, register
from avseg.models.layers import masked_bce
from avseg.training.consistency import EMATeacher
from avseg.training.run import train

SIDE, SEEN = 64, 128


class Tokens(nn.Module):
    """A vision transformer's patches, whose embedding is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 24, 16, 16).requires_grad_(False)
        self.adapter = nn.Conv2d(24, 24, 1)

    def forward(self, frames: Tensor) -> list[Tensor]:
        tokens = self.embed(frames)
        return [tokens + self.adapter(tokens)]


class OneMap(AVSModel):
    """One map of stride 16, three competing masks of which the surest wins, and weights that Eq. 5 doesn't reach."""

    tells_confidence = True
    seen: list[tuple[int, ...]]

    def __init__(self, config: ModelConfig, weights: WeightsConfig | None = None):
        super().__init__(config, weights)
        self.sound = nn.Linear(128, 24)
        self.masks, self.score = nn.Conv2d(24, 3, 1), nn.Linear(24, 3)
        self.seen = []

    def build_image_encoder(self, weights: WeightsConfig | None) -> nn.Module:
        return Tokens()

    def scales(self) -> list[tuple[int, int]]:
        return [(16, 24)]

    def timestamps_per_pass(self, device: torch.device) -> int:
        return 2

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        self.seen.append(tuple(frames.shape))
        maps: list[Tensor] = self.image_encoder(frames)
        return maps

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        x = pyramid[0] + self.sound(audio.flatten(0, 1))[:, :, None, None]
        masks, scores = self.masks(x), self.score(x.mean(dim=(2, 3)))
        best = scores.argmax(dim=1)
        logits = masks[torch.arange(len(masks)), best].unflatten(0, audio.shape[:2]).unsqueeze(2)
        sure = scores.softmax(dim=1).amax(dim=1).unflatten(0, audio.shape[:2])
        return Prediction(logits, {"masks": masks, "scores": scores}, sure)

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        score = prediction.aux["scores"].square().mean()
        return {"bce": masked_bce(prediction.logits, masks, valid), "score": score}

    def agreement(self, prediction: Prediction, pseudo: Tensor, valid: Tensor, eq5) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
        every = nn.functional.interpolate(prediction.aux["masks"], pseudo.shape[-2:])
        losses = [eq5(every[:, [i]].view_as(pseudo)) for i in range(3)]
        return {"unsup_matched": torch.stack(losses).min()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 4, "val": 1, "test": 1}, prepared=True)
    return folder


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base._BASES, "one_map", OneMap)


def configuration(root: Path, out: Path) -> Config:
    inputs = InputConfig(image_size=SIDE, model_size=SEEN)
    return Config(
        data=DataConfig(root=str(root), workers=0),
        model=ModelConfig(base="one_map", audio_encoder="cnn", neighbouring_frames=True, inputs=inputs),
        weights=WeightsConfig(image="none", audio="none", flow="none"),
        ufe=UFEConfig(distant_frames=True, burn_in=1, frame_confidence=True, teacher="ema", ema_decay=0.5),
        optim=OptimConfig(batch_size=2, epochs=2, learning_rate=1e-2, weight_decay=0.5),
        run=RunConfig(out=str(out), accelerator="cpu", validate_every=2, progress=False),
    )


def test_it_trains_evaluates_and_segments(root: Path, tmp_path: Path) -> None:
    config = configuration(root, tmp_path / "run")
    start = build(config.model, config.weights, seed=config.run.seed).state_dict()
    run = train(config)
    with (run.folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["loss/bce"]]
    assert [bool(row["loss/unsup_matched"]) for row in (rows[0], rows[-1])] == [False, True]
    model = load(run.folder)
    assert isinstance(model, OneMap)
    for name, value in model.state_dict().items():
        if name.startswith("image_encoder.embed"):  # weight decay neither
            assert torch.equal(start[name], value), name
        elif value.is_floating_point() and not name.endswith(("running_mean", "running_var")):
            assert not torch.equal(start[name], value), f"{name} did not learn"

    evaluation = evaluate_checkpoint(run.folder, root, "s4", progress=False)
    assert 0 <= evaluation.scores["T=1"].miou <= 1
    video = next(root.glob("**/raw_videos/test/*/*.mp4"))
    moments = list(AVSegmenter(model, "cpu").stream(video, fps=1))
    assert [moment.mask.shape for moment in moments] == [(SIDE, SIDE)] * 5
    assert {shape[-1] for shape in model.seen} == {SEEN}
    assert max(shape[0] for shape in model.seen) == 2


def test_a_prediction_comes_at_the_size_of_its_frames(root: Path, tmp_path: Path) -> None:
    model = build(configuration(root, tmp_path).model, seed=0).eval()
    frames, audio, flow = torch.rand(2, 1, 3, SIDE, SIDE), torch.rand(2, 1, 128), torch.rand(2, 1, 2, SIDE, SIDE)
    small = model(frames, audio, flow)
    assert small.logits.shape == (2, 1, 1, SIDE, SIDE)
    model.config.inputs.model_size = None
    enlarged = nn.functional.interpolate(frames[:, 0], (SEEN, SEEN), mode="bilinear")[:, None]
    inside = model.compute(enlarged, audio, flow).logits
    assert inside.shape[-1] == SEEN // 16
    expected = nn.functional.interpolate(inside[:, 0], (SIDE, SIDE), mode="bilinear")[:, None]
    torch.testing.assert_close(small.logits, expected)
    assert torch.equal(small.part(1, 2).confidence, small.confidence[1:])  # type: ignore[index]


def test_what_is_never_trained_is_shared_with_an_averaging_teacher(root: Path, tmp_path: Path) -> None:
    student = build(configuration(root, tmp_path).model, seed=0)
    teacher = EMATeacher(student, 0.5)
    for mine, theirs in zip(student.parameters(), teacher.model.parameters(), strict=True):
        assert (mine is theirs) == (not mine.requires_grad)
        assert not theirs.requires_grad
    before = student.masks.weight.detach().clone()
    with torch.no_grad():
        student.masks.weight += 1
    teacher.update(student)
    torch.testing.assert_close(teacher.model.masks.weight, before + 0.5)


def test_confidence_of_a_model_that_tells_none_is_refused(root: Path, tmp_path: Path) -> None:
    config = configuration(root, tmp_path / "run")
    config.model.base = "tpavi"
    with pytest.raises(AvsegError, match=r"ufe\.frame_confidence asks how sure tpavi is"):
        train(config)
    assert not (tmp_path / "run").exists()
    assert register("one_map")(OneMap).tells_confidence
