"""What moves the weights, and that validation says what evaluation says."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_avsbench
from lightning.pytorch.callbacks import Callback
from small_run import small_config
from torch import Tensor
from toy_models import toy

from avseg.config import Config, OptimConfig, UFEConfig
from avseg.data.loader import evaluation_clips, training_data
from avseg.evaluation.evaluate import evaluate
from avseg.evaluation.metrics import MeanJaccard
from avseg.models import build, load
from avseg.training.consistency import Draws, mix_seed, ufe_losses
from avseg.training.logs import read_metrics
from avseg.training.run import build_trainer, train
from avseg.training.task import AVSTask

Gradients = dict[str, Tensor]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 4, "val": 2}, prepared=True)
    return folder


def configuration(root: Path, out: Path, ufe: dict[str, Any] | None = None, **optim: Any) -> Config:
    """Epochs of two steps, from the first on with distant frames."""
    return small_config(
        root,
        out,
        UFEConfig(distant_frames=True, burn_in=0, **(ufe or {})),
        OptimConfig(**{"batch_size": 2, "epochs": 1, "name": "adamw", "learning_rate": 1e-12, **optim}),
    )


class Moves(Callback):
    """Writes down what the optimiser is given at every move of the weights."""

    def __init__(self) -> None:
        self.gradients: list[Gradients] = []
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:  # type: ignore[no-untyped-def]
        named = pl_module.model.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        self.rates.append(optimizer.param_groups[0]["lr"])


def moves(config: Config) -> Moves:
    seen = Moves()
    train(config, [seen])
    return seen


def by_hand(config: Config) -> Iterator[Gradients]:
    """The gradient of every step's whole loss, of a model that learns nothing."""
    model = build(config.model, config.weights, seed=config.run.seed).train()
    for batch in training_data(config).loader():
        torch.manual_seed(mix_seed(config.run.seed, batch.step, 0))
        draws = Draws.of(config.run.seed, batch.step)
        for terms in ufe_losses(batch, model, model, config.ufe, config.perturb, draws):
            sum(terms.values()).backward()  # type: ignore[union-attr]
        yield {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)


def close(ours: Gradients, theirs: Gradients) -> None:
    """Up to rounding, which a batch norm of two clips may enlarge."""
    assert ours.keys() == theirs.keys()
    whole = norm(theirs)
    for name, value in theirs.items():
        assert (ours[name] - value).norm() < 0.02 * value.norm() + 1e-4 * whole, name


def norm(gradients: Gradients) -> Tensor:
    return torch.stack([value.norm() for value in gradients.values()]).norm()


def test_weights_move_by_the_gradient_of_the_whole_loss_of_their_steps(root: Path, tmp_path: Path) -> None:
    first, second = by_hand(configuration(root, tmp_path))
    found = moves(configuration(root, tmp_path / "every", schedule="cosine"))
    assert len(found.gradients) == 2
    close(found.gradients[0], first)
    close(found.gradients[1], second)
    assert [1e12 * rate for rate in found.rates] == pytest.approx([1, 0.5])

    mean = {name: (first[name] + second[name]) / 2 for name in first}
    limit = 0.1 * float(norm(mean))
    (clipped,) = moves(configuration(root, tmp_path / "mean", accumulate=2, clip_norm=limit)).gradients
    close(clipped, {name: 0.1 * value for name, value in mean.items()})
    (whole,) = moves(configuration(root, tmp_path / "whole", accumulate=2, clip_norm=1e9)).gradients
    close(whole, mean)
    (left,) = moves(configuration(root, tmp_path / "left", accumulate=5)).gradients
    close(left, mean)  # of the steps that the epoch has


def test_a_moving_average_teacher_moves_after_every_move(root: Path, tmp_path: Path) -> None:
    def weights(name: str, **ufe: Any) -> dict[str, Tensor]:
        return load(train(configuration(root, tmp_path / name, ufe, learning_rate=1e-2)).folder).state_dict()

    shared, follows = weights("shared"), weights("follows", teacher="ema", ema_decay=0.0)
    assert all(torch.equal(follows[name], value) for name, value in shared.items()), "it is its student all along"


def test_the_image_encoder_is_frozen_for_so_many_epochs(root: Path, tmp_path: Path) -> None:
    config = configuration(root, tmp_path / "run", freeze_image_encoder=1, epochs=2)
    learns = [any(name.startswith("image_encoder.") for name in given) for given in moves(config).gradients]
    assert learns == [False, False, True, True]


