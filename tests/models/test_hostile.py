"""Models that anybody may have written: no traceback, no hang, no memory, no network, and no rubbish as an answer."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import make_avsbench
from safetensors.torch import load_file, save_file
from toy_models import save_tiny

from avseg.cli import main
from avseg.config import InputConfig, ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models import build, load
from avseg.models.weights import read_state, sound_tensors

REPOSITORY = Path(__file__).parents[2]
RANDOM = WeightsConfig(image="none", audio="none", flow="none")


def test_damaged_and_malicious_models_are_refused_within_limits(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    save_tiny(folder / "tiny", neighbouring_frames=True)
    backbone = {"model_type": "convnext", "hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}
    config = ModelConfig(
        image_encoder="someone/backbone",
        image_encoder_config=backbone,
        audio_encoder="cnn",
        width=8,
        inputs=InputConfig(image_size=64),
    )
    build(config, RANDOM, seed=0).save_pretrained(folder / "backbone")
    script = Path(__file__).with_name("hostile.py")
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["asked"] == []
    assert found["refused"] > 150
    assert found["mebibytes"] < 1000


def spoilt(folder: Path, spoil: Any) -> Path:
    """A saved model with one tensor changed by ``spoil``."""
    file = save_tiny(folder) / "model.safetensors"
    state = load_file(file)
    spoil(state)
    save_file(state, file)
    return folder


def set_one(name: str, value: float) -> Any:
    return lambda state: state[name].view(-1).__setitem__(0, value)


def set_type(name: str, kind: torch.dtype) -> Any:
    return lambda state: state.update({name: state[name].to(kind)})


SPOILT = {
    "NaN": (set_one("output.conv3.bias", float("nan")), "output.conv3.bias has values that are NaN or infinite"),
    "infinite": (set_one("audio_encoder.embedding.bias", float("inf")), "audio_encoder.embedding.bias has values"),
    "whole": (set_type("output.conv1.weight", torch.int8), "output.conv1.weight holds torch.int8, not torch.float32"),
    "bool": (set_type("audio_encoder.norm.num_batches_tracked", torch.bool), "holds torch.bool, not torch.int64"),
    "large": (
        lambda state: state.update({"output.conv3.bias": torch.full((1,), 1e300, dtype=torch.float64)}),
        "output.conv3.bias has values that are NaN or infinite",
    ),
    "variance": (set_one("audio_encoder.norm.running_var", -1.0), "running_var has negative values"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_weights_that_nothing_can_be_computed_with_are_named(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spoil, sentence = SPOILT[case]
    folder = spoilt(tmp_path / "model", spoil)
    with pytest.raises(AvsegError, match=sentence):
        load(folder)
    state = {f"model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    config = json.loads((folder / "config.json").read_text())
    config.pop("format_version")
    torch.save({"avseg_model": config, "state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(AvsegError, match=sentence):
        load(tmp_path / "last.ckpt")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_sizes_are_read(kind: torch.dtype, tmp_path: Path) -> None:
    def spoil(state: dict[str, torch.Tensor]) -> None:
        state.update({name: item.to(kind) for name, item in state.items() if item.is_floating_point()})

    model = load(spoilt(tmp_path / "model", spoil))
    assert {item.dtype for item in model.parameters()} == {torch.float32}


def test_weights_to_start_from_and_to_convert_are_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from avseg.models.audio import VGGish

    state = VGGish().state_dict()
    state["features.0.bias"][0] = float("nan")
    torch.save(state, tmp_path / "vggish.pth")
    config = ModelConfig(image_encoder="efficientnet_lite0", width=8)
    with pytest.raises(AvsegError, match=r"vggish\.pth: features\.0\.bias has values that are NaN"):
        build(config, WeightsConfig(image="none", audio=str(tmp_path / "vggish.pth"), flow="none"))
    assert main(["convert", str(tmp_path / "vggish.pth"), "--out", str(tmp_path / "out")]) == 1
    assert "features.0.bias has values that are NaN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "value", "sentence"),
    [
        (("inputs", "std"), [0.2, 0.0, 0.2], r"model\.inputs\.std is \[0\.2, 0\.0, 0\.2\]"),
        (("frames_per_clip",), 0, r"model\.frames_per_clip is 0: give a whole number from 1 to 100"),
        (("inputs", "image_size"), 10**9, r"model\.inputs\.image_size is 1000000000"),
        (("options",), {"stages": [1, 1]}, "each once"),
    ],
)
def test_settings_of_a_model_are_checked(where: tuple[str, ...], value: Any, sentence: str, tmp_path: Path) -> None:
    file = save_tiny(tmp_path) / "config.json"
    values = json.loads(file.read_text())
    inner = values
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    file.write_text(json.dumps(values))
    with pytest.raises(AvsegError, match=sentence):
        load(tmp_path)


def test_a_packed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    whole, packed = tmp_path / "whole.pth", tmp_path / "packed.pth"
    torch.save({"w": torch.zeros(1_000_000)}, whole)
    assert read_state(whole)["w"].shape == (1_000_000,)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    for read in (read_state, load):
        with pytest.raises(AvsegError, match=r"packed\.pth is "):
            read(packed)


def test_answers_that_are_no_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = spoilt(tmp_path / "model", lambda state: state["output.conv1.weight"].fill_(3e38))
    make_avsbench(tmp_path / "data", "s4", {"test": 1}, prepared=True)
    video = next(tmp_path.rglob("*.mp4"))
    for command in (
        ["evaluate", model, "--data.root", tmp_path / "data", "--data.workers", 0, "--device", "cpu"],
        ["segment", video, "--checkpoint", model, "--out", tmp_path / "out", "--fps", 1, "--device", "cpu"],
    ):
        assert main([str(word) for word in command]) == 1
        assert "The model's answer" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_numbers_that_do_not_convert_are_named() -> None:
    packed = torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8)
    with pytest.raises(AvsegError, match=r"x: a holds torch\.quint8, not torch\.int64"):
        sound_tensors({"a": packed}, {"a": torch.zeros(2, dtype=torch.int64)}, "x")
