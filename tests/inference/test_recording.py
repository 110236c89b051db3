"""Frames and sound that are no video file: the same moments as of the video that they came from."""

from pathlib import Path

import numpy as np
import pytest

import avseg
from avseg.errors import AvsegError
from avseg.inference import AVSegmenter, Recording
from avseg.inference.source import video_source
from avseg.media.audio import load_audio, write_wav
from avseg.media.images import write_image
from avseg.media.video import iter_frames, probe

FRAMES = np.random.default_rng(0).integers(0, 255, (10, 24, 32, 3), dtype=np.uint8)
WAVE = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)


@pytest.fixture(scope="module")
def parts(video: Path) -> tuple[list[np.ndarray], np.ndarray]:
    return [frame for _, frame in iter_frames(video)], load_audio(video)


@pytest.mark.parametrize("fps", [2, 5, 8, None])
@pytest.mark.parametrize("stretch", [(0.0, None), (0.6, 2.1)])
def test_a_recording_is_segmented_as_its_video(
    light: AVSegmenter,
    video: Path,
    parts: tuple[list[np.ndarray], np.ndarray],
    fps: float | None,
    stretch: tuple[float, float | None],
) -> None:
    of_file = light(video, fps, *stretch)
    of_parts = light(Recording(parts[0], 8, parts[1]), fps, *stretch)
    np.testing.assert_allclose(of_parts.times, of_file.times, atol=1e-9)
    np.testing.assert_array_equal(of_parts.scores, of_file.scores)
    np.testing.assert_allclose(of_parts.loudness, of_file.loudness, atol=1e-3)
    for a, b in zip(of_parts.moments(), of_file.moments(), strict=True):
        np.testing.assert_array_equal(a.frame, b.frame)


def test_a_tuple_is_a_recording_at_fps(
    light: AVSegmenter, video: Path, parts: tuple[list[np.ndarray], np.ndarray]
) -> None:
    for frames in (parts[0], np.stack(parts[0])):
        np.testing.assert_array_equal(light((frames, parts[1]), fps=8).scores, light(video, fps=None).scores)
    assert len(list(light.stream((parts[0], parts[1]), fps=8, end=1))) == 8


