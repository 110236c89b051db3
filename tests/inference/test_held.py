"""Images that are held, anamorphic or cut off, from the file to the overlay."""

import json
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import MediaMaker
from toy_models import toy

from avseg.app.session import Session
from avseg.errors import AvsegError
from avseg.inference import AVSegmenter, segment_video
from avseg.media.audio import load_audio
from avseg.media.container import MediaWarning
from avseg.media.video import iter_frames, probe, read_frames

STEADY = [k / 25 for k in range(50)]
FROZEN = [*STEADY[:25], *[4 + time for time in STEADY[:25]]]
# Silence, noise, silence, noise: a second each, and one more.
SOUND = np.random.default_rng(0).normal(0, 0.3, (1, 16_000 * 5)).clip(-1, 1).astype(np.float32)
SOUND *= np.repeat([0.0, 1.0, 0.0, 1.0, 1.0], 16_000).astype(np.float32)


@pytest.fixture
def make(tmp_path: Path) -> MediaMaker:
    return MediaMaker(tmp_path)


@pytest.fixture(scope="module")
def ears() -> AVSegmenter:
    """Marks everything where it is loud."""
    return AVSegmenter(toy("sound"), "cpu")


@pytest.mark.parametrize(
    ("name", "times"),
    [("one.mp4", [0.0]), ("one.mkv", [0.0]), ("frozen.mp4", FROZEN), ("frozen.mkv", FROZEN), ("ends.mp4", STEADY[:25])],
)
@pytest.mark.parametrize("fps", [5, 25])
def test_a_mask_holds_until_the_next_one_also_on_a_picture_that_is_held(
    make: MediaMaker, ears: AVSegmenter, name: str, times: list[float], fps: float
) -> None:
    path = make.video(name, times, options={"bf": "2"}, sound=SOUND)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MediaWarning)
        warnings.filterwarnings("ignore", ".*single frame")
        report = segment_video(path, ears, make.folder / "out", fps=fps)
        masks = {moment.time: moment.mask.any() for moment in ears.stream(path, fps=fps)}
    assert report.notes == (() if len(times) > 1 else report.notes[:1])
    assert report.moments == pytest.approx(5 * fps, abs=1 + 0.1 * fps)  # encoders add a little sound
    assert list(masks.values()).count(True) > fps

    assert probe(report.video).duration == pytest.approx(5, abs=0.1)
    with av.open(str(report.video)) as container:  # players believe the header
        for stream in container.streams:
            assert float(stream.duration * stream.time_base) == pytest.approx(5, abs=0.1)
    np.testing.assert_allclose(load_audio(report.video), load_audio(path), atol=1e-4)
    asked = [time for time in masks if time < 4.9]
    plain, drawn = read_frames(path, asked), read_frames(report.video, asked)
    changed = np.abs(plain.astype(int) - drawn).mean((1, 2, 3)) > 20
    assert changed.tolist() == [bool(masks[time]) for time in asked]


def test_a_stretch_within_a_held_picture_shows_it(make: MediaMaker, ears: AVSegmenter) -> None:
    path = make.video("frozen.mp4", FROZEN, sound=SOUND)
    for fps in (5, None):
        report = segment_video(path, ears, make.folder / f"out{fps}", fps=fps, start=1.5, end=3.5)
        assert report.moments == (10 if fps else 1)
        assert probe(report.video).duration == pytest.approx(2, abs=0.05)
        assert len(load_audio(report.video)) == pytest.approx(32_000, abs=1_100)


def test_a_picture_track_of_few_frames_gets_as_many_moments_as_asked(make: MediaMaker, ears: AVSegmenter) -> None:
    slides = make.video("slides.mp4", [0.0, 1.0, 2.0, 3.0, 4.0], sound=SOUND)
    assert len(list(ears.stream(slides, fps=5))) == 25
    steady = make.video("steady.mp4", STEADY, sound=SOUND[:, :32_000])
    assert len(list(ears.stream(steady, fps=100))) == 50


def test_the_shape_of_pixels_is_kept(make: MediaMaker, ears: AVSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make.video("plain.mp4", STEADY, sound=SOUND[:, :32_000])
    path = make.folder / "wide.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        pictures = output.add_stream("libx264", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 96, "yuv420p"
        pictures.codec_context.sample_aspect_ratio = Fraction(64, 45)
        sound = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():
            if packet.stream.type == "audio" and packet.size:
                packet.stream = sound
                output.mux(packet)
            elif packet.stream.type == "video":
                for frame in packet.decode():
                    output.mux(pictures.encode(frame))
        output.mux(pictures.encode(None))
    assert probe(path).display_size == (228, 96)

    report = segment_video(path, ears, make.folder / "out", fps=2)
    with av.open(str(report.video)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.sample_aspect_ratio) == (160, 96, Fraction(64, 45))
    result = ears(path, fps=2)
    shown: list[np.ndarray] = []
    monkeypatch.setattr("avseg.render.strip.show_picture", lambda axes, picture: shown.append(picture))
    result.plot(make.folder / "strip.png")
    assert {picture.shape[1] / picture.shape[0] for picture in shown} == {228 / 96}
    session = Session(result, make.folder)
    session.show(0)
    assert session.picture(0.5).shape == (96, 228, 3)
    assert session.thumbnails(0.5)[0][1].shape[:2] == pytest.approx((96, 228), rel=0.6)


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi"])
def test_a_file_that_was_cut_off_is_called_so(make: MediaMaker, ears: AVSegmenter, name: str) -> None:
    path = make.video(name, STEADY, codec="mpeg4", time_base=Fraction(1, 25), sound=SOUND[:, :32_000])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(AvsegError, match=rf"{name} is cut off after .* of 2\.\d+ s: .* --end"):
        segment_video(path, ears, make.folder / "out")
    assert not (make.folder / "out").exists()


def test_what_is_found_wrong_with_a_file_is_told_once_and_everywhere(make: MediaMaker, ears: AVSegmenter) -> None:
    path = make.video("clip.avi", STEADY, codec="mpeg4", time_base=Fraction(1, 25), sound=SOUND[:, :32_000])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3_000] = bytes(3_000)
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MediaWarning)
        report = segment_video(path, ears, make.folder / "out", save=("video", "strip"))
        assert any("damaged" in note for note in report.notes)
        assert len(set(report.notes)) == len(report.notes)
        assert json.loads(report.summary.read_text())["notes"] == list(report.notes)
        assert any("damaged" in note for note in ears(path).notes)
    with pytest.warns(MediaWarning, match="damaged") as caught:
        list(ears.stream(path, smoothing=0.4))
    told = [str(warning.message) for warning in caught]
    assert len(set(told)) == len(told)


def test_frames_of_any_rate_are_drawn_on(make: MediaMaker, ears: AVSegmenter) -> None:
    path = make.video("quick.mp4", [k / 2000 for k in range(400)], rate=2000, sound=SOUND[:, 16_000:19_200])
    report = segment_video(path, ears, make.folder / "out")
    assert report.moments == 1
    assert len(list(iter_frames(report.video))) == 400
