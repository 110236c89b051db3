import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from avseg.render import MASK_COLOUR, OKABE_ITO, Moment, filmstrip, flow_colours, overlay, qualitative_grid

RNG = np.random.default_rng(0)
FRAME = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
MASK = np.zeros((60, 80), bool)
MASK[20:40, 30:60] = True


def png(figure: Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return np.asarray(Image.open(file).convert("RGB"))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_overlay_tints_the_mask_alone() -> None:
    drawn = overlay(FRAME, MASK, alpha=0.5, contour=False)
    assert np.array_equal(drawn[~MASK], FRAME[~MASK])
    assert np.abs(drawn[MASK] - (FRAME[MASK] / 2 + np.array(MASK_COLOUR) / 2)).max() <= 0.51
    assert drawn.dtype == np.uint8


def test_contour_shows_on_any_background() -> None:
    for colour in OKABE_ITO.values():
        flat = np.full((60, 80, 3), colour, np.uint8)
        drawn = overlay(flat, MASK, colour=colour, alpha=0).astype(int)
        line = drawn[30, 25:36]
        assert np.array_equal(drawn[30, 45], colour)
        assert np.array_equal(drawn[5, 5], colour)
        assert line.min() < 60 or max(colour) < 60
    dark = overlay(np.zeros((60, 80, 3), np.uint8), MASK, alpha=0)
    assert dark.max() > 150


def test_score_is_opacity() -> None:
    score = np.linspace(0, 1, 80, dtype=np.float32)[None].repeat(60, 0)
    black = np.zeros_like(FRAME)
    drawn = overlay(black, MASK, score, colour=(200, 0, 0), alpha=1.0, contour=False)
    assert np.abs(drawn[..., 0] - 200 * score).max() <= 0.51
    assert drawn[0, 79, 0] == 200  # outside the mask, too


def test_overlay_leaves_its_input_and_empty_masks_alone() -> None:
    before = FRAME.copy()
    assert np.array_equal(overlay(FRAME, np.zeros_like(MASK)), FRAME)
    overlay(FRAME, MASK)
    assert np.array_equal(FRAME, before)


def test_overlay_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"mask is \(80, 60\) where the frame is \(60, 80\)"):
        overlay(FRAME, MASK.T)
    with pytest.raises(ValueError, match="score"):
        overlay(FRAME, MASK, np.zeros((3, 3)))
    with pytest.raises(ValueError, match="bool"):
        overlay(FRAME, MASK.astype(np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        overlay(FRAME.astype(np.float32), MASK)
    with pytest.raises(ValueError, match="alpha"):
        overlay(FRAME, MASK, alpha=2)


def test_flow_colours_tell_directions_apart() -> None:
    flow = np.zeros((2, 1, 5), np.float16)
    flow[:, 0, 1:] = [[4, 0, -4, 0], [0, 4, 0, -4]]
    colours = flow_colours(flow, bound=4)[0].astype(int)
    assert colours[0].tolist() == [255, 255, 255]
    assert colours[1].tolist() == [255, 0, 0]
    assert colours[3].tolist() == [0, 255, 255]
    apart = [np.abs(a - b).sum() for i, a in enumerate(colours) for b in colours[:i]]
    assert min(apart) > 100
    half = flow_colours(flow / 2, bound=4)[0].astype(int)
    assert np.abs(half[1] - [255, 127.5, 127.5]).max() <= 1


def test_noise_in_a_still_picture_stays_pale() -> None:
    noise = RNG.normal(0, 0.02, (2, 20, 20))
    assert flow_colours(noise).min() > 200
    with pytest.raises(ValueError, match=r"\(2, H, W\)"):
        flow_colours(noise[0])
    with pytest.raises(ValueError, match="positive"):
        flow_colours(noise, bound=0)


def test_grid_shows_what_it_was_given() -> None:
    other = np.zeros_like(MASK)
    other[20:40, 30:45] = True
    pictures = {
        "frame": FRAME,
        "flow": flow_colours(np.ones((2, 60, 80))),
        "truth": MASK,
        "baseline": other,
        "UFE": MASK,
    }
    rows = [
        Moment(pictures, "playing_violin", 2.9375, "a"),
        Moment({"frame": FRAME[:, :40], "truth": MASK[:, :40]}, "", 0.9375, "b"),
    ]
    figure = qualitative_grid(rows)
    assert {"frame", "flow", "truth", "baseline", "UFE", "playing\nviolin\n2.9 s", "b\n0.9 s"} <= set(texts(figure))
    assert [text for text in texts(figure) if text.startswith("IoU")] == ["IoU 0.50", "IoU 1.00"]
    assert len(figure.axes) == 10
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 1, 0, 1, 0, 0]
    figure.canvas.draw()
    for axes in figure.axes:
        if axes.images:  # nothing is stretched
            rows_, columns = axes.images[0].get_array().shape[:2]
            box = axes.get_window_extent()
            assert box.height / box.width == pytest.approx(rows_ / columns, rel=0.01)
    assert png(figure).std() > 10
    with pytest.raises(ValueError, match="at least one row"):
        qualitative_grid([])


def test_grid_columns_are_chosen() -> None:
    figure = qualitative_grid([Moment({"frame": FRAME, "NF": MASK}, "dog")], columns=("frame", "NF"))
    assert texts(figure) == ["frame", "NF", "dog"]


def test_filmstrip_stands_on_one_time_axis() -> None:
    times = [0.9375, 1.9375, 2.9375]
    frames, masks = np.stack([FRAME] * 3), np.stack([MASK] * 3)
    log_mel = RNG.normal(-2, 1, (3, 96, 64))
    log_mel[1] = np.log(0.01)  # silence
    figure = filmstrip(
        times, frames, masks, log_mel, score=masks * 0.7, flow=RNG.normal(size=(3, 2, 60, 80)), truth=masks
    )
    assert {"frame", "flow", "score", "mask", "truth", "log-mel", "loudness\n(dB)"} == set(texts(figure))
    figure.canvas.draw()
    *tiles, spectrogram, loudness = figure.axes
    assert len(tiles) == 15
    for tile, time in zip(tiles[:3], times, strict=True):
        box = tile.get_window_extent()
        for axes in (spectrogram, loudness):
            at = axes.transData.transform((time, 0))[0]
            assert at == pytest.approx((box.x0 + box.x1) / 2, abs=0.5)
    levels = [line.get_ydata().mean() for line in loudness.lines]
    assert levels[1] < levels[0] - 30
    assert png(figure).std() > 10
    with pytest.raises(ValueError, match="at least one frame"):
        filmstrip([], frames[:0], masks[:0], log_mel[:0])


def test_overlays_need_no_matplotlib() -> None:
    code = "import sys, avseg.render; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
