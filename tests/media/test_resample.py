"""Any rate and layout to one: joined pieces are the whole, channels are weighed as FFmpeg weighs them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import ffmpeg

from avseg.media.resample import Mixer, resample


@pytest.mark.parametrize("rates", [(44_100, 16_000), (48_000, 16_000), (8_000, 16_000), (16_000, 48_000), (7, 5)])
def test_pieces_give_what_the_whole_gives(rates: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 5_000, 12)
    sound = rng.normal(0, 0.1, lengths.sum())
    mixer = Mixer(rates[1])
    pieces = [mixer.push(piece[None], rates[0]) for piece in np.split(sound, np.cumsum(lengths)[:-1])]
    joined = np.concatenate([*pieces, mixer.finish()], axis=1)[0]

    assert len(joined) == len(sound) * rates[1] // rates[0]
    assert np.abs(joined - resample(sound, *rates)).max(initial=0) < 1e-6


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 44_101])
def test_what_the_lower_rate_holds_is_kept_and_nothing_else(rate: int) -> None:
    target, time = 16_000, np.arange(rate) / rate
    low, high = 0.3 * min(rate, target), 0.45 * max(rate, target)
    kept = resample(np.sin(2 * np.pi * low * time), rate, target)
    expected = np.sin(2 * np.pi * low * np.arange(target) / target)
    assert np.abs(kept - expected)[500:-500].max() < 2e-4
    if rate > target:
        assert np.abs(resample(np.sin(2 * np.pi * high * time), rate, target))[500:-500].max() < 2e-4
    else:  # no images above half of the source's rate
        spectrum = np.abs(np.fft.rfft(kept * np.hanning(target)))
        assert spectrum[rate // 2 :].max() < 1e-3 * spectrum.max()


def test_silence_surrounds_the_sound() -> None:
    """Nothing is mirrored at its ends."""
    noise = np.random.default_rng(0).normal(1, 0.1, 44_100)
    among = resample(np.pad(noise, 4_410), 44_100, 16_000)
    assert np.abs(resample(noise, 44_100, 16_000) - among[1_600:-1_600]).max() < 1e-6


def test_the_mean_of_stereo_is_exact() -> None:
    stereo = np.random.default_rng(0).uniform(-1, 1, (2, 16_000)).astype(np.float32)
    assert np.abs(Mixer(16_000).push(stereo, 16_000)[0] - stereo.mean(0)).max() < 1e-6


@pytest.mark.parametrize("layout", ["stereo", "3.0", "quad", "5.0", "5.1", "5.1(side)", "7.1", "6 channels"])
def test_channels_weigh_what_they_weigh_in_ffmpeg(tmp_path: Path, layout: str) -> None:
    count = {"stereo": 2, "3.0": 3, "quad": 4, "5.0": 5, "7.1": 8}.get(layout, 6)
    sound = np.random.default_rng(0).uniform(-0.2, 0.2, (count, 4_800)).astype(np.float32)
    (tmp_path / "in.f32").write_bytes(np.ascontiguousarray(sound.T).tobytes())
    form = ["-f", "f32le", "-ar", "48000", "-channel_layout", "5.1" if "ch" in layout else layout, "-ac", str(count)]
    mono = ["-ac", "1", "-f", "f32le", "out.f32"]
    ffmpeg(tmp_path, *form, "-i", "in.f32", *mono)
    expected = np.frombuffer((tmp_path / "out.f32").read_bytes(), np.float32)
    if layout == "stereo":  # the mean, as AVSBench's own sounds were made; FFmpeg's floats are 3 dB louder
        expected = expected / np.sqrt(2)
    assert np.abs(Mixer(48_000).push(sound, 48_000, layout)[0] - expected).max() < 1e-6


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_channels_of_no_known_layout_are_averaged(channels: int) -> None:
    sound = np.random.default_rng(0).uniform(-0.2, 0.2, (9, 4_800)).astype(np.float32)
    mixed = Mixer(48_000, channels).push(sound, 48_000, "9 channels")
    assert np.abs(mixed).max(axis=0) == pytest.approx(np.abs(sound.mean(0)), abs=1e-6)


def test_rate_and_layout_may_change_on_the_way() -> None:
    mixer, made, tone = Mixer(16_000), [], 0.3
    for rate, channels, count in [(44_100, 2, 4_411), (48_000, 1, 4_801), (16_000, 6, 1_601), (22_050, 2, 2_207)] * 5:
        made.append(mixer.push(np.full((channels, count), tone, np.float32) * (channels < 6), rate))
    joined = np.concatenate([*made, mixer.finish()], axis=1)[0]
    seconds = 5 * (4_411 / 44_100 + 4_801 / 48_000 + 1_601 / 16_000 + 2_207 / 22_050)
    assert len(joined) == int(seconds * 16_000)
    assert joined[[800, 2_400, 5_600]] == pytest.approx(tone, abs=1e-3)
    assert joined[4_000] == pytest.approx(0, abs=1e-3)


def test_memory_does_not_grow_with_the_sound() -> None:
    mixer, second = Mixer(16_000), np.zeros((1, 48_000), np.float32)
    tracemalloc.start()
    for _ in range(100):
        mixer.push(second, 48_000)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
