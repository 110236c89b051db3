"""Options and places that cannot be: one clear sentence before any work is begun."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import TINY

from avseg.cli import main


@pytest.fixture
def fails(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that should fail, and gives the one line that it says."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 1
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith("avseg: error: ")
        assert said.endswith(".")
        return said.removeprefix("avseg: error: ")

    return run


@pytest.mark.parametrize("line", ["evaluate model --data.root x --json {there}", "bench --json {there}"])
def test_where_scores_cannot_go_is_told_before_the_work(
    line: str, tmp_path: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*given: object, **more: object) -> None:
        raise AssertionError("began to work")

    monkeypatch.setattr("avseg.evaluation.evaluate.load", work)
    monkeypatch.setattr("benchmarks.suite.run", work)
    said = fails(*line.format(there=tmp_path).split())
    assert said == f"{tmp_path} is a folder, and a file is to be written: name a file."


def test_a_file_where_a_folder_goes(tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "file").touch()
    said = fails("data", "synth", tmp_path / "file", "--videos", 6)
    assert said == f"{tmp_path / 'file'} is a file, and a folder is needed there: name another."


SETTINGS = {
    ("--optim.learning_rate", "-1"): "optim.learning_rate is -1.0: give a number above 0 and up to 100.",
    ("--optim.epochs", "0"): "optim.epochs is 0: give a whole number from 1 to 1,000,000.",
    ("--optim.accumulate", "0"): "optim.accumulate is 0: give a whole number from 1 to 1,000,000.",
    ("--optim.weight_decay", "-1"): "optim.weight_decay is -1.0: give a number from 0 to 100.",
    ("--ufe.burn_in", "-2"): "ufe.burn_in is -2: give a whole number from 0 to 1,000,000.",
    (
        "--model.frames_per_clip",
        "10",
    ): "model.frames_per_clip is 10: this data set's videos have 5 frames, so give 1 to 5.",
    ("--ufe.unsup_matching", "-1"): "ufe.unsup_matching is -1.0: give a number from 0 to 1,000,000",
    ("--model.base=avsegformer", "--ufe.unsup_matching=0.2"): "ufe.unsup_matching weighs a matching loss, which avseg",
    ("--run.validate_every", "0"): "run.validate_every is 0: give a whole number from 1 to 1,000,000.",
    ("--run.accelerator", "mps"): "run.accelerator mps with run.devices auto is not available here (",
}


@pytest.mark.parametrize("option", SETTINGS, ids="".join)
def test_a_setting_that_cannot_be(option: tuple[str, str], tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    given = ("--config", tmp_path / "tiny.yaml", "--data.root", tmp_path, "--run.out", tmp_path / "run")
    assert fails("train", *given, *option).startswith(SETTINGS[option])
    assert not (tmp_path / "run").exists()
