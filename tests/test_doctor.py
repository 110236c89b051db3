"""``avseg doctor`` tells what is here, and what is missing with the mend."""

import importlib.util
import sys
from pathlib import Path

import pytest
from toy_models import save_tiny

from avseg import doctor
from avseg.cli import main
from avseg.inference import segmenter
from avseg.models.weights import VGGISH_URL, hub_file


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


def test_here_nothing_that_is_needed_is_missing(capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    for text in ("avseg  ", "torch  ", "libavcodec", "--device auto", "wrote and read 8 frames", "GB free"):
        assert text in told
    assert told.endswith("\nEverything that is needed is here.\n")


def test_a_package_that_is_missing_is_told_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real = importlib.util.find_spec
    gone = ("lightning", "gradio")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else real(name))
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "! lightning " in told
    assert "- gradio " in told
    missing = told[told.index("\nmissing\n") :]
    assert missing == "\nmissing\n  lightning: python -m pip install lightning\n"
    assert "  gradio: For the web page: python -m pip install gradio" in told


def test_what_cannot_be_imported_stops_no_other_check(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "av" else real(name))
    monkeypatch.setitem(sys.modules, "av", None)  # what a library that doesn't load looks like to an import
    found = by_name(doctor.examine())
    assert found["av"].state == "missing"
    assert found["av"].value.startswith("can't be loaded (")
    assert found["not looked at"].mend == "Install av."
    assert found["here"].value.endswith("GB free")


def test_codecs_are_really_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_round_trip", lambda: (7, 0.32))
    assert by_name(doctor.examine())["H.264 and AAC in mp4"].state == "missing"

    def fail() -> None:
        raise ValueError("no codec libx264")

    monkeypatch.setattr(doctor, "_round_trip", fail)
    found = by_name(doctor.examine())["H.264 and AAC in mp4"]
    assert (found.state, found.value) == ("missing", "can't be written (no codec libx264)")
    assert "pip install" in found.mend


def test_weights_that_are_here_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(segmenter, "files", lambda package: tmp_path / package)
    before = by_name(doctor.examine())
    assert before["VGGish, to train from"].state == before["the model of avseg"].state == "optional"
    assert VGGISH_URL in before["VGGish, to train from"].mend
    hub_file(VGGISH_URL).parent.mkdir(parents=True)
    hub_file(VGGISH_URL).write_bytes(b"weights")
    save_tiny(tmp_path / "avseg" / "shipped")
    after = by_name(doctor.examine())
    assert after["VGGish, to train from"].state == after["the model of avseg"].state == "ok"
    assert after["the model of avseg"].value.endswith(" MB")


def test_little_disk_and_spinning_threads_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LITTLE", float("inf"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    found = by_name(doctor.examine())
    assert (found["here"].state, found["OMP_WAIT_POLICY"].state) == ("missing", "optional")
