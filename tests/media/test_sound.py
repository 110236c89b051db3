"""Sound as people have it: gaps, late beginnings, several tracks, odd forms; for the model and for the overlay."""

import itertools
import tracemalloc
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from helpers import ffmpeg
from media_files import MediaMaker, click_times, clicks, numbered_frame

from avseg.errors import AvsegError
from avseg.media.audio import iter_audio, load_audio
from avseg.media.audio_writer import FileSound
from avseg.media.container import MediaWarning
from avseg.media.video import probe
from avseg.media.writer import VideoWriter, write_video

FRAMES = [k / 25 for k in range(100)]
CLICKS = [0.5, 1.5, 2.5, 3.5]


def copy(source: Path, target: Path, moved: Callable[[Fraction], Fraction | None]) -> Path:
    """The same packets, those of sound where ``moved`` puts them; those that it gives None for are left out."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if not packet.size:
                continue
            if packet.stream.type == "audio":
                time = moved(packet.pts * packet.time_base)
                if time is None:
                    continue
                packet.pts = packet.dts = round(time / packet.time_base)
            packet.stream = streams[packet.stream.index]
            after.mux(packet)
    return target


def moved(part: Path, seconds: int) -> bytes:
    """A transport stream that begins later."""
    ffmpeg(part.parent, "-i", part.name, "-c", "copy", "-output_ts_offset", str(10 + seconds), "moved.ts")
    return (part.parent / "moved.ts").read_bytes()


def overlay_of(source: Path, target: Path) -> np.ndarray:
    """The sound of a video that was written with ``source``'s: ``(n,)``, decoded without timestamps."""
    with VideoWriter(target, 160, 96, 25, audio_from=source) as writer:
        writer.write(numbered_frame(0))
    with av.open(str(target)) as container:
        rate = container.streams.audio[0].rate
        pieces = [frame.to_ndarray().mean(axis=0) for frame in container.decode(audio=0)]
    assert rate == 48_000
    return np.concatenate(pieces)


@pytest.mark.parametrize("lost", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.ts", "mp2"), ("a.mkv", "libopus"), ("a.mkv", "pcm_s16le")],
)
def test_lost_packets_leave_silence_and_the_rest_in_place(make: MediaMaker, name: str, codec: str, lost: int) -> None:
    whole = make.video(name, FRAMES, sound=clicks(4, rate=48_000), sound_codec=codec, sound_rate=48_000)
    late = itertools.count()
    path = copy(
        whole, make.folder / f"gap{whole.suffix}", lambda time: None if time > 0.8 and next(late) < lost else time
    )
    expected = click_times(load_audio(whole))
    assert expected == pytest.approx(CLICKS, abs=0.003)
    assert click_times(load_audio(path)) == pytest.approx(expected, abs=0.001)
    shown = click_times(overlay_of(path, make.folder / "out.mp4"), 48_000)
    unbroken = click_times(overlay_of(whole, make.folder / "whole_out.mp4"), 48_000)
    assert np.array(shown) - shown[0] == pytest.approx(np.array(unbroken) - unbroken[0], abs=0.001)


def test_streams_that_were_joined_stay_in_step(make: MediaMaker) -> None:
    """Each part's sound is 30 ms shorter than its frames, so that timestamps jump by that much."""
    one = make.video(
        "one.ts", FRAMES[:50], sound=clicks(2, rate=48_000)[:, :-1_440], sound_codec="mp2", sound_rate=48_000
    )
    (make.folder / "both.ts").write_bytes(moved(one, 0) + moved(one, 2))
    assert click_times(load_audio(make.folder / "both.ts")) == pytest.approx(CLICKS, abs=0.002)


def test_time_stamps_that_start_anew_end_sound_and_pictures_together(make: MediaMaker) -> None:
    one = make.video("one.ts", FRAMES, sound=clicks(4, rate=48_000), sound_codec="mp2", sound_rate=48_000)
    twice = make.folder / "twice.ts"
    twice.write_bytes(one.read_bytes() * 2)
    heard = load_audio(twice)
    assert np.array_equal(heard, load_audio(one))
    assert probe(twice).duration == pytest.approx(4, abs=0.05)
    assert click_times(overlay_of(twice, make.folder / "out.mp4"), 48_000) == pytest.approx(CLICKS, abs=0.03)


