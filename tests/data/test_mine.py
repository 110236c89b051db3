import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import load_clip, make_avsbench, write_mp4, write_two_tones

from avseg.config import DataConfig, InputConfig
from avseg.data.avsbench import avsbench, distant_frames, read_frames
from avseg.data.check import check
from avseg.data.dataset import training_clips
from avseg.data.lists import read_sizes
from avseg.data.log_mel import load_log_mel
from avseg.data.mine import MineReport, mine
from avseg.data.prepare import prepare
from avseg.errors import AvsegError
from avseg.media.images import read_image

LABELS = {"dog barking": 3, "dog bow-wow": 1, "helicopter": 3, "playing violin, fiddle": 2, "people marching": 2}


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos in VGGSound's form: two do not fit, and one of the others is MS3's. Read only."""
    folder = tmp_path_factory.mktemp("sounds")
    rows, number = ["ms3_test_0x,7,helicopter,train", "missing,3,helicopter,test"], 0
    write_mp4(folder / "ms3_test_0x_000007.mp4", seconds=2)
    for label, count in LABELS.items():
        for i in range(count):
            name = f"{'-' if i == 0 else ''}{label.replace(',', '').replace(' ', '_')}_{i}"
            place = folder / "more" / f"{name}_4.mp4" if i % 2 else folder / f"{name}_000004.mp4"
            write_mp4(place, number=number, seconds=2)
            rows.append(f'{name},4,"{label}",train')
            number += 1
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MS3 and an S4 whose lists name a video of `source` each. Read only."""
    root = tmp_path_factory.mktemp("like")
    make_avsbench(root, "ms3", {"train": 1, "test": 1})
    make_avsbench(root, "s4", {"train": 2})
    for subset, name in (("ms3", "-ms3_test_0"), ("s4", "s4_train_1")):
        index = avsbench(root, subset).index
        listed = {"ms3": "ms3_test_0x_36", "s4": "playing_violin_fiddle_1_6000_11000"}[subset]
        index.write_text(index.read_text().replace(name, listed))
        for path in sorted(root.rglob(f"{name}*"), key=lambda path: -len(path.parts)):
            path.rename(path.with_name(path.name.replace(name, listed)))
    return root


def keys(report: MineReport) -> list[str]:
    return [frame.video.key for frame in report.frames]


def pictures(out: Path) -> dict[str, bytes]:
    """The image of each video, by its key."""
    layout = distant_frames(out / "MS3_Extend")
    return {Path(frame.source).stem.rsplit("_", 1)[0]: frame.image.read_bytes() for frame in read_frames(layout)}


@pytest.fixture(scope="session")
def mined(source: Path, like: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MineReport]:
    """All that fit. Read only."""
    out = tmp_path_factory.mktemp("mined")
    return out, mine(source, like, out, workers=1)


def test_what_fits_is_taken_and_what_is_in_the_data_set_is_not(mined: tuple[Path, MineReport]) -> None:
    _, report = mined
    assert len(report.frames) == 8
    assert report.known == 2, "one of MS3's test videos, one of S4's"
    assert report.failures == []
    assert report.written == {"frames": 8, "flow": 8, "log_mel": 8}
    assert {category: found for category, found in report.found.items() if found} == {
        "dog_barking": 4,
        "helicopter": 3,
        "playing_violin": 1,
    }
    taken = " ".join(keys(report))
    assert "marching" not in taken
    assert "ms3_test" not in taken
    assert "fiddle_1" not in taken
    categories = [frame.video.category for frame in report.frames]
    assert sorted(categories[:3]) == ["dog_barking", "helicopter", "playing_violin"], "they take turns"
    assert categories[3:7].count("dog_barking") == 2
    assert [frame.n for frame in report.frames] == [str(n) for n in range(1, 9)]


def test_the_list_can_be_given_to_others(
    source: Path, like: Path, mined: tuple[Path, MineReport], tmp_path: Path
) -> None:
    out, _ = mined
    lines = (out / "MS3_Extend" / "mined.csv").read_text().splitlines()
    assert lines[0] == "n,id,start,label,category"
    assert len(lines) == 9
    assert any(line.endswith(',4,"playing violin, fiddle",playing_violin') for line in lines)
    (tmp_path / "some.csv").write_text("\n".join(lines[:4]) + "\n")
    report = mine(source, like, tmp_path, labels=tmp_path / "some.csv", workers=1)
    assert {f"{frame.video.video},{frame.video.start}" for frame in report.frames} == {
        ",".join(line.split(",")[1:3]) for line in lines[1:4]
    }


