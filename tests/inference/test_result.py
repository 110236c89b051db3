"""A result gives what the stream gave, and its files hold what it says."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import write_mp4
from media_files import MediaMaker, clicks
from toy_models import toy
from videos import iou, write_late

from avseg.errors import AvsegError
from avseg.inference import AVSegmenter, Result, segment_video
from avseg.inference import result as results
from avseg.media.audio import load_audio
from avseg.media.images import decode_rle, read_mask
from avseg.media.video import iter_frames, probe, read_frames


@pytest.fixture(scope="module")
def result(light: AVSegmenter, video: Path) -> Result:
    return light(video, fps=4)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_result_gives_the_moments_of_the_stream(resize: str, video: Path) -> None:
    segmenter = AVSegmenter(toy("light", resize=resize), "cpu")
    streamed = list(segmenter.stream(video, fps=4))
    result = segmenter(video, fps=4)

    assert len(result) == len(streamed) == 12
    assert (result.scores.shape, result.scores.dtype) == ((12, 64, 64), np.float16)
    assert (result.source, result.size, result.seconds, result.notes) == (video, (128, 72), 3.0, ())
    for index, (moment, again) in enumerate(zip(streamed, result.moments(), strict=True)):
        one = result.moment(index)
        for other in (again, one):
            assert (other.time, other.loudness, other.share) == (moment.time, moment.loudness, moment.share)
            for name in ("frame", "score", "mask"):
                np.testing.assert_array_equal(getattr(other, name), getattr(moment, name))
        np.testing.assert_array_equal(result.mask(index), moment.mask)
        assert result.shares()[index] == moment.share
        assert result.times[index] == moment.time
        assert result.loudness[index] == moment.loudness
    assert result.moment(-1).time == 2.75
    with pytest.raises(IndexError):
        result.moment(12)


def test_another_threshold_needs_no_model(light: AVSegmenter, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = light(video, fps=4)
    strict = [moment.mask for moment in AVSegmenter(light.model, "cpu", threshold=0.9).stream(video, fps=4)]
    monkeypatch.setattr(light.model, "predict", None)
    other = result.at(0.9)
    assert (other.threshold, result.threshold) == (0.9, 0.5)
    assert other.scores is result.scores
    np.testing.assert_array_equal(list(other.masks()), strict)
    np.testing.assert_array_equal(other.shares(), [mask.mean() for mask in strict])
    np.testing.assert_array_equal(result.shares(0.9), other.shares())
    assert (result.shares() > other.shares()).all()
    assert not result.at(0.9999).shares(0.99999).any()
    for wrong in (0.0, 1.0, float("nan")):
        with pytest.raises(AvsegError, match=r"threshold is .*: give a probability between 0 and 1"):
            result.at(wrong)


def test_many_scores_go_to_a_file_that_vanishes(
    light: AVSegmenter, video: Path, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_IN_MEMORY", 3 * 64 * 64 * 2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    large = light(video, fps=4)
    assert isinstance(large.scores, np.memmap)
    np.testing.assert_array_equal(large.scores, result.scores)
    np.testing.assert_array_equal(large.mask(7), result.mask(7))
    np.testing.assert_array_equal(large.at(0.7).shares(), result.at(0.7).shares())
    assert not list(tmp_path.iterdir())
    for scores in (large.scores, result.scores):
        with pytest.raises(ValueError, match="read-only"):
            scores[0] = 0


def test_progress_counts_moments(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    result = light(video, fps=2, progress=lambda *call: calls.append(call))
    assert calls == [*((k, 6) for k in range(1, 7)), (6, 6)]
    calls.clear()
    result.save_video(tmp_path / "out.mp4", progress=lambda *call: calls.append(call))
    assert calls == [(k, 6) for k in range(1, 7)]


def test_notes_are_kept(light: AVSegmenter, tmp_path: Path) -> None:
    write_mp4(tmp_path / "quiet.mp4", seconds=4, sound=1.5)
    (note,) = light(tmp_path / "quiet.mp4", fps=2).notes
    assert "quiet.mp4: the sound ends at 1." in note


# ---- Files ----


def test_the_video_is_that_of_the_command(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    report = segment_video(video, light, tmp_path / "out", fps=4, start=0.5, end=2.5)
    result = light(video, fps=4, start=0.5, end=2.5)
    assert result.save_video(tmp_path / "one.mp4") == tmp_path / "one.mp4"
    assert (tmp_path / "one.mp4").read_bytes() == report.video.read_bytes()
    assert probe(tmp_path / "one.mp4").duration == pytest.approx(2, abs=0.01)
    result.at(0.98).save_video(tmp_path / "other.mp4")
    assert (tmp_path / "other.mp4").read_bytes() != report.video.read_bytes()
    with pytest.raises(AvsegError, match="is the video itself: choose another name"):
        result.save_video(video)


def test_masks(result: Result, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "old.png").write_text("old")
    folder = result.save_masks(tmp_path / "masks")
    files = sorted(folder.iterdir())
    assert [path.name for path in files[:3]] == ["000000_0.000.png", "000001_0.250.png", "000002_0.500.png"]
    for path, mask in zip(files, result.masks(), strict=True):
        np.testing.assert_array_equal(read_mask(path), mask)


def test_coco(result: Result, tmp_path: Path) -> None:
    found = json.loads(result.to_coco(tmp_path / "masks.json").read_text())
    assert [category["name"] for category in found["categories"]] == ["sounding object"]
    assert [image["time"] for image in found["images"]] == list(result.times)
    assert found["images"][3]["file_name"] == "000003_0.750.png"
    assert len(found["annotations"]) == len(result)
    for annotation, mask in zip(found["annotations"], result.masks(), strict=True):
        np.testing.assert_array_equal(decode_rle(annotation["segmentation"]), mask)
        left, top, width, height = annotation["bbox"]
        assert annotation["area"] == mask.sum() == mask[top : top + height, left : left + width].sum()
        assert found["images"][annotation["image_id"] - 1]["time"] == annotation["time"]


def test_npz(result: Result, tmp_path: Path) -> None:
    found = np.load(result.save_npz(tmp_path / "scores.npz"), allow_pickle=False)
    for name in ("times", "scores", "loudness"):
        np.testing.assert_array_equal(found[name], getattr(result, name))
    np.testing.assert_array_equal(found["shares"], result.shares())
    assert (found["threshold"], tuple(found["size"])) == (0.5, (128, 72))
    left, top, width, height = found["inside"]
    inside = found["scores"][5, top : top + height, left : left + width].astype(np.float32)
    mask = cv2.resize(inside, tuple(found["size"]), interpolation=cv2.INTER_LINEAR) >= found["threshold"]
    np.testing.assert_array_equal(mask, result.mask(5))


def test_strip(result: Result, light: AVSegmenter, tmp_path: Path) -> None:
    picture = cv2.imread(str(result.plot(tmp_path / "strip.png")))
    assert picture is not None
    assert picture.shape[1] > 2 * picture.shape[0]
    write_mp4(tmp_path / "still.mp4", frames=1, sound=1.0)
    light(tmp_path / "still.mp4").plot(tmp_path / "still.svg")
    assert "<svg" in (tmp_path / "still.svg").read_text()[:2000]
    assert not list(tmp_path.glob(".tmp*"))


def test_files_that_fail_leave_what_was_there(
    light: AVSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mp4(tmp_path / "clip.mp4", seconds=1)
    result = light(tmp_path / "clip.mp4")
    (tmp_path / "out.mp4").write_text("mine")
    (tmp_path / "clip.mp4").unlink()
    for call in (lambda: result.save_video(tmp_path / "out.mp4"), lambda: result.moment(0)):
        with pytest.raises(AvsegError, match=r"clip\.mp4 doesn't exist"):
            call()
    assert (tmp_path / "out.mp4").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert len(list(result.masks())) == 5  # scores need no video


# ---- Videos of every kind ----


def test_portrait_and_turned_videos(light: AVSegmenter, tmp_path: Path) -> None:
    path = MediaMaker(tmp_path).video(
        "turned.mp4", [k / 10 for k in range(20)], rotate={"degrees": 90}, sound=clicks(2, 1)
    )
    info = probe(path)
    assert (info.width, info.height) == (96, 160)
    result = light(path, fps=5)
    moment = result.moment(3)
    assert moment.frame.shape == (160, 96, 3)
    assert moment.mask.shape == (160, 96)
    bright = moment.frame.mean(2) > 140
    assert iou(moment.mask, bright) > 0.6
    result.save_video(tmp_path / "out.mp4")
    assert (probe(tmp_path / "out.mp4").width, probe(tmp_path / "out.mp4").height) == (96, 160)


def test_a_varying_frame_rate_is_kept(light: AVSegmenter, tmp_path: Path) -> None:
    times = [0, 0.1, 0.15, 0.2, 0.9, 1.0, 1.5, 1.55, 1.9]
    path = MediaMaker(tmp_path).video("varying.mp4", times, sound=clicks(2, 1))
    every = light(path, fps=None)
    np.testing.assert_allclose(every.times, times, atol=1e-4)
    found = light(path, fps=5)
    found.save_video(tmp_path / "out.mp4")
    written = np.array([time for time, _ in iter_frames(tmp_path / "out.mp4")])
    assert all(np.abs(written - time).min() < 1e-3 for time in times)
    assert all(np.abs([*times, *found.times] - time).min() < 1e-3 for time in written)
    np.testing.assert_allclose(load_audio(tmp_path / "out.mp4"), load_audio(path), atol=1e-4)
    shown = [moment.frame for moment in light(path, fps=5).moments()]
    np.testing.assert_array_equal(shown, read_frames(path, light(path, fps=5).times))


def test_silence_is_seen(tmp_path: Path) -> None:
    write_late(tmp_path / "late.mp4")
    result = AVSegmenter(toy("sound"), "cpu")(tmp_path / "late.mp4", fps=4)
    quiet = result.loudness < -60
    assert quiet[:4].all()
    assert not quiet[-4:].any()
    assert not result.shares()[:4].any()
    assert (result.shares()[-4:] == 1).all()
