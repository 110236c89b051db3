"""Frames that no timestamp shows are not decoded, and those that are shown are the right ones."""

import gc

import numpy as np
import pytest
from av.video.frame import VideoFrame
from media_files import MediaMaker, number_of

from avseg.media.frames import FrameReader
from avseg.media.video import _Cursor, iter_frames, iter_pairs, iter_shown, read_frames


@pytest.mark.parametrize("bframes", [0, 3])
def test_pictures_that_no_moment_shows_are_not_decoded(make: MediaMaker, bframes: int) -> None:
    times = np.arange(120) / 24
    path = make.video("long.mp4", times, rate=24, options={"g": "250", "bf": str(bframes), "b_strategy": "0"})
    asked = np.arange(0, 5, 0.9)
    with FrameReader(path, threads=True) as reader:
        cursor = _Cursor(reader)
        pairs = [cursor.pair(float(time)) for time in asked]
        decoded = reader.decoded
    for time, pair in zip(asked, pairs, strict=True):
        shown = int(time * 24 + 1e-6)
        assert (number_of(pair.frame), number_of(pair.neighbour)) == (shown, shown + 1)
    assert decoded < 80 if bframes else decoded >= 109
    np.testing.assert_array_equal(list(iter_shown(path, asked)), [pair.frame for pair in pairs])
    np.testing.assert_array_equal(list(iter_shown(path, [0.0, 99.0])), read_frames(path, [0.0, 99.0]))


def test_the_last_picture_has_its_true_neighbour_after_skipping(make: MediaMaker) -> None:
    path = make.video("clip.mp4", np.arange(61) / 24, rate=24, bframes=3, options={"g": "60", "b_strategy": "0"})
    *_, last = iter_pairs(path, 1.2)
    assert last.time == pytest.approx(2.5)
    assert (number_of(last.frame), number_of(last.neighbour)) == (60, 59)
    assert last.step == pytest.approx(-1 / 24, abs=1e-3)


def test_frames_are_let_go_at_once(make: MediaMaker) -> None:
    path = make.video("clip.mp4", np.arange(60) / 24, rate=24)
    gc.collect()
    gc.disable()  # nothing may wait for it: a frame of a large video is megabytes
    try:
        before = sum(isinstance(item, VideoFrame) for item in gc.get_objects())
        for _ in iter_frames(path):
            alive = sum(isinstance(item, VideoFrame) for item in gc.get_objects()) - before
            assert alive < 10
    finally:
        gc.enable()
