"""Looks at training that no run of the package needs: what flow adds, and what perfect pseudo masks would be worth."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import disc_mask, make_avsbench
from small_run import small_config

from avseg.config import Config, OptimConfig, UFEConfig
from avseg.data.loader import training_data
from avseg.models import build
from avseg.models.motion import MotionBranch
from avseg.training import consistency
from benchmarks import ceiling, fusion


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 4, "val": 1}, hidden=True, prepared=True)
    return folder


def configuration(root: Path, **ufe: object) -> Config:
    optim = OptimConfig(batch_size=2, epochs=3, learning_rate=1e-2, name="adamw")
    return small_config(root, root / "unused", UFEConfig(**ufe), optim)  # type: ignore[arg-type]


def test_flow_grows_from_nothing_and_training_ends_where_it_is_told(root: Path) -> None:
    config = configuration(root)
    config.model.neighbouring_frames, config.model.flow_fusion = True, "sum"
    found = fusion.measure(config, 3)
    assert len(found["loss"]) == len(found["share"]) == 3  # of six
    assert found["share"][0] == [0.0] * 4
    assert all(share > 0 for share in found["share"][2])
    assert MotionBranch._fuse is fusion._FUSE

    config.model.neighbouring_frames = False
    assert fusion.measure(config, 2)["share"] == []


def test_the_ceilings_pseudo_masks_are_the_hidden_truth(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("weak_view", "with_pseudo_masks"):  # what the ceiling replaces comes back afterwards
        monkeypatch.setattr(consistency, name, getattr(consistency, name))
    config = configuration(root, distant_frames=True, burn_in=1)
    data = training_data(config)
    distant = next(batch.distant for batch in data.loader(0, data.total_steps) if batch.distant is not None)
    seconds = [round(float(times[0]) + 1 / 16) for times in distant.times]
    numbers = [int(name.rsplit("_", 1)[1]) for name in distant.names]
    discs = [torch.from_numpy(disc_mask(*where, 64)) for where in zip(seconds, numbers, strict=True)]

    truth = ceiling.Truth(root, config.model.inputs)
    assert torch.equal(truth(distant)[:, 0, 0], torch.stack(discs))

    ceiling.know_the_truth(truth)
    mirrored = replace(config.perturb, scale=(1.0, 1.0), flip=1.0)
    model = build(config.model, config.weights, seed=0)
    view = consistency.exploit(model, distant, replace(config.ufe, cutmix_audio="none"), mirrored, torch.Generator())
    assert torch.equal(view.pseudo[:, 0, 0], torch.stack(discs).flip(-1).float())
