import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import read_videos

from avseg.data.avsbench import avsbench, distant_frames, read_frames
from avseg.data.check import check
from avseg.data.flow_trees import export_published_flow
from avseg.data.frames import DataSet
from avseg.data.log_mel import save_log_mel
from avseg.errors import AvsegError
from avseg.media.audio import write_wav
from avseg.media.flow import write_flow_png
from avseg.media.images import write_image, write_mask


@pytest.fixture
def mutable(s4: Path, tmp_path: Path) -> DataSet:
    shutil.copytree(s4, tmp_path / "copy")
    return avsbench(tmp_path / "copy", "s4")


def test_each_fault_is_found_and_nothing_else(mutable: DataSet) -> None:
    train, other, *_, val = read_videos(mutable.root, "s4")[:7]
    expected: dict[Path, str] = {}

    def fault(path: Path, what: str) -> Path:
        expected[path] = what
        return path

    fault(train[0].image, "is missing").unlink()
    cut = fault(train[1].image, "is not a whole image")
    cut.write_bytes(cut.read_bytes()[:200])
    write_image(fault(train[2].image, "has 32×48 pixels, not 64×64"), np.zeros((48, 32, 3), np.uint8))
    fault(train[3].flow(), "is missing").unlink()
    write_image(fault(train[4].flow(), "isn't a flow image"), np.zeros((64, 64, 3), np.uint8))
    write_flow_png(fault(other[0].flow(), "has 32×32 pixels"), np.zeros((2, 32, 32)))
    write_mask(fault(other[0].mask, "has 60×64 pixels, not 64×64"), np.ones((64, 60), dtype=bool))
    fault(val[4].mask, "is not a whole image").write_bytes(b"text")
    fault(train[0].path("wav"), "isn't a").write_bytes(b"RIFF")
    write_wav(fault(other[0].path("wav"), "has 8000 samples a second"), np.zeros(8000), 8000)
    write_wav(fault(val[0].path("wav"), "has no sound in it"), np.zeros(0))
    fault(train[0].log_mel, "is missing").unlink()
    fault(other[0].log_mel, "it names os.system").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    save_log_mel(fault(val[0].log_mel, "is a tensor of (4, 1, 96, 64), not (5"), torch.zeros(4, 1, 96, 64))
    problems = check(mutable.root, "s4", workers=1)
    found = {problem.path: problem.what for problem in problems}
    assert len(found) == len(problems)
    assert set(found) == set(expected)
    for path, what in expected.items():
        assert what in found[path], path
        assert str(path) not in found[path], "the path is said once"
    assert all(str(problem).startswith(str(problem.path)) for problem in problems)


def test_a_row_without_files_and_a_missing_index(mutable: DataSet) -> None:
    with mutable.index.open("a") as file:
        file.write("nobody,0,dog_barking,val\n")
    problems = check(mutable.root, "s4", workers=1)
    assert len(problems) == 5 + 5 + 5 + 2
    assert all("nobody" in str(problem.path) and problem.what == "is missing." for problem in problems)
    with pytest.raises(AvsegError, match="s4_meta_data"):
        check(mutable.root / "empty", "s4")


def test_worker_processes_find_the_same_in_the_same_order(mutable: DataSet) -> None:
    videos = read_videos(mutable.root, "s4")
    for video in videos[::-1]:
        video[0].path("wav").unlink()
    seen: list[tuple[int, int]] = []
    problems = check(mutable.root, "s4", workers=2, progress=lambda done, total: seen.append((done, total)))
    assert [problem.path for problem in problems] == [video[0].path("wav") for video in videos]
    assert seen == [(done, len(videos)) for done in range(len(videos) + 1)]


def test_distant_frames_are_looked_at(ms3: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(ms3, root)
    assert check(root, "ms3", workers=1) == []
    layout = distant_frames(root / "MS3_Extend")
    first, second, third, _ = read_frames(distant_frames(layout.folder))
    first.image.unlink()
    second.flow().write_bytes(b"")
    third.log_mel.write_bytes(pickle.dumps([1, 2, 3]))
    found = {problem.path for problem in check(root, "ms3", workers=1)}
    assert found == {first.image, second.flow(), third.log_mel}


def test_flow_of_every_method_is_looked_at(mutable: DataSet, ms3: Path, tmp_path: Path) -> None:
    video = read_videos(mutable.root, "s4")[0]
    shutil.copytree(mutable.folder / "s4_data" / "flow", mutable.folder / "s4_data" / "flow_dis")
    assert check(mutable.root, "s4", workers=1) == []
    video[1].flow("dis").unlink()
    video[2].flow().write_bytes(b"")
    found = {problem.path for problem in check(mutable.root, "s4", workers=1)}
    assert found == {video[1].flow("dis"), video[2].flow()}
    shutil.rmtree(mutable.folder / "s4_data" / "flow")
    assert [problem.path for problem in check(mutable.root, "s4", workers=1)] == [video[1].flow("dis")]
    layout = distant_frames(Path(shutil.copytree(ms3, tmp_path / "ms3")) / "MS3_Extend")
    shutil.copytree(layout.folder / "flow", layout.folder / "flow_dis")
    path = read_frames(layout)[0].flow("dis")
    path.unlink()
    assert [problem.path for problem in check(tmp_path / "ms3", "ms3", workers=1)] == [path]


def test_published_flow_stands_in_for_ours(mutable: DataSet) -> None:
    export_published_flow(mutable.root, "s4")
    shutil.rmtree(mutable.folder / "s4_data" / "flow")
    assert check(mutable.root, "s4", workers=1) == []
    path = read_frames(mutable)[2].published_flow[1]
    path.unlink()
    assert [problem.path for problem in check(mutable.root, "s4", workers=1)] == [path]
