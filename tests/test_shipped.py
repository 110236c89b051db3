"""The model that comes with the package: small, whole, and listening to scenes of its own kind."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from avseg import AVSegmenter
from avseg.data.clip import LabelledBatch
from avseg.data.loader import evaluation_clips
from avseg.data.prepare import prepare
from avseg.evaluation.evaluate import evaluate
from avseg.inference import shipped_model
from avseg.synthetic import write_benchmark
from avseg.synthetic.baselines import baselines

MOST = 12e6  # bytes


def folder() -> Path:
    found = shipped_model()
    assert found is not None
    return found


def test_is_small_and_says_what_it_is() -> None:
    weights = folder() / "model.safetensors"
    assert weights.stat().st_size <= MOST
    with safe_open(str(weights), framework="pt") as file:
        halves = [file.get_slice(name).get_dtype() for name in file.keys()]  # noqa: SIM118
    assert halves.count("F16") > 100
    card = (folder() / "README.md").read_text(encoding="utf-8")
    assert "generated scenes" in card
    values = json.loads((folder() / "config.json").read_text(encoding="utf-8"))
    assert values["neighbouring_frames"]


def test_loads_without_a_name_and_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    segmenter = AVSegmenter.from_pretrained(device="cpu")
    assert segmenter.model.motion is not None
    assert all(torch.isfinite(item).all() for item in segmenter.model.state_dict().values())


@pytest.mark.heavy
def test_finds_what_sounds_in_scenes_that_it_has_not_seen(tmp_path: Path) -> None:
    write_benchmark(tmp_path, "s4", videos=26, val=1, test=24, seed=987, edition="small", workers=2)
    prepare(tmp_path, "s4", workers=2)
    model = AVSegmenter.from_pretrained(device="cpu").model
    clips = list(evaluation_clips(tmp_path, "s4", "test", model.config.inputs))
    score = evaluate(model, clips, "cpu", 1).miou
    chance = {line.name: line.miou for line in baselines(tmp_path, "s4", "test")}
    assert score > chance["random_object"], (score, chance)

    def use_inputs(batch: LabelledBatch, sound: Tensor) -> LabelledBatch:
        return replace(batch, log_mel=sound)

    # With the sound of another video it no longer knows what to mark.
    swapped = [use_inputs(batch, other.log_mel) for batch, other in zip(clips, clips[5:] + clips[:5], strict=True)]
    assert evaluate(model, swapped, "cpu", 1).miou < score - 0.1