def test_the_learning_rate_warms_up_and_falls() -> None:
    def rates(steps: int, **optim: Any) -> list[float]:
        config = Config(optim=OptimConfig(learning_rate=0.8, **optim))
        task = AVSTask(toy("light"), config, total_steps=steps, steps_per_epoch=1)
        return [task.learning_rate(step) for step in range(steps)]

    assert rates(4) == [0.8] * 4
    assert rates(6, warmup_steps=4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    falling = [0.8, 0.8 * (2 + 2**0.5) / 4, 0.4, 0.8 * (2 - 2**0.5) / 4]
    assert rates(4, schedule="cosine") == pytest.approx(falling)
    assert rates(4, schedule="cosine", warmup_steps=2) == pytest.approx([falling[0] / 2, *falling[1:]])


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_is_the_one_asked_for(name: str, kind: type, root: Path, tmp_path: Path) -> None:
    config = configuration(root, tmp_path, name=name, weight_decay=0.07)
    model = toy("light")
    model.audio_encoder.freeze()
    optimiser = AVSTask(model, config, 1, 1).configure_optimizers()
    assert type(optimiser) is kind
    assert {(group["weight_decay"], group["lr"]) for group in optimiser.param_groups} == {(0.07, 1e-12)}
    given = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert given == {id(p) for p in model.parameters()} - {id(p) for p in model.audio_encoder.parameters()}


def test_precision_is_the_one_asked_for(root: Path, tmp_path: Path) -> None:
    for precision in ("32-true", "bf16-mixed"):
        config = configuration(root, tmp_path)
        config.run.precision = precision  # type: ignore[assignment]
        assert build_trainer(config).precision == precision


@pytest.mark.parametrize("frames_per_clip", [1, 3, 5])
def test_padding_counts_in_no_score(tmp_path: Path, frames_per_clip: int) -> None:
    wide = {name: {"size": (128, 48)} for name in ("-s4_val_0", "s4_val_1")}
    make_avsbench(tmp_path, "s4", {"train": 1, "val": 2}, prepared=True, settings=wide)
    # It marks all of an image or nothing, padding included.
    model = toy("sound", frames_per_clip, resize="letterbox")
    clips = list(evaluation_clips(tmp_path, "s4", "val", model.config.inputs))
    task = AVSTask(model, Config(model=model.config), total_steps=1, steps_per_epoch=1)
    padded = MeanJaccard()
    with torch.no_grad():
        for index, batch in enumerate(clips):
            assert not batch.valid.all()
            task.validation_step(batch, index)
            padded.update(torch.ones(batch.masks.shape), batch.masks)  # type: ignore[union-attr]
    scores = evaluate(model, clips, "cpu", frames_per_clip)
    assert task.jaccard.compute().item() == pytest.approx(scores.miou, abs=1e-6)
    assert task.f_score.compute().item() == pytest.approx(scores.f_score, abs=1e-6)
    assert scores.miou > padded.compute().item() + 0.02


def test_validation_is_at_the_length_of_training(root: Path) -> None:
    (batch, _) = evaluation_clips(root, "s4", "val", toy("window").config.inputs)
    # Alone the third and fifth are dark, in pairs the fifth alone; together the five are light.
    batch = replace(batch, frames=torch.tensor([250, 250, 40, 250, 3], dtype=torch.uint8).view(1, 5, 1, 1, 1)
                    .expand(1, 5, 3, 64, 64))  # fmt: skip
    found = []
    for length in (1, 2, 5):
        model = toy("window", length)
        task = AVSTask(model, Config(model=model.config), total_steps=1, steps_per_epoch=1)
        task.validation_step(batch, 0)
        found.append(task.jaccard.compute().item())
        assert found[-1] == pytest.approx(evaluate(model, [batch], "cpu", length).miou)
    assert len({round(score, 2) for score in found}) == 3


def test_the_best_weights_are_those_of_the_highest_miou(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([0.1, 0.3, 0.5, 0.7, 0.4, 0.4])  # of two videos, after each of three epochs

    class Told(MeanJaccard):
        def score(self, logits: Tensor, masks: Tensor, valid: Tensor | None = None) -> Tensor:
            return torch.tensor([next(told)])

    weights = []

    class Keep(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:  # type: ignore[no-untyped-def]
            weights.append({name: value.clone() for name, value in pl_module.model.state_dict().items()})

    monkeypatch.setattr("avseg.training.task.MeanJaccard", Told)
    run = train(configuration(root, tmp_path / "run", learning_rate=1e-2, epochs=3), [Keep()]).folder
    rows = [row for row in read_metrics(run / "metrics.csv") if "val/miou" in row]
    assert [row["val/miou"] for row in rows] == pytest.approx([0.2, 0.6, 0.4]), "each epoch counts its own videos alone"
    for folder, epoch in ((run / "best", 1), (run, 2)):
        state = load(folder).state_dict()
        assert all(torch.equal(state[name], value) for name, value in weights[epoch].items())
        assert not all(torch.equal(state[name], value) for name, value in weights[0].items())
    model = load(run)
    scores = evaluate(model, evaluation_clips(root, "s4", "val", model.config.inputs), "cpu", 1)
    assert rows[-1]["val/f_score"] == pytest.approx(scores.f_score, abs=1e-5)
