"""Writing: true times, sound that stays with the frames, whole files, the same bytes each time."""

import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import MediaMaker, click_times, clicks, number_of, numbered_frame

from avseg.errors import AvsegError
from avseg.media.audio import load_audio
from avseg.media.audio_writer import FileSound
from avseg.media.container import MediaWarning
from avseg.media.video import iter_frames, probe, read_frames
from avseg.media.writer import VideoWriter, write_video

FRAMES = [k / 25 for k in range(75)]


def numbered(count: int, width: int = 160, height: int = 96) -> Iterator[np.ndarray]:
    return (numbered_frame(k, width, height) for k in range(count))


def copy_with_sound(source: Path, target: Path, end: float | None = None) -> None:
    info = probe(source)
    sound = FileSound(source, end=end)
    with VideoWriter(target, info.width, info.height, info.fps, audio_from=sound) as writer:
        for time, frame in iter_frames(source, end=end):
            writer.write(frame, time)


def tracks(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {stream.type: stream.codec_context.codec.canonical_name for stream in container.streams}


@pytest.mark.parametrize("fps", [25, 30000 / 1001, 60, 12.5])
def test_frames_come_back_at_their_times(tmp_path: Path, fps: float) -> None:
    path = tmp_path / "new" / "clip.mp4"
    write_video(path, numbered(100), fps)

    frames = list(iter_frames(path))
    assert [number_of(frame) for _, frame in frames] == list(range(100))
    assert [time for time, _ in frames] == pytest.approx([k / fps for k in range(100)], abs=2e-5)
    info = probe(path)
    assert info.fps == pytest.approx(fps, rel=1e-4)
    assert info.duration == pytest.approx(100 / fps, abs=1e-4)
    assert tracks(path) == {"video": "h264"}


def test_a_varying_frame_rate_is_kept(tmp_path: Path) -> None:
    times = np.cumsum(np.r_[0, np.random.default_rng(1).choice([0.011, 0.04, 0.3], 60)]).tolist()
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 160, 96, 25) as writer:
        for k, time in enumerate(times):
            writer.write(numbered_frame(k), time)
    assert [time for time, _ in iter_frames(path)] == pytest.approx(times, abs=2e-5)


def test_a_frame_without_a_time_follows_a_step_after(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 160, 96, 10) as writer:
        for k, time in enumerate([None, None, 0.5, None, None]):
            writer.write(numbered_frame(k), time)
        with pytest.raises(ValueError, match="later"):
            writer.write(numbered_frame(0), 0.7)
    assert [time for time, _ in iter_frames(path)] == pytest.approx([0, 0.1, 0.5, 0.6, 0.7])


def test_colours_are_kept_and_labelled(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    colours = [(200, 40, 40), (30, 180, 60), (40, 60, 220), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
    frame = np.repeat(np.repeat(np.array([colours], np.uint8), 32, axis=1), 64, axis=0)
    write_video(path, [frame] * 3, 25, crf=5)

    assert np.abs(read_frames(path, [0.0])[0].astype(int) - frame)[4:-4, 8:24].max() <= 6
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", 1, 1)


def test_odd_sizes_are_made_even_by_repeating_the_edge(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    write_video(path, numbered(5, 161, 97), 25, crf=10)

    assert (probe(path).width, probe(path).height) == (162, 98)
    frame = read_frames(path, [0.08])[0].astype(int)
    assert number_of(frame) == 2
    assert np.abs(frame[:97, :161] - numbered_frame(2, 161, 97)).mean() < 3
    assert np.abs(frame[:, 161] - frame[:, 160]).mean() < 6
    assert np.abs(frame[97] - frame[96]).mean() < 6


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [16_000, 44_100, 10_000])
def test_given_sound_is_heard_where_it_was_put(tmp_path: Path, channels: int, rate: int) -> None:
    path = tmp_path / "clip.mp4"
    sound = clicks(3, channels, rate).T
    write_video(path, numbered(75), 25, audio=sound[:, 0] if channels == 1 else sound, sample_rate=rate)

    assert tracks(path) == {"video": "h264", "audio": "aac"}
    back = load_audio(path)
    assert click_times(back) == pytest.approx([0.5, 1.5, 2.5], abs=0.003)
    assert len(back) / 16_000 == pytest.approx(3, abs=0.1)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.layout.nb_channels == channels


@pytest.mark.parametrize(
    ("name", "codec", "copied"),
    [
        ("clip.mp4", "aac", "aac"),
        ("clip.mkv", "aac", "aac"),
        ("clip.mp4", "libmp3lame", "mp3"),
        ("clip.mkv", "ac3", "ac3"),
        ("clip.mkv", "libopus", "opus"),
        ("clip.mkv", "flac", "flac"),
        ("clip.mov", "pcm_s16le", None),
        ("clip.ts", "mp2", None),
        ("clip.ts", "aac", None),
    ],
)
def test_sound_of_a_file_is_copied_or_else_encoded_and_stays_in_place(
    make: MediaMaker, name: str, codec: str, copied: str | None
) -> None:
    source = make.video(name, FRAMES, sound=clicks(3, 2, 48_000), sound_codec=codec, sound_rate=48_000)
    target = make.folder / "out.mp4"
    copy_with_sound(source, target)

    assert tracks(target) == {"video": "h264", "audio": copied or "aac"}
    assert click_times(load_audio(target)) == pytest.approx([0.5, 1.5, 2.5], abs=0.003)
    if copied:
        with av.open(str(source)) as before, av.open(str(target)) as after:
            packets = [bytes(packet) for packet in before.demux(audio=0) if packet.size]
            assert [bytes(packet) for packet in after.demux(audio=0) if packet.size] == packets


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
@pytest.mark.parametrize(
    ("pictures", "sound", "heard"), [(0.0, 0.7, [1.2, 2.2]), (0.7, 0.0, [0.8, 1.8]), (0.7, 0.4, [0.2, 1.2])]
)
def test_tracks_that_begin_at_different_times_stay_aligned(
    make: MediaMaker, codec: str, pictures: float, sound: float, heard: list[float]
) -> None:
    times = [pictures + time for time in FRAMES]
    count = 3 if sound < pictures and not sound else 2
    source = make.video("clip.mkv", times, sound=clicks(count), sound_start=sound, sound_codec=codec)
    target = make.folder / "out.mp4"
    copy_with_sound(source, target)

    assert click_times(load_audio(source)) == pytest.approx(heard, abs=0.003)
    assert click_times(load_audio(target)) == pytest.approx(heard, abs=0.003)
    assert next(iter_frames(target))[0] == 0


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_ends_where_it_is_asked_to_and_goes_on_after_the_pictures(make: MediaMaker, codec: str) -> None:
    source = make.video("clip.mov", FRAMES, sound=clicks(5), sound_codec=codec)

    copy_with_sound(source, make.folder / "part.mp4", end=2.0)
    assert click_times(load_audio(make.folder / "part.mp4")) == pytest.approx([0.5, 1.5], abs=0.003)
    copy_with_sound(source, make.folder / "whole.mp4")
    heard = click_times(load_audio(make.folder / "whole.mp4"))
    assert heard == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5], abs=0.003)


