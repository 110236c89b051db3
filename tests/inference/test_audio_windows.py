"""Sound that is read as far as moments have come is the sound of the whole."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import write_mp4

from avseg.config import AUDIO_OFFSET, InputConfig
from avseg.errors import AvsegError
from avseg.inference.audio_windows import SILENCE, AudioWindows, loudness_at
from avseg.inference.recording import Recording
from avseg.inference.source import video_source
from avseg.media.audio import iter_audio, load_audio, log_mel_at, write_wav


@pytest.mark.parametrize("offset", [AUDIO_OFFSET, 0.0, -3.0, 1.5])
def test_hearing_a_part_is_hearing_the_whole(offset: float) -> None:
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

        audio = AudioWindows(pieces, times[0], offset=offset)
        heard = [audio.at(time) for time in times]
        assert opened[0] == max(0, math.floor(times[0] + offset) - 1)
        whole = log_mel_at(sound, times, offset=offset)
        np.testing.assert_allclose([example for example, _ in heard], whole, atol=1e-6)
        loudness = [pytest.approx(loudness_at(sound, time, offset)) for time in times]
        assert [found for _, found in heard] == loudness
    assert loudness_at(np.zeros(100, np.float32), 0.0) == SILENCE
    assert loudness_at(np.ones(100_000, np.float32), 99.0) == pytest.approx(0)


def test_of_a_long_track_about_a_second_is_held() -> None:
    def pieces(second: int) -> Iterator[np.ndarray]:
        return (np.full(1600, 0.1, np.float32) for _ in range(600 * 10 - second * 10))

    audio = AudioWindows(pieces)
    for time in np.arange(0, 600, 0.5):
        audio.at(float(time))
        assert len(audio._held) < 4 * 16_000
    assert audio.seconds == pytest.approx(600)


def test_a_track_without_sound_is_told() -> None:
    with pytest.raises(AvsegError, match=r"clip\.mp4 has a audio track without any sound that can be decoded"):
        AudioWindows(lambda second: iter(()), 5.0, "clip.mp4")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "wav"])
def test_sound_from_a_second_on_is_that_of_the_whole(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"clip.{ending}"
    if ending == "wav":
        write_wav(path, np.random.default_rng(0).uniform(-0.5, 0.5, 12 * 16_000).astype(np.float32))
    else:
        write_mp4(path, seconds=12, fps=4)
    whole = load_audio(path)
    for second in (0, 1, 7, 11):
        part = np.concatenate(list(iter_audio(path, start=second)))
        assert len(part) == len(whole) - 16_000 * second
        np.testing.assert_allclose(part[200:], whole[16_000 * second + 200 :], atol=1e-5)
    assert not list(iter_audio(path, start=20))


def test_hearing_costs_the_same_at_every_moment_of_a_long_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the sound comes: of an hour in one piece a moment touches a few seconds."""
    touched: list[int] = []

    def counted(wave: np.ndarray, times: list[float], **given: float) -> np.ndarray:
        touched.append(len(wave))
        return log_mel_at(wave, times, **given)

    monkeypatch.setattr("avseg.inference.audio_windows.log_mel_at", counted)
    hour = np.zeros(3600 * 16_000, np.float32)
    audio = AudioWindows(lambda second: iter([hour[second * 16_000 :]]))
    for time in np.linspace(0, 3600, 40):
        audio.at(float(time))
        assert len(audio._held) <= 5 * 16_000
    assert max(touched) <= 5 * 16_000


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_recording_is_mixed_as_it_is_heard(rate: int) -> None:
    """No more of it is converted than moments have come, and from a second on it is what it is from the beginning."""
    wave = np.random.default_rng(0).normal(0, 0.1, (60 * rate, 2)).astype(np.float32)
    recording = Recording([np.zeros((8, 8, 3), np.uint8)] * 60, 1, wave, rate)
    audio = video_source(recording).audio_windows(0.0, InputConfig())
    audio.at(1.0)
    assert len(audio._held) < 5 * 16_000
    late = video_source(recording).audio_windows(40.0, InputConfig())
    for time in (40.0, 41.3, 59.9):
        whole, part = audio.at(time), late.at(time)
        np.testing.assert_allclose(part[0], whole[0], atol=1e-4)
        assert part[1] == pytest.approx(whole[1], abs=1e-4)
