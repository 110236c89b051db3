"""From what a person types to the videos that are meant."""

from pathlib import Path

import numpy as np
import pytest

from avseg.errors import AvsegError
from avseg.inference import AVSegmenter, segment_video
from avseg.inference.inputs import Input, find_inputs
from avseg.media.audio import write_wav
from avseg.media.images import write_image


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "a/x.mp4",
        "a/y.MOV",
        "a/notes.txt",
        "a/.hidden.mp4",
        "a/deep/x.mp4",
        "b/x.mp4",
        "x[1].mp4",
        "b/x.avi",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not looked at")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(*given: str) -> list[str]:
    return [str(item.path) for item in find_inputs(given)]


def test_files_folders_and_patterns(tree: Path) -> None:
    assert paths("a/x.mp4", "a/notes.txt", "gone.mp4") == ["a/x.mp4", "a/notes.txt", "gone.mp4"]
    assert paths("a") == ["a/x.mp4", "a/y.MOV"]
    assert paths("a/*") == ["a/x.mp4", "a/y.MOV"]
    assert paths("**/*.mp4") == ["a/deep/x.mp4", "a/x.mp4", "b/x.mp4", "x[1].mp4"]
    assert paths("x[1].mp4") == ["x[1].mp4"]  # a file is a file, whatever its name looks like
    assert paths("b/x.???") == ["b/x.avi", "b/x.mp4"]


def test_each_video_comes_once(tree: Path) -> None:
    (tree / "link.mp4").symlink_to(tree / "a" / "x.mp4")
    assert paths("a/x.mp4", "a", "./a/x.mp4", "link.mp4", str(tree / "a" / "x.mp4")) == ["a/x.mp4", "a/y.MOV"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["a/*.wav"], r"a/\*\.wav matches no video: check the pattern"),
        (["empty"], "empty is a folder without videos: name a video"),
    ],
)
def test_nothing_found_is_a_problem_of_that_input_alone(tree: Path, given: list[str], sentence: str) -> None:
    (tree / "empty").mkdir()
    bad, good = find_inputs([*given, "a/x.mp4"])
    assert (good.problem, good.given()) == ("", Path("a/x.mp4"))
    with pytest.raises(AvsegError, match=sentence):
        bad.given()


def test_names_tell_videos_apart(tree: Path) -> None:
    def names(*given: str) -> list[str]:
        return [item.name for item in find_inputs(given)]

    assert names("a/x.mp4", "a/y.MOV") == ["x", "y"]
    assert names("a/x.mp4", "b/x.mp4", "a/y.MOV") == ["a_x", "b_x", "y"]
    assert names("b") == ["x_avi", "x_mp4"]
    assert names("a/x.mp4", "b", "a/deep/x.mp4") == ["a_x_mp4", "b_x_avi", "b_x_mp4", "deep_x_mp4"]
    (tree / "c" / "a").mkdir(parents=True)
    (tree / "c" / "a" / "X.mp4").write_text("")
    assert names("a/x.mp4", "c/a/X.mp4") == [f"{tree.name}_a_x", "c_a_X"]  # file systems may not tell x from X
    # A name that was made must not be another's own, and no folder of results another's overlay.
    (tree / "a_x.mp4").write_text("")
    (tree / "y.mp4.mkv").write_text("")
    assert names("a_x.mp4", "a/x.mp4", "b/x.mp4") == ["a_x", "a_x_2", "b_x"]
    assert names("a/y.MOV", "y.mp4.mkv") == ["y", "y.mp4_2"]


def test_a_folder_of_pictures_is_one_input(tmp_path: Path) -> None:
    folder = tmp_path / "shots.v1"
    for k in range(4):
        write_image(folder / f"{k}.png", np.zeros((8, 8, 3), np.uint8))
    write_wav(folder / "sound.wav", np.zeros(16_000, np.float32))
    assert find_inputs([folder]) == [Input(folder, "shots.v1")]
    (item,) = find_inputs([folder])
    assert item.given() == folder
    assert item.given(frame_rate=2).duration == 2


def test_overlays_are_passed_over_and_videos_beside_them_are_not(
    light: AVSegmenter, video: Path, tmp_path: Path
) -> None:
    source = tmp_path / "own.mp4"
    source.write_bytes(video.read_bytes())
    segment_video(video, light, tmp_path, fps=1)
    segment_video(source, light, tmp_path, fps=1, save=["masks"])
    assert [item.path.name for item in find_inputs([tmp_path])] == ["own.mp4"]
    assert [item.path.name for item in find_inputs([f"{tmp_path}/*.mp4"])] == ["own.mp4"]
    assert [item.path.name for item in find_inputs([tmp_path / "clip.mp4"])] == ["clip.mp4"]  # asked for by name
    source.unlink()
    (only,) = find_inputs([tmp_path])
    assert "holds nothing but overlays that avseg wrote" in only.problem
