"""What is cheap to check is told before anything is fetched, loaded or written."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import make_avsbench, read_videos
from small_run import TINY
from toy_models import save_tiny

from avseg.cli import main
from avseg.models import weights


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was asked of the network, which isn't there; and caches that are empty."""
    names: list[str] = []

    def refuse(*given: Any, **more: Any) -> None:
        names.append(repr(given)[:80])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    weights._hub_answers.cache_clear()
    return names


@pytest.fixture
def says(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    def run(*arguments: object, code: int = 1) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == code
        return capsys.readouterr().err.splitlines()[-1]

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("order") / "data"
    make_avsbench(root, "s4", {"train": 2, "val": 1, "test": 1}, prepared=True)
    return root


PUBLISHED = "model: {image_encoder: pvt_v2_b5}\nrun: {accelerator: cpu}\ndata: {workers: 0}\n"  # weights are fetched


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data.root", "WRONG"], "WRONG/Single-source/s4_meta_data.csv does not exist"),
        (["--model.frames_per_clip", 6], "model.frames_per_clip is 6"),
        (["--run.devices", 1000], "run.devices is 1000, and this machine's CPU has"),
        (["--run.devices", 1_000_000], "run.devices is 1000000: give a whole number from 1 to 1,024, or auto"),
        (["--run.nodes", 99], "run.nodes is 99, and this process was started alone"),
        (["--run.accelerator", "gpu"], "run.accelerator gpu with run.devices auto is not available here"),
        (["--run.out", "file"], "file is a file, and a folder is needed there"),
        (["--weights.start", "none/at/all"], "none/at/all does not exist: give the folder of a trained model"),
        (["--weights.audio", "none.pth"], "weights.audio: none.pth does not exist"),
        (["--model.options", "{stages: [5]}"], "model.options.stages is [5]"),
        (["--data.labelled", "none.txt"], "data.labelled: none.txt cannot be read"),
    ],
)
def test_training_tells_what_is_wrong_before_it_fetches_weights(
    options: list[object],
    sentence: str,
    data: Path,
    asked: list[str],
    says: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("c.yaml").write_text(PUBLISHED)
    said = says("train", "--config", "c.yaml", "--data.root", data, "--run.out", "run", *options)
    assert said.startswith(f"avseg: error: {sentence}")
    assert asked == []
    assert not Path("run").exists()
    assert not (data / ".avseg" / "store").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_file_is_told_before_weights_are_fetched(
    split: str, asked: list[str], says: Callable[..., str], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    make_avsbench(root, "s4", {"train": 1, "val": 1}, seconds=1, size=32, prepared=True)
    video = next(video for video in read_videos(root, "s4") if video[0].split == split)
    frame = video[0].image
    frame.unlink()
    (tmp_path / "c.yaml").write_text(PUBLISHED)
    said = says("train", "--config", tmp_path / "c.yaml", "--data.root", root, "--run.out", tmp_path / "run")
    assert said.startswith(f"avseg: error: {frame} does not exist")
    assert asked == []


@pytest.mark.parametrize("encoder", ["nobody/backbone", "pvt_v2_b5"])
def test_weights_that_are_not_here_are_asked_for_once(
    encoder: str, data: Path, asked: list[str], says: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(PUBLISHED)
    arguments = ("train", "--config", tmp_path / "c.yaml", "--data.root", data, "--run.out", tmp_path / "run")
    assert encoder in says(*arguments, "--model.image_encoder", encoder)
    assert 1 <= len(asked) <= 2  # ours, and one of the hub's library for itself


def test_offline_nothing_is_asked(
    data: Path, asked: list[str], says: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "nobody/model is neither a folder here nor" in says("evaluate", "nobody/model", "--data.root", data)
    assert asked == []


def test_evaluating_tells_what_is_wrong_before_it_loads_the_model(
    data: Path, says: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_tiny(tmp_path / "model")

    def load(*given: object) -> None:
        raise AssertionError("loads")

    monkeypatch.setattr("avseg.evaluation.evaluate.load", load)
    assert "s4_meta_data.csv does not exist" in says("evaluate", model, "--data.root", tmp_path)
    assert "device 'tpu' is not available" in says("evaluate", model, "--data.root", data, "--device", "tpu")
    assert "none does not exist" in says("evaluate", tmp_path / "none", "--data.root", data)
    (model / "model.safetensors").unlink()
    assert f"{model} has no model.safetensors" in says("evaluate", model, "--data.root", data)


def test_segmenting_tells_what_is_wrong_before_it_opens_a_video(
    says: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*given: object, **more: object) -> None:
        raise AssertionError("begins")

    monkeypatch.setattr("avseg.inference.video.segment_video", begin)
    monkeypatch.setattr("avseg.inference.segmenter.models.load", begin)
    (tmp_path / "a.mp4").touch()
    assert "none does not exist: give" in says("segment", tmp_path / "a.mp4", "--checkpoint", tmp_path / "none")
    assert "device 'tpu' is not available" in says("segment", tmp_path / "a.mp4", "--device", "tpu")


def test_others_tell_what_is_wrong_before_their_work(
    says: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*given: object, **more: object) -> None:
        raise AssertionError("begins")

    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    for name in ("synthetic.write.load_objects", "data.mine.read_folder", "models.convert.read_state",
                 "reproduce.table.generated_source", "demo.write_videos", "app.server._house_rules"):  # fmt: skip
        monkeypatch.setattr(f"avseg.{name}", begin)
    assert "file is a file" in says("data", "synth", "file", "--videos", 6)
    assert "file is a file" in says("data", "mine", ".", "--like", ".", "--out", "file")
    assert "none.pth does not exist" in says("convert", "file", "--vggish", "none.pth", "--out", "out")
    assert "fly" in says("reproduce", "table5", "--only", "fly", "--out", "out")
    assert "file is a file" in says("reproduce", "table5", "--out", "file")
    assert "--nothing=1 names no field" in says("reproduce", "table5", "--set", "nothing=1", "--out", "out")
    assert "none is no folder of cut-outs" in says("demo", "--objects", "none")
    assert "none does not exist: give the folder" in says("app", "--checkpoint", "none")
    assert Path("file").read_text() == "mine"
    assert sorted(os.listdir()) == ["file"]


def test_a_small_configuration_still_trains(data: Path, asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(TINY)
    arguments = ["train", "--config", tmp_path / "c.yaml", "--data.root", data, "--run.out", tmp_path / "run"]
    assert main([str(word) for word in arguments]) == 0
    assert asked == []
