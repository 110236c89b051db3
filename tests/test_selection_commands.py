"""``avseg data mine`` and ``avseg data labels`` as a person meets them."""

import re
from pathlib import Path

import pytest
from helpers import make_avsbench, read_videos, write_mp4

from avseg.cli import main
from avseg.config import DataConfig
from avseg.data.avsbench import distant_frames, read_frames
from avseg.data.dataset import training_clips


def avseg(*arguments: object, code: int = 0) -> None:
    assert main([str(argument) for argument in arguments]) == code


def test_mining_the_generated_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its own VGGSound folder has its own categories for labels."""
    root, out = tmp_path / "bench", tmp_path / "mined"
    avseg("data", "synth", root, "--subset", "ms3", "--edition", "small", "--videos", 1, "--distant", 3, "--workers", 1)
    capsys.readouterr()
    avseg("data", "mine", root / "VGGSound", "--like", root, "--out", root, code=1)
    assert "did not make: name another --out" in capsys.readouterr().err
    avseg("data", "mine", root / "VGGSound", "--like", root, "--out", out, "--count", 2)
    told = capsys.readouterr()
    assert f"{out / 'MS3_Extend'}: 2 distant frames, listed in mined.csv" in told.out
    assert "made: frames 2, flow 2, log_mel 2; left out: 0 videos of the data set, 0 that are broken" in told.out
    avseg("data", "mine", root / "VGGSound", "--like", root, "--out", out, "--count", 9)
    told = capsys.readouterr()
    assert "made: frames 1, flow 1, log_mel 1;" in told.out
    assert "note: --count asks for 9, and there are no more than 3" in told.err
    assert len(read_frames(distant_frames(out / "MS3_Extend"))) == 3


def test_mining_says_what_it_took_and_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_avsbench(tmp_path / "data", "ms3", {"train": 1})
    source = tmp_path / "sounds"
    for number, name in enumerate(("-a_000010", "b_000020", "c_000030")):
        write_mp4(source / f"{name}.mp4", number=number, seconds=2, sound=0 if name[0] == "c" else None)
    (source / "l.csv").write_text('-a,10,"race car, auto racing",train\nb,20,dog barking,test\nc,30,dog bow-wow,test\n')
    arguments = ("data", "mine", source, "--like", tmp_path / "data", "--out", tmp_path / "data", "--workers", 1)
    avseg(*arguments)
    told = capsys.readouterr()
    assert re.search(r"dog_barking\W+1\W+2\W", told.out)
    assert re.search(r"race_car\W+1\W+1\W", told.out)
    assert re.search(r"driving_buses\W+0\W+0\W", told.out), "a category that the folder lacks is told"
    assert "0 videos of the data set, 1 that are broken" in told.out
    assert re.search(r"note: left out: .*c_000030\.mp4", told.err)
    avseg("data", "prepare", tmp_path / "data", "--workers", 1)
    avseg("data", "check", tmp_path / "data", "--workers", 1)


def test_labels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_avsbench(tmp_path, "s4", {"train": 4, "test": 1}, seconds=0.5)
    avseg("data", "labels", tmp_path, "--fractions", "0.25,0.5", "--seed", 2)
    files = [tmp_path / "labels" / f"s4-labels-{share}-seed2.txt" for share in (25, 50)]
    assert capsys.readouterr().out == f"{files[0]}: 1 video\n{files[1]}: 2 videos\n"
    config = DataConfig(root=str(tmp_path), labelled=str(files[1]))
    clips, distant, size = training_clips(config, 1, True)
    assert (len(clips), len(distant), size) == (2, 2 * 4 + 2 * 5, 4)
    assert {clip[0].video for clip in clips} < {video[0].video for video in read_videos(tmp_path, "s4")}


@pytest.mark.parametrize("shares", ["0", "10", "0.1;0.2", "0.1,", "half"])
def test_wrong_shares_are_told_in_a_sentence(shares: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    avseg("data", "labels", tmp_path, "--fractions", shares, code=1)
    first, *more = capsys.readouterr().err.splitlines()
    assert first.startswith("avseg: error: --fractions takes shares above 0 and up to 1 with commas between")
    assert first.endswith(f"not {shares}.")
    assert not more
