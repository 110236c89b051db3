import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import disc_at, disc_mask, make_avsbench, read_videos, write_mp4, write_two_tones
from PIL import Image

import avseg.data.prepare as prepare_module
from avseg.data.avsbench import avsbench, distant_frames, read_frames
from avseg.data.check import check
from avseg.data.lists import read_sizes
from avseg.data.log_mel import load_log_mel
from avseg.data.prepare import prepare
from avseg.errors import AvsegError
from avseg.media.audio import log_mel_examples, read_wav
from avseg.media.flow import read_flow_png
from avseg.media.images import read_image, write_mask


def contents(root: Path) -> dict[str, bytes]:
    """Every prepared file's bytes; of a pickle its tensor's, since a pickle also holds an address."""
    found = {}
    for kind in ("visual_frames", "flow", "audio_wav", "audio_log_mel"):
        for path in sorted((root / "Single-source" / "s4_data" / kind).rglob("*")):
            if path.is_file():
                pickled = path.suffix == ".pkl" and not path.name.startswith(".tmp-")
                data = load_log_mel(path).numpy().tobytes() if pickled else path.read_bytes()
                found[str(path.relative_to(root))] = data
    return found


def test_everything_is_made_and_right(s4: Path) -> None:
    assert check(s4, "s4", workers=1) == []
    layout = avsbench(s4, "s4")
    for number, video in enumerate(read_videos(s4, "s4")):
        wave, rate = read_wav(video[0].path("wav"))
        assert rate == 16000
        assert len(wave) / rate == pytest.approx(5, abs=0.1)
        assert torch.equal(load_log_mel(video[0].log_mel), torch.from_numpy(log_mel_examples(wave)))
        for k in range(1, 6):
            image = read_image(video[k - 1].image).astype(int)
            disc = disc_mask(k, number, 64)
            assert image[disc].mean() > image[~disc].mean() + 40, "the frame of another moment, or another video"
    assert read_sizes(layout.video_sizes) == {video[0].video: (64, 64) for video in read_videos(s4, "s4")}


def test_frames_are_rgb(s4: Path) -> None:
    """The disc's colour survives the way mp4 -> PNG -> array without red and blue being swapped."""
    for number, video in enumerate(read_videos(s4, "s4")):
        rng = np.random.default_rng(number)
        rng.integers(20, 110, (8, 8, 3), dtype=np.uint8)
        colour = rng.integers(160, 256, 3)
        inside = np.asarray(Image.open(video[2].image))[disc_mask(3, number, 64)]
        assert np.abs(np.median(inside, axis=0) - colour).max() < 12


