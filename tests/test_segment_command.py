"""``avseg segment`` as a person uses it: many videos, bad ones among them, results that exist, and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import ffmpeg, hears_ctrl_c, write_mp4
from toy_models import save_tiny

from avseg.cli import main
from avseg.media.audio import load_audio, write_wav
from avseg.media.images import read_mask, write_image
from avseg.media.video import probe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def segment(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in the test's folder; gives exit code, output and what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object, out: str = "out") -> tuple[int, str, str]:
        capsys.readouterr()
        words = [*map(str, arguments), "--checkpoint", str(model), "--out", out, "--device", "cpu"]
        code = main(["segment", *words, *([] if "--fps" in words else ["--fps", "2"])])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def states(table: str) -> dict[str, str]:
    """What the table says of each video."""
    rows = [line.split() for line in table.splitlines()[1:] if not line.startswith("  ")]
    return {words[0]: words[-1] for words in rows if words}


def test_a_bad_video_does_not_stop_the_others(segment: Callable, tmp_path: Path) -> None:
    for name in ("a", "c", "a_name_that_is_longer_than_what_fits_into_a_table_of_eighty_columns"):
        write_mp4(tmp_path / "videos" / f"{name}.mp4", seconds=1)
    (tmp_path / "videos" / "b.mp4").write_text("no video")
    write_mp4(tmp_path / "videos" / "mute.mp4", seconds=1, sound=0)

    code, table, said = segment("videos", "gone.mp4", "nothing/*.mp4")

    assert code == 1
    assert states(table)["a.mp4"] == states(table)["c.mp4"] == "done"
    assert list(states(table).values()) == ["done", "done", "failed", "done", "failed", "failed", "failed"]
    assert max(map(len, table.splitlines())) <= 80
    assert re.search(r"^a\.mp4 +1\.0 +2 +\d+ % +[\d.]+  done *$", table, re.M)
    errors = [line for line in said.splitlines() if line.startswith("avseg: error: ")]
    for error, sentence in zip(
        errors,
        ("videos/b.mp4 isn't a video", "videos/mute.mp4 has no audio track", "gone.mp4 doesn't exist", "matches no"),
        strict=True,
    ):
        assert sentence in error
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.mp4")) == [
        "a", "a_name_that_is_longer_than_what_fits_into_a_table_of_eighty_columns", "c",
    ]  # fmt: skip
    assert not list((tmp_path / "out").glob(".*"))


def test_all_fine_is_zero_and_only_what_is_new_is_done(segment: Callable, tmp_path: Path) -> None:
    for name in "ab":
        write_mp4(tmp_path / f"{name}.mp4", seconds=1)
    assert segment("*.mp4")[0] == 0
    before = files(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    write_mp4(tmp_path / "new.mp4", seconds=1)
    code, table, said = segment("*.mp4")
    assert code == 0
    assert states(table) == {"a.mp4": "kept", "b.mp4": "kept", "new.mp4": "done"}
    assert "results of 2 of 3 videos were there already and were kept: --overwrite replaces them" in said
    assert {path: path.stat().st_mtime_ns for path in times if path != tmp_path / "out"} == {
        path: stamp for path, stamp in times.items() if path != tmp_path / "out"
    }

    code, table, said = segment("a.mp4", "b.mp4", "--overwrite", "--fps", "4")
    assert states(table) == {"a.mp4": "done", "b.mp4": "done"}
    assert "kept" not in said
    after = files(tmp_path / "out")
    assert len([name for name in after if name.startswith("a/masks")]) == 4
    assert all(after[name] != before[name] for name in before if name.endswith(".json"))


def test_two_videos_of_one_name_keep_apart(segment: Callable, tmp_path: Path) -> None:
    write_mp4(tmp_path / "x" / "clip.mp4", seconds=1, size=(64, 48))
    write_mp4(tmp_path / "y" / "clip.mp4", seconds=2, size=(48, 64))
    assert segment("x/clip.mp4", "y/clip.mp4")[0] == 0
    assert [probe(tmp_path / "out" / f"{name}_clip.mp4").width for name in "xy"] == [64, 48]

    assert segment("x/clip.mp4", out="one")[0] == 0
    before = files(tmp_path / "one")
    code, _, said = segment("y/clip.mp4", out="one")
    assert code == 1
    assert "one/clip holds the results of another clip.mp4: choose another folder (--out)" in said
    assert files(tmp_path / "one") == before


def test_results_are_no_videos_to_segment(segment: Callable, tmp_path: Path) -> None:
    write_mp4(tmp_path / "clip.mp4", seconds=1)
    assert segment("clip.mp4")[0] == 0
    code, _, said = segment("out", out="again")
    assert (code, said) == (
        1,
        "avseg: error: out holds nothing but overlays that avseg wrote: name a folder of videos.\n",
    )
    # Results beside their videos: a second run finds the videos alone.
    write_mp4(tmp_path / "both" / "one.mp4", seconds=1)
    assert segment("both", "--save", "masks,coco", out="both")[0] == 0
    code, table, _ = segment("both", "--save", "masks,coco", out="both")
    assert (code, states(table)) == (0, {"one.mp4": "kept"})


def test_what_is_saved_is_chosen(segment: Callable, tmp_path: Path) -> None:
    write_mp4(tmp_path / "clip.mp4", seconds=1)
    assert segment("clip.mp4", "--save", "coco, npz")[0] == 0
    assert set(files(tmp_path / "out")) == {"clip/coco.json", "clip/moments.json", "clip/scores.npz"}
    code, out, _ = segment("clip.mp4", "--save", "video,masks,coco,npz,strip")
    assert code == 0
    assert {"clip.mp4", "clip/strip.png", "clip/masks/000001_0.500.png"} < set(files(tmp_path / "out"))
    assert [line.strip() for line in out.splitlines()[2:]] == [
        f"out/{name}"
        for name in (
            "clip.mp4",
            "clip/masks",
            "clip/coco.json",
            "clip/scores.npz",
            "clip/strip.png",
            "clip/moments.json",
        )
    ]
    code, _, said = segment("clip.mp4", "--save", "gif")
    assert (code, said) == (
        1,
        "avseg: error: 'gif' is nothing that can be saved: choose among video, masks, coco, npz, strip.\n",
    )


def test_options_reach_the_model(segment: Callable, tmp_path: Path) -> None:
    write_mp4(tmp_path / "clip.mp4", seconds=2)
    options = ("--start", 0.5, "--end", 1.5, "--threshold", 0.99, "--smoothing", 0.4, "--hysteresis", 0.005)
    assert segment("clip.mp4", *options)[0] == 0
    known = json.loads((tmp_path / "out" / "clip" / "moments.json").read_text())
    assert known["options"] | {"model": ""} == {
        "fps": 2.0,
        "start": 0.5,
        "end": 1.5,
        "threshold": 0.99,
        "smoothing": 0.4,
        "hysteresis": 0.005,
        "audio_track": None,
        "model": "",
    }
    assert [row["time"] for row in known["moments"]] == [0.5, 1.0]
    assert not any(row["share"] for row in known["moments"])


def test_folders_of_pictures(segment: Callable, tmp_path: Path) -> None:
    for k in range(8):
        write_image(tmp_path / "shots" / f"{k}.png", np.full((48, 64, 3), 20 * k, np.uint8))
    write_wav(tmp_path / "shots" / "sound.wav", np.zeros(16_000, np.float32))
    code, table, _ = segment("shots", "--fps", "all")
    assert (code, states(table)) == (0, {"shots": "done"})
    assert probe(tmp_path / "out" / "shots.mp4").fps == pytest.approx(8)
    assert segment("shots", "--fps", "all", "--frame_rate", 4, out="slow")[0] == 0
    assert probe(tmp_path / "slow" / "shots.mp4").duration == pytest.approx(2, abs=0.01)


def test_a_model_that_is_not_there_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    videos = [tmp_path / f"{name}.mp4" for name in "abc"]
    for video in videos:
        write_mp4(video, seconds=1)
    words = [*map(str, videos), "--checkpoint", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert main(["segment", *words]) == 1
    assert capsys.readouterr().err.count("does not exist: give the folder of a trained model") == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_finished_files_whole_and_nothing_else(model: Path, tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", seconds=1)
    write_mp4(tmp_path / "b.mp4", seconds=120, size=(320, 240), fps=25)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "avseg", "segment", "a.mp4", "b.mp4", "--fps", "all", "--checkpoint", str(model)]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=hears_ctrl_c,
    )
    while process.poll() is None and not list(out.glob(".tmp-*/b/masks/*.png")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()

    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "avseg: interrupted"
    assert "Traceback" not in said
    assert sorted(os.listdir(out)) == ["a", "a.mp4"]
    masks = sorted((out / "a" / "masks").iterdir())
    assert len(masks) == len(json.loads((out / "a" / "moments.json").read_text())["moments"]) == 8
    assert all(read_mask(path).shape == (64, 64) for path in masks)
    assert probe(out / "a.mp4").duration == pytest.approx(1, abs=0.01)


def test_ctrl_c_on_the_first_video_leaves_no_folder(model: Path, tmp_path: Path) -> None:
    write_mp4(tmp_path / "b.mp4", seconds=120, size=(320, 240), fps=25)
    command = [sys.executable, "-m", "avseg", "segment", "b.mp4", "--fps", "all", "--checkpoint", str(model)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=hears_ctrl_c)
    while process.poll() is None and not list(tmp_path.glob("segmented/.tmp-*/b/masks/*.png")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert os.listdir(tmp_path) == ["b.mp4"]


def test_the_track_that_is_asked_for_is_heard_and_kept(segment: Callable, tmp_path: Path) -> None:
    """Without a word the default track is, though another comes first; one that is not there is a sentence."""
    write_mp4(tmp_path / "plain.mp4", seconds=2)
    words = "-f lavfi -i anullsrc=r=48000:cl=mono:d=2 -map 0:v -map 1:a -map 0:a -c:v copy -c:a aac"
    tracks = [*words.split(), "-disposition:a:0", "0", "-disposition:a:1", "default", "two.mp4"]
    ffmpeg(tmp_path, "-i", "plain.mp4", *tracks)

    def loudness(*arguments: str, out: str) -> tuple[float, float]:
        code, _, _ = segment("two.mp4", *arguments, out=out)
        assert code == 0
        rows = json.loads((tmp_path / out / "two" / "moments.json").read_text())["moments"]
        return max(row["loudness"] for row in rows), float(np.abs(load_audio(tmp_path / out / "two.mp4")).max())

    heard, kept = loudness(out="default")
    assert heard > -40
    assert kept > 0.01
    assert loudness("--audio_track", "1", out="second") == (heard, kept)
    heard, kept = loudness("--audio_track", "0", out="first")
    assert heard < -90
    assert kept < 1e-3
    code, _, told = segment("two.mp4", "--audio_track", "2", out="third")
    assert code == 1
    assert "two.mp4 has no audio track 2" in " ".join(told.split())
    code, _, told = segment("two.mp4", out="first")
    assert "other options" in " ".join(told.split())
