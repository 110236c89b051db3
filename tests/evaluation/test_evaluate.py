import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_avsbench, read_videos
from rich.console import Console
from torch import Tensor, nn
from toy_models import save_tiny, toy

from avseg.cli import main
from avseg.config import InputConfig, ModelConfig, WeightsConfig
from avseg.data.clip import LabelledBatch
from avseg.data.loader import evaluation_clips
from avseg.errors import AvsegError
from avseg.evaluation.compare import compare
from avseg.evaluation.diagnostics import diagnose, read_scenes
from avseg.evaluation.evaluate import (
    evaluate,
    evaluate_both,
    evaluate_checkpoint,
    scores_table,
    selection_table,
    video_logits,
)
from avseg.evaluation.metrics import FScore, MeanJaccard, jaccard_per_frame
from avseg.evaluation.scores import Evaluation, read_evaluation, write_evaluation
from avseg.media.images import read_mask
from avseg.models import AVSModel, Prediction, build, normalise


class Bright(AVSModel):
    """Marks what is brighter than the clip's mean: with T = 5 the mean is another one than with T = 1."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.config = ModelConfig()
        self.audio_encoder = nn.Flatten()
        self.audio_encoder.frozen = True
        self.motion = None
        self.sizes: list[tuple[int, int]] = []

    def embed_audio(self, log_mel: Tensor) -> Tensor:
        return log_mel.flatten(2)[..., :128]

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        return [frames.mean(1, keepdim=True)]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        assert not self.training
        self.sizes.append((audio.shape[0], audio.shape[1]))
        light = pyramid[0].unflatten(0, audio.shape[:2])
        return Prediction((light - light.mean((1, 2, 3, 4), keepdim=True)) * 5)

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        return {}


def clips(count: int = 4, frames: int = 5) -> Iterator[LabelledBatch]:
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        pictures = torch.randint(0, 256, (frames, 3, 32, 32), dtype=torch.uint8, generator=generator)
        pictures[0] //= 2
        masks = torch.rand(frames, 1, 32, 32, generator=generator) < 0.3
        masks[1] = False
        clip = LabelledBatch(
            frames=pictures[None],
            flow=torch.zeros(1, frames, 2, 32, 32, dtype=torch.float16),
            log_mel=torch.randn(frames, 1, 96, 64, generator=generator)[None],
            masks=masks[None],
            inside=torch.ones_like(masks)[None],
            valid=torch.ones_like(masks)[None],
            names=(f"-video_{i}",),
            categories=(("dog_barking", "playing_violin")[i % 2],),
            times=torch.arange(frames, dtype=torch.float64)[None],
        )
        yield clip


def collated(count: int) -> LabelledBatch:
    """The clips as one batch."""
    rows = list(clips(count))
    fields = ("frames", "flow", "log_mel", "masks", "inside", "valid", "times")
    return replace(
        rows[0],
        names=tuple(row.names[0] for row in rows),
        categories=tuple(row.categories[0] for row in rows),
        **{field: torch.cat([getattr(row, field) for row in rows]) for field in fields},
    )


def evaluation(model: AVSModel | None = None) -> Evaluation:
    scores = evaluate_both(model or Bright(), clips(), "cpu")
    return Evaluation("runs/bright", "data", "s4", "test", "0.1.0", scores, {"T=5": {"a": 1}, "T=1": {}})


def test_protocols_share_one_pass() -> None:
    model = Bright().train()
    both = evaluate_both(model, clips(), "cpu")
    assert list(both) == ["T=5", "T=1"]
    assert model.sizes == [(1, 5), (5, 1)] * 4
    assert model.training
    assert both["T=5"] == evaluate(model, clips(), "cpu", 5)
    assert both["T=1"] == evaluate(model, clips(), "cpu", 1)
    assert both["T=5"].miou != both["T=1"].miou


@pytest.mark.parametrize("frames_per_clip", [1, 5])
def test_scores_equal_the_metrics(frames_per_clip: int) -> None:
    model = Bright().eval()
    scores = evaluate(model, clips(), "cpu", frames_per_clip)
    jaccard, f_score = MeanJaccard(), FScore()
    for batch in clips():
        inputs = normalise(batch, model.config)
        frames = inputs.frames.view(5 // frames_per_clip, frames_per_clip, 3, 32, 32)
        log_mel = inputs.log_mel.view(5 // frames_per_clip, frames_per_clip, 1, 96, 64)
        logits = model.predict(replace(inputs, frames=frames, log_mel=log_mel)).logits.view(1, 5, 1, 32, 32)
        jaccard.update(logits, batch.masks)
        f_score.update(logits, batch.masks)
    assert scores.miou == pytest.approx(jaccard.compute().item(), abs=1e-6)
    assert scores.f_score == pytest.approx(f_score.compute().item(), abs=1e-6)
    assert [video.silent for video in scores.videos] == [(False, True, False, False, False)] * 4
    dogs = [video.miou for video in scores.videos if video.category == "dog_barking"]
    assert scores.categories["dog_barking"].miou == pytest.approx(sum(dogs) / 2)
    assert scores.categories["dog_barking"].videos == 2
    assert scores.per_video()["dog_barking/-video_0"] == scores.videos[0].miou


@pytest.mark.parametrize(
    ("frames_per_clip", "sees"),
    [(2, [(0, 1), (2, 3), (3, 4)]), (3, [(0, 1, 2), (2, 3, 4)]), (4, [(0, 1, 2, 3), (1, 2, 3, 4)])],
)
def test_between_one_frame_and_all_the_last_window_reaches_back(
    frames_per_clip: int, sees: list[tuple[int, ...]]
) -> None:
    model, batch = Bright().eval(), collated(2)
    inputs = normalise(batch, model.config)
    logits = video_logits(model, inputs, batch, frames_per_clip)
    assert logits.shape == batch.masks.shape
    light = inputs.frames.mean(2, keepdim=True)
    for k in range(5):
        window = next(list(frames) for frames in sees if k in frames)  # where it comes first
        mean = light[:, window].mean((1, 2, 3, 4), keepdim=True)[:, 0]
        torch.testing.assert_close(logits[:, k], (light[:, k] - mean) * 5)


def test_a_model_s_own_length_is_evaluated_too() -> None:
    model = Bright()
    for length, protocols in ((1, ["T=5", "T=1"]), (2, ["T=5", "T=1", "T=2"]), (5, ["T=5", "T=1"])):
        model.config.frames_per_clip = length
        both = evaluate_both(model, clips(), "cpu")
        assert list(both) == protocols
        assert both[protocols[-1]] == evaluate(model, clips(), "cpu", int(protocols[-1][2:]))


def test_larger_batches_score_the_same() -> None:
    model = Bright()
    alone, together = evaluate_both(model, clips(), "cpu"), evaluate_both(model, [collated(4)], "cpu")
    assert alone == together


def test_unlabelled_frames_are_left_out() -> None:
    batch = next(clips())
    valid = batch.valid.clone()
    valid[:, 1:] = False
    (video,) = evaluate(Bright(), [replace(batch, valid=valid)], "cpu", 5).videos
    assert video.miou == video.frames[0]
    assert all(math.isnan(score) for score in video.frames[1:])
    assert video.silent == (False, True, True, True, True)


def test_mistakes_are_named() -> None:
    with pytest.raises(AvsegError, match="no clips to evaluate"):
        evaluate(Bright(), [], "cpu", 5)
    with pytest.raises(ValueError, match="-video_0 has 3 frames"):
        evaluate(Bright(), clips(frames=3), "cpu", 5)


def test_json_keeps_everything(tmp_path: Path) -> None:
    found = evaluation()
    write_evaluation(tmp_path / "scores.json", found)
    assert read_evaluation(tmp_path / "scores.json") == found
    values = json.loads((tmp_path / "scores.json").read_text())
    assert (values["avseg"], values["model"], values["root"]) == ("0.1.0", "runs/bright", "data")
    assert values["protocols"]["T=1"]["miou"] == found.scores["T=1"].miou
    assert values["protocols"]["T=5"]["categories"]["playing_violin"]["videos"] == 2
    assert values["protocols"]["T=5"]["videos"][1]["name"] == "-video_1"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1, "protocols": 3}', '{"format_version": 9}'])
def test_a_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(AvsegError, match=r"other\.json"):
        read_evaluation(tmp_path / "other.json")
    with pytest.raises(AvsegError, match=r"gone\.json cannot be read"):
        read_evaluation(tmp_path / "gone.json")


def test_tables_fit_80_columns_and_show_the_scores() -> None:
    found = evaluation()
    sounding = {"frames": 16, "iou": 0.3, "selection": 0.25, "quality": None}
    diagnostics = {"sounding": sounding, "silent": {"frames": 4, "background": 0.9}}
    found = replace(found, diagnostics=dict.fromkeys(found.scores, diagnostics))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(scores_table(found), selection_table(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for scores in found.scores.values():
        assert f"{100 * scores.miou:.2f}" in text
        assert f"{100 * scores.categories['dog_barking'].f_score:.2f}" in text
    assert "T=5" in text
    assert "T=1" in text
    assert "25.0" in text
    assert "…" not in text


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    names = make_avsbench(root, "s4", {"train": 1, "val": 1, "test": 3}, prepared=True)
    thing = {"sounding": [True] * 5, "moving": [True] * 5, "unseen_picture": False, "unseen_object": False}
    rows = [{"name": video[0].video, "split": video[0].split, "subset": "s4", "objects": [thing]} for video in names]
    (root / "Single-source" / "scenes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize("neighbouring_frames", [False, True])
def test_a_saved_model_is_scored_on_a_split(data: Path, tmp_path: Path, neighbouring_frames: bool) -> None:
    config = ModelConfig(
        width=8,
        dilations=(1, 2),
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        neighbouring_frames=neighbouring_frames,
        inputs=InputConfig(image_size=64),
    )
    build(config, WeightsConfig(image="none", audio="none", flow="none"), seed=0).save_pretrained(tmp_path / "model")
    arguments = {"device": "cpu", "workers": 0, "progress": False}
    found = evaluate_checkpoint(tmp_path / "model", data, "s4", "test", tmp_path / "scores.json", **arguments)
    assert read_evaluation(tmp_path / "scores.json") == found
    assert (found.model, found.root, found.subset, found.split) == (str(tmp_path / "model"), str(data), "s4", "test")
    assert [len(scores.videos) for scores in found.scores.values()] == [3, 3]
    assert found.diagnostics["T=5"]["strata"]["moving source"]["frames"] == 15
    assert evaluate_checkpoint(tmp_path / "model", data, "s4", "test", **arguments) == found
    # In S4's training split only the first frame has a label.
    (video,) = evaluate_checkpoint(tmp_path / "model", data, "s4", "train", **arguments).scores["T=1"].videos
    assert [math.isnan(score) for score in video.frames] == [False, True, True, True, True]


def test_each_protocol_is_diagnosed_by_its_own_scores(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avseg.evaluation.evaluate.load", lambda checkpoint: Bright())
    monkeypatch.setattr("avseg.evaluation.evaluate.check_source", lambda checkpoint: None)
    found = evaluate_checkpoint("bright", data, "s4", "test", workers=0, progress=False)
    scenes = read_scenes(data, "s4", "test")
    assert found.diagnostics == {protocol: diagnose(scores, scenes) for protocol, scores in found.scores.items()}
    assert found.diagnostics["T=5"] != found.diagnostics["T=1"]


def test_flow_of_other_videos_is_a_control(data: Path, tmp_path: Path) -> None:
    model = toy("motion")
    model.save_pretrained(tmp_path / "model")
    scores = {}
    for flow in ("computed", "shuffled"):
        arguments = {"device": "cpu", "workers": 0, "progress": False, "flow": flow}
        scores[flow] = evaluate_checkpoint(tmp_path / "model", data, "s4", "test", **arguments).scores
        clips = evaluation_clips(data, "s4", "test", model.config.inputs, flow=flow)  # type: ignore[arg-type]
        assert scores[flow] == evaluate_both(model, clips, "cpu")
    assert scores["computed"] != scores["shuffled"]


@pytest.mark.parametrize(
    ("neighbouring_frames", "flow", "recorded"),
    [
        (True, "computed", ("computed", "farneback")),
        (True, "shuffled", ("shuffled", "farneback")),
        (False, "shuffled", ("none", "")),
    ],
)
def test_the_flow_that_was_given_is_recorded(
    neighbouring_frames: bool,
    flow: str,
    recorded: tuple[str, str],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    model, file = save_tiny(tmp_path, neighbouring_frames=neighbouring_frames), tmp_path / "scores.json"
    options = ("--data.workers", "0", "--device", "cpu", "--data.flow", flow, "--json", str(file))
    assert main(["evaluate", str(model), "--data.root", str(data), *options]) == 0
    told = capsys.readouterr()
    assert ("takes no motion, so --data.flow shuffled changes nothing." in told.err) == (recorded[0] == "none")
    assert ("flow of other videos" in told.out) == (recorded[0] == "shuffled")
    values = json.loads(file.read_text())
    assert (values["flow"], values["flow_method"]) == recorded
    found = read_evaluation(file)
    assert (found.flow, found.flow_method) == recorded
    del values["flow"], values["flow_method"]
    file.write_text(json.dumps(values))
    assert read_evaluation(file).flow == ""  # written before flow was recorded


@pytest.mark.parametrize(("resize", "size"), [("stretch", 32), ("stretch", 96), ("letterbox", 96)])
def test_scores_are_at_the_truths_own_size(tmp_path: Path, resize: str, size: int) -> None:
    """Logits are brought to the mask bilinearly, and the mask itself is left as it is."""
    raw = {"ms3_test_1": {"size": (96, 48)}}
    make_avsbench(tmp_path, "ms3", {"test": 2}, settings=raw, prepared=True)
    model = toy("light", image_size=size, resize=resize)
    folder = toy("light", image_size=size, resize=resize).save_pretrained(tmp_path / "model")
    found = {}
    for at in ("truth", "model"):
        out = tmp_path / f"{at}.json"
        evaluate_checkpoint(folder, tmp_path, "ms3", "test", out=out, workers=0, progress=False, size=at)  # type: ignore[arg-type]
        found[at] = json.loads(out.read_text())
        assert found[at]["size"] == at
    wanted = []
    for batch in evaluation_clips(tmp_path, "ms3", "test", model.config.inputs, truth=True):
        logits = model.predict(normalise(batch, model.config)).logits[0]
        video = next(video for video in read_videos(tmp_path, "ms3") if video[0].video == batch.names[0])
        truth = torch.from_numpy(np.stack([read_mask(video[k - 1].mask) for k in range(1, 6)]))[:, None]
        if resize == "letterbox" and video[0].video == "ms3_test_1":
            logits = logits[..., size // 4 : size // 4 + size // 2, :]
        enlarged = torch.nn.functional.interpolate(logits, truth.shape[-2:], mode="bilinear")
        wanted.append(jaccard_per_frame(enlarged[None], truth[None]).mean().item())
    scores = evaluate(model, evaluation_clips(tmp_path, "ms3", "test", model.config.inputs, truth=True), "cpu", 5)
    assert [video.miou for video in scores.videos] == pytest.approx(wanted, abs=1e-6)
    at_model = evaluate(model, evaluation_clips(tmp_path, "ms3", "test", model.config.inputs), "cpu", 5)
    assert at_model.miou != scores.miou


def test_scores_of_different_sizes_are_not_compared(tmp_path: Path) -> None:
    scores = evaluate_both(Bright(), clips(), "cpu")
    measured = Evaluation("m", "r", "s4", "test", "1", scores, {}, size="truth", frames_per_clip=1)
    write_evaluation(tmp_path / "new.json", measured)
    values = json.loads((tmp_path / "new.json").read_text())
    assert replace(read_evaluation(tmp_path / "new.json"), diagnostics={}) == measured
    for name in ("size", "frames_per_clip", "remark"):
        values.pop(name)
    (tmp_path / "old.json").write_text(json.dumps(values))
    old = read_evaluation(tmp_path / "old.json")
    assert (old.size, old.frames_per_clip, old.remark) == ("model", None, "")
    with pytest.raises(AvsegError, match="truth's own size and others at the model's"):
        compare([old], [measured])


def test_another_t_than_the_models_is_said_beside_the_number() -> None:
    measured = Evaluation("m", "r", "ms3", "test", "1", evaluate_both(Bright(), clips(), "cpu"), {}, "", "", "truth", 1)
    shown = io.StringIO()
    Console(file=shown, width=80).print(scores_table(measured))
    assert "T=5*" in shown.getvalue()
    assert "T=1*" not in shown.getvalue()
    assert "trained at T=1" in " ".join(shown.getvalue().split())
    assert replace(measured, frames_per_clip=None).remark == ""