def test_only_what_is_missing_is_made(s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    layout, video = avsbench(root, "s4"), read_videos(root, "s4")[1]
    before = contents(root)
    removed = [video[1].image, video[4].flow(), video[0].log_mel]
    for path in removed:
        path.unlink()
    video[3].flow().write_bytes(b"")
    stamps = {path: path.stat().st_mtime_ns for path in (layout.folder / "s4_data").rglob("*.*") if path.is_file()}
    seen: list[tuple[int, int]] = []
    report = prepare(root, "s4", workers=1, progress=lambda done, total: seen.append((done, total)))
    assert report.written == {"frames": 1, "flow": 2, "log_mel": 1}
    assert report.kept == 10 * 12 - 4
    assert (report.videos, report.failures, report.notes) == (10, [], [])
    assert seen == [(0, 1), (1, 1)]
    assert contents(root) == before
    touched = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert touched == {video[3].flow()}
    assert prepare(root, "s4", workers=1).written == {}


def test_worker_processes_make_the_same(s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    before = contents(root)
    report = prepare(root, "s4", workers=2, overwrite=True)
    assert report.written == {"frames": 50, "flow": 50, "wav": 10, "log_mel": 10}
    assert report.kept == 0
    assert contents(root) == before


def test_a_killed_run_leaves_whole_files_and_is_continued(s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    layout = avsbench(root, "s4")
    wanted = contents(root)
    for kind in ("visual_frames", "flow", "audio_wav", "audio_log_mel"):
        shutil.rmtree(layout.folder / "s4_data" / kind)
    layout.video_sizes.unlink()
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom avseg.data.prepare import prepare\n"
        "if __name__ == '__main__':\n    prepare(sys.argv[1], 's4', workers=2)\n"
    )
    repository = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, str(script), str(root)],
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": repository},
    )
    try:
        while len(list((layout.folder / "s4_data" / "flow").rglob("[!.]*.png"))) < 7:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 60
        while _alive(process.pid):
            assert time.monotonic() < deadline, "workers outlive the run that was killed"
            time.sleep(0.05)
    finally:
        if _alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    partly = {name: data for name, data in contents(root).items() if not Path(name).name.startswith(".tmp-")}
    assert 0 < len(partly) < len(wanted)
    assert all(wanted[name] == data for name, data in partly.items()), "a half file under a real name"
    (layout.folder / "s4_data" / "flow" / "train" / ".tmp-left.png").write_bytes(b"half")

    report = prepare(root, "s4", workers=1)
    assert report.failures == []
    assert report.kept == len(partly)
    assert sum(report.written.values()) == len(wanted) - len(partly)
    assert contents(root) == wanted, "the same as never having been stopped, and no temporary file is left"
    assert len(read_sizes(layout.video_sizes)) == 10


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_runs_at_once_are_refused(s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    read_videos(root, "s4")[0][0].flow().unlink()

    def again(done: int, total: int) -> None:
        if done == 1:
            with pytest.raises(AvsegError, match="held by another run"):
                prepare(root, "s4", workers=1)

    assert prepare(root, "s4", workers=1, progress=again).written == {"flow": 1}


def test_faulty_videos_are_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    index = make_avsbench(tmp_path, "s4", {"train": 5, "val": 1}, settings={"s4_train_1": {"sound": 0}})
    raw = {video[0].video: video[0].raw for video in index}
    raw["s4_train_2"].write_bytes(raw["s4_train_2"].read_bytes()[:1500])
    raw["s4_train_3"].write_text("this is no video")
    raw["s4_train_4"].unlink()
    report = prepare(tmp_path, "s4", workers=1)
    reasons = dict(report.failures)
    assert sorted(reasons) == ["s4_train_1", "s4_train_2", "s4_train_3", "s4_train_4"]
    for name, reason in reasons.items():
        assert str(raw[name]) in reason
        assert "\n" not in reason
    assert "sound" in reasons["s4_train_1"]
    assert "does not exist" in reasons["s4_train_4"]
    assert len(report.failures) == 4, "each once"
    whole = [video for video in index if video[0].video not in reasons]
    assert all(video[0].log_mel.is_file() and video[4].flow().is_file() for video in whole)
    silent = index[1]
    assert silent[4].image.is_file(), "images of a silent video are made all the same"
    assert not silent[0].log_mel.exists()
    faulty = {problem.path for problem in check(tmp_path, "s4", workers=1)}
    assert silent[0].log_mel in faulty
    assert not any(video[0].video in str(path) for path in faulty for video in whole)


def test_short_sound_and_a_single_frame_are_notes(tmp_path: Path) -> None:
    settings = {"-s4_train_0": {"sound": 2.5}, "s4_train_1": {"frames": 1}, "s4_train_2": {"seconds": 2.0}}
    index = make_avsbench(tmp_path, "s4", {"train": 3}, settings=settings)
    report = prepare(tmp_path, "s4", workers=1)
    assert report.failures == []
    notes = dict(report.notes)
    assert "its last log-mel example is repeated" in notes["-s4_train_0"]
    assert "single frame" in notes["s4_train_1"]
    examples = load_log_mel(index[0][0].log_mel)
    assert examples.shape == (5, 1, 96, 64)
    assert torch.equal(examples[2], examples[4])
    assert not torch.equal(examples[0], examples[2])
    assert all(not read_flow_png(index[1][k - 1].flow()).any() for k in range(1, 6))
    short = [index[2][k - 1].image.read_bytes() for k in range(1, 6)]
    assert short[2] == short[3] == short[4], "past the end, the last frame"
    assert short[1] == short[2], "the second frame, at 1.9375 s, is the last of 16"
    assert short[0] != short[1]
    assert check(tmp_path, "s4", workers=1) == []


def test_frames_and_sound_as_distributed_are_kept(s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    layout, videos = avsbench(root, "s4"), read_videos(root, "s4")
    shutil.rmtree(layout.folder / "s4_data" / "flow")
    layout.video_sizes.unlink()
    kept = {
        p: p.stat().st_mtime_ns for p in (layout.folder / "s4_data").rglob("*") if p.suffix in (".png", ".wav", ".pkl")
    }
    report = prepare(root, "s4", workers=1)
    assert report.written == {"flow": 50}
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert len(read_sizes(layout.video_sizes)) == 10
    shutil.rmtree(layout.folder / "s4_data" / "raw_videos")
    assert prepare(root, "s4", workers=1).failures == [], "all is there: the raw videos are not needed"
    videos[0][0].log_mel.unlink()
    assert prepare(root, "s4", workers=1).written == {"log_mel": 1}, "from the stored sound"
    shutil.rmtree(layout.folder / "s4_data" / "flow")
    with pytest.raises(AvsegError, match=r"raw_videos.*optical flow.*--data\.flow published"):
        prepare(root, "s4", workers=1)


def test_no_raw_videos_at_all(tmp_path: Path) -> None:
    make_avsbench(tmp_path, "s4", {"train": 2})
    shutil.rmtree(tmp_path / "Single-source/s4_data" / "raw_videos")
    with pytest.raises(AvsegError, match=r"raw_videos holds none of the 2 videos that s4_meta_data\.csv lists"):
        prepare(tmp_path, "s4")
    with pytest.raises(AvsegError, match=r"ms3_meta_data\.csv does not exist"):
        prepare(tmp_path, "ms3")


def test_sizes_that_contradict_what_is_there(tmp_path: Path) -> None:
    index = make_avsbench(tmp_path, "s4", {"train": 1}, size=64)
    with pytest.raises(AvsegError, match="masks of 64×64 pixels, not 96×96"):
        prepare(tmp_path, "s4", size=96, workers=1)
    prepare(tmp_path, "s4", workers=1)
    assert read_image(index[0][0].image).shape == (64, 64, 3), "the masks' size without being asked"
    write_mask(index[0][0].mask, np.ones((96, 96), dtype=bool))
    with pytest.raises(AvsegError, match=r"frames of 64×64 pixels, not 96×96.*--overwrite"):
        prepare(tmp_path, "s4", size=96, workers=1)
    prepare(tmp_path, "s4", size=96, workers=1, overwrite=True)
    assert read_flow_png(index[0][0].flow()).shape == (2, 96, 96)
    assert check(tmp_path, "s4", workers=1) == []


def test_the_video_s_own_aspect_is_kept_for_letterbox(tmp_path: Path) -> None:
    index = make_avsbench(tmp_path, "s4", {"train": 1})
    layout = avsbench(tmp_path, "s4")
    write_mp4(index[0][0].raw, size=(128, 72))
    prepare(tmp_path, "s4", workers=1)
    assert read_sizes(layout.video_sizes) == {index[0][0].video: (128, 72)}
    assert read_image(index[0][0].image).shape == (64, 64, 3)


def test_dis_flow(tmp_path: Path) -> None:
    index = make_avsbench(tmp_path, "s4", {"train": 1}, prepared=True)
    layout = avsbench(tmp_path, "s4")
    before = {path: path.read_bytes() for path in (layout.folder / "s4_data").rglob("*.*") if path.is_file()}
    assert prepare(tmp_path, "s4", workers=1, flow_method="dis").written == {"flow": 5}
    dis = index[0][0].flow("dis")
    assert dis.relative_to(layout.folder / "s4_data").parts[:2] == ("flow_dis", "train")
    assert read_flow_png(dis).any()
    assert not np.array_equal(read_flow_png(dis), read_flow_png(index[0][0].flow()))
    assert {path: path.read_bytes() for path in before} == before, "Farnebäck's is as it was"
    assert not prepare(tmp_path, "s4", workers=1, flow_method="dis").written


def test_distant_frames_are_the_middle_with_its_own_sound(tmp_path: Path) -> None:
    """The second half of the sound is another tone: the example at 1.5 s hears both, the first second's only one."""
    make_avsbench(tmp_path, "ms3", {"train": 1}, distant=2)
    layout = distant_frames(tmp_path / "MS3_Extend")
    frames = read_frames(distant_frames(layout.folder))
    write_two_tones(frames[0].raw)
    report = prepare(tmp_path, "ms3", workers=1)
    assert report.failures == []
    assert report.videos == 3
    assert check(tmp_path, "ms3", workers=1) == []
    log_mel = load_log_mel(frames[0].log_mel)
    assert log_mel.shape == (1, 1, 96, 64)
    loudest = log_mel[0, 0].argmax(dim=1)
    assert loudest[:90].float().mean() < 20 < loudest[-2:].float().mean()
    image = read_image(frames[1].image)
    assert image.shape == (64, 64, 3)
    across, down, _ = disc_at(1.5, 4, 64)
    bright = np.argwhere(image.min(axis=2) > 130).mean(axis=0)
    assert bright == pytest.approx([down, across], abs=1.5), "the disc where it is after half of three seconds"
    assert read_flow_png(frames[0].flow()).shape == (2, 64, 64)
    assert prepare(tmp_path, "ms3", workers=1, flow_method="dis").written == {"flow": 5 + 2}
    assert read_flow_png(frames[0].flow("dis")).shape == (2, 64, 64)
    assert set(read_sizes(layout.video_sizes)) == {"1", "2"}
    frames[1].raw.write_bytes(b"broken")
    frames[1].image.unlink()
    assert [name for name, _ in prepare(tmp_path, "ms3", workers=1).failures] == ["MS3_Extend/2"]


def test_nowhere_to_write_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_avsbench(tmp_path, "s4", {"train": 2})
    (tmp_path / ".avseg").write_text("a file where the folder should be")
    with pytest.raises(AvsegError, match=r"\.avseg cannot be written to"):
        prepare(tmp_path, "s4", workers=1)
    (tmp_path / ".avseg").unlink()
    real = prepare_module.write_wav

    def full(path: Path, wave: np.ndarray) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepare_module, "write_wav", full)
    with pytest.raises(AvsegError, match=r"No space left on device\): make room"):
        prepare(tmp_path, "s4", workers=1)
    assert index[0][4].image.is_file(), "what is made already is kept"
    monkeypatch.setattr(prepare_module, "write_wav", real)
    assert prepare(tmp_path, "s4", workers=1).kept == 10
