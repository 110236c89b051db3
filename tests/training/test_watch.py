"""Watching a run changes nothing of it."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import make_avsbench
from lightning.pytorch.callbacks import Callback
from small_run import small_config

from avseg.config import Config, OptimConfig, UFEConfig
from avseg.evaluation.pseudo import pseudo_quality
from avseg.models import load
from avseg.training.logs import read_metrics
from avseg.training.run import train
from avseg.training.watch import PseudoMasks


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 4, "val": 1}, hidden=True, prepared=True)
    return folder


def configuration(root: Path, out: Path, **ufe: object) -> Config:
    """Three epochs of two steps, one of them burn-in; two steps to each move of the weights."""
    return small_config(
        root,
        out,
        UFEConfig(distant_frames=True, burn_in=1, **ufe),  # type: ignore[arg-type]
        OptimConfig(batch_size=2, accumulate=2, epochs=3, learning_rate=1e-2, name="adamw"),
    )


def same(a: Path, b: Path) -> bool:
    """Every bit of the last state: weights, statistics, the optimiser's moments."""
    states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (a, b)]
    ours, theirs = (state["state_dict"] for state in states)
    moments = [[value for row in state["optimizer_states"][0]["state"].values() for value in row.values()]
               for state in states]  # fmt: skip
    return all(torch.equal(ours[name], theirs[name]) for name in theirs) and all(map(torch.equal, *moments))


class Stop(Callback):
    """Ends training where an epoch has been written down and its checkpoint has not."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:  # type: ignore[no-untyped-def]
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "ufe", [{}, pytest.param({"teacher": "ema", "ema_decay": 0.5}, marks=pytest.mark.heavy)], ids=str
)
def test_watched_training_is_the_same_and_resumes(root: Path, tmp_path: Path, ufe: dict[str, object]) -> None:
    train(configuration(root, tmp_path / "alone", **ufe))
    assert not (tmp_path / "alone" / "pseudo.csv").exists()
    train(configuration(root, tmp_path / "watched", **ufe), [PseudoMasks()])
    assert same(tmp_path / "watched", tmp_path / "alone")
    rows = read_metrics(tmp_path / "watched" / "pseudo.csv")
    assert [(row["step"], row["epoch"]) for row in rows] == [(2, 0), (4, 1), (6, 2)]
    assert len({row["soft"] for row in rows}) == 3, "weights have moved in between"
    assert {row["truth"] for row in rows} == {rows[0]["truth"]}
    if not ufe:
        found = pseudo_quality(load(tmp_path / "watched"), root)
        assert found is not None
        assert rows[-1] == pytest.approx({"step": 6, "epoch": 2, **vars(found)}, abs=1e-4)

    config = configuration(root, tmp_path / "stopped", **ufe)
    with pytest.raises(KeyboardInterrupt):
        train(config, [PseudoMasks(), Stop()])
    assert len(read_metrics(tmp_path / "stopped" / "pseudo.csv")) == 2
    # A row of a step that will be done again.
    table = tmp_path / "stopped" / "pseudo.csv"
    table.write_text(table.read_text().replace("4,1.0,", "4,1.0,9"))
    config.run.resume = True
    train(config, [PseudoMasks()])
    assert read_metrics(table) == rows
    assert read_metrics(table.with_name("metrics.csv")) == read_metrics(tmp_path / "watched" / "metrics.csv")
    assert same(tmp_path / "stopped", tmp_path / "alone")


def test_the_first_and_the_last_epoch_have_a_row(root: Path, tmp_path: Path) -> None:
    train(configuration(root, tmp_path / "run"), [PseudoMasks(every=5, videos=2)])
    assert [row["epoch"] for row in read_metrics(tmp_path / "run" / "pseudo.csv")] == [0, 2]
    with pytest.raises(ValueError, match="at least 1"):
        PseudoMasks(every=0)


def test_data_without_a_hidden_truth_leave_no_file(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    shutil.rmtree(copy / "Single-source" / "hidden_masks")
    config = configuration(copy, tmp_path / "run")
    config.optim.epochs = 2
    train(config, [PseudoMasks()])
    assert not (tmp_path / "run" / "pseudo.csv").exists()
