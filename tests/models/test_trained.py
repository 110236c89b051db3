"""Trained models are found in folders and described from their files."""

import json
from pathlib import Path

import pytest
from toy_models import save_tiny

from avseg.cli import main
from avseg.models.trained import find_models


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    run = save_tiny(tmp_path / "runs" / "demo" / "ufe", neighbouring_frames=True)
    (run / "run.json").write_text(json.dumps({"validation": {"val/miou": 0.4321, "val/f_score": 0.6}}))
    (run / "config.yaml").write_text("ufe: {distant_frames: true}\n")
    save_tiny(run / "best", neighbouring_frames=True)
    save_tiny(tmp_path / "runs" / "baseline")
    other = tmp_path / "runs" / "other"
    other.mkdir()
    (other / "config.json").write_text('{"architectures": ["Bert"]}')
    (other / "model.safetensors").write_bytes(b"")
    broken = tmp_path / "runs" / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    return tmp_path / "runs"


def test_models_are_found_and_others_passed_over(runs: Path) -> None:
    baseline, ufe, best = find_models(runs)
    assert [model.folder.relative_to(runs) for model in (baseline, ufe, best)] == [
        Path("baseline"),
        Path("demo/ufe"),
        Path("demo/ufe/best"),
    ]
    assert (ufe.base, ufe.image_encoder, ufe.image_size, ufe.miou) == ("tpavi", "efficientnet_lite0", 64, 0.4321)
    assert (baseline.ufe, ufe.ufe, best.ufe) == ("", "NF + DF", "NF + DF")
    assert baseline.miou is best.miou is None
    assert ufe.megabytes == pytest.approx((ufe.folder / "model.safetensors").stat().st_size / 1e6)
    assert find_models(runs / "none") == []


def test_the_command_lists_them(runs: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["models", str(runs)]) == 0
    told = capsys.readouterr().out
    assert f"  {runs}/demo/ufe\n    tpavi, efficientnet_lite0, UFE (NF + DF), 64 px, " in told
    assert "MB, val mIoU 43.2\n" in told
    assert f"  {runs}/baseline\n    tpavi, efficientnet_lite0, without UFE, 64 px, " in told
    assert "https://github.com/OpenNLPLab/AVSBench" in told
    assert main(["models", str(runs / "none")]) == 0
    assert "no such folder; `avseg demo` and `avseg train` make some" in capsys.readouterr().out
