"""What only looks on, or says how fast, changes no bit of the weights: tried together with accumulated gradients."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_avsbench
from lightning.pytorch.callbacks import Callback
from small_run import small_config

from avseg.config import Config, DataConfig, OptimConfig, RunConfig, UFEConfig
from avseg.training.run import train
from avseg.training.watch import PseudoMasks

EPOCHS, STEPS = 4, 4
MOVES = {1: [1] * 4, 2: [2, 2], 3: [3, 1], 9: [4]}
"""Of an epoch of four steps by ``optim.accumulate``: how many steps each move is of."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": STEPS, "val": 1}, prepared=True)
    return folder


class Moves(Callback):
    """Counts moves, and the gradients that wait when an epoch has ended."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.waiting: list[str] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:  # type: ignore[no-untyped-def]
        self.steps.append(trainer.fit_loop.total_batch_idx + 1)

    def on_train_epoch_end(self, trainer, pl_module) -> None:  # type: ignore[no-untyped-def]
        self.waiting += [name for name, each in pl_module.named_parameters() if each.grad is not None]


class Stop(Callback):
    """Ends training where an epoch has been written down and its checkpoint has not."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:  # type: ignore[no-untyped-def]
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def configuration(root: Path, out: Path, accumulate: int, data: dict[str, Any], run: dict[str, Any]) -> Config:
    config = small_config(
        root,
        out,
        UFEConfig(distant_frames=True, burn_in=1),
        OptimConfig(batch_size=1, accumulate=accumulate, epochs=EPOCHS, learning_rate=1e-2, name="adamw"),
    )
    return replace(config, data=replace(config.data, **data), run=replace(config.run, **run))


def state(out: Path) -> list[torch.Tensor]:
    """Weights, statistics and the optimiser's moments."""
    found = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    moments = found["optimizer_states"][0]["state"].values()
    return [*found["state_dict"].values(), *(each for row in moments for each in row.values())]


# Each says several things at once; where one fails, try them one at a time.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "seldom validated, workers, files": ({"workers": 2, "store": "off"}, {"validate_every": 2}),
    "never validated on the way, no logger, shown": ({"workers": 2}, {"validate_every": 9, "logger": "csv",
                                                                      "progress": True}),
    "one worker, files": ({"workers": 1, "store": "off"}, {"validate_every": 3}),
}  # fmt: skip


HEAVY = [pytest.param(accumulate, marks=pytest.mark.heavy) for accumulate in (1, 2, 9)]


@pytest.mark.parametrize("accumulate", [3, *HEAVY])
def test_looking_on_and_speed_change_no_bit(root: Path, tmp_path: Path, accumulate: int) -> None:
    seen = Moves()
    train(configuration(root, tmp_path / "plain", accumulate, {}, {}), [seen])
    expected = state(tmp_path / "plain")
    sizes = [b - a for a, b in zip([0, *seen.steps], seen.steps, strict=False)]
    assert sizes == MOVES[accumulate] * EPOCHS
    assert not seen.waiting

    for name, (data, run) in WAYS.items():
        train(configuration(root, tmp_path / name, accumulate, data, run), [PseudoMasks()])
        assert all(map(torch.equal, state(tmp_path / name), expected)), name

    stopped = configuration(root, tmp_path / "stopped", accumulate, {}, {})
    with pytest.raises(KeyboardInterrupt):
        train(stopped, [Stop()])
    # It goes on with other ways of looking on.
    train(replace(stopped, run=replace(stopped.run, resume=True, validate_every=3, logger="csv"),
                  data=replace(stopped.data, workers=2, store="off")))  # fmt: skip
    assert all(map(torch.equal, state(tmp_path / "stopped"), expected)), "resumed"


def test_every_field_that_may_not_matter_is_tried() -> None:
    """A new field of these sections is either tried above or named here, with where it is tried or why it matters."""
    tried = {name for data, run in WAYS.values() for name in (*data, *run)} | {"resume", "out"}
    data = {"root", "subset", "labelled", "distant", "distant_root", "flow"}  # other clips
    run = {
        "out",
        "seed",
        "accelerator",
        "devices",
        "nodes",
        "precision",
        "channels_last",
        "compile",
    }  # other arithmetic
    assert tried | data | run == {*DataConfig.__dataclass_fields__, *RunConfig.__dataclass_fields__}
