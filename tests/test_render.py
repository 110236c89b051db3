import io
import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from avseg.render import (
    MASK_COLOUR,
    OKABE_ITO,
    GridRow,
    filmstrip,
    flow_colours,
    flow_wheel,
    overlay,
    qualitative_grid,
    strip_moments,
    timeline,
)

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


def boxes(figure: Figure) -> list[tuple[float, float, float, float]]:
    """Left, right, bottom and top of every image's frame, in inches."""
    figure.draw_without_rendering()
    found = [axes.get_window_extent() for axes in figure.axes if axes.images and axes.get_aspect() == 1.0]
    return [tuple(value / figure.dpi for value in (box.x0, box.x1, box.y0, box.y1)) for box in found]


def blobs(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth score and a mask with holes and several parts that reach the border."""
    noise = np.random.default_rng(seed).normal(size=(height // 8, width // 8)).astype(np.float32)
    score = cv2.resize(cv2.GaussianBlur(noise, (0, 0), 2), (width, height), interpolation=cv2.INTER_CUBIC)
    score = (score - score.min()) / np.ptp(score)
    return score, score > np.quantile(score, 0.6)


def test_overlay_tints_the_mask_alone() -> None:
    drawn = overlay(FRAME, MASK, alpha=0.5, contour=False)
    assert np.array_equal(drawn[~MASK], FRAME[~MASK])
    assert np.abs(drawn[MASK] - (FRAME[MASK] / 2 + np.array(MASK_COLOUR) / 2)).max() <= 0.51
    assert drawn.dtype == np.uint8


def test_eight_bits_give_what_the_formula_says() -> None:
    frame = RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for seed, alpha in enumerate((0.0, 0.3, 0.45, 1.0)):
        score, mask = blobs(seed, 240, 320)
        colour = np.array(MASK_COLOUR, np.float32)
        for opacity, given in ((alpha * mask, None), (alpha * score, score), (alpha * score, score.astype(np.float64))):
            expected = np.round(frame * (1 - opacity[..., None]) + colour * opacity[..., None])
            drawn = overlay(frame, mask, given, alpha=alpha, contour=False)
            assert np.abs(drawn - expected).max() <= 1
            assert (drawn != expected).mean() < 0.02  # where a half is rounded
            view = overlay(frame[:, ::-1], mask[:, ::-1], None if given is None else given[:, ::-1], alpha=alpha)
            assert np.array_equal(view, overlay(frame, mask, given, alpha=alpha)[:, ::-1])


def test_contour_follows_the_edge_and_nothing_else() -> None:
    frame = np.full((450, 600, 3), 128, np.uint8)
    _, mask = blobs(3, 450, 600)
    assert mask[:, 0].any()
    changed = (overlay(frame, mask, alpha=0) != 128).any(-1)
    padded = np.pad(mask, 1)
    inner = padded & cv2.dilate((~padded).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    distance = cv2.distanceTransform((~inner).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    width = 3  # of the line on an image of 450 pixels; as wide a dark one on either side, and a soft rim
    assert changed[distance <= 1].all()
    assert not changed[distance > 1.5 * width + 2].any()
    drawn = overlay(frame, mask, alpha=0)
    assert np.abs(drawn[distance == 0] - np.array(MASK_COLOUR, int)).max() < 40


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


def test_wheel_explains_the_colours() -> None:
    wheel = flow_wheel(101).astype(int)
    assert (wheel[0, 0] == 255).all()
    assert np.abs(wheel[50, 50] - 255).max() < 5
    for (row, column), direction in {(50, 98): (1, 0), (98, 50): (0, 1), (50, 2): (-1, 0), (2, 50): (0, -1)}.items():
        motion = np.array(direction, np.float32)[:, None, None]
        assert np.abs(wheel[row, column] - flow_colours(motion, bound=1)[0, 0]).max() < 30


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
        GridRow(pictures, "playing_violin", 2.9375, "a"),
        GridRow({"frame": FRAME[:, :40], "truth": MASK[:, :40]}, "", 0.9375, "b"),
    ]
    figure = qualitative_grid(rows)
    assert {"frame", "flow", "truth", "baseline", "UFE", "playing\nviolin\n2.9 s", "b\n0.9 s"} <= set(texts(figure))
    assert [text for text in texts(figure) if text.startswith("IoU")] == ["IoU 0.50", "IoU 1.00"]
    assert len(figure.axes) == 10
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 1, 0, 1, 0, 0]
    figure.draw_without_rendering()
    for axes in figure.axes:
        if axes.images:  # nothing is stretched
            rows_, columns = axes.images[0].get_array().shape[:2]
            box = axes.get_window_extent()
            assert box.height / box.width == pytest.approx(rows_ / columns, rel=0.01)
    assert png(figure).std() > 10
    with pytest.raises(ValueError, match="at least one row"):
        qualitative_grid([])


def test_grid_columns_are_chosen() -> None:
    figure = qualitative_grid([GridRow({"frame": FRAME, "NF": MASK}, "dog")], columns=("frame", "NF"))
    assert texts(figure) == ["frame", "NF", "dog"]


def test_filmstrip_stands_on_one_time_axis() -> None:
    times = [0.9375, 1.9375, 2.9375]
    frames, masks = np.stack([FRAME] * 3), np.stack([MASK] * 3)
    log_mel = RNG.normal(-2, 1, (3, 96, 64))
    log_mel[1] = np.log(0.01)  # silence
    figure = filmstrip(
        times, frames, masks, log_mel, score=masks * 0.7, flow=RNG.normal(size=(3, 2, 60, 80)), truth=masks
    )
    assert {"frame", "flow", "score", "mask", "truth", "log-mel", "loudness\n(dB)", "rim: 3.1 px"} == set(texts(figure))
    figure.draw_without_rendering()
    *tiles, spectrogram, loudness = figure.axes
    wheel = tiles.pop(3)
    assert np.array_equal(wheel.images[0].get_array(), flow_wheel())
    assert len(tiles) == 15
    for tile, time in zip(tiles[:3], times, strict=True):
        box = tile.get_window_extent()
        for axes in (spectrogram, loudness):
            at = axes.transData.transform((time, 0))[0]
            assert at == pytest.approx((box.x0 + box.x1) / 2, abs=0.5)
    at, level = loudness.lines[0].get_data()
    heard = [level[np.abs(at - time) < 0.4] for time in times]
    assert np.nanmax(heard[1]) < np.nanmin(heard[0]) - 30
    assert png(figure).std() > 10
    with pytest.raises(ValueError, match="at least one frame"):
        filmstrip([], frames[:0], masks[:0], log_mel[:0])
    with pytest.raises(ValueError, match="2 masks for 3 times"):
        filmstrip(times, frames, masks[:2], log_mel)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 25, 99, 3000])
def test_a_strip_shows_a_readable_number_of_moments(count: int) -> None:
    chosen = strip_moments(count)
    assert len(chosen) == min(count, len(chosen)) <= 10
    assert len(chosen) >= min(count, 5)
    assert len(set(np.diff(chosen))) <= 1
    before, after = chosen[0], count - 1 - chosen[-1]
    assert 0 <= after - before <= 1


@pytest.mark.parametrize(("height", "width"), [(24, 24), (45, 80), (80, 45), (20, 80)])
@pytest.mark.parametrize(
    "times", [[0.0], [0.0, 0.2], [k / 5 for k in range(25)], [k / 5 for k in range(1200)], [0.0, 0.04, 30.0, 50.0]]
)
def test_a_strip_stays_legible(times: list[float], height: int, width: int) -> None:
    count = len(times)
    frames = np.zeros((count, height, width, 3), np.uint8)
    figure = filmstrip(times, frames, np.zeros(frames.shape[:3], bool), np.zeros((count, 96, 64), np.float32))
    found = boxes(figure)
    shown = len(strip_moments(count))
    assert len(found) == 2 * shown
    assert figure.get_figwidth() < 20
    for left, right, bottom, top in found:
        assert right - left > 0.7
        assert (top - bottom) / (right - left) == pytest.approx(height / width, rel=0.02)
        assert 0.9 < left < right < figure.get_figwidth()
    row = found[:shown]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(row))
    _, loudness = figure.axes[-2:]
    assert loudness.get_xlim()[0] <= times[0] <= times[-1] <= loudness.get_xlim()[1]
    assert loudness.get_xlabel() == ("minutes" if times[-1] > 120 else "seconds")
    labels = [label.get_window_extent() for label in loudness.get_xticklabels() if label.get_text()]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(labels))


def test_overlapping_examples_are_drawn_as_one_sound() -> None:
    times = np.arange(0.48, 4.5, 0.2)
    clock = np.round(times[:, None] - 0.48 + 0.01 * np.arange(96), 2)  # when each row of each example is heard
    log_mel = np.repeat(clock[..., None], 64, -1) - 5  # what is heard says when
    frames = np.zeros((len(times), 8, 8, 3), np.uint8)
    figure = filmstrip(times, frames, frames[..., 0] > 0, log_mel)
    spectrogram = figure.axes[-2].images[0].get_array()
    begin, end = figure.axes[-1].get_xlim()
    at = begin + (np.arange(spectrogram.shape[1]) + 0.5) * (end - begin) / spectrogram.shape[1]
    assert np.abs(spectrogram[0] + 5 - at).max() < 0.011


def test_timeline_shows_silence_and_what_is_marked() -> None:
    times = [0.0, 0.2, 0.4, 0.6]
    figure = timeline(times, [-100, -20, -30, -10], [0.3, 0, 0.1, 0.2], now=0.4)
    loudness, area = figure.axes
    values, edges, _ = loudness.patches[0].get_data()
    assert values.tolist() == [-70, -20, -30, -10]
    assert edges == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert area.patches[0].get_data().values == pytest.approx([30, 0, 10, 20])
    assert area.lines[-1].get_data()[1] == pytest.approx([10])
    assert loudness.get_title(loc="left") == "loudness (dB)"
    assert png(figure).std() > 10
    with pytest.raises(ValueError, match="as many"):
        timeline(times, [-20], [0.1] * 4)
    with pytest.raises(ValueError, match="as many"):
        timeline([], [], [])


@pytest.mark.parametrize("width", [4.0, 9.0])
def test_timeline_of_an_hour_stays_legible(width: float) -> None:
    times = np.arange(18_000) / 5
    shares = np.where(times < 1800, 0.2, 0.0)
    figure = timeline(times, np.full(18_000, -20.0), shares, now=60, width=width)
    steps, edges, _ = figure.axes[1].patches[0].get_data()
    assert len(steps) <= 40 * width
    assert steps[0] == pytest.approx(20)
    assert steps[-1] == 0
    assert edges[-1] == pytest.approx(3600)
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in figure.axes[1].get_xticklabels() if label.get_text()]
    assert len(labels) > 2
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(labels))


def test_overlays_need_no_matplotlib() -> None:
    code = "import sys, avseg.render; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