def test_training_reads_it(mined: tuple[Path, MineReport], ms3: Path) -> None:
    out, _ = mined
    config = DataConfig(root=str(ms3), subset="ms3", distant_root=str(out / "MS3_Extend"))
    _, clips, _ = training_clips(config, 1, True)
    assert len(clips) == 8
    clip = load_clip(clips[0], (1,), InputConfig(image_size=64))
    assert clip.frames.shape == (1, 3, 64, 64)
    assert clip.flow.any()
    assert clip.masks is None


def test_check_and_prepare_accept_it(source: Path, like: Path, tmp_path: Path) -> None:
    """Beside MS3 itself, its videos in the place where the list looks for them or not."""
    root = tmp_path / "data"
    shutil.copytree(like, root)
    prepare(root, "ms3", workers=1)
    mine(source, root, root, count=3, workers=1)
    assert check(root, "ms3", workers=1) == []
    assert prepare(root, "ms3", workers=1).written == {}
    layout = distant_frames(root / "MS3_Extend")
    frames = read_frames(layout)
    for frame in frames:
        frame.image.unlink()
    with pytest.raises(AvsegError, match=r"none of the 3 videos that .*index\.csv lists .*: put them, or a link"):
        prepare(root, "ms3", workers=1)
    (root / "VGGSound").symlink_to(source)
    report = prepare(root, "ms3", workers=1)
    assert (report.written, report.failures) == ({"frames": 3}, [])


def test_a_source_beside_it_is_listed_where_it_lies(source: Path, like: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "sounds")
    mine(tmp_path / "sounds", like, tmp_path, workers=1)
    layout = distant_frames(tmp_path / "MS3_Extend")
    frames = read_frames(layout)
    assert all(frame.raw.is_file() for frame in frames)
    assert any(frame.source.startswith("sounds/more/") for frame in frames)


def test_smaller_counts_lie_within_larger_ones(source: Path, like: Path, tmp_path: Path) -> None:
    whole = keys(mine(source, like, tmp_path, workers=1))
    for count in (5, 2):
        report = mine(source, like, tmp_path, count=count, workers=1)
        assert keys(report) == whole[:count]
        assert len(read_frames(distant_frames(tmp_path / "MS3_Extend"))) == count
        assert report.written == {}, "what is finished is kept"
    orders = {tuple(keys(mine(source, like, tmp_path, seed=seed, workers=1))) for seed in range(4)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset(whole)}


def test_a_choice_does_not_depend_on_what_else_is_there(source: Path, like: Path, tmp_path: Path) -> None:
    """Of two copies, one with fewer videos, the same are taken as far as they are there."""
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    whole = [f.video for f in mine(copy, like, tmp_path / "a", workers=1).frames if f.video.category == "dog_barking"]
    whole[1].path.unlink()
    fewer = [f.video for f in mine(copy, like, tmp_path / "b", workers=1).frames if f.video.category == "dog_barking"]
    assert fewer == [whole[0], *whole[2:]]


def test_another_seed_takes_no_file_for_another_s(
    source: Path, like: Path, mined: tuple[Path, MineReport], tmp_path: Path
) -> None:
    every = pictures(mined[0])
    assert len(set(every.values())) == 8
    for seed in range(3):
        mine(source, like, tmp_path, count=3, seed=seed, workers=1)
        assert pictures(tmp_path).items() <= every.items()


def test_the_middle_with_its_own_sound(source: Path, like: Path, tmp_path: Path) -> None:
    """The tone changes in the middle of 3 seconds: around the frame both are heard, in the first second only one."""
    write_two_tones(tmp_path / "v" / "two_1.mp4")
    (tmp_path / "v" / "l.csv").write_text("two,1,helicopter,train\n")
    (frame,) = mine(tmp_path / "v", like, tmp_path, workers=1).frames
    layout = distant_frames(tmp_path / "MS3_Extend")
    (listed,) = read_frames(layout)
    assert listed.video == frame.n
    log_mel = load_log_mel(listed.log_mel)
    assert log_mel.shape == (1, 1, 96, 64)
    loudest = log_mel[0, 0].argmax(dim=1)
    assert loudest[:90].float().mean() < 20 < loudest[-2:].float().mean()
    # What `prepare` makes of the same video.
    make_avsbench(tmp_path / "other", "ms3", {"train": 1}, distant=1)
    other = distant_frames(tmp_path / "other" / "MS3_Extend")
    shutil.copy(tmp_path / "v" / "two_1.mp4", read_frames(other)[0].raw)
    prepare(tmp_path / "other", "ms3", workers=1)
    (same,) = read_frames(other)
    assert torch.equal(log_mel, load_log_mel(same.log_mel))
    assert listed.image.read_bytes() == same.image.read_bytes()
    assert listed.flow().read_bytes() == same.flow().read_bytes()
    assert read_image(listed.image).shape == (64, 64, 3), "the size of the data set's masks"
    assert read_sizes(layout.video_sizes) == {frame.n: (64, 64)}


