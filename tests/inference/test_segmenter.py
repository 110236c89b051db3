"""The model at work: what it sees and hears, checked with models whose scores are known."""

import gc
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_mp4
from toy_models import save_tiny, toy
from videos import disc, iou, write_late

import avseg
from avseg.errors import AvsegError
from avseg.inference import AVSegmenter
from avseg.inference import segmenter as running
from avseg.media.flow import neighbour_flow
from avseg.media.frames import DecodedFrame
from avseg.media.video import iter_frames, read_frames, read_pairs
from avseg.media.writer import write_video
from avseg.models import AVSModel, Inputs, Prediction


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
    sound = np.zeros(count * 3200, np.float32)
    write_video(tmp_path / "clip.mp4", frames, 5, audio=sound, sample_rate=16000)

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
        monkeypatch.setattr(AVSModel, "timestamps_per_pass", lambda *_: 10)
        together = [moment.score for moment in segmenter.stream(video, fps=4)]
        monkeypatch.setattr(AVSModel, "timestamps_per_pass", lambda *_: 1)
        alone = [moment.score for moment in segmenter.stream(video, fps=4)]
        # Sums in another order may tip the rounding to float16, whose steps below 1 are 2⁻¹¹.
        np.testing.assert_allclose(together, alone, rtol=0, atol=2**-11 + 1e-5)


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


def test_the_first_moment_comes_before_the_video_is_decoded(
    light: AVSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mp4(tmp_path / "long.mp4", seconds=40, size=(64, 64), fps=25)
    given: list[np.ndarray] = []
    real = DecodedFrame.rgb

    def rgb(picture: DecodedFrame) -> np.ndarray:
        given.append(real(picture))
        return given[-1]

    monkeypatch.setattr(DecodedFrame, "rgb", rgb)
    stream = light.stream(tmp_path / "long.mp4", fps=5)
    next(stream)
    # Nothing limits the thread but that few moments may wait: one pass of the model and as many again.
    assert len(given) < 2 * 4 * light.model.timestamps_per_pass(light.device) < 200
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "avseg-prefetch"]


def test_a_stream_that_is_left_stops_decoding(light: AVSegmenter, video: Path) -> None:
    for _ in light.stream(video):
        break
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "avseg-prefetch"]


@pytest.mark.parametrize("length", [1, 3])
def test_fewer_moments_at_once_where_memory_is_short(length: int, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = AVSegmenter(toy("window", frames_per_clip=length), "cpu")
    expected = [moment.score for moment in segmenter.stream(video, fps=8)]
    real, sizes = segmenter.model.predict, []

    def predict(inputs: Inputs) -> Prediction:
        sizes.append(len(inputs.frames))
        if len(inputs.frames) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(inputs)

    monkeypatch.setattr(segmenter.model, "predict", predict)
    most = 2
    np.testing.assert_array_equal([moment.score for moment in segmenter.stream(video, fps=8)], expected)
    assert sum(size > most for size in sizes) == (1 if length == 1 else 0)  # it was remembered
    most = 0
    with pytest.raises(AvsegError, match="The memory of cpu is too small for this model"):
        next(segmenter.stream(video, fps=8))


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
    assert len(moments) == 5
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
    with pytest.raises(AvsegError, match=r"mute\.mp4 has no audio track: give a video with sound"):
        light.stream(tmp_path / "mute.mp4")


def test_device_and_threshold_and_source_are_checked(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match="device 'warp' is not available here"):
        AVSegmenter(toy("light"), "warp")
    with pytest.raises(AvsegError, match="threshold is 1: "):
        AVSegmenter(toy("light"), threshold=1)
    assert AVSegmenter(toy("light"), threshold=0.9).threshold == 0.9


def test_without_a_name_the_model_that_comes_with_avseg_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "files", lambda package: tmp_path / package)
    with pytest.raises(AvsegError, match="No model was named and none comes with this version"):
        AVSegmenter.from_pretrained()
    save_tiny(tmp_path / "avseg" / "shipped")
    segmenter = AVSegmenter.from_pretrained()
    assert (segmenter.name, segmenter.model.config.inputs.image_size) == ("shipped", 64)
    segmenter.save_pretrained(tmp_path / "copy")
    again = AVSegmenter.from_pretrained(tmp_path / "copy")
    assert all(torch.equal(a, b) for a, b in zip(segmenter.model.parameters(), again.model.parameters(), strict=True))


def test_public_names_are_there_when_asked_for() -> None:
    for name in avseg.__all__:
        assert getattr(avseg, name) is not None
        assert name in dir(avseg)
    assert avseg.AVSegmenter is AVSegmenter
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        avseg.nothing  # noqa: B018
