"""Optical flow from a frame to its neighbouring frame, and the two forms it is stored in.

Flow is ``(2, H, W)`` float32: ``u`` (pixels to the right) first, then ``v`` (pixels down). It says where each pixel of
the frame is found in the neighbouring frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from avseg.errors import AvsegError
from avseg.media.images import decode, resize, write_image

if TYPE_CHECKING:
    from avseg.media.video import FramePair

FlowMethod = Literal["farneback", "dis"]

STEP = 0.040
"""Seconds between the two frames that a stored flow stands for."""

SHORTEST_STEP = 0.002
"""Frames closer in time than this (seconds) are taken for the same timestamp: their flow is zero, not magnified.

Cameras with a varying frame rate write such pairs, and 40 ms divided by so short a step would magnify noise.
"""


def farneback(frame: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """Farnebäck flow from ``frame`` to ``neighbour`` with OpenCV's parameters (0.5, 3, 15, 3, 5, 1.2, 0).

    Args:
        frame: ``(H, W, 3)`` uint8 RGB.
        neighbour: the same shape.

    Returns:
        ``(2, H, W)`` float32, pixels.

    Raises:
        ValueError: the two aren't RGB uint8 frames of one size.
    """
    start, end = _grey(frame, neighbour)
    # OpenCV's annotations leave out that the initial flow may be None.
    flow = cv2.calcOpticalFlowFarneback(start, end, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
    return np.ascontiguousarray(flow.transpose(2, 0, 1), dtype=np.float32)


def dis(frame: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """Dense inverse search flow (DIS, medium preset) from ``frame`` to ``neighbour``.

    Args, returns and errors are those of :func:`farneback`.
    """
    start, end = _grey(frame, neighbour)
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = method.calc(start, end, None)  # type: ignore[call-overload]
    return np.ascontiguousarray(flow.transpose(2, 0, 1), dtype=np.float32)


def neighbour_flow(pair: FramePair, method: FlowMethod = "farneback") -> np.ndarray:
    """Flow of a frame to its neighbouring frame, scaled to a step of 40 ms.

    Scaling makes flow a velocity: a 60 fps video isn't stiller than a 25 fps one. When the neighbour is the previous
    frame (the last frame of a video has no next one) the flow is negated.

    Args:
        pair: the frame and its neighbour, already at the size that the model sees.
        method: ``farneback`` or ``dis``.

    Returns:
        ``(2, H, W)`` float32, pixels per 40 ms. Zero without a neighbour, and for steps under ``SHORTEST_STEP``.

    Raises:
        ValueError: an unknown method, or frames that differ in size.
    """
    if method not in ("farneback", "dis"):
        raise ValueError(f"unknown flow method {method!r}: choose farneback or dis")
    if pair.neighbour is None or not np.isfinite(pair.step) or abs(pair.step) < SHORTEST_STEP:
        return np.zeros((2, *pair.frame.shape[:2]), dtype=np.float32)
    flow = (farneback if method == "farneback" else dis)(pair.frame, pair.neighbour)
    # A negative step both scales and negates.
    return flow * np.float32(STEP / pair.step)


def resize_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a flow field and scale ``u`` and ``v`` each by its own factor.

    Args:
        flow: ``(2, H, W)`` in pixels at H×W.
        size: ``(width, height)``.

    Returns:
        ``(2, height, width)`` float32 in pixels at the new size.
    """
    _check_flow(flow)
    width, height = size
    factors = (width / flow.shape[2], height / flow.shape[1])
    channels = [
        resize(np.ascontiguousarray(channel, dtype=np.float32), size) * np.float32(factor)
        for channel, factor in zip(flow, factors, strict=True)
    ]
    return np.stack(channels)


def write_flow_png(path: str | Path, flow: np.ndarray) -> None:
    """Write flow in KITTI's 16-bit PNG form: ``value = 64·flow + 2¹⁵``; red ``u``, green ``v``, blue 1 (valid).

    Values are kept to 1/64 px and clipped to [−512, 511.98] px. The file is written whole.

    Args:
        path: a name that ends in ``.png``.
        flow: ``(2, H, W)``, finite.

    Raises:
        ValueError: another shape, or values that aren't finite.
    """
    _check_flow(flow)
    if not np.isfinite(flow).all():
        raise ValueError("flow holds values that aren't finite")
    values = np.clip(np.rint(flow.astype(np.float64) * 64 + 2**15), 0, 2**16 - 1).astype(np.uint16)
    valid = np.ones(values.shape[1:], dtype=np.uint16)
    # OpenCV stores blue, green, red.
    write_image(path, np.stack([values[0], values[1], valid], axis=-1))