def test_broken_videos_are_replaced_by_others_of_their_category(source: Path, like: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    order = [frame.video for frame in mine(copy, like, tmp_path / "whole", workers=1).frames]
    dogs = [video for video in order if video.category == "dog_barking"]
    dogs[0].path.write_bytes(dogs[0].path.read_bytes()[:900])
    write_mp4(dogs[1].path, seconds=2, sound=0)
    report = mine(copy, like, tmp_path / "out", count=3, workers=1)
    taken = [frame.video for frame in report.frames]
    assert [video.category for video in taken] == [video.category for video in order[:3]]
    assert dogs[2] in taken
    assert [key for key, _ in report.failures] == [dogs[0].key, dogs[1].key]
    assert "sound" in report.failures[1][1]
    layout = distant_frames(tmp_path / "out" / "MS3_Extend")
    assert len(list((layout.folder / "images").iterdir())) == 3, "no image of the silent one is left"
    assert len(read_frames(layout)) == 3
    assert len(mine(copy, like, tmp_path / "out", workers=1).frames) == 6
    for video in order:
        video.path.write_bytes(b"nothing")
    with pytest.raises(AvsegError, match=r"has no video that fits and can be read; of the first: .*\.mp4"):
        mine(copy, like, tmp_path / "none", workers=1)


def test_a_killed_run_is_continued(source: Path, like: Path, mined: tuple[Path, MineReport], tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom avseg.data.mine import mine\nif __name__ == '__main__':\n    mine(*sys.argv[1:], workers=1)\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(script), str(source), str(like), str(out)],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    layout = distant_frames(out / "MS3_Extend")
    try:
        while len(list((layout.folder / "flow").glob("[!.]*.png"))) < 2:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not layout.index.exists(), "no list before all is there"
    (layout.folder / "flow" / ".tmp-left.png").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in layout.folder.rglob("[!.]*.png")}
    report = mine(source, like, out, workers=1)
    assert keys(report) == keys(mined[1])
    assert [frame.n for frame in report.frames] == [frame.n for frame in mined[1].frames]
    assert 0 < sum(report.written.values()) < 24
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert pictures(out) == pictures(mined[0])
    assert not list(layout.folder.rglob(".tmp-*"))


def test_what_others_made_is_left_alone(source: Path, like: Path, tmp_path: Path) -> None:
    make_avsbench(tmp_path / "own", "ms3", {"train": 1}, distant=1)
    before = (tmp_path / "own" / "MS3_Extend" / "index.csv").read_bytes()
    with pytest.raises(
        AvsegError, match=r"holds distant frames that `avseg data mine` did not make: name another --out"
    ):
        mine(source, like, tmp_path / "own", workers=1)
    assert (tmp_path / "own" / "MS3_Extend" / "index.csv").read_bytes() == before
    published = tmp_path / "published" / "MS3_Extend" / "images"
    published.mkdir(parents=True)
    with pytest.raises(AvsegError, match="did not make"):
        mine(source, like, tmp_path / "published", workers=1)


def test_other_sizes_other_runs_and_nothing_to_take(source: Path, like: Path, tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        if done == 1:
            with pytest.raises(AvsegError, match="held by another run"):
                mine(source, like, tmp_path / "out", workers=1)

    assert len(mine(source, like, tmp_path / "out", count=2, workers=1, progress=again).frames) == 2
    make_avsbench(tmp_path / "large", "ms3", {"train": 1}, size=96)
    with pytest.raises(AvsegError, match=r"holds frames of 64×64 pixels, not 96×96"):
        mine(source, tmp_path / "large", tmp_path / "out", workers=1)
    (tmp_path / "only.csv").write_text("ms3_test_0x,7,helicopter\n")
    with pytest.raises(AvsegError, match=r"all 1 videos of .* that fit are in"):
        mine(source, like, tmp_path / "out", labels=tmp_path / "only.csv", workers=1)
    with pytest.raises(AvsegError, match=r"ms3_meta_data\.csv does not exist"):
        mine(source, tmp_path, tmp_path / "out", workers=1)


def test_a_table_of_one_s_own(source: Path, like: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("label,category\npeople marching,marching\n")
    report = mine(source, like, tmp_path, mapping=tmp_path / "m.csv", workers=1)
    own = {frame.video.category for frame in report.frames}
    assert "marching" in own
    assert own == {"marching", "dog_barking", "helicopter"}, "names of S4's categories stay labels"
