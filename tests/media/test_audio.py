"""Sound: the reference log-mel values, and tracks of every kind on the clock of their frames."""

from pathlib import Path

import av
import numpy as np
import pytest
from media_files import MediaMaker, click_times, clicks

from avseg.data.avsbench import frame_times
from avseg.errors import AvsegError
from avseg.media.audio import (
    _hann,
    _mel_matrix,
    frame_log_mel,
    load_audio,
    log_mel_at,
    log_mel_examples,
    read_wav,
    window_starts,
    write_wav,
)
from avseg.media.container import MediaWarning

REFERENCE = np.load(Path(__file__).parents[1] / "fixtures" / "logmel" / "cases.npz")
FRAMES = [k / 25 for k in range(75)]


def reference(case: str) -> tuple[np.ndarray, np.ndarray]:
    return REFERENCE[f"{case}/pcm16"] / 32768.0, REFERENCE[f"{case}/logmel"]


@pytest.mark.parametrize(
    ("case", "rate", "tolerance"),
    [
        ("mono16k_5s", 16_000, 1e-5),
        ("stereo16k_2s", 16_000, 1e-5),
        ("silence16k_1s", 16_000, 1e-5),
        ("fullscale16k_1s", 16_000, 1e-5),
        ("mono16k_minimum_15600", 16_000, 1e-5),
        ("mono44k1_1s", 44_100, 0.01),
        ("stereo48k_1s", 48_000, 0.01),
    ],
)
def test_log_mel_equals_the_reference(case: str, rate: int, tolerance: float) -> None:
    wave, expected = reference(case)
    examples = log_mel_examples(wave, rate)

    assert examples.shape == expected.shape
    assert examples.dtype == np.float32
    assert np.abs(examples - expected).max() <= tolerance


def test_mel_matrix_and_window_equal_the_reference() -> None:
    assert np.abs(_mel_matrix() - REFERENCE["mel_matrix_257x64"]).max() < 1e-12
    assert np.abs(_hann() - REFERENCE["window_400"]).max() < 1e-12


@pytest.mark.parametrize(
    ("samples", "count"), [(0, 0), (15_599, 0), (15_600, 1), (77_039, 4), (77_040, 5), (80_000, 5)]
)
def test_number_of_examples(samples: int, count: int) -> None:
    assert log_mel_examples(np.zeros(samples)).shape == (count, 1, 96, 64)


def test_whole_numbers_are_refused_rather_than_taken_for_loud_sound() -> None:
    with pytest.raises(ValueError, match="32768"):
        log_mel_examples(np.zeros(16_000, dtype=np.int16))


def test_frames_get_successive_examples_and_the_last_is_repeated() -> None:
    wave, expected = reference("mono16k_5s")

    assert np.array_equal(frame_log_mel(wave), log_mel_examples(wave))
    assert np.array_equal(frame_log_mel(wave, 2), log_mel_examples(wave)[:2])
    three = frame_log_mel(wave[: 16_000 * 3 + 100])
    assert three.shape == (5, 1, 96, 64)
    assert np.abs(three[:3] - expected[:3]).max() < 1e-5
    assert np.array_equal(three[3], three[2])
    assert np.array_equal(three[4], three[2])


def test_short_and_empty_sound_is_filled_up_with_silence() -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 8_000)
    silence = np.log(np.float32(0.01))

    short = frame_log_mel(wave, 3)
    assert short.shape == (3, 1, 96, 64)
    assert short[0, 0, :48].mean() > silence + 1
    assert short[:, 0, 51:] == pytest.approx(silence)
    assert frame_log_mel(np.zeros(0), 2) == pytest.approx(silence)
    assert log_mel_at(np.zeros(0), [0.0, 9.0]) == pytest.approx(silence)


def test_example_of_a_moment_is_centred_where_asked() -> None:
    wave = clicks(5)[0]
    at = log_mel_at(wave, [2.5, 2.3, 2.7], offset=0.0)

    assert at.shape == (3, 1, 96, 64)
    loudest = [int(example[0].mean(axis=1).argmax()) for example in at]
    # The window of 15,600 samples has its middle at frame 47.5, and a frame is 10 ms.
    assert loudest == pytest.approx([47.5, 67.5, 27.5], abs=2)
    assert np.array_equal(log_mel_at(wave, np.array([2.5, 2.3, 2.7]) + 0.4575), at)


def test_moments_of_avsbench_s_frames_hear_avsbench_s_windows() -> None:
    """Windows end to end drift from frames a second apart, by 40 ms each."""
    starts = window_starts(frame_times(), 80_000)
    assert starts[0] == 0
    assert np.abs(starts - np.arange(5) * 15_360).max() <= 0.04 * 4 * 16_000


def test_example_of_a_moment_is_shifted_inside_the_sound() -> None:
    wave, _ = reference("mono16k_5s")
    first, last = log_mel_examples(wave[:15_600])[0], log_mel_examples(wave[-15_600:])[0]
    at = log_mel_at(wave, [-3, 0, 0.4, 2.5, 4.7, 5, 60], offset=0.0)

    for k in (0, 1, 2):
        assert np.array_equal(at[k], first)
    for k in (4, 5, 6):
        assert np.array_equal(at[k], last)
    middle = 40_000 - 7_800
    assert np.array_equal(at[3], log_mel_examples(wave[middle : middle + 15_600])[0])
    with pytest.raises(ValueError, match="finite"):
        log_mel_at(wave, [float("nan")])


