"""How long frames are shown, from packets: headers lie, frames are held, clocks start anew, tracks compete."""

import struct
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers import ffmpeg
from media_files import MediaMaker, click_times, clicks, number_of

from avseg.errors import AvsegError
from avseg.media.audio import load_audio
from avseg.media.container import MediaWarning, timeline
from avseg.media.video import iter_frames, iter_pairs, probe, read_frames
from avseg.media.writer import VideoWriter

STEADY = [k / 25 for k in range(50)]
SPARSE = [*STEADY[:13], 4.92, 4.96]
REORDERED = {"bf": "2", "b_strategy": "0", "g": "250"}


def in_fragments(path: Path) -> Path:
    """The same packets; every second of them says where its bytes lie."""
    pieces = path.with_stem("fragments")
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(path)) as source, av.open(str(pieces), "w", options=options) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    return pieces


def numbers(path: Path) -> list[int]:
    return [number_of(frame) for _, frame in iter_frames(path)]


@pytest.mark.parametrize("name", ["low.mp4", "low.mkv", "low.ts"])
def test_pictures_that_are_stored_in_another_order_end_where_the_last_is_shown(make: MediaMaker, name: str) -> None:
    path = make.video(name, SPARSE, options=REORDERED, sound=clicks(5))
    info = probe(path)
    assert info.duration == pytest.approx(5, abs=0.05)
    assert info.fps == pytest.approx(3, abs=0.1)
    assert info.longest == pytest.approx(4.44, abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = list(iter_pairs(path, 5))
    assert len(pairs) == 25
    assert [number_of(pair.frame) for pair in pairs] == [0, 5, 10] + [12] * 22


@pytest.mark.parametrize("name", ["one.mp4", "one.mkv"])
def test_a_picture_is_held_as_long_as_sound_goes_on(make: MediaMaker, name: str) -> None:
    info = probe(make.video(name, [0.0], sound=clicks(4)))
    assert info.duration == pytest.approx(4, abs=0.1)
    assert info.longest == info.duration
    few = probe(make.video(f"few_{name}", STEADY[:25], sound=clicks(4)))
    assert few.duration == pytest.approx(4, abs=0.1)
    # Sound that is a little longer, as encoders make it, holds nothing.
    assert probe(make.video(f"even_{name}", STEADY[:45], sound=clicks(2))).duration == pytest.approx(1.8, abs=0.001)


def test_a_last_picture_that_says_how_long_it_stays_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "last.mp4"
    with VideoWriter(path, 160, 96, 25) as writer:
        for time in (0.0, 0.5, 1.0):
            writer.write(np.zeros((96, 160, 3), np.uint8), time)
        writer.hold_until(4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [time for time, _ in iter_frames(path)] == pytest.approx([0, 0.5, 1])
    assert probe(path).duration == pytest.approx(4)
    assert len(list(iter_pairs(path, 2))) == 8
    with av.open(str(path)) as container:  # the header says so too
        assert container.duration == pytest.approx(4_000_000, abs=1000)


@pytest.mark.parametrize(
    "name", ["a.ts", "a.mkv", "a.mpg", "short.ts", "a.mp4", "a.mov", "pieces.mp4", "a.flv", "a.wmv"]
)
def test_where_time_stamps_start_anew_exactly_the_first_part_is_read(make: MediaMaker, name: str) -> None:
    count, sound = (15, 1) if name == "short.ts" else (50, 2)
    codec = {"a.mpg": "mpeg2video", "a.wmv": "mpeg4"}.get(name)
    form: dict[str, Any] = {"codec": codec, "time_base": Fraction(1, 25)} if codec else {}
    heard = "aac" if name in ("a.mov", "a.flv", "pieces.mp4") else "mp2"
    part = make.video(name, STEADY[:count], **form, sound=clicks(sound), sound_codec=heard)
    if name == "pieces.mp4":
        part = in_fragments(part)
    path = make.folder / f"twice{part.suffix}"
    path.write_bytes(part.read_bytes() * 2)

    assert timeline(part).next_part is None
    assert numbers(path) == numbers(part) == list(range(count))
    asked = [0.55, 0.1, 0.3, 9.0]
    assert [number_of(frame) for frame in read_frames(path, asked)] == [13, 2, 7, count - 1]
    info = probe(path)
    assert info.duration == pytest.approx(probe(part).duration)
    assert "start anew" in info.notes[0]
    assert len(load_audio(path)) == pytest.approx(len(load_audio(part)), abs=1200)
    assert click_times(load_audio(path)) == click_times(load_audio(part))


def test_a_time_stamp_gone_wrong_is_no_other_recording(make: MediaMaker) -> None:
    source = make.video("clip.ts", STEADY)
    path = make.folder / "wrong.ts"
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            if packet.size:
                packet.stream = stream
                packet.pts += 90_000 * 9_000 * (number == 20)
                output.mux(packet)
    assert timeline(path).next_part is None
    assert len(timeline(path).stamps) == 49


def test_the_default_picture_track_is_taken(make: MediaMaker) -> None:
    make.video("a.mp4", STEADY[:10])
    make.video("b.mp4", STEADY[5:30])
    path = make.folder / "two.mkv"
    words = "-i a.mp4 -i b.mp4 -map 0 -map 1 -c copy -disposition:0 0 -disposition:1 default two.mkv"
    ffmpeg(make.folder, *words.split())
    assert len(list(iter_frames(path))) == 25
    assert probe(path).duration == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("rate", [2000, 90_000])
def test_any_rate_can_be_read_and_written(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "quick.mp4"
    with VideoWriter(path, 64, 64, rate) as writer:
        for k in range(40):
            writer.write(np.full((64, 64, 3), 5 * k, np.uint8), k / rate)
        writer.write(np.zeros((64, 64, 3), np.uint8), 39.3 / rate)
    # The last one may be closer than the file's clock can tell.
    assert len(list(iter_frames(path))) == (41 if rate < 90_000 else 40)
    assert probe(path).fps == pytest.approx(rate, rel=0.1)


def test_a_stream_that_begins_between_key_frames_counts_from_what_can_be_shown(make: MediaMaker) -> None:
    source = make.video("whole.ts", STEADY, options={"g": "20", "bf": "0", "sc_threshold": "0"}, sound=clicks(2))
    data, packet = source.read_bytes(), 188
    path = make.folder / "middle.ts"
    path.write_bytes(data[len(data) // packet // 6 * packet :])
    shown = numbers(path)
    assert shown[0] % 20 == 0
    assert shown == list(range(shown[0], 50))
    assert probe(path).duration == pytest.approx(len(shown) / 25, abs=0.001)


def test_pictures_of_another_shape_keep_theirs(make: MediaMaker) -> None:
    parts = [make.video("a.h264", STEADY[:5]), make.video("b.h264", STEADY[:5], width=96, height=160)]
    path = make.folder / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.warns(MediaWarning, match=r"both\.h264: its frames change to 96×160 pixels; they get black bars"):
        frames = [frame for _, frame in iter_frames(path)]
    assert {frame.shape for frame in frames} == {(96, 160, 3)}
    left = (160 - 58) // 2
    assert frames[9][:, : left - 2].max() == 0
    assert frames[9][:, left + 4 : -left - 4].min(axis=2).mean() > 40
    assert read_frames(path, [0.3], size=(40, 24)).shape == (1, 24, 40, 3)


@pytest.mark.parametrize("size", [9_000, 50_000])
def test_a_header_of_huge_pictures_is_refused(make: MediaMaker, size: int) -> None:
    path = make.video("clip.mov", STEADY[:3], codec="mjpeg")
    data = bytearray(path.read_bytes())
    frame = data.find(b"\xff\xc0")
    while frame >= 0:
        struct.pack_into(">HH", data, frame + 5, size, size)
        frame = data.find(b"\xff\xc0", frame + 2)
    path.write_bytes(bytes(data))
    with pytest.raises(AvsegError, match=r"clip\.mov has no frame that can be decoded"):
        probe(path)


@pytest.mark.parametrize(
    ("box", "offset", "value"),
    [
        *[
            ("mdhd", 12, 0),
            ("mdhd", 12, 2**32 - 1),
            ("mdhd", 16, 2**31),
            ("mvhd", 12, 0),
            ("pasp", 0, 0),
            ("pasp", 4, 0),
        ],
        *[("stts", 12, 0), ("stts", 12, 2**31 - 1), ("stts", 12, 2**32 - 256), ("stts", 8, 2**24)],
    ],
)
def test_headers_that_make_no_sense_are_not_believed(make: MediaMaker, box: str, offset: int, value: int) -> None:
    path = make.video("clip.mp4", STEADY, sound=clicks(2))
    data = bytearray(path.read_bytes())
    at = data.find(box.encode())
    if at < 0:
        pytest.skip("no such box")
    struct.pack_into(">I", data, at + 4 + offset, value)
    path.write_bytes(bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = probe(path)
        moments = sum(1 for _ in zip(range(100), iter_pairs(path, 5), strict=False))
    assert np.isfinite([info.fps, info.duration, info.longest, float(info.aspect)]).all()
    assert info.fps > 0
    assert info.duration > 0
    assert moments > 0
