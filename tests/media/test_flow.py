"""Flow: direction and size on squares whose motion is known, and both stored forms."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avseg.errors import AvsegError
from avseg.media.flow import (
    decode_published,
    dis,
    encode_published,
    farneback,
    neighbour_flow,
    read_flow_png,
    read_published,
    resize_flow,
    write_flow_png,
    write_published,
)
from avseg.media.video import FramePair, read_pairs
from avseg.media.writer import write_video


def textured(width: int = 160, height: int = 120, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2).astype(float)
    return np.clip((smooth - smooth.mean()) * 4 + 128, 0, 255).astype(np.uint8)


def square_at(x: float, y: float) -> np.ndarray:
    """A textured square of 48 px, its corner at (x, y), on a still, textured background."""
    frame = textured()
    shift = np.float32([[1, 0, x], [0, 1, y]])
    patch = cv2.warpAffine(textured(48, 48, seed=1), shift, (160, 120), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones((48, 48), np.float32), shift, (160, 120))[..., None]
    return np.rint(frame * (1 - inside) + patch * inside).astype(np.uint8)


@pytest.mark.parametrize("method", [farneback, dis])
def test_flow_points_where_the_square_goes(method) -> None:
    flow = method(square_at(50, 40), square_at(53, 38))

    assert flow.shape == (2, 120, 160)
    assert flow.dtype == np.float32
    u, v = flow[:, 55:75, 65:85].mean(axis=(1, 2))
    assert u == pytest.approx(3, abs=0.3)
    assert v == pytest.approx(-2, abs=0.3)
    assert np.abs(flow[:, 5:25, 5:25]).max() < 0.3


def test_farneback_has_the_parameters_that_published_flow_was_made_with() -> None:
    here, there = square_at(50, 40), square_at(53.4, 37.1)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (here, there)]
    expected = cv2.calcOpticalFlowFarneback(
        *grey, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
    )
    assert np.array_equal(farneback(here, there), expected.transpose(2, 0, 1))
    pair = FramePair(0.0, here, there, 0.040)
    assert np.array_equal(neighbour_flow(pair), farneback(here, there))
    assert np.array_equal(neighbour_flow(pair, "dis"), dis(here, there))


@pytest.mark.parametrize("method", [farneback, dis])
def test_flow_refuses_what_are_not_two_frames_of_one_size(method) -> None:
    with pytest.raises(ValueError, match="size"):
        method(textured(), textured(100, 100))
    with pytest.raises(ValueError, match="uint8"):
        method(textured().astype(float), textured().astype(float))


@pytest.mark.parametrize("method", ["farneback", "dis"])
def test_flow_is_a_velocity_and_negated_for_the_previous_frame(method) -> None:
    here, there = square_at(50, 40), square_at(53, 38)
    now = neighbour_flow(FramePair(0.0, here, there, 0.040), method)[:, 55:75, 65:85].mean(axis=(1, 2))
    twice = neighbour_flow(FramePair(0.0, here, there, 0.020), method)[:, 55:75, 65:85].mean(axis=(1, 2))
    before = neighbour_flow(FramePair(0.0, there, here, -0.040), method)[:, 55:75, 65:85].mean(axis=(1, 2))

    assert now == pytest.approx([3, -2], abs=0.3)
    assert twice == pytest.approx(2 * now)
    assert before == pytest.approx(now, abs=0.3)


@pytest.mark.parametrize("step", [0.0, 1e-5, -1e-5, float("nan")])
def test_flow_of_two_pictures_of_one_moment_is_zero(step: float) -> None:
    assert not neighbour_flow(FramePair(0.0, square_at(50, 40), square_at(53, 38), step)).any()


def test_flow_without_a_neighbour_is_zero() -> None:
    flow = neighbour_flow(FramePair(0.0, textured(), None, 0.0))
    assert flow.shape == (2, 120, 160)
    assert not flow.any()


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="raft"):
        neighbour_flow(FramePair(0.0, textured(), textured(), 0.04), "raft")  # type: ignore[arg-type]


@pytest.mark.parametrize("fps", [25, 60])
def test_flow_of_a_real_video_does_not_depend_on_its_frame_rate(tmp_path: Path, fps: int) -> None:
    """75 px a second to the right are 3 px in 40 ms, in the last frame too."""
    path = tmp_path / "moving.mp4"
    write_video(path, (square_at(10 + 75 * k / fps, 40) for k in range(fps)), fps, crf=8)

    pairs = read_pairs(path, [0.2, 0.5, 10.0])
    for pair, x in zip(pairs, (10 + 75 * 0.2, 10 + 75 * 0.5, 10 + 75 * (fps - 1) / fps), strict=True):
        u, v = neighbour_flow(pair)[:, 55:75, int(x) + 14 : int(x) + 34].mean(axis=(1, 2))
        assert u == pytest.approx(3, abs=0.45)
        assert v == pytest.approx(0, abs=0.3)
    assert pairs[-1].step < 0


@settings(max_examples=30, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-600, 600, width=32),
    )
)
def test_flow_png_keeps_a_64th_of_a_pixel(tmp_path_factory: pytest.TempPathFactory, flow: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("flow") / "flow.png"
    write_flow_png(path, flow)
    back = read_flow_png(path)

    assert back.dtype == np.float32
    assert np.abs(back - np.clip(flow, -512, 512 - 1 / 64)).max() <= 1 / 128


def test_flow_png_is_kittis(tmp_path: Path) -> None:
    path = tmp_path / "flow.png"
    flow = np.stack([np.full((3, 4), 1.5), np.full((3, 4), -2.25)]).astype(np.float32)
    write_flow_png(path, flow)

    blue, green, red = cv2.split(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    assert red.dtype == np.uint16
    assert (red == 2**15 + 96).all()
    assert (green == 2**15 - 144).all()
    assert (blue == 1).all()


def test_pixels_that_are_not_valid_read_as_zero(tmp_path: Path) -> None:
    image = np.full((2, 2, 3), 40000, dtype=np.uint16)
    image[0, 0, 0] = 0
    cv2.imwrite(str(tmp_path / "kitti.png"), image)
    flow = read_flow_png(tmp_path / "kitti.png")

    assert (flow[:, 0, 0] == 0).all()
    assert (flow[:, 1, 1] == (40000 - 2**15) / 64).all()


def test_unreadable_flow_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    write_flow_png(whole, np.random.default_rng(0).normal(size=(2, 30, 30)))
    cases = {
        "cut.png": whole.read_bytes()[: whole.stat().st_size // 2],
        "empty.png": b"",
        "text.png": b"no frame",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    cv2.imwrite(str(tmp_path / "eight.png"), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "grey.png"), np.zeros((4, 4), np.uint16))

    for name in [*cases, "eight.png", "grey.png", "missing.png"]:
        with pytest.raises(AvsegError, match=name):
            read_flow_png(tmp_path / name)


def test_a_flow_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "flow.png"
    write_flow_png(path, np.ones((2, 4, 4)))
    with pytest.raises(ValueError, match="finite"):
        write_flow_png(path, np.full((2, 4, 4), np.nan))

    assert (read_flow_png(path) == 1).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["flow.png"]


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, (2, 3, 3), elements=st.floats(-100, 100, width=32)),
    st.floats(0.5, 50),
)
def test_published_form_is_exact_to_half_a_step(flow: np.ndarray, bound: float) -> None:
    values = encode_published(flow, bound)
    assert values.dtype == np.uint8
    error = np.abs(decode_published(values, bound) - np.clip(flow, -bound, bound))
    assert error.max() <= bound / 255 * (1 + 1e-5) + 1e-6


def test_published_form_has_the_printed_values() -> None:
    flow = np.array([-30, -20, 0, 20, 30], dtype=np.float32).reshape(1, 1, 5).repeat(2, axis=0)
    assert encode_published(flow)[0, 0].tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(ValueError, match="bound"):
        encode_published(flow, 0)


def test_published_trees_are_two_grey_pictures(tmp_path: Path) -> None:
    flow = np.stack([np.full((5, 6), 4.0), np.full((5, 6), -8.0)])
    x_path, y_path = tmp_path / "flows_x" / "a_1.png", tmp_path / "flows_y" / "a_1.png"
    write_published(x_path, y_path, flow)

    assert cv2.imread(str(x_path), cv2.IMREAD_UNCHANGED).shape == (5, 6)
    assert cv2.imread(str(x_path), cv2.IMREAD_UNCHANGED)[0, 0] == 153
    assert cv2.imread(str(y_path), cv2.IMREAD_UNCHANGED)[0, 0] == 76
    assert np.array_equal(read_published(x_path, y_path), encode_published(flow))
    write_published(x_path, y_path, read_published(x_path, y_path))
    assert np.array_equal(read_published(x_path, y_path), encode_published(flow))

    cv2.imwrite(str(y_path), np.zeros((9, 6), np.uint8))
    with pytest.raises(AvsegError, match="differ in size"):
        read_published(x_path, y_path)
    cv2.imwrite(str(y_path), np.zeros((5, 6), np.uint16))
    with pytest.raises(AvsegError, match="8-bit"):
        read_published(x_path, y_path)


def test_resizing_scales_each_direction_by_its_own_factor() -> None:
    flow = np.stack([np.full((40, 60), 6.0), np.full((40, 60), 4.0)])
    resized = resize_flow(flow, (30, 80))

    assert resized.shape == (2, 80, 30)
    assert resized[0] == pytest.approx(3.0)
    assert resized[1] == pytest.approx(8.0)


def test_flow_of_resized_frames_is_the_resized_flow() -> None:
    here, there = square_at(50, 40), square_at(56, 36)
    small = farneback(cv2.resize(here, (80, 60)), cv2.resize(there, (80, 60)))[:, 28:36, 33:42].mean(axis=(1, 2))
    resized = resize_flow(farneback(here, there), (80, 60))[:, 28:36, 33:42].mean(axis=(1, 2))
    assert resized == pytest.approx(small, abs=0.3)
    assert resized == pytest.approx([3, -2], abs=0.3)
