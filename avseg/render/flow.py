"""Optical flow in colours, and the wheel that explains them."""

import cv2
import numpy as np
import numpy.typing as npt

from avseg.render.colours import Picture

LEAST_BOUND = 1.0


def flow_colours(flow: npt.NDArray[np.floating], bound: float | None = None) -> Picture:
    """Optical flow as colours: hue is direction (right red, down green, left cyan, up violet), white is no motion.

    Args:
        flow: ``(2, H, W)``, ``u`` right and ``v`` down, in pixels.
        bound: Length in pixels that gets the full colour; None takes that of `flow_bound`.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        ValueError: the flow is not (2, H, W), or the bound is not positive.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"Flow must be (2, H, W), not {flow.shape}.")
    u, v = np.nan_to_num(flow.astype(np.float32))
    length = np.hypot(u, v)
    if bound is None:
        bound = flow_bound(flow[None])
    if bound <= 0:
        raise ValueError(f"The bound must be positive, not {bound}.")
    hue = np.degrees(np.arctan2(v, u)) % 360
    colours = np.stack([hue, np.clip(length / bound, 0, 1), np.ones_like(hue)], -1)
    return np.round(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB) * 255).astype(np.uint8)


def flow_bound(flow: npt.NDArray[np.floating]) -> float:
    """Length in pixels to which colours reach: the 99th percentile, at least 1, so that noise in a still stays pale.

    Args:
        flow: ``(T, 2, H, W)`` in pixels.
    """
    u, v = np.nan_to_num(flow.astype(np.float32)).swapaxes(0, 1)
    return max(float(np.percentile(np.hypot(u, v), 99)), LEAST_BOUND)


def flow_wheel(size: int = 96) -> Picture:
    """The legend of `flow_colours`: each colour stands where its motion points to; the rim is the bound.

    Args:
        size: Pixels of both sides; beyond the wheel all is white.
    """
    steps = (np.arange(size) + 0.5) * 2 / size - 1
    flow = np.stack(np.meshgrid(steps, steps))
    inside = np.clip((1 - np.hypot(*flow)) * size / 2 + 0.5, 0, 1)[..., None]  # soft over one pixel
    coloured = flow_colours(flow, bound=1.0)
    return np.round(coloured * inside + 255 * (1 - inside)).astype(np.uint8)
