"""Reading: the right frames and neighbours at any time, decoding little, from files of every kind and state."""

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from media_files import MediaMaker, clicks, number_of, numbered_frame

from avseg.errors import AvsegError
from avseg.media import frames as pictures
from avseg.media.container import MediaWarning
from avseg.media.video import FramePair, iter_frames, iter_pairs, probe, read_frames, read_pairs

COUNT = 200
STEADY = [k / 25 for k in range(COUNT)]
VARYING = np.cumsum(np.r_[0, np.random.default_rng(5).choice([0.01, 1 / 60, 1 / 30, 0.2], COUNT - 1)]).tolist()
LONG_GOP = {"preset": "veryfast", "g": "60", "bf": "3", "sc_threshold": "0"}
OPEN_GOP = {"preset": "veryfast", "x264-params": "open-gop=1:keyint=40:bframes=4:b-pyramid=normal:scenecut=0"}
TICK = Fraction(1, 25)

FILES: dict[str, dict[str, Any]] = {
    "long_gop.mp4": {"times": STEADY, "options": LONG_GOP},
    "open_gop.mp4": {"times": STEADY, "options": OPEN_GOP},
    "open_gop.ts": {"times": STEADY, "options": OPEN_GOP},
    "varying.mp4": {"times": VARYING, "options": LONG_GOP},
    "varying.mkv": {"times": VARYING, "options": LONG_GOP},
    "late.mp4": {"times": [time + 7.3 for time in STEADY], "options": LONG_GOP},
    "late.mkv": {"times": [time + 7.3 for time in STEADY], "options": LONG_GOP},
    "late.ts": {"times": [time + 7.3 for time in STEADY], "options": LONG_GOP},
    "fragments.mp4": {
        "times": STEADY,
        "options": LONG_GOP,
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "bframes.avi": {"times": STEADY, "options": LONG_GOP, "time_base": TICK},
    "simple.avi": {"times": STEADY, "codec": "mpeg4", "options": {"g": "50"}, "time_base": TICK},
    "intra.mov": {"times": STEADY, "codec": "mjpeg", "time_base": TICK},
    "bare.h264": {"times": STEADY, "options": LONG_GOP},
}


def decoded_whole(path: Path) -> tuple[np.ndarray, list[int]]:
    """Times and numbers of all frames, by decoding the file from its first packet to its last."""
    frames = [(time, number_of(frame)) for time, frame in iter_frames(path)]
    return np.array([time for time, _ in frames]), [number for _, number in frames]


def facts(pair: FramePair) -> tuple[int, int, float]:
    assert pair.neighbour is not None
    return number_of(pair.frame), number_of(pair.neighbour), round(pair.step, 4)


@pytest.fixture
def decoded_count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each call of the decoder: the number of frames that it gave."""
    counts: list[int] = []
    original = pictures.decode

    def counting(packet: Any) -> list[Any]:
        frames = original(packet)
        counts.append(len(frames))
        return frames

    monkeypatch.setattr(pictures, "decode", counting)
    return counts


@pytest.mark.parametrize("name", FILES)
def test_asked_frames_are_those_of_a_whole_decode(make: MediaMaker, name: str) -> None:
    path = make.video(name, **FILES[name])
    times, numbers = decoded_whole(path)
    assert numbers == list(range(COUNT))
    asked_for = np.array(FILES[name]["times"]) - FILES[name]["times"][0]
    # Matroska rounds to milliseconds.
    assert np.abs(times - asked_for).max() <= 0.00051

    rng = np.random.default_rng(3)
    within = rng.integers(0, COUNT - 1, 20)
    asked = np.concatenate(
        [(times[:-1] + rng.uniform(0.1, 0.9, COUNT - 1) * np.diff(times))[within], times[[0, 1, -2, -1]], [99.0, -1.0]]
    )
    shown = [*within, 0, 1, COUNT - 2, COUNT - 1, COUNT - 1, 0]
    expected = []
    for k in shown:
        other = k + 1 if k + 1 < COUNT else k - 1
        expected.append((k, other, round(times[other] - times[k], 4)))

    assert [facts(pair) for pair in read_pairs(path, asked)] == expected
    for time, one in list(zip(asked, expected, strict=True))[::4]:
        assert facts(read_pairs(path, [time])[0]) == one
    assert [facts(pair) for pair in iter_pairs(path, asked[:-1])] == expected[:-1]


def test_only_the_stretch_from_a_key_frame_on_is_decoded(make: MediaMaker, decoded_count: list[int]) -> None:
    path = make.video("long.mp4", STEADY, options={"g": "40", "bf": "3", "sc_threshold": "0"})

    read_pairs(path, [130.5 / 25])
    # The first frame, then 120 … 131, and the few that the decoder holds back.
    assert sum(decoded_count) <= 20
    decoded_count.clear()
    read_pairs(path, [121 / 25, 125 / 25, 130 / 25, 131 / 25])
    assert sum(decoded_count) <= 20
    decoded_count.clear()
    read_pairs(path, [0.0, 150 / 25, 61 / 25])
    assert sum(decoded_count) <= 3 * 4 + 30 + 22
    decoded_count.clear()
    read_pairs(path, STEADY)
    assert sum(decoded_count) == COUNT


@pytest.mark.parametrize("name", ["long.mkv", "long.ts"])
def test_files_that_do_not_list_key_frames_are_jumped_in_too(
    make: MediaMaker, decoded_count: list[int], name: str
) -> None:
    path = make.video(name, STEADY, options={"g": "25", "bf": "2", "sc_threshold": "0"})
    assert facts(read_pairs(path, [180.5 / 25])[0]) == (180, 181, 0.04)
    assert sum(decoded_count) <= 45


def test_the_last_frame_finds_the_one_before_it_when_every_frame_is_a_key_frame(
    make: MediaMaker, decoded_count: list[int]
) -> None:
    path = make.video("intra.mp4", STEADY, options={"g": "1"})
    assert facts(read_pairs(path, [60])[0]) == (COUNT - 1, COUNT - 2, -0.04)
    assert sum(decoded_count) <= 10


def test_a_clock_of_milliseconds_does_not_hide_frames(make: MediaMaker) -> None:
    """Matroska says that frame 2 of 30 a second is shown at 0.067 s; asked for 2/30 s it is meant."""
    times = [k / 30 for k in range(60)]
    path = make.video("clip.mkv", times, rate=30)
    assert [number_of(frame) for frame in read_frames(path, times)] == list(range(60))


def test_streaming_decodes_as_it_goes(make: MediaMaker, decoded_count: list[int]) -> None:
    path = make.video("long.mp4", STEADY, options=LONG_GOP)

    stream = iter_pairs(path, 25)
    assert [facts(next(stream))[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert sum(decoded_count) <= 40
    stream.close()

    decoded_count.clear()
    frames = iter_frames(path)
    next(frames)
    assert sum(decoded_count) <= 40


def test_pairs_at_a_rate_end_with_the_video(make: MediaMaker) -> None:
    path = make.video("clip.mp4", STEADY[:50])

    assert [pair.time for pair in iter_pairs(path, 2)] == [0, 0.5, 1, 1.5]
    assert [facts(pair)[0] for pair in iter_pairs(path, 25)] == list(range(50))
    assert [pair.time for pair in iter_pairs(path, 2, start=0.75, end=1.75)] == [0.75, 1.25]
    assert [pair.time for pair in iter_pairs(path, [0.1, 0.9, 1.5, 7.0], start=0.5)] == [0.9, 1.5, 7.0]
    assert [pair.time for pair in iter_pairs(path, iter([0.1, 0.9, 1.5]), end=1.5)] == [0.1, 0.9]
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            next(iter_pairs(path, rate))


def test_raw_frames_of_a_stretch(make: MediaMaker) -> None:
    path = make.video("long.mp4", STEADY, options=LONG_GOP)
    frames = [(time, number_of(frame)) for time, frame in iter_frames(path, 5.0, 5.2)]
    assert [number for _, number in frames] == [125, 126, 127, 128, 129]
    assert [time for time, _ in frames] == pytest.approx([5.0, 5.04, 5.08, 5.12, 5.16])


def test_times_come_back_in_the_order_asked(make: MediaMaker) -> None:
    path = make.video("clip.mp4", STEADY[:50])
    assert [facts(pair)[0] for pair in read_pairs(path, [1.0, 0.2, 1.0, 0.6])] == [25, 5, 25, 15]
    frames = read_frames(path, [1.0, 0.2, 1.0])
    assert [number_of(frame) for frame in frames] == [25, 5, 25]
    assert read_frames(path, []).shape == (0, 96, 160, 3)
    with pytest.raises(ValueError, match="finite"):
        read_pairs(path, [0.0, float("inf")])


def test_what_a_caller_draws_on_a_frame_stays_there(make: MediaMaker) -> None:
    path = make.video("clip.mp4", STEADY[:10])
    pairs = []
    for pair in iter_pairs(path, 25):
        pairs.append(facts(pair))
        pair.frame[:] = 0
    assert pairs == [(k, k + 1, 0.04) for k in range(9)] + [(9, 8, -0.04)]


def test_frames_are_resized_without_keeping_the_aspect(make: MediaMaker) -> None:
    path = make.video("clip.mp4", STEADY[:3])
    original = read_frames(path, [0.04])[0]

    small = read_pairs(path, [0.04], size=(56, 48))[0]
    assert small.frame.shape == (48, 56, 3)
    assert small.neighbour is not None
    assert small.neighbour.shape == (48, 56, 3)
    assert np.array_equal(small.frame, cv2.resize(original, (56, 48), interpolation=cv2.INTER_AREA))
    large = read_frames(path, [0.04], size=(300, 200))[0]
    assert np.array_equal(large, cv2.resize(original, (300, 200), interpolation=cv2.INTER_LINEAR))
    mixed = read_frames(path, [0.04], size=(80, 200))[0]
    assert mixed.shape == (200, 80, 3)
    with pytest.raises(ValueError, match="size"):
        read_frames(path, [0.0], size=(0, 10))


@pytest.mark.parametrize(("fps", "rate"), [(25.0, 25), (30000 / 1001, Fraction(30000, 1001)), (60.0, 60)])
def test_probe_states_what_was_written(make: MediaMaker, fps: float, rate: Fraction | int) -> None:
    path = make.video("clip.mp4", [k / fps for k in range(90)], rate=rate, sound=clicks(1))
    info = probe(path)

    assert (info.path, info.width, info.height, info.has_audio) == (path, 160, 96, True)
    assert info.fps == pytest.approx(fps, rel=1e-3)
    assert info.duration == pytest.approx(90 / fps, abs=0.02)
    assert not probe(make.video("silent.mp4", STEADY[:5])).has_audio


@pytest.mark.parametrize("name", ["clip.mkv", "late.mkv", "clip.ts", "bare.h264"])
def test_probe_measures_what_the_container_does_not_say(make: MediaMaker, name: str) -> None:
    start = 3.0 if name.startswith("late") else 0.0
    sound = None if name == "bare.h264" else clicks(4)
    path = make.video(name, [start + time for time in STEADY[:100]], options=LONG_GOP, sound=sound)
    assert probe(path).duration == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize(
    ("rotate", "turn"),
    [
        ({"degrees": 90}, lambda image: np.rot90(image)),
        ({"degrees": 180}, lambda image: np.rot90(image, 2)),
        ({"degrees": 270}, lambda image: np.rot90(image, 3)),
        ({"degrees": 90, "hflip": True}, lambda image: np.rot90(image)[:, ::-1]),
        ({"degrees": 0, "vflip": True}, lambda image: image[::-1]),
    ],
)
def test_pictures_are_turned_as_the_file_asks(make: MediaMaker, rotate: dict[str, object], turn: Any) -> None:
    path = make.video("phone.mp4", STEADY[:5], rotate=rotate)
    expected = turn(numbered_frame(3)).astype(float)

    info = probe(path)
    assert (info.height, info.width) == expected.shape[:2]
    pair = read_pairs(path, [0.13])[0]
    assert np.abs(pair.frame - expected).mean() < 4
    _, frame = list(iter_frames(path))[3]
    assert np.array_equal(frame, pair.frame)
    assert read_frames(path, [0.13], size=(20, 30)).shape == (1, 30, 20, 3)


def test_a_video_of_one_frame_has_no_neighbour(make: MediaMaker) -> None:
    path = make.video("still.mp4", [0.0], sound=clicks(2))

    for pair in [*read_pairs(path, [0.0, 5.0, -1.0]), *iter_pairs(path, 10)]:
        assert number_of(pair.frame) == 0
        assert pair.neighbour is None
        assert pair.step == 0
    assert probe(path).duration == pytest.approx(2, abs=0.1)
    assert probe(make.video("silent.mp4", [0.0])).duration == pytest.approx(0.04, abs=0.01)


def test_names_with_special_characters_are_only_names(make: MediaMaker) -> None:
    path = make.video("-a:b %03d 'é'.mp4", STEADY[:3])
    assert probe(path).width == 160


def test_what_is_no_video_is_named_in_one_sentence(make: MediaMaker) -> None:
    folder = make.folder
    make.video("real.mp4", STEADY[:5])
    contents = {
        "text.txt": b"hello world " * 100,
        "text.mp4": b"hello world " * 100,
        "noise.mp4": np.random.default_rng(0).bytes(20_000),
        "empty.mp4": b"",
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nreal.mp4\n",
        "list.txt": b"ffconcat version 1.0\nfile real.mp4\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    make.sound("sound.wav", clicks(1))
    cv2.imwrite(str(folder / "picture.png"), numbered_frame(0))
    (folder / "folder.mp4").mkdir()

    for name in [*contents, "sound.wav", "picture.png", "folder.mp4", "missing.mp4"]:
        for read in (probe, lambda path: read_pairs(path, [0.0]), lambda path: list(iter_frames(path))):
            with pytest.raises(AvsegError, match=name) as caught:
                read(folder / name)
            assert str(caught.value).count(". ") == 0
            assert str(caught.value).endswith(".")


def test_an_mp4_without_its_index_is_called_cut_off(make: MediaMaker) -> None:
    path = make.video("cut.mp4", STEADY[:50])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AvsegError, match=r"cut\.mp4 is cut off or damaged \(its index is missing\)"):
        probe(path)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_cut_off_video_is_read_up_to_the_damage_and_says_so(make: MediaMaker, name: str) -> None:
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = make.video(name, STEADY, options=LONG_GOP, container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])

    with pytest.warns(MediaWarning, match=rf"{name}: its frames end at .* cut off"):
        whole = [number_of(frame) for _, frame in iter_frames(path)]
    assert 60 < len(whole) < 190
    with pytest.warns(MediaWarning, match=name):
        pairs = read_pairs(path, [0.0, 1.0, 2.0, 7.9])
    assert [facts(pair)[0] for pair in pairs[:3]] == [0, 25, 50]
    assert abs(number_of(pairs[3].frame) - whole[-1]) <= 4
    assert pairs[3].step < 0


def test_a_hole_in_a_video_is_stepped_over(make: MediaMaker) -> None:
    path = make.video("hole.mp4", STEADY, options={"g": "25"}, container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat") + 4 + (len(data) - data.find(b"mdat")) // 2
    data[begin : begin + 400] = b"\xff" * 400
    path.write_bytes(bytes(data))

    with pytest.warns(MediaWarning, match=r"hole\.mp4"):
        frames = {round(time * 25): number_of(frame) for time, frame in iter_frames(path)}
    for k in [*range(80), *range(160, COUNT)]:
        assert frames[k] == k
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [facts(pair)[0] for pair in read_pairs(path, [1.0, 7.0])] == [25, 175]


def test_a_video_of_which_nothing_decodes_is_named(make: MediaMaker) -> None:
    path = make.video("zeros.mp4", STEADY[:20], container_options={"movflags": "faststart"})
    data = path.read_bytes()
    begin = data.find(b"mdat") + 4
    path.write_bytes(data[:begin] + b"\0" * (len(data) - begin))
    with pytest.warns(MediaWarning), pytest.raises(AvsegError, match=r"zeros\.mp4 has no frame that can be"):
        read_pairs(path, [0.0])


def test_a_sound_whole_video_warns_of_nothing(make: MediaMaker) -> None:
    path = make.video("clip.mp4", STEADY, options=LONG_GOP, sound=clicks(8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probe(path)
        read_pairs(path, [0, 3, 99])
        assert len(list(iter_frames(path))) == COUNT
