"""Frames and sound as AVSBench's authors made them: held against their steps in OpenCV and against moviepy 1.0.3."""

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import cv2
import moviepy_reference as reference
import numpy as np
import pytest

from avseg.media.audio import frame_log_mel, load_audio, read_wav
from avseg.media.front_end import official_pairs, official_sound, sampled_sound
from avseg.media.sound import iter_sound


def write_pictures(path: Path, rate: Fraction, seconds: float) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        still = rng.integers(0, 256, (180, 320, 3), dtype=np.uint8)
        for i in range(round(seconds * rate)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(still, 3 * i, axis=1), format="rgb24")))
        container.mux(stream.encode(None))


def the_authors_frames(path: Path, size: int) -> list[np.ndarray]:
    """AVSBench's published steps: all frames, the rate rounded, sixteen places a second, the last of them kept."""
    capture = cv2.VideoCapture(str(path))
    rate, frames = round(capture.get(cv2.CAP_PROP_FPS)), []
    while True:
        read, image = capture.read()
        if not read:
            break
        frames.append(cv2.resize(image[..., ::-1], (size, size)))
    places = [int(second * rate + i / 16 * rate) for second in range(5) for i in range(16)]
    return [frames[min(place, len(frames) - 1)] for place in places[15::16]]


@pytest.mark.parametrize("rate", [Fraction(8), Fraction(25), Fraction(30_000, 1001), Fraction(60_000, 1001)])
@pytest.mark.parametrize("seconds", [5, 2])
def test_frames_differ_by_nothing(tmp_path: Path, rate: Fraction, seconds: int) -> None:
    path = tmp_path / "a:b.mp4"
    write_pictures(path, rate, seconds)
    pairs = official_pairs(path, [1, 2, 3, 4, 5], (112, 112))
    for pair, theirs in zip(pairs, the_authors_frames(path, 112), strict=True):
        assert np.array_equal(pair.frame, theirs)
        assert pair.neighbour is not None
        assert abs(pair.step) == pytest.approx(1 / rate)
    (alone,) = official_pairs(path, [4], (112, 112))
    assert np.array_equal(alone.frame, pairs[3].frame)
    assert np.array_equal(alone.neighbour, pairs[3].neighbour)
    if seconds == 2:
        assert pairs[4].step < 0, "the last frame's neighbour is the one before"


@pytest.mark.parametrize("case", reference.CASES)
def test_log_mel_is_that_of_moviepy(tmp_path: Path, case: str) -> None:
    clip = tmp_path / "clip.avi"
    reference.write_clip(clip, *reference.CASES[case])
    theirs = np.load(reference.VALUES)[case]
    ours = frame_log_mel(official_sound(clip)).reshape(-1)[:: reference.EVERY]
    assert (np.abs(ours - theirs) <= 1e-3).mean() >= 0.99
    clean = frame_log_mel(load_audio(clip)).reshape(-1)[:: reference.EVERY]
    assert (np.abs(clean - theirs) <= 1e-3).mean() < 0.5, "the clean path is another one"


@pytest.mark.skipif(find_spec("moviepy") is None, reason="moviepy is not installed")
@pytest.mark.parametrize("case", reference.CASES)
def test_sound_is_that_of_moviepy_sample_by_sample(tmp_path: Path, case: str) -> None:
    clip, wav = tmp_path / "clip.avi", tmp_path / "clip.wav"
    reference.write_clip(clip, *reference.CASES[case])
    reference.read_with_moviepy(clip, wav)
    theirs, rate = read_wav(wav)
    ours = official_sound(clip)
    assert rate == 16_000
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 2 / 2**15


def test_one_channel_comes_out_3_db_quieter(tmp_path: Path) -> None:
    loudness = {}
    for channels in (1, 2):
        clip = tmp_path / f"{channels}.avi"
        reference.write_clip(clip, 44_100, channels, 1.0, 1.0)
        made, clean = official_sound(clip).mean(axis=1), load_audio(clip)
        loudness[channels] = 20 * np.log10(made.std() / clean.std())
    assert loudness[1] == pytest.approx(loudness[2] - 3.0, abs=0.6)


def test_any_sound_is_sampled_alike_from_any_second_on(tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    reference.write_clip(clip, 44_100, 2, 4.0, 4.0)  # too short for moviepy's buffer to move
    whole = np.concatenate(list(sampled_sound(iter_sound(clip))))
    assert whole.shape == (64_000,)
    assert np.abs(whole - official_sound(clip).mean(axis=1)).max() <= 1 / 2**15
    for second in (1, 3):
        part = np.concatenate(list(sampled_sound(iter_sound(clip, second), second)))
        assert np.array_equal(part, whole[second * 16_000 :])
