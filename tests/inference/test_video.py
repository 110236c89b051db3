"""One video in, finished files out."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import write_mp4
from videos import iou, write_late

from avseg.errors import AvsegError
from avseg.inference import AVSegmenter, segment_video
from avseg.inference.output_paths import KINDS, is_overlay
from avseg.media.audio import load_audio
from avseg.media.images import read_mask
from avseg.media.video import iter_frames, probe
from avseg.media.writer import write_video
from avseg.models import AVSModel


def test_files_hold_what_was_seen(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = segment_video(video, light, tmp_path / "out", fps=2, progress=lambda *call: calls.append(call))

    moments = list(light.stream(video, fps=2))
    rows = json.loads(report.summary.read_text())["moments"]
    assert (report.moments, report.seconds, report.sounding, report.skipped) == (6, 3.0, 1.0, False)
    assert calls[-1] == (6, 6)
    assert sorted(path.name for path in report.masks.iterdir()) == [Path(row["mask"]).name for row in rows]
    for moment, row in zip(moments, rows, strict=True):
        assert (row["time"], row["share"]) == pytest.approx((moment.time, moment.share), abs=1e-6)
        assert row["loudness"] == pytest.approx(moment.loudness, abs=0.01)
        np.testing.assert_array_equal(read_mask(report.summary.parent / row["mask"]), moment.mask)
    assert rows[3]["mask"] == "masks/000003_1.500.png"


def test_overlay_plays_as_the_video_does_and_masks_hold(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    report = segment_video(video, light, tmp_path, fps=1)

    source, overlay = probe(video), probe(report.video)
    assert (overlay.width, overlay.height, overlay.fps) == (source.width, source.height, source.fps)
    assert overlay.duration == pytest.approx(source.duration, abs=0.01)
    np.testing.assert_allclose(load_audio(report.video), load_audio(video), atol=1e-4)
    masks = [moment.mask for moment in light.stream(video, fps=1)]
    for (time, plain), (_, drawn) in zip(iter_frames(video), iter_frames(report.video), strict=True):
        changed = np.abs(plain.astype(int) - drawn).max(2) > 40
        inside = masks[int(time)]
        others = [mask for mask in masks if mask is not inside]
        assert iou(changed, inside) > max(iou(changed, other) for other in others)


def test_a_stretch_keeps_its_own_sound(light: AVSegmenter, tmp_path: Path) -> None:
    write_late(tmp_path / "late.mp4")

    loud = segment_video(tmp_path / "late.mp4", light, tmp_path / "loud", fps=2, start=2.5, end=3.5)
    silent = segment_video(tmp_path / "late.mp4", light, tmp_path / "silent", fps=2, end=1.5)

    assert probe(loud.video).duration == pytest.approx(1, abs=0.01)
    assert probe(silent.video).duration == pytest.approx(1.5, abs=0.01)
    assert load_audio(loud.video)[2000:14000].std() == pytest.approx(0.2, abs=0.02)
    assert np.abs(load_audio(silent.video)).max() < 0.01


def test_a_stretch_after_the_sound_has_ended(light: AVSegmenter, tmp_path: Path) -> None:
    write_mp4(tmp_path / "quiet.mp4", seconds=4, sound=1.5)
    report = segment_video(tmp_path / "quiet.mp4", light, tmp_path / "out", fps=2, start=2.5)
    assert (report.moments, len(report.notes)) == (3, 1)
    assert probe(report.video).duration == pytest.approx(1.5, abs=0.01)


def test_the_same_files_every_time(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    a, b = (segment_video(video, light, tmp_path / name, fps=2) for name in "ab")
    assert a.video.read_bytes() == b.video.read_bytes()
    assert a.summary.read_bytes() == b.summary.read_bytes()


def test_results_that_exist_are_kept_unless_told(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    first = segment_video(video, light, tmp_path, fps=1)
    (first.masks / "own.txt").write_text("mine")
    before = first.video.stat().st_mtime_ns

    assert segment_video(video, light, tmp_path, fps=2).skipped
    assert first.video.stat().st_mtime_ns == before

    again = segment_video(video, light, tmp_path, fps=2, overwrite=True)
    assert len(list(again.masks.iterdir())) == again.moments == 6
    again.summary.unlink()
    with pytest.raises(AvsegError, match=r"clip\.mp4 exists: choose another folder \(--out\), or replace it"):
        segment_video(video, light, tmp_path)


def test_a_video_is_never_replaced_by_its_overlay(light: AVSegmenter, video: Path) -> None:
    with pytest.raises(AvsegError, match="is the video itself: choose another folder"):
        segment_video(video, light, video.parent, overwrite=True)


def test_failure_leaves_what_was_there(
    light: AVSegmenter, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_video(video, light, tmp_path / "old", fps=1)
    files = {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()}
    monkeypatch.setattr(AVSModel, "timestamps_per_pass", lambda *_: 2)
    real = light.model.predict
    passes = iter(range(9))

    def predict(inputs: object) -> object:
        if next(passes) == 2:
            raise RuntimeError("out of memory")
        return real(inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(light.model, "predict", predict)
    for folder in ("old", "new"):
        passes = iter(range(9))
        with pytest.raises(RuntimeError, match="out of memory"):
            segment_video(video, light, tmp_path / folder, overwrite=True)

    assert {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()} == files
    assert not (tmp_path / "new").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"old"}


def test_what_is_there_of_a_cut_file_can_be_asked_for(light: AVSegmenter, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3)).astype(np.uint8) for _ in range(30)]
    write_video(tmp_path / "whole.mp4", frames, 10, audio=np.zeros(48000, np.float32), sample_rate=16000)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])

    with pytest.raises(AvsegError, match=r"cut\.mp4 is cut off after 1\.\d+ of 3\.00 s: .* --end 1\.\d+"):
        segment_video(tmp_path / "cut.mp4", light, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert segment_video(tmp_path / "cut.mp4", light, tmp_path / "out", fps=2, end=1.5).moments == 3


def test_any_of_five_kinds_can_be_written(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    report = segment_video(video, light, tmp_path / "out", fps=2, save=reversed(KINDS))
    result = light(video, fps=2)
    names = ["clip/coco.json", "clip/masks", "clip/moments.json", "clip/scores.npz", "clip/strip.png", "clip.mp4"]
    assert sorted(report.written) == sorted(tmp_path / "out" / name for name in names)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["clip", "clip.mp4"]
    np.testing.assert_array_equal(np.load(tmp_path / "out/clip/scores.npz")["scores"], result.scores)
    found = json.loads((tmp_path / "out/clip/coco.json").read_text())
    assert [image["file_name"] for image in found["images"]] == sorted(path.name for path in report.masks.iterdir())

    report = segment_video(video, light, tmp_path / "less", fps=2, save=["npz"], name="other")
    assert {path.name for path in (tmp_path / "less").rglob("*")} == {"other", "moments.json", "scores.npz"}
    assert report.written == [tmp_path / "less/other/scores.npz", tmp_path / "less/other/moments.json"]
    for wrong, sentence in ((["masks", "gif"], "'gif' is nothing that can be saved"), ([], "Nothing is to be saved")):
        with pytest.raises(AvsegError, match=f"{sentence}: choose among video, masks, coco, npz, strip"):
            segment_video(video, light, tmp_path, save=wrong)


def test_what_is_missing_is_added_if_made_alike(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    first = segment_video(video, light, tmp_path, fps=2)
    before = {path: path.stat().st_mtime_ns for path in (first.video, first.masks)}

    with pytest.raises(AvsegError, match=r"clip was made with other options: choose another folder \(--out\)"):
        segment_video(video, light, tmp_path, fps=4, save=["masks", "coco"])
    strict = AVSegmenter(light.model, "cpu", threshold=0.8)
    with pytest.raises(AvsegError, match="was made with other options"):
        segment_video(video, strict, tmp_path, fps=2, save=["coco"])
    assert not (tmp_path / "clip" / "coco.json").exists()

    report = segment_video(video, light, tmp_path, fps=2, save=["video", "masks", "coco"])
    assert not report.skipped
    assert (tmp_path / "clip" / "coco.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert is_overlay(report.video)
    kept = segment_video(video, light, tmp_path, fps=4, save=["coco"])
    assert (kept.skipped, kept.moments, kept.seconds, kept.sounding) == (True, 6, 3.0, 1.0)
    assert "clip was made with other options and was kept" in kept.notes[0]


def test_results_of_another_video_are_not_taken_for_ones_own(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    segment_video(video, light, tmp_path / "out", fps=1)
    write_mp4(tmp_path / "clip.mp4", seconds=2, number=1)
    with pytest.raises(AvsegError, match=r"clip holds the results of another clip\.mp4: choose another folder"):
        segment_video(tmp_path / "clip.mp4", light, tmp_path / "out", fps=1)
    assert segment_video(tmp_path / "clip.mp4", light, tmp_path / "out", fps=1, overwrite=True).moments == 2
    (tmp_path / "out" / "clip" / "moments.json").write_text("{}")
    with pytest.raises(AvsegError, match=r"moments\.json is not what avseg writes there"):
        segment_video(tmp_path / "clip.mp4", light, tmp_path / "out", fps=1)
    assert not is_overlay(tmp_path / "out" / "clip.mp4")


def test_the_model_is_loaded_only_when_it_is_needed(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    loaded: list[AVSegmenter] = []

    def load() -> AVSegmenter:
        loaded.append(light)
        return light

    with pytest.raises(AvsegError, match="doesn't exist"):
        segment_video(tmp_path / "gone.mp4", load, tmp_path / "out")
    assert not loaded
    for expected in (False, True):
        assert segment_video(video, load, tmp_path / "out", fps=1).skipped is expected
    assert len(loaded) == 1


def test_smoothing_reaches_every_file(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    report = segment_video(video, light, tmp_path, fps=4, smoothing=0.6)
    for path, mask in zip(sorted(report.masks.iterdir()), light(video, fps=4, smoothing=0.6).masks(), strict=True):
        np.testing.assert_array_equal(read_mask(path), mask)
    assert json.loads(report.summary.read_text())["options"]["smoothing"] == 0.6
