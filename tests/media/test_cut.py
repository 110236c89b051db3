"""A stretch of a file's sound."""

import wave
from pathlib import Path

import numpy as np
import pytest

from avseg.errors import AvsegError
from avseg.media.audio import read_wav
from avseg.media.cut import cut_sound
from avseg.media.sound import iter_sound
from avseg.media.video import write_video


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cut") / "stereo.mp4"
    time = np.arange(3 * 44100) / 44100
    sound = np.stack([0.5 * np.sin(2 * np.pi * 300 * time), 0.2 * np.sin(2 * np.pi * 800 * time)], 1)
    frames = [np.zeros((32, 32, 3), np.uint8)] * 30
    write_video(path, frames, 10, audio=sound.astype(np.float32), sample_rate=44100)
    return path


@pytest.mark.parametrize(("start", "end"), [(0.5, 1.75), (0, 1), (2.5, None), (2.9, 9)])
def test_every_sample_of_the_stretch_and_no_other(
    stereo: Path, tmp_path: Path, start: float, end: float | None
) -> None:
    whole = np.concatenate([block.samples for block in iter_sound(stereo)], axis=1).T
    cut_sound(stereo, tmp_path / "cut.wav", start, end)

    sound, rate = read_wav(tmp_path / "cut.wav")
    assert rate == 44100
    expected = whole[round(start * rate) : None if end is None else round(end * rate)]
    assert sound.shape == expected.shape
    np.testing.assert_allclose(sound, expected, atol=2**-15)


def test_after_the_sound_there_is_none(stereo: Path, tmp_path: Path) -> None:
    cut_sound(stereo, tmp_path / "cut.wav", 5, 6)
    with wave.open(str(tmp_path / "cut.wav")) as file:
        assert (file.getnframes(), file.getnchannels()) == (0, 2)


def test_no_sound_track(tmp_path: Path) -> None:
    write_video(tmp_path / "mute.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3, 10)
    with pytest.raises(AvsegError, match="no sound track"):
        cut_sound(tmp_path / "mute.mp4", tmp_path / "cut.wav", 0)