def test_time_stamps_that_tremble_change_nothing(make: MediaMaker) -> None:
    whole = make.video("whole.mp4", FRAMES, sound=clicks(4, rate=48_000), sound_rate=48_000)
    tremble = np.random.default_rng(0).uniform(-0.004, 0.004, 1_000)
    count = itertools.count()
    path = copy(
        whole, make.folder / "a.mkv", lambda time: time + Fraction(float(tremble[next(count)])) if time > 0 else time
    )
    heard, expected = load_audio(path), load_audio(whole)
    assert len(np.flatnonzero(np.abs(heard) > 0.2)) == len(np.flatnonzero(np.abs(expected) > 0.2))
    assert click_times(heard) == pytest.approx(click_times(expected), abs=0.005)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("begins", [False, True])
def test_sound_that_is_away_for_long_is_silent_for_as_long(make: MediaMaker, name: str, begins: bool) -> None:
    """Later than ten minutes: in bounded memory, and not at the beginning."""
    whole = make.video(
        name, range(710), options={"bf": "0"}, sound=clicks(4, rate=48_000), sound_codec="mp2", sound_rate=48_000
    )
    path = copy(whole, make.folder / f"late{whole.suffix}", lambda time: time + 700 if begins or time > 1 else time)
    tracemalloc.start()
    heard = [
        second + Fraction(int(np.abs(piece).argmax()), 16_000)
        for second, piece in enumerate(iter_audio(path))
        if np.abs(piece).max() > 0.2
    ]
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert len(heard) >= 4
    assert click_times(load_audio(path)) == pytest.approx(
        [time + 700 * (begins or time > 1) for time in CLICKS], abs=0.003
    )


def test_a_file_that_states_no_length_may_begin_its_sound_late(make: MediaMaker) -> None:
    source = make.video("a.mkv", range(710), sound=clicks(1), sound_start=700)
    piped = ffmpeg(make.folder, "-i", source, "-c", "copy", "-f", "matroska", "-")
    (make.folder / "piped.mkv").write_bytes(piped)
    assert click_times(load_audio(make.folder / "piped.mkv")) == pytest.approx([700.5], abs=0.003)


def test_a_wrong_time_stamp_is_not_waited_for(make: MediaMaker) -> None:
    whole = make.video("whole.mkv", FRAMES, sound=clicks(4))
    path = copy(whole, make.folder / "a.mkv", lambda time: time + 50_000 * (time > 3.9))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)
        assert len(load_audio(path)) < 6 * 16_000


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    """Silence, then a tone that is the default track, then a quieter tone."""
    tone = "sine=440:d=3:r=48000"
    ffmpeg(
        tmp_path,
        *("-f", "lavfi", "-i", "color=s=64x48:r=10:d=3", "-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono:d=3"),
        *("-f", "lavfi", "-i", tone, "-f", "lavfi", "-i", f"{tone},volume=0.25"),
        *("-map", "0", "-map", "1", "-map", "2", "-map", "3", "-c:a", "aac", "-disposition:a:0", "0"),
        *("-disposition:a:1", "default", "-disposition:a:2", "0", "three.mp4"),
    )
    return tmp_path / "three.mp4"


@pytest.mark.parametrize("start", [0.0, 1.25])
def test_the_default_track_or_the_one_that_is_asked_for(tracks: Path, tmp_path: Path, start: float) -> None:
    loudest = {None: 0.125, 0: 0.0, 1: 0.125, 2: 0.031}
    for track, level in loudest.items():
        assert np.abs(load_audio(tracks, track=track)[1_000:-1_000]).max() == pytest.approx(level, abs=0.01)
        with VideoWriter(tmp_path / "o.mp4", 160, 96, 25, audio_from=FileSound(tracks, start, track=track)) as writer:
            writer.write(numbered_frame(0))
        written = load_audio(tmp_path / "o.mp4")[1_000:]
        assert np.abs(written).max() == pytest.approx(level, abs=0.015)
        assert len(written) / 16_000 == pytest.approx(3 - start, abs=0.12)
    with pytest.raises(AvsegError, match=r"three\.mp4 has no audio track 3 .* 0 \(aac, mono.* 1 \(.*default\), 2 \("):
        load_audio(tracks, track=3)


