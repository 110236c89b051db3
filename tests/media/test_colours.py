"""What colours a decoded frame has, whatever they were made in."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from avseg.media.colours import ToRGB, narrowing
from avseg.media.video import iter_frames, probe, read_frames
from avseg.media.writer import VideoWriter

PATCHES = [(200, 40, 40), (30, 180, 60), (40, 60, 220), (128, 128, 128), (250, 250, 250), (10, 10, 10)]
PQ, HLG, BT2020 = int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67), int(ColorPrimaries.BT2020)


def patches(width: int, height: int) -> np.ndarray:
    return np.repeat(np.repeat(np.array([PATCHES], np.uint8), width // 6 + 1, 1)[:, :width], height, 0)


def write(path: Path, width: int, height: int, matrix: Colorspace, full: bool = False, tags: bool = False) -> Path:
    """A video of coloured bars, made with a matrix that the file names only with ``tags``."""
    pixels = "yuvj420p" if full else "yuv420p"
    given = ColorRange.JPEG if full else ColorRange.MPEG
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg" if full else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.options = {"qmin": "1", "qmax": "1"} if full else {"crf": "8", "preset": "ultrafast"}
        if tags:
            stream.codec_context.colorspace = matrix
        frame = av.VideoFrame.from_ndarray(patches(width, height), format="rgb24")
        frame = frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=given)
        frame.colorspace, frame.color_range = (matrix if tags else 2), (2 if full else 0)
        for k in range(3):
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def off(path: Path, width: int, height: int) -> int:
    """How far colours are from what was written, away from the bars' edges."""
    wrong = np.abs(read_frames(path, [0.04])[0].astype(int) - patches(width, height)).max(2)[8:-8]
    middles = [(2 * k + 1) * (width // 6 + 1) // 2 for k in range(6)]
    return int(wrong[:, middles].max())


@pytest.mark.parametrize(
    ("width", "height", "matrix", "tags"),
    [
        (1280, 720, Colorspace.ITU709, False),
        (1280, 536, Colorspace.ITU709, False),
        (404, 720, Colorspace.ITU709, False),
        (640, 360, Colorspace.ITU601, False),
        (720, 576, Colorspace.ITU601, False),
        (640, 360, Colorspace.ITU709, True),
        (1280, 720, Colorspace.ITU601, True),
    ],
)
def test_colours_come_back_with_tags_and_without(
    tmp_path: Path, width: int, height: int, matrix: Colorspace, tags: bool
) -> None:
    path = write(tmp_path / "bars.mp4", width, height, matrix, tags=tags)
    assert off(path, width, height) <= 6
    # Written again they are the same: one rule for both.
    with VideoWriter(tmp_path / "again.mp4", width, height, 25, crf=8) as writer:
        for _, frame in iter_frames(path):
            writer.write(frame)
    assert off(tmp_path / "again.mp4", width, height) <= 10


def test_full_range_is_full(tmp_path: Path) -> None:
    assert off(write(tmp_path / "bars.mov", 640, 360, Colorspace.ITU601, full=True), 640, 360) <= 6


def pq(light: np.ndarray) -> np.ndarray:
    """cd/m² as PQ (SMPTE ST 2084)."""
    root = (light / 10_000) ** (1305 / 8192)
    return ((107 / 128 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)


def test_hdr_is_shown_as_sdr_screens_can() -> None:
    # BT.709's red at SDR's white, in BT.2020's primaries.
    red = pq(203 * np.array([[0.6274, 0.0691, 0.0164]]))
    shown = narrowing(red, PQ, BT2020)[0] * 255
    assert shown[0] > 230
    assert shown[1:].max() < 25
    greys = narrowing(
        np.repeat(pq(np.array([0.0, 1.0, 20.0, 100.0, 203.0, 1000.0, 10_000.0]))[:, None], 3, 1), PQ, BT2020
    )
    assert (np.diff(greys[:-1, 0]) > 0).all()
    assert greys[2, 0] == pytest.approx((20 / 203) ** (1 / 2.4), abs=0.01)  # the dark half stays as it is
    assert greys[-2:, 0] == pytest.approx(1, abs=1e-3)
    hlg = narrowing(np.array([[0.75] * 3, [1.0] * 3]), HLG, BT2020)
    np.testing.assert_allclose(hlg, greys[[4, 5]], atol=0.01)  # HLG's 75 % is SDR's white, too


def test_hdr_files_say_so_and_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "hdr.mkv"
    red = np.round(pq(203 * np.array([0.6274, 0.0691, 0.0164])) * 65535).astype(np.uint16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=error:qp=4"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries = 9, PQ, BT2020
        context.color_range = 1
        frame = av.VideoFrame.from_ndarray(np.tile(red, (64, 64, 1)), format="rgb48le")
        frame = frame.reformat(format="yuv420p10le", dst_colorspace=Colorspace.BT2020, dst_color_range=ColorRange.MPEG)
        for k in range(3):
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert probe(path).notes == (f"{path} has HDR (PQ) colours: they are converted to SDR (BT.709).",)
    shown = read_frames(path, [0.0])[0]
    assert shown[..., 0].min() > 225
    assert shown[..., 1:].max() < 40


def test_wide_primaries_are_brought_to_those_of_the_screen() -> None:
    frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), (180, 120, 90), np.uint8), format="rgb24")
    plain = ToRGB()(frame)
    assert (plain == (180, 120, 90)).all()
    frame.color_primaries = BT2020
    assert ToRGB()(frame)[8, 8, 0] > 190