@pytest.mark.parametrize(
    ("channels", "loud", "level"), [(1, 0, 0.5), (2, 1, 0.25), (6, 2, 0.5), (6, 3, 0), (6, 5, 0.25)]
)
def test_channels_are_mixed(make: MediaMaker, channels: int, loud: int, level: float) -> None:
    """Stereo is averaged; speech in the centre of 5.1 is as loud as it was, and its bass channel is left out."""
    sound = np.zeros((channels, 16_000), dtype=np.float32)
    sound[loud] = 0.5
    assert load_audio(make.sound(f"{channels}.wav", sound)) == pytest.approx(level, abs=1e-4)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_sound_of_any_rate_becomes_16_khz(make: MediaMaker, rate: int) -> None:
    path = make.sound("tone.wav", np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)[None] * 0.5, rate=rate)
    sound = load_audio(path)

    assert sound.shape == (32_000,)
    assert sound.dtype == np.float32
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert np.abs(sound - expected)[400:-400].max() < 1e-3


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac"])
def test_every_form_of_samples_has_the_same_scale(make: MediaMaker, codec: str) -> None:
    tone = (0.5 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000))[None].astype(np.float32)
    sound = load_audio(make.sound("tone.mka", tone, codec=codec))
    assert np.abs(sound[:16_000] - tone[0]).max() < 0.01


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_sound_is_on_the_clock_of_the_pictures(make: MediaMaker, name: str, channels: int) -> None:
    path = make.video(name, FRAMES, sound=clicks(3, channels))
    assert click_times(load_audio(path)) == pytest.approx([0.5, 1.5, 2.5], abs=0.002)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_sound_that_begins_late_gets_silence_in_front(make: MediaMaker, name: str) -> None:
    path = make.video(name, FRAMES, sound=clicks(2), sound_start=0.7)
    sound = load_audio(path)
    assert click_times(sound) == pytest.approx([1.2, 2.2], abs=0.002)
    assert not sound[:8_000].any()


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_sound_from_before_the_first_picture_is_dropped(make: MediaMaker, name: str) -> None:
    path = make.video(name, [time + 0.7 for time in FRAMES], sound=clicks(3))
    assert click_times(load_audio(path)) == pytest.approx([0.8, 1.8], abs=0.002)


def test_a_gap_in_the_track_stays_a_gap(make: MediaMaker) -> None:
    """Packets that are missing don't pull later sound forward."""
    whole = make.video("whole.mkv", FRAMES, sound=clicks(3))
    path = make.folder / "gap.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is None or (packet.stream.type == "audio" and 0.7 < packet.pts * packet.time_base < 1.3):
                continue
            packet.stream = copies[packet.stream.index]
            target.mux(packet)
    assert click_times(load_audio(path)) == pytest.approx([0.5, 1.5, 2.5], abs=0.002)


def test_damaged_packets_are_skipped_with_a_warning(make: MediaMaker) -> None:
    """AC-3 protects its packets by a checksum, so that damage is noticed."""
    path = make.video("clip.mkv", FRAMES, sound=clicks(3, rate=48_000), sound_codec="ac3", sound_rate=48_000)
    with av.open(str(path)) as container:
        sizes = [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    for time, packet in sizes:
        if 0.9 < time < 1.1:
            begin = data.find(packet)
            data[begin : begin + 8] = b"\0" * 8
    path.write_bytes(bytes(data))

    with pytest.warns(MediaWarning, match=r"clip\.mkv.*damaged packets of its audio track"):
        sound = load_audio(path)
    assert click_times(sound) == pytest.approx([0.5, 1.5, 2.5], abs=0.002)


def test_files_without_sound_are_named(make: MediaMaker) -> None:
    (make.folder / "notes.txt").write_text("hello " * 100)
    (make.folder / "empty.wav").write_bytes(b"")
    make.video("silent.mp4", FRAMES[:5])
    write_wav(make.folder / "nothing.wav", np.zeros(0))

    for name in ("missing.wav", "notes.txt", "empty.wav", "silent.mp4", "nothing.wav"):
        with pytest.raises(AvsegError, match=name):
            load_audio(make.folder / name)


def test_loudness_stays_in_range(make: MediaMaker) -> None:
    square = np.sign(np.sin(2 * np.pi * 200 * np.arange(32_000) / 32_000))[None].astype(np.float32)
    sound = load_audio(make.sound("square.wav", square, rate=32_000))
    assert np.abs(sound).max() == 1.0


def test_wav_keeps_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (500, 2)) / 2**15
    write_wav(path, values, 22_050)
    back, rate = read_wav(path)

    assert rate == 22_050
    assert back.dtype == np.float32
    assert np.array_equal(back, values.astype(np.float32))
    write_wav(path, np.array([2.0, -2.0, 0.0]))
    assert read_wav(path)[0].tolist() == [1 - 2**-15, -1, 0]
    write_wav(path, values[:, 0])
    assert np.array_equal(load_audio(path), values[:, 0].astype(np.float32))


def test_wav_of_another_kind_is_named(make: MediaMaker) -> None:
    make.sound("float.wav", np.zeros((1, 100), np.float32), codec="pcm_f32le")
    make.sound("deep.wav", np.zeros((1, 100), np.float32), codec="pcm_s24le")
    (make.folder / "text.wav").write_text("hello")
    for name in ("float.wav", "deep.wav", "text.wav", "missing.wav"):
        with pytest.raises(AvsegError, match=name):
            read_wav(make.folder / name)
    with pytest.raises(ValueError, match="finite"):
        write_wav(make.folder / "nan.wav", np.full(10, np.nan))
    assert not (make.folder / "nan.wav").exists()
