"""Validation says what evaluation says."""

from pathlib import Path

import pytest
import torch
from helpers import make_avsbench
from toy_models import toy

from avseg.config import Config
from avseg.data.datamodule import evaluation_clips
from avseg.evaluation.evaluate import evaluate
from avseg.evaluation.metrics import MeanJaccard
from avseg.training.task import AVSTask


@pytest.mark.parametrize("frames_per_clip", [1, 5])
def test_padding_counts_in_no_score(tmp_path: Path, frames_per_clip: int) -> None:
    wide = {name: {"size": (128, 48)} for name in ("-s4_val_0", "s4_val_1")}
    make_avsbench(tmp_path, "s4", {"train": 1, "val": 2}, prepared=True, settings=wide)
    # It marks all of a picture or nothing, padding included.
    model = toy("sound", frames_per_clip, resize="letterbox")
    clips = list(evaluation_clips(tmp_path, "s4", "val", model.config.inputs))
    task = AVSTask(model, Config(model=model.config), total_steps=1, steps_per_epoch=1)
    padded = MeanJaccard()
    with torch.no_grad():
        for index, batch in enumerate(clips):
            assert not batch.valid.all()
            task.validation_step(batch, index)
            padded.update(torch.ones(batch.masks.shape), batch.masks)  # type: ignore[union-attr]
    scores = evaluate(model, clips, "cpu", frames_per_clip)  # type: ignore[arg-type]
    assert task.jaccard.compute().item() == pytest.approx(scores.miou, abs=1e-6)
    assert task.f_score.compute().item() == pytest.approx(scores.f_score, abs=1e-6)
    assert scores.miou > padded.compute().item() + 0.02
