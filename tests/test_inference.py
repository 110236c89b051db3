"""A video in, masks out: what is seen, heard and written, checked with models whose scores are known."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import disc_at, write_mp4
from toy_models import save_tiny, toy

import avseg
from avseg.data.pictures import read_mask
from avseg.errors import AvsegError
from avseg.inference import AVSegmenter, segment_video
from avseg.inference import segmenter as running
from avseg.inference.hearing import SILENCE, Hearing, loudness_at
from avseg.media.audio import load_audio, log_mel_at
from avseg.media.flow import neighbour_flow
from avseg.media.video import iter_frames, probe, read_frames, read_pairs, write_video


def disc(time: float, width: int, height: int) -> np.ndarray:
    """Where `helpers.write_mp4` draws its disc."""
    x, y, radius = disc_at(time, 0, 1024)
    rows, columns = np.mgrid[:height, :width]
    across = (columns - x * width / 1024) / (radius * width / 1024)
    down = (rows - y * height / 1024) / (radius * height / 1024)
    return across**2 + down**2 <= 1


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def write_late(path: Path) -> None:
    """4 s, 10 fps: two seconds of silence, then noise of level 0.2."""
    sound = np.concatenate([np.zeros(32000), np.random.default_rng(0).normal(0, 0.2, 32000)]).astype(np.float32)
    write_video(path, [np.full((32, 32, 3), 90, np.uint8)] * 40, 10, audio=sound, sample_rate=16000)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s, 8 fps, 128×72, with a tone."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_mp4(path, seconds=3, size=(128, 72))
    return path


@pytest.fixture(scope="module")
def light() -> AVSegmenter:
    return AVSegmenter(toy("light"), "cpu")


def test_moments_come_in_order_at_the_videos_own_size(light: AVSegmenter, video: Path) -> None:
    moments = list(light.stream(video, fps=4))

    assert [moment.time for moment in moments] == [k / 4 for k in range(12)]
    frames = read_frames(video, [moment.time for moment in moments])
    for moment, frame in zip(moments, frames, strict=True):
        np.testing.assert_array_equal(moment.frame, frame)
        assert moment.score.shape == moment.mask.shape == (72, 128)
        assert (moment.score.dtype, moment.mask.dtype) == (np.float32, np.bool_)
        np.testing.assert_array_equal(moment.mask, moment.score >= 0.5)
        assert iou(moment.mask, disc(moment.time, 128, 72)) > 0.8
        assert moment.share == moment.mask.mean()


@pytest.mark.parametrize("size", [(128, 72), (64, 120)])
def test_letterbox_is_undone(tmp_path: Path, size: tuple[int, int]) -> None:
    write_mp4(tmp_path / "clip.mp4", seconds=1, size=size)
    moments = list(AVSegmenter(toy("light", resize="letterbox")).stream(tmp_path / "clip.mp4", fps=2))

    assert len(moments) == 2
    for moment in moments:
        assert iou(moment.mask, disc(moment.time, *size)) > 0.8


def test_every_frame_and_more_than_every_frame(light: AVSegmenter, video: Path) -> None:
    expected = [time for time, _ in iter_frames(video)]

    assert [moment.time for moment in light.stream(video, fps=None)] == expected
    assert [moment.time for moment in light.stream(video, fps=100)] == expected
    assert [moment.time for moment in light.stream(video, None, start=1, end=2)] == [t for t in expected if 1 <= t < 2]


def test_a_stretch_begins_and_ends_where_asked(light: AVSegmenter, video: Path) -> None:
    assert [moment.time for moment in light.stream(video, fps=2, start=0.75, end=2)] == [0.75, 1.25, 1.75]


def test_the_model_hears_the_second_around_a_moment(tmp_path: Path) -> None:
    write_late(tmp_path / "late.mp4")

    moments = list(AVSegmenter(toy("sound")).stream(tmp_path / "late.mp4", fps=4))

    heard = {moment.time: bool(moment.mask.all()) for moment in moments}
    assert not any(heard[time] for time in heard if time < 1.25)
    assert all(heard[time] for time in heard if time > 2.5)
    assert all(moment.loudness < -70 for moment in moments if moment.time < 1.25)
    assert moments[-1].loudness == pytest.approx(20 * np.log10(0.2), abs=1)


def test_hearing_a_part_is_hearing_the_whole() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 16000 * 20).astype(np.float32)
    for sound, times in (
        (wave, [0.0, 0.1]),
        (wave, [9.7, 10.3, 11.0, 18.0]),
        (wave, [19.0, 19.99, 25.0]),
        (wave[:5000], [0.0, 3.0]),
        (wave[: 16000 * 6], [6.4]),
        (wave[: 16000 * 6], [15.0]),
    ):
        opened: list[int] = []

        def pieces(second: int, sound: np.ndarray = sound, opened: list[int] = opened) -> Iterator[np.ndarray]:
            opened.append(second)
            return (sound[k : k + 700] for k in range(second * 16000, len(sound), 700))

        hearing = Hearing(pieces, times[0])
        heard = [hearing.at(time) for time in times]
        assert opened[0] == max(0, int(times[0]) - 1)
        np.testing.assert_allclose([example for example, _ in heard], log_mel_at(sound, times), atol=1e-6)
        assert [loudness for _, loudness in heard] == [pytest.approx(loudness_at(sound, time)) for time in times]
    assert loudness_at(np.zeros(100, np.float32), 0.0) == SILENCE
    assert loudness_at(np.ones(100_000, np.float32), 99.0) == pytest.approx(0)


def test_flow_is_that_of_the_next_frame_at_the_models_size(video: Path) -> None:
    moments = list(AVSegmenter(toy("motion")).stream(video, fps=8))

    times = [moment.time for moment in moments]
    for index in (5, len(times) - 1):  # the last frame has its flow from the frame before
        pair = read_pairs(video, times, size=(64, 64))[index]
        u = torch.from_numpy(neighbour_flow(pair)[0]).half().float()
        small = torch.from_numpy(np.ascontiguousarray(moments[index].score[None, None]))
        expected = torch.nn.functional.interpolate(u.sigmoid()[None, None], (72, 128), mode="bilinear")
        assert float((small - expected).abs().max()) < 5e-3
        assert float(u.abs().max()) > 0.1


@pytest.mark.parametrize(
    ("count", "windows"),
    [(5, [range(5)] * 5), (7, [range(5)] * 5 + [range(2, 7)] * 2), (3, [(0, 1, 2, 2, 2)] * 3)],
)
def test_t_moments_enter_together(tmp_path: Path, count: int, windows: list[range]) -> None:
    values = [40 + 20 * k for k in range(count)]
    frames = [np.full((64, 64, 3), value, np.uint8) for value in values]
    write_video(tmp_path / "clip.mp4", frames, 5, audio=np.zeros(16000 * 2, np.float32), sample_rate=16000)

    moments = list(AVSegmenter(toy("window", frames_per_clip=5)).stream(tmp_path / "clip.mp4", fps=5))

    expected = [np.mean([values[k] for k in window]) / 255 for window in windows]
    np.testing.assert_allclose([moment.score.mean() for moment in moments], expected, atol=0.01)


def test_how_many_moments_pass_together_changes_nothing(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for length in (1, 5):
        segmenter = AVSegmenter.from_pretrained(
            save_tiny(tmp_path / f"model{length}", neighbouring_frames=True, frames_per_clip=length), "cpu"
        )
        monkeypatch.setitem(running._MOMENTS, "cpu", 10)
        together = [moment.score for moment in segmenter.stream(video, fps=4)]
        monkeypatch.setitem(running._MOMENTS, "cpu", 1)
        alone = [moment.score for moment in segmenter.stream(video, fps=4)]
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_memory_does_not_grow_with_the_video(light: AVSegmenter, tmp_path: Path) -> None:
    write_mp4(tmp_path / "long.mp4", seconds=12, size=(320, 240), fps=25)

    tracemalloc.start()
    try:
        count = sum(1 for _ in light.stream(tmp_path / "long.mp4", fps=None))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 300
    assert peak < 25e6 < count * 320 * 240 * 3


def test_scores_are_the_same_every_time(tmp_path: Path, video: Path) -> None:
    segmenter = AVSegmenter.from_pretrained(save_tiny(tmp_path / "model"), "cpu")
    first, second = (np.stack([moment.score for moment in segmenter.stream(video)]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_sound_that_ends_early_and_a_single_frame_are_noted(light: AVSegmenter, tmp_path: Path) -> None:
    write_mp4(tmp_path / "quiet.mp4", seconds=4, sound=1.5)
    with pytest.warns(UserWarning, match=r"quiet\.mp4: the sound ends at 1\.\d+ of 4\.00 s"):
        assert len(list(light.stream(tmp_path / "quiet.mp4", fps=2))) == 8
    write_mp4(tmp_path / "still.mp4", frames=1, sound=1.0)
    with pytest.warns(UserWarning, match=r"still\.mp4 has a single frame"):
        moments = list(AVSegmenter(toy("motion")).stream(tmp_path / "still.mp4"))
    assert len(moments) == 1
    assert np.all(moments[0].score == 0.5)


def test_the_last_window_of_short_sound_is_repeated(tmp_path: Path) -> None:
    write_mp4(tmp_path / "quiet.mp4", seconds=4, sound=1.5)
    with pytest.warns(UserWarning, match="last window"):
        moments = list(AVSegmenter(toy("sound")).stream(tmp_path / "quiet.mp4", fps=1))
    assert moments[3].loudness == moments[2].loudness > -20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"start": -1}, "start is -1"),
        ({"start": 3.5}, r"start is 3\.5 s, but .*clip\.mp4 lasts 3\.00 s"),
        ({"start": 2, "end": 1}, r"end is 1 s, which is not after start \(2 s\)"),
    ],
)
def test_wrong_arguments_are_named(light: AVSegmenter, video: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(AvsegError, match=sentence):
        light.stream(video, **arguments)


def test_a_video_without_sound_is_refused_before_anything_is_decoded(light: AVSegmenter, tmp_path: Path) -> None:
    write_mp4(tmp_path / "mute.mp4", seconds=1, sound=0)
    with pytest.raises(AvsegError, match=r"mute\.mp4 has no sound track: give a video with sound"):
        light.stream(tmp_path / "mute.mp4")


def test_device_and_threshold_and_source_are_checked(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match="device 'warp' is not to be had here"):
        AVSegmenter(toy("light"), "warp")
    with pytest.raises(AvsegError, match="threshold is 1: "):
        AVSegmenter(toy("light"), threshold=1)
    with pytest.raises(AvsegError, match="No model was named"):
        AVSegmenter.from_pretrained()
    assert AVSegmenter(toy("light"), threshold=0.9).threshold == 0.9


def test_public_names_are_there_when_asked_for() -> None:
    for name in avseg.__all__:
        assert getattr(avseg, name) is not None
        assert name in dir(avseg)
    assert avseg.AVSegmenter is AVSegmenter
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        avseg.nothing  # noqa: B018


# ---- segment_video ----


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
    monkeypatch.setitem(running._MOMENTS, "cpu", 2)
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
