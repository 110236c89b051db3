"""Labels made by machine: what is labelled, what is left to distant frames, resuming, a student that trains on it."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import write_mp4

from avseg.cli import main
from avseg.config import load_config
from avseg.data.avsbench import avsbench, read_frames
from avseg.data.check import check
from avseg.data.dataset import whole_videos
from avseg.errors import AvsegError
from avseg.inference.inputs import find_inputs
from avseg.media.images import read_image, read_mask
from avseg.openvocab.annotate import annotate
from avseg.openvocab.choose import Choice
from avseg.openvocab.segmenter import OpenVocabulary
from avseg.training.run import train

sys.path.insert(0, str(Path(__file__).parent))
from tiny import BrightEyes, LoudTagger


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for number in range(3):
        write_mp4(tmp_path / "films" / f"film {number}.mp4", number=number, seconds=7, size=(96, 64))
    write_mp4(tmp_path / "films" / "short.mp4", seconds=2)
    (tmp_path / "films" / "broken.mp4").write_bytes(b"nothing")
    return tmp_path / "films"


def segmenter() -> OpenVocabulary:
    return OpenVocabulary(LoudTagger(), BrightEyes(), "cpu", how=Choice(size=64))


def test_sure_frames_are_labels_and_the_rest_is_distant(videos: Path, tmp_path: Path) -> None:
    done = annotate(find_inputs([videos]), segmenter(), tmp_path / "mine", threshold=0.3, size=64)
    assert (done.videos, done.pieces) == (3, 6)  # five seconds, and the last five
    assert [name for name, _ in done.failures] == ["broken"]
    assert [name for name, _ in done.notes] == ["short"]
    frames = read_frames(avsbench(tmp_path / "mine", "s4"))
    assert len(frames) == 30
    assert {frame.category for frame in frames} == {"bark"}
    assert {frame.split for frame in frames} == {"train", "val"}
    names = (tmp_path / "mine" / "labelled.txt").read_text().split()
    assert len(names) == done.labelled == 4
    for frame in frames:
        image = read_image(frame.image)
        assert image.shape == (64, 64, 3)
        if frame.labelled:
            bright = image.max(axis=2) > 140
            mask = read_mask(frame.mask)
            assert (mask & bright).sum() / (mask | bright).sum() > 0.7
    with (tmp_path / "mine" / "confidence.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in {row["name"] for row in rows}:
        sure = [float(row["confidence"]) for row in rows if row["name"] == name]
        assert sure[0] == max(sure)
    assert {row["use"] for row in rows if row["name"] in names and row["k"] == "1"} == {"label"}
    assert (tmp_path / "mine" / "contact-001.png").is_file()
    assert not [problem for problem in check(tmp_path / "mine", "s4") if problem.path.suffix != ".wav"]


def test_it_goes_on_with_what_is_missing(videos: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    annotate(find_inputs([videos]), segmenter(), whole, 0.3, 64)
    inputs = find_inputs([videos])

    class Once(OpenVocabulary):
        seen = 0

        def _scored(self, source: Any, keep: bool) -> Any:
            Once.seen += 1
            if Once.seen == 2:
                raise KeyboardInterrupt
            return super()._scored(source, keep)

    with pytest.raises(KeyboardInterrupt):
        annotate(inputs, Once(LoudTagger(), BrightEyes(), "cpu", how=Choice(size=64)), parts, 0.3, 64)
    before = {path: path.stat().st_mtime_ns for path in (parts / "annotations").iterdir()}
    annotate(inputs, segmenter(), parts, 0.3, 64)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    for name in ("labelled.txt", "confidence.csv", "Single-source/s4_meta_data.csv"):
        assert (parts / name).read_text() == (whole / name).read_text()
    # Another threshold needs no other pass.
    assert annotate(inputs, segmenter(), parts, 0.9, 64).labelled == 0


def test_a_student_trains_on_it(videos: Path, tmp_path: Path) -> None:
    annotate(find_inputs([videos]), segmenter(), tmp_path / "mine", 0.3, 64)
    config = load_config(
        "own_videos",
        f"--data.root={tmp_path / 'mine'}",
        f"--data.labelled={tmp_path / 'mine' / 'labelled.txt'}",
        f"--run.out={tmp_path / 'run'}",
        "--model.inputs.image_size=64",
        "--model.width=16",
        "--weights.image=none",
        "--optim.epochs=2",
        "--optim.batch_size=2",
        "--ufe.burn_in=1",
        "--run.accelerator=cpu",
        "--run.validate_every=1",
        "--run.progress=false",
    )
    train(config)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert len(whole_videos(avsbench(tmp_path / "mine", "s4"), "val")) == 2


def test_the_command_and_what_it_refuses(videos: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path / "home"))
    words = ["data", "annotate", str(videos), "--size", "64", "--confidence", "0.01"]
    assert main([*words, "--out", str(tmp_path / "mine")]) == 1  # one video is broken
    said = capsys.readouterr()
    assert "6 pieces of five seconds from 3 videos" in said.out
    assert "broken.mp4" in said.out
    (tmp_path / "other" / "Single-source").mkdir(parents=True)
    assert main([*words, "--out", str(tmp_path / "other")]) == 1
    assert "was not made by machine" in capsys.readouterr().err
    with pytest.raises(AvsegError, match="Nothing was annotated"):
        annotate(find_inputs([videos / "short.mp4"]), segmenter(), tmp_path / "none", 0.3, 64)
