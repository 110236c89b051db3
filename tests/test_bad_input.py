"""Bad input through the command line: one clear sentence, an exit code that tells, earlier outputs as they were."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import make_avsbench, write_mp4
from small_run import TINY
from toy_models import save_tiny

from avseg.cli import main
from avseg.data.avsbench import avsbench
from avseg.data.frames import DataSet, Frame
from avseg.media.writer import write_video

Files = dict[Path, bytes]


def files(folder: Path) -> Files:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs a command that should fail, and gives the one line that it says."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("avseg: note: ")]
        assert code == 1, said
        assert len(said) == 1, said
        prefix = "avseg: error: "
        assert said[0].startswith(prefix)
        assert said[0].endswith(".")
        return said[0][len(prefix) :]

    return run


# ---- Videos ----


def not_a_video(path: Path) -> None:
    path.write_text("This is a recipe for bread.")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    write_mp4(path, seconds=2)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def truncated_with_its_index_first(path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(30)]
    write_video(path, frames, 10, audio=np.zeros(48000, np.float32), sample_rate=16000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def silent(path: Path) -> None:
    write_mp4(path, seconds=1, sound=0)


def sound_alone(path: Path) -> None:
    from avseg.media.audio import write_wav

    write_wav(path.with_suffix(".wav"), np.zeros(16000, np.float32))
    path.with_suffix(".wav").rename(path)


def folder(path: Path) -> None:
    path.mkdir()


def playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n")


VIDEOS: dict[Callable[[Path], None], str] = {
    not_a_video: "isn't a video or audio file that can be read: check the file, or convert it to mp4",
    empty: "is empty: copy or download it again",
    truncated: "is cut off or damaged (its index is missing): copy or download it again",
    truncated_with_its_index_first: "is cut off after 1.",
    silent: "has no audio track: give a video with sound",
    sound_alone: "has no video track: name a video",
    folder: "is a folder without videos: name a video, a folder of videos, or a folder of numbered images",
    playlist: "isn't a video",
    lambda path: None: "doesn't exist: check the path",
}


@pytest.mark.parametrize("make", VIDEOS, ids=lambda make: make.__name__.strip("<>"))
def test_a_video_that_cannot_be_segmented(
    make: Callable[[Path], None], model: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    video, out = tmp_path / "clip.mp4", tmp_path / "out"
    write_mp4(video, seconds=1)
    assert main(["segment", str(video), "--checkpoint", str(model), "--out", str(out), "--fps", "1"]) == 0
    before = files(out)
    video.unlink()
    make(video)

    said = fails("segment", video, "--checkpoint", model, "--out", out, "--overwrite")

    assert said.startswith(f"{video} ")
    assert VIDEOS[make] in said
    assert files(out) == before
    fails("segment", video, "--checkpoint", model, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_short_sound_and_a_single_frame_are_notes(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_mp4(tmp_path / "short.mp4", seconds=3, sound=1)
    write_mp4(tmp_path / "still.mp4", frames=1, sound=1)
    for name, note in (("short", "the sound ends at 1."), ("still", "has a single frame")):
        video = tmp_path / f"{name}.mp4"
        assert main(["segment", str(video), "--checkpoint", str(model), "--out", str(tmp_path), "--fps", "1"]) == 1
        capsys.readouterr()
        out = tmp_path / "out"
        assert main(["segment", str(video), "--checkpoint", str(model), "--out", str(out), "--fps", "1"]) == 0
        said = capsys.readouterr().err
        assert f"avseg: note: {video}" in said
        assert note in said


def test_the_command_itself_says_it_without_a_traceback(model: Path, tmp_path: Path) -> None:
    not_a_video(tmp_path / "clip.mp4")
    command = [sys.executable, "-m", "avseg", "segment", "clip.mp4", "--checkpoint", str(model), "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "avseg: error: clip.mp4 isn't a video or audio file that can be read: check the file, or convert it to mp4.\n"
    )


# ---- Places to write ----


def test_results_cannot_go_there(model: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    video = tmp_path / "clip.mp4"
    write_mp4(video, seconds=1)
    before = video.read_bytes()
    said = fails("segment", video, "--checkpoint", model, "--out", tmp_path, "--overwrite")
    assert "is the video itself: choose another folder for the results (--out)" in said
    assert video.read_bytes() == before
    (tmp_path / "taken").write_text("mine")
    said = fails("segment", video, "--checkpoint", model, "--out", tmp_path / "taken")
    assert said.startswith(f"{tmp_path / 'taken'} is a file: choose another folder")


# ---- Checkpoints ----


def of_another_model(path: Path, model: Path) -> None:
    save_tiny(path)
    wider = save_tiny(path.parent / "wider", dilations=(1, 2))
    (path / "model.safetensors").write_bytes((wider / "model.safetensors").read_bytes())


def damaged(path: Path, model: Path) -> None:
    save_tiny(path)
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])


def of_another_project(path: Path, model: Path) -> None:
    torch.save({"state_dict": {"layer.weight": torch.zeros(3)}}, path)


class Trap:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("sprung"),))


def that_would_run_code(path: Path, model: Path) -> None:
    torch.save({"avseg_model": Trap(), "state_dict": {}}, path)


def configuration_of_something_else(path: Path, model: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"architectures": ["Bert"]}')
    (path / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())


CHECKPOINTS: dict[Callable[[Path, Path], None], tuple[str, str]] = {
    of_another_model: ("model.safetensors", "holds the weights of another model ("),
    damaged: ("model.safetensors", "is damaged or not a safetensors file"),
    of_another_project: ("", "is not a training checkpoint of avseg"),
    that_would_run_code: ("", "is not a training checkpoint of avseg"),
    configuration_of_something_else: ("config.json", "is not the config.json of an avseg model"),
    lambda path, model: path.mkdir(): ("", "has no config.json: give a folder written by `avseg train`"),
    lambda path, model: None: ("", "does not exist: give the folder of a trained model"),
}


@pytest.mark.parametrize("make", CHECKPOINTS, ids=lambda make: make.__name__.strip("<>"))
def test_a_checkpoint_that_is_none(
    make: Callable[[Path, Path], None],
    model: Path,
    tmp_path: Path,
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_mp4(tmp_path / "clip.mp4", seconds=1)
    make_avsbench(tmp_path / "data", "s4", {"test": 1}, seconds=1)
    checkpoint = tmp_path / "checkpoint"
    make(checkpoint, model)
    name, sentence = CHECKPOINTS[make]

    said = fails("segment", "clip.mp4", "--checkpoint", checkpoint, "--out", "out")

    assert said.startswith(f"{checkpoint / name} {sentence}")
    assert not Path("out").exists()
    assert not Path("sprung").exists()
    Path("scores.json").write_text("earlier")
    assert fails("evaluate", checkpoint, "--data.root", "data", "--json", "scores.json") == said
    assert Path("scores.json").read_text() == "earlier"


# ---- Data sets ----


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, DataSet, list[tuple[Frame, ...]]]:
    root = tmp_path / "data"
    videos = make_avsbench(root, "s4", {"train": 2, "val": 1, "test": 2}, prepared=True)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return root, avsbench(root, "s4"), videos


def cut_picture(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def shrink_mask(file: Path) -> None:
    cv2.imwrite(str(file), np.zeros((30, 40), np.uint8))


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("spoil", "kind", "found"),
    [
        (shrink_mask, "mask", "has 40×30 pixels, not 64×64"),
        (cut_picture, "mask", "is not a whole image"),
        (cut_picture, "frame", "is not a whole image"),
        (remove, "frame", "is missing"),
        (remove, "log_mel", "is missing"),
    ],
)
def test_a_faulty_file_is_named_by_check_train_and_evaluate(
    spoil: Callable[[Path], None],
    kind: str,
    found: str,
    data: tuple[Path, DataSet, list[tuple[Frame, ...]]],
    model: Path,
    tmp_path: Path,
    fails: Callable[..., str],
    capsys: pytest.CaptureFixture,
) -> None:
    root, _, videos = data
    (tmp_path / "scores.json").write_text("earlier")
    for split, command in (
        ("train", ["train", "--config", tmp_path / "tiny.yaml", "--data.root", root, "--run.out", tmp_path / "run"]),
        ("test", ["evaluate", model, "--data.root", root, "--data.workers", 0, "--json", tmp_path / "scores.json"]),
    ):
        video = next(video for video in videos if video[0].split == split)
        file: Path = video[0].path({"frame": "image"}.get(kind, kind))
        whole = file.read_bytes()
        spoil(file)

        assert main(["data", "check", str(root), "--workers", "1"]) == 1
        listed = capsys.readouterr().out
        assert f"{file} " in listed
        assert found in listed
        assert "s4: 1 problem\n" in listed
        capsys.readouterr()
        if command[0] == "evaluate":
            # The bar of progress stands on a line of its own.
            assert main([str(word) for word in command]) == 1
            assert capsys.readouterr().err.splitlines()[-1].startswith(f"avseg: error: {file} ")
        else:
            assert fails(*command).startswith(f"{file} ")
        file.write_bytes(whole)
    assert (tmp_path / "scores.json").read_text() == "earlier"
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_row_without_files(
    data: tuple[Path, DataSet, list[tuple[Frame, ...]]],
    tmp_path: Path,
    fails: Callable[..., str],
    capsys: pytest.CaptureFixture,
) -> None:
    root, layout, videos = data
    with layout.index.open("a") as file:
        file.write("ghost_0,0,dog_barking,train\n")
    videos[0][0].image.unlink()

    assert main(["data", "check", str(root)]) == 1
    assert "ghost_0_1.png is missing" in capsys.readouterr().out
    assert main(["data", "prepare", str(root)]) == 1
    said = capsys.readouterr().out
    assert "ghost_0.mp4 does not exist: put the raw video there, or take its row out of the CSV." in said
    assert "1 video could not be prepared; the others are ready" in said
    said = fails("train", "--config", tmp_path / "tiny.yaml", "--data.root", root, "--run.out", tmp_path / "run")
    assert "ghost_0" in said


def test_one_bad_video_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    videos = make_avsbench(tmp_path, "s4", {"train": 3}, settings={"s4_train_1": {"sound": 0}})
    not_a_video(videos[2][0].raw)

    assert main(["data", "prepare", str(tmp_path), "--workers", "1"]) == 1

    said = capsys.readouterr().out
    assert f"failed: {videos[1][0].raw} has no audio track" in said
    assert f"failed: {videos[2][0].raw} isn't a video" in said
    assert "2 videos could not be prepared; the others are ready" in said
    assert videos[0][0].log_mel.is_file()
    assert not list(tmp_path.rglob(".tmp*"))


@pytest.mark.parametrize("command", ["data prepare", "data check", "evaluate", "train"])
def test_a_folder_without_a_data_set(command: str, model: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "nothing").mkdir()
    arguments = {
        "evaluate": [model, "--data.root", tmp_path / "nothing"],
        "train": [
            *("--config", tmp_path / "tiny.yaml", "--data.root", tmp_path / "nothing"),
            *("--run.out", tmp_path / "run"),
        ],
    }.get(command, [tmp_path / "nothing"])
    assert str(tmp_path / "nothing") in fails(*command.split(), *arguments)
    assert not list((tmp_path / "nothing").iterdir())


def test_scores_that_are_none(tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "a.json").write_text("{}")
    said = fails("compare", tmp_path / "a.json", tmp_path / "none.json")
    assert said.startswith(f"{tmp_path / 'a.json'} ")