def test_packets_of_sound_and_pictures_alternate(tmp_path: Path) -> None:
    """A player that streams the file needs both tracks close together."""
    path = tmp_path / "clip.mp4"
    write_video(path, numbered(150), 5, audio=clicks(30)[0], sample_rate=16_000)
    with av.open(str(path)) as container:
        kinds = [
            (packet.pos, packet.stream.type, float(packet.dts * packet.time_base))
            for packet in container.demux()
            if packet.size
        ]
    latest = {"video": 0.0, "audio": 0.0}
    for _, kind, time in sorted(kinds):
        latest[kind] = time
        assert abs(latest["video"] - latest["audio"]) < 3


def test_damaged_sound_is_left_out_with_a_warning(make: MediaMaker) -> None:
    source = make.video("clip.mkv", FRAMES, sound=clicks(3, rate=48_000), sound_codec="ac3", sound_rate=48_000)
    with av.open(str(source)) as container:
        packets = [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(source.read_bytes())
    # The first packet too: from it the muxer learns what the track is.
    for time, packet in packets:
        if time < 0.05 or 0.9 < time < 1.1:
            begin = data.find(packet)
            data[begin : begin + 8] = b"\0" * 8
    source.write_bytes(bytes(data))

    with pytest.warns(MediaWarning, match=r"clip\.mkv.*audio track"):
        copy_with_sound(source, make.folder / "out.mp4")
    assert click_times(load_audio(make.folder / "out.mp4")) == pytest.approx([0.5, 1.5, 2.5], abs=0.003)


def test_a_source_without_sound_gives_a_silent_video(make: MediaMaker) -> None:
    source = make.video("clip.mp4", FRAMES[:10])
    copy_with_sound(source, make.folder / "out.mp4")
    assert tracks(make.folder / "out.mp4") == {"video": "h264"}


def test_a_source_that_is_not_there_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=r"missing\.wav"):
        write_video(tmp_path / "out.mp4", numbered(3), 25, audio_from=tmp_path / "missing.wav")
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"before")

    def stopped() -> None:
        with VideoWriter(path, 160, 96, 25, audio=clicks(3)[0], sample_rate=16_000) as writer:
            for frame in numbered(40):
                writer.write(frame)
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        stopped()
    with pytest.raises(AvsegError, match="no frame"), VideoWriter(path, 160, 96, 25):
        pass
    with pytest.raises(AvsegError, match="no frame"):
        write_video(path, [], 25)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


def test_the_name_appears_when_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 160, 96, 25) as writer:
        writer.write(numbered_frame(0))
        assert not path.exists()
    assert probe(path).duration == pytest.approx(0.04, abs=0.001)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.2, 0.2, (32_000, 2)).astype(np.float32)
    contents = set()
    for k in range(6):
        path = tmp_path / f"{k}.mp4"
        write_video(path, numbered(40, 144, 96), 25, audio=sound, sample_rate=16_000)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_longer_file_drifts_by_nothing(tmp_path: Path) -> None:
    """Sound and frames of 30000/1001 frames a second, after 20 s."""
    path = tmp_path / "clip.mp4"
    fps = Fraction(30000, 1001)
    count = round(20 * fps)
    write_video(
        path, (numbered_frame(k % 256) for k in range(count)), float(fps), audio=clicks(20)[0], sample_rate=16_000
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        times = [time for time, _ in iter_frames(path)]
    assert times[-1] == pytest.approx(float((count - 1) / fps), abs=1e-4)
    assert click_times(load_audio(path))[-1] == pytest.approx(19.5, abs=0.003)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    cases = [
        ({"width": 0}, "pixels"),
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"audio": np.zeros(10)}, "sample_rate"),
        ({"audio": np.zeros(10), "sample_rate": 16_000, "audio_from": path}, "not both"),
    ]
    for change, word in cases:
        with pytest.raises(ValueError, match=word):
            VideoWriter(**{"path": path, "width": 160, "height": 96, "fps": 25, **change})
    with pytest.raises(ValueError, match="uint8"), VideoWriter(path, 160, 96, 25) as writer:
        writer.write(np.zeros((96, 160, 3)))
    with pytest.raises(ValueError, match="floats"):
        write_video(path, numbered(2), 25, audio=np.zeros(10, np.int16), sample_rate=16_000)
    assert list(tmp_path.iterdir()) == []