def read_flow_png(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read KITTI's 16-bit flow PNG.

    Args:
        path: The file.
        size: (width, height) that it must have; None admits any.

    Returns:
        ``(2, H, W)`` float32; zero where the file says that a pixel isn't valid.

    Raises:
        AvsegError: the file is missing, unreadable, cut off, of another size, or not a 16-bit PNG of three channels.
    """
    image = _read_png(path, size)
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise AvsegError(f"{path} isn't a flow image (a 16-bit PNG of three channels): make the flow again.")
    valid = image[..., 0] > 0
    flow = (image[..., :0:-1].astype(np.float32) - 2**15) / 64
    flow[~valid] = 0
    return np.ascontiguousarray(flow.transpose(2, 0, 1))


def encode_published(flow: np.ndarray, bound: float = 20.0) -> np.ndarray:
    """Flow in the 8-bit form of the published trees: ``round(255·(v + bound) / (2·bound))``, clipped.

    How the published flow was scaled isn't known; ``bound`` = 20 px is the customary choice.

    Args:
        flow: ``(2, H, W)``.
        bound: the largest displacement that can be told apart, in pixels.

    Returns:
        ``(2, H, W)`` uint8.

    Raises:
        ValueError: ``bound`` isn't positive, or another shape.
    """
    _check_flow(flow)
    _check_bound(bound)
    values = np.rint(255 * (flow.astype(np.float64) + bound) / (2 * bound))
    return np.clip(values, 0, 255).astype(np.uint8)


def decode_published(values: np.ndarray, bound: float = 20.0) -> np.ndarray:
    """The inverse of :func:`encode_published`, exact to ``bound / 255`` pixels within ±``bound``.

    Args:
        values: ``(2, H, W)`` uint8.
        bound: as it was encoded.

    Returns:
        ``(2, H, W)`` float32, pixels.
    """
    _check_flow(values)
    _check_bound(bound)
    return (values.astype(np.float64) * (2 * bound / 255) - bound).astype(np.float32)


def write_published(x_path: str | Path, y_path: str | Path, flow: np.ndarray, bound: float = 20.0) -> None:
    """Write flow as a pair of 8-bit grey PNGs, one of the tree ``flows_x`` (``u``) and one of ``flows_y`` (``v``).

    Args:
        x_path: the PNG for ``u``.
        y_path: the PNG for ``v``.
        flow: ``(2, H, W)`` in pixels, or uint8 values that are already encoded.
        bound: as in :func:`encode_published`.
    """
    values = flow if flow.dtype == np.uint8 else encode_published(flow, bound)
    _check_flow(values)
    for path, channel in zip((x_path, y_path), values, strict=True):
        write_image(path, np.ascontiguousarray(channel))


def read_published(x_path: str | Path, y_path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a pair of 8-bit grey PNGs (``u``, ``v``) of the published trees.

    Args:
        x_path, y_path: The files.
        size: (width, height) that they must have; None admits any.

    Returns:
        ``(2, H, W)`` uint8, as stored: see :func:`decode_published`.

    Raises:
        AvsegError: a file is missing, unreadable, of another size or not 8-bit, or the two differ in size.
    """
    channels = []
    for path in (x_path, y_path):
        image = _read_png(path, size)
        if image.dtype != np.uint8:
            raise AvsegError(f"{path} isn't an 8-bit grey image of published flow: check which tree it is from.")
        if image.ndim == 3:
            image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2GRAY) if image.shape[2] >= 3 else image[..., 0]
        channels.append(image)
    if channels[0].shape != channels[1].shape:
        raise AvsegError(f"{x_path} and {y_path} differ in size: export that flow again.")
    return np.stack(channels)


def _grey(frame: np.ndarray, neighbour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for image in (frame, neighbour):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"frames must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    if frame.shape != neighbour.shape:
        raise ValueError(f"a frame of {frame.shape} and a neighbour of {neighbour.shape} differ in size")
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.cvtColor(neighbour, cv2.COLOR_RGB2GRAY)


def _check_flow(flow: np.ndarray) -> None:
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"flow must be (2, H, W), not {flow.shape}")


def _check_bound(bound: float) -> None:
    if not (np.isfinite(bound) and bound > 0):
        raise ValueError(f"bound must be positive, not {bound}")


def _read_png(path: str | Path, size: tuple[int, int] | None) -> np.ndarray:
    return decode(path, cv2.IMREAD_UNCHANGED, "make the flow", "make the flow again", size)