def test_results_of_a_recording(light: AVSegmenter, parts: tuple[list[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    recording = avseg.Recording(parts[0], 8, np.stack([parts[1], 0.5 * parts[1]], 1), name="mine")
    result = light(recording, fps=4, start=0.5)
    assert result.source is recording
    result.save_video(tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").duration == pytest.approx(2.5, abs=0.01)
    heard = load_audio(tmp_path / "out.mp4")[1000:30_000]
    np.testing.assert_allclose(heard, 0.75 * parts[1][9000:38_000], atol=0.05)
    assert '"sounding objects in mine"' in result.to_coco(tmp_path / "out.json").read_text()


# ---- Folders ----


def write_folder(folder: Path, frames: np.ndarray, wave: np.ndarray, names: list[str]) -> Path:
    for frame, name in zip(frames, names, strict=True):
        write_image(folder / name, frame)
    write_wav(folder / "sound.wav", wave)
    return folder


def test_pictures_are_spread_over_the_sound(light: AVSegmenter, tmp_path: Path) -> None:
    names = [f"frame{k}.png" for k in range(10)]  # frame10 would come before frame2 by its letters
    folder = write_folder(tmp_path / "shots", FRAMES, WAVE, [*names[:9], "frame10.png"])
    result = light(folder, fps=None)
    np.testing.assert_allclose(result.times, np.arange(10) / 10)
    for moment, frame in zip(result.moments(), FRAMES, strict=True):
        np.testing.assert_array_equal(moment.frame, frame)
    assert len(light(folder, fps=5)) == 5
    result.save_video(tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").has_audio


def test_a_rate_or_times_in_names_say_when_pictures_are_shown(tmp_path: Path) -> None:
    times = [2.0, 2.2, 2.4, 2.5, 3.0]
    folder = write_folder(tmp_path / "a", FRAMES[:5], WAVE, [f"{k:06d}_{t:.3f}.png" for k, t in enumerate(times)])
    np.testing.assert_allclose(Recording.from_folder(folder).begins, [0, 0.2, 0.4, 0.5, 1.0], atol=1e-9)
    recording = Recording.from_folder(folder, frame_rate=25)
    np.testing.assert_allclose(recording.begins, np.arange(5) / 25)
    assert recording.duration == pytest.approx(0.2)


def test_our_own_masks_with_sound_are_a_recording(light: AVSegmenter, video: Path, tmp_path: Path) -> None:
    result = light(video, fps=4)
    result.save_masks(tmp_path / "masks")
    write_wav(tmp_path / "masks" / "sound.wav", load_audio(video))
    np.testing.assert_allclose(light(tmp_path / "masks", fps=None).times, result.times, atol=1e-6)


def spoil(folder: Path, how: str) -> None:
    if how == "no sound":
        (folder / "sound.wav").unlink()
    elif how == "two sounds":
        write_wav(folder / "other.wav", WAVE)
    elif how == "no number":
        (folder / "frame0.png").rename(folder / "first.png")
    elif how == "same number":
        write_image(folder / "b0.png", FRAMES[0])
    elif how == "another size":
        write_image(folder / "frame3.png", FRAMES[0, :10])
    else:
        (folder / "frame3.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("no sound", "holds no sound file: put exactly one beside the images"),
        ("two sounds", "holds 2 sound files: put exactly one"),
        ("no number", r"first\.png has no number in its name: number the images"),
        ("same number", "have one number: rename one of them"),
        ("another size", r"frame 3 is \(10, 32, 3\) uint8: give \(H, W, 3\) uint8, all of one size"),
        ("damaged", r"frame3\.png is not a whole image: copy that image again"),
    ],
)
def test_a_folder_that_is_no_recording_is_told(light: AVSegmenter, tmp_path: Path, how: str, sentence: str) -> None:
    folder = write_folder(tmp_path / "shots", FRAMES, WAVE, [f"frame{k}.png" for k in range(10)])
    spoil(folder, how)
    with pytest.raises(AvsegError, match=sentence):
        light(folder, fps=None)


# ---- Wrong arrays ----


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": []}, "recording has no frames"),
        ({"frames": FRAMES[0]}, r"frames are \(24, 32, 3\): give \(N, H, W, 3\) uint8"),
        ({"frames": FRAMES.transpose(0, 3, 1, 2)}, r"frame 0 is \(3, 24, 32\) uint8: give \(H, W, 3\)"),
        ({"frames": FRAMES / 255}, r"frame 0 is \(24, 32, 3\) float64"),
        ({"frame_rate": 0}, "frame_rate is 0: give frames per second, above 0"),
        ({"frame_rate": float("inf")}, "frame_rate is inf"),
        ({"wave": np.zeros(0)}, r"the sound is \(0,\): give"),
        ({"wave": (WAVE * 32768).astype(np.int16)}, "must be finite floats in .* divide 16-bit values by 32768"),
        ({"wave": np.full(100, np.nan)}, "must be finite floats"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"times": np.zeros(10)}, "times must be one for each frame, rising from 0"),
        ({"times": np.arange(9)}, "times must be one for each frame"),
    ],
)
def test_wrong_arrays_are_told_in_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(AvsegError, match=sentence):
        Recording(**{"frames": FRAMES, "frame_rate": 10, "wave": WAVE, **change})


def test_a_later_frame_of_another_size_is_told_when_it_comes(light: AVSegmenter) -> None:
    with pytest.raises(AvsegError, match=r"frame 4 is \(12, 32, 3\)"):
        light(Recording([*FRAMES[:4], FRAMES[4, :12]], 5, WAVE), fps=None)


@pytest.mark.parametrize(
    ("given", "fps", "sentence"),
    [
        ((FRAMES, WAVE), None, "frames without their rate: give it as fps"),
        ((FRAMES, WAVE), 2, r"5\.0 s of frames came with 1\.0 s of sound"),
        ((FRAMES, WAVE, 3), 10, "tuple is nothing that can be segmented"),
        (FRAMES, 10, "ndarray is nothing that can be segmented: give a video's path"),
        (None, 5, "NoneType is nothing that can be segmented"),
    ],
)
def test_what_is_no_source_is_told(given: object, fps: float | None, sentence: str) -> None:
    with pytest.raises(AvsegError, match=sentence):
        video_source(given, fps)


@pytest.mark.parametrize(
    "names",
    [
        ["cam2_take3_0001.png", "cam2_take3_0002.png", "cam2_take3_0010.png"],
        ["shot_2_of_10.png", "shot_3_of_10.png", "shot_10_of_10.png"],
        ["take2_9.png", "take2_10.png", "take10_1.png"],
        ["mp4_640x360_7.png", "mp4_640x360_8.png", "mp4_640x360_11.png"],
        ["3.png", "20_end.png", "100b.png"],
        ["a_2.png", "b_3.png", "a_10.png"],
    ],
)
def test_the_number_that_varies_orders_the_pictures(tmp_path: Path, names: list[str]) -> None:
    folder = write_folder(tmp_path / "shots", FRAMES[: len(names)], WAVE, names)
    for other in ("._" + names[0], ".DS_Store", "Thumbs.db", "notes.txt"):
        (folder / other).write_bytes(b"not an image 1")
    found = Recording.from_folder(folder, 10)
    assert [path.name for path in found.frames._paths] == names


def test_names_that_could_be_read_in_two_ways_are_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "shots", FRAMES[:2], WAVE, ["at_0.5.png", "at_0.25.png"])
    with pytest.raises(AvsegError, match="are ambiguous: give decimals one length"):
        Recording.from_folder(folder, 10)
    for name in ("at_0.5.png", "at_0.25.png"):
        (folder / name).rename(folder / f"{float(name[3:-4]):.2f}.png")
    assert [path.name for path in Recording.from_folder(folder, 10).frames._paths] == ["0.25.png", "0.50.png"]
