"""One person's run: limits, images under any threshold, files to take home."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from served import bar, write_bars
from toy_models import toy

from avseg.app import html
from avseg.app.session import Limits, Session, Stretch, begin
from avseg.errors import AvsegError
from avseg.inference import AVSegmenter
from avseg.media.video import probe, read_frames
from avseg.media.writer import write_video

LIGHT = AVSegmenter(toy("light"), "cpu")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    write_bars(tmp_path / "bars.mp4")
    return begin(tmp_path / "bars.mp4", LIGHT, tmp_path / "results", Stretch(fps=4))


def marked(session: Session, threshold: float) -> list[bool]:
    """Which bars are tinted: the mask's colour isn't grey."""
    picture = session.picture(threshold).astype(int)
    return [bool(np.ptp(picture[bar(number)].mean((0, 1))) > 20) for number in range(3)]


def test_pictures_follow_the_threshold_without_the_model(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AVSegmenter, "_scores", None)
    assert marked(session, 0.5) == [False, True, True]
    assert marked(session, 0.8) == [False, False, True]
    assert marked(session, 0.2) == [True, True, True]
    shares = [session.shares(threshold)[0] for threshold in (0.2, 0.5, 0.8)]
    assert shares == sorted(shares, reverse=True)
    assert shares[1] == pytest.approx(session.result.shares(0.5)[0], abs=0.005)


def test_the_score_is_opacity_on_request(session: Session) -> None:
    plain, scored = session.picture(0.5).astype(int), session.picture(0.5, score=True).astype(int)
    tint = [np.ptp(scored[bar(number)].mean((0, 1))) for number in range(3)]
    assert 5 < tint[0] < tint[1] < tint[2]  # also below the threshold
    assert np.abs(plain - scored).mean() > 1


def test_moments_are_shown_one_by_one(session: Session) -> None:
    session.show(7)
    assert session.index == 7
    session.show(99)
    assert session.index == len(session.result) - 1
    session.show(-3)
    assert session.index == 0
    assert [index for index, _ in session.thumbnails(0.5)] == list(range(12))


def test_what_sounds_most_is_shown_first(tmp_path: Path) -> None:
    frames = [np.full((64, 64, 3), 20, np.uint8) for _ in range(20)]
    frames[12][:32] = frames[13][:32] = 240
    sound = np.full(32000, 0.1, np.float32)
    write_video(tmp_path / "flash.mp4", frames, 10, audio=sound, sample_rate=16000)
    session = begin(tmp_path / "flash.mp4", LIGHT, tmp_path / "results", Stretch(fps=10))
    assert session.index in (12, 13)


def test_many_moments_have_some_thumbnails(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.mp4", seconds=8)
    session = begin(tmp_path / "bars.mp4", LIGHT, tmp_path / "results", Stretch(fps=None))
    assert len(session.result) == 80
    chosen = [index for index, _ in session.thumbnails(0.5)]
    assert len(chosen) == 40
    assert (chosen[0], chosen[-1]) == (0, 79)


def test_files_hold_what_was_asked_for(session: Session) -> None:
    told: list[tuple[int, int]] = []
    files = session.write(0.8, lambda done, total: told.append((done, total)))
    assert told[-1] == (12, 12)
    assert session.drawn == 0.8
    assert probe(files.video).has_audio
    shown = read_frames(files.video, [1.0])[0].astype(int)
    assert [bool(np.ptp(shown[bar(number)].mean((0, 1))) > 20) for number in range(3)] == [False, False, True]
    with zipfile.ZipFile(files.masks) as archive:
        names = archive.namelist()
        assert len(names) == 12
        assert {name.split("/")[0] for name in names} == {"bars-masks"}
        mask = cv2.imdecode(np.frombuffer(archive.read(names[0]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert [int(mask[bar(number)].min()) for number in range(3)] == [0, 0, 255]
    coco = json.loads(files.coco.read_text())
    assert coco["info"]["threshold"] == 0.8
    assert [item["file_name"] for item in coco["images"]] == [name.split("/")[1] for name in names]
    others = {path for path in session.folder.rglob("*") if path.is_file()}
    assert others == {files.video, files.masks, files.coco}
    session.close()
    assert not session.folder.exists()
    assert not session.there()


def test_visits_keep_apart(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.mp4")
    one, other = (begin(tmp_path / "bars.mp4", LIGHT, tmp_path / "results") for _ in range(2))
    assert one.folder != other.folder
    assert one.write(0.5).video != other.write(0.5).video
    one.close()
    assert other.there()


@pytest.mark.parametrize(
    ("limits", "stretch", "words"),
    [
        (Limits(seconds=2), Stretch(), r"^bars.mp4: 3.0 s were asked for where this page takes 2:.*--max-seconds"),
        (Limits(megabytes=0.001), Stretch(), r"^bars.mp4 has 0.0 MB where this page takes 0.001:.*--max-megabytes"),
        (Limits(), Stretch(start=5), r"^start is 5 s, but bars.mp4 lasts 3.00 s"),
    ],
)
def test_limits_and_mistakes_are_told_with_the_files_name(
    tmp_path: Path, limits: Limits, stretch: Stretch, words: str
) -> None:
    write_bars(tmp_path / "bars.mp4")
    with pytest.raises(AvsegError, match=words):
        begin(tmp_path / "bars.mp4", LIGHT, tmp_path / "results", stretch, limits)
    assert not (tmp_path / "results").exists()


def test_a_short_stretch_of_a_long_video_is_within_the_limits(tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.mp4", seconds=6)
    session = begin(tmp_path / "bars.mp4", LIGHT, tmp_path / "results", Stretch(2, 1, 3), Limits(seconds=2))
    assert session.result.times.tolist() == [1, 1.5, 2, 2.5]


def test_names_are_escaped(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.mp4"
    write_bars(tmp_path / name)
    session = begin(tmp_path / name, LIGHT, tmp_path / "results", Stretch(fps=2))
    assert "<img" not in html.facts(session, 0.5)
    assert "&lt;img" in html.facts(session, 0.5)
    assert "<b>" not in html.error("<b>")


def test_pieces_say_what_is_there(session: Session) -> None:
    strip = html.strip(session, 0.5)
    assert strip.count("<button") == 12
    assert "currentColor" in strip
    assert "#1f2328" not in strip
    assert "http" not in strip.replace("http://www.w3.org/", "")
    assert html.facts(session, 0.5).startswith(
        '<p class="avseg-facts">bars.mp4: 3.0 s, 12 moments, 100 % of them with a sounding object;'
    )
    assert "0 % of them" in html.facts(session, 0.99)
    session.show(11)
    caption = html.picture(session, 0.99, False)
    assert "2.8 s · 0 % of the frame sounds · loudness: -" in caption or "silence" in caption