def test_a_comment_is_heard_only_where_it_is_the_default_or_alone(tracks: Path, tmp_path: Path) -> None:
    for kind, level in (("comment", 0.125), ("default", 0.0)):
        said = ("-disposition:a:0", kind, "-disposition:a:1", "0")
        ffmpeg(tmp_path, "-i", "three.mp4", "-map", "0", "-c", "copy", *said, f"{kind}.mkv")
        loudest = np.abs(load_audio(tmp_path / f"{kind}.mkv")[1_000:-1_000]).max()
        assert loudest == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize(
    "layout", ["mono", "stereo", "2.1", "quad", "5.0", "5.1", "5.1(side)", "6.1", "7.1", "hexadecagonal"]
)
@pytest.mark.parametrize("form", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_f64le", "flac", "aac"])
def test_any_form_and_layout_is_heard_and_written(tmp_path: Path, layout: str, form: str) -> None:
    """Eight planar channels, as of 7.1 in AAC, are what PyAV itself reads beyond the end of."""
    if layout == "hexadecagonal" and form in ("flac", "aac"):
        pytest.skip("these hold eight channels at most")
    source = ("-f", "lavfi", "-i", f"sine=300:d=1:r=48000,aformat=channel_layouts={layout}")
    ffmpeg(tmp_path, *source, "-c:a", form, "a.mka")
    heard = load_audio(tmp_path / "a.mka")
    assert len(heard) == pytest.approx(16_000, abs=400)
    assert 0.02 < np.abs(heard).max() <= 1
    assert np.abs(np.fft.rfft(heard[:16_000])).argmax() == pytest.approx(300, abs=3)
    write_video(tmp_path / "out.mp4", [numbered_frame(0)] * 25, 25, audio_from=tmp_path / "a.mka")
    assert np.abs(load_audio(tmp_path / "out.mp4")).max() > 0.02


def test_rate_and_channels_that_change_on_the_way(make: MediaMaker) -> None:
    parts = []
    for second, (channels, rate) in enumerate([(1, 48_000), (2, 44_100), (1, 32_000), (2, 48_000)]):
        part = make.video("part.ts", FRAMES[:25], sound=clicks(1, channels, rate), sound_codec="mp2", sound_rate=rate)
        parts.append(moved(part, second))
    path = make.folder / "changing.ts"
    path.write_bytes(b"".join(parts))
    # The parts begin with the encoder's 481 samples of delay, which last up to 5 ms longer than the first part's.
    assert click_times(load_audio(path)) == pytest.approx(CLICKS, abs=0.006)
    assert click_times(overlay_of(path, make.folder / "out.mp4"), 48_000) == pytest.approx(CLICKS, abs=0.03)


def wav(path: Path, data: bytes, *, form: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> Path:
    size = channels * bits // 8
    numbers = [
        (16, 4),
        (form, 2),
        (channels, 2),
        (rate, 4),
        (rate * size & 2**32 - 1, 4),
        (size & 65_535, 2),
        (bits, 2),
    ]
    head = b"WAVEfmt " + b"".join(number.to_bytes(width, "little") for number, width in numbers)
    body = head + b"data" + len(data).to_bytes(4, "little") + data
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    return path


@pytest.mark.parametrize(
    "shape", [{"rate": 1}, {"rate": 2**31 - 1}, {"channels": 200}, {"channels": 65_535}, {"rate": 0}]
)
def test_a_wav_of_impossible_form_is_told(tmp_path: Path, shape: dict[str, int]) -> None:
    path = wav(tmp_path / "odd.wav", bytes(64_000), **shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MediaWarning)
        for work in (
            load_audio,
            lambda path: write_video(tmp_path / "o.mp4", [numbered_frame(0)], 25, audio_from=path),
        ):
            if work is load_audio or shape.get("channels") != 65_535:
                with pytest.raises(AvsegError, match=r"odd\.wav"):
                    work(path)


@pytest.mark.parametrize(("kind", "value"), [("<f4", np.nan), ("<f4", np.inf), ("<f4", 1e38), ("<f8", 1e300)])
def test_samples_that_are_no_sound_are_told_and_do_no_harm(tmp_path: Path, kind: str, value: float) -> None:
    sound = 0.5 * np.sin(2 * np.pi * 300 * np.arange(44_100) / 44_100)
    sound[1_000:1_100] = value
    path = wav(tmp_path / "a.wav", sound.astype(kind).tobytes(), form=3, rate=44_100, bits=8 * int(kind[-1]))
    with pytest.warns(MediaWarning, match=r"a\.wav: samples of its sound are not finite or far too loud"):
        heard = load_audio(path)
    assert np.abs(heard).max() <= 1
    expected = 0.5 * np.sin(2 * np.pi * 300 * np.arange(16_000) / 16_000)
    assert heard[600:-100] == pytest.approx(expected[600:-100], abs=2e-3)


@pytest.mark.parametrize("name", ["a.wav", "a.mp4", "a.mkv"])
def test_a_track_without_a_sample_is_told(make: MediaMaker, name: str) -> None:
    if name == "a.wav":
        path = wav(make.folder / name, b"")
    else:
        whole = make.video(f"whole{Path(name).suffix}", FRAMES, sound=clicks(4))
        path = copy(whole, make.folder / name, lambda time: None)
    with pytest.raises(AvsegError, match=name.replace(".", r"\.")):
        load_audio(path)
