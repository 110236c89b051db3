"""How things move: slowly from second to second, and quickly with a loudness."""

from collections.abc import Sequence

import numpy as np

from avseg.synthetic.knobs import Knobs
from avseg.synthetic.layers import Curve, Layer

MOTIONS = ("shake", "pulse", "strike", "sway", "part")


def stationary(rng: np.random.Generator, knobs: Knobs) -> Curve:
    """A stationary AR(1) with unit variance over the labelled moments, smooth between them. Shape (frames,).

    The labelled frames are the knots, and one knot lies before and one after the video, so that the first
    labelled second is distributed as the others are.
    """
    rho = knobs.appearance_rho
    values = [rng.standard_normal()]
    for _ in range(knobs.seconds + 1):
        values.append(rho * values[-1] + np.sqrt(1 - rho**2) * rng.standard_normal())
    place = (np.arange(knobs.frames) - (knobs.mask_frames()[0] - knobs.fps)) / knobs.fps
    knot = place.astype(int)
    share = (1 - np.cos(np.pi * (place - knot))) / 2
    curve = np.array(values)
    return curve[knot] * (1 - share) + curve[knot + 1] * share


def smooth_noise(rng: np.random.Generator, frames: int, width: int) -> Curve:
    """Unit-variance noise smoothed over about ``width`` frames."""
    noise = rng.standard_normal(frames + 4 * width)
    window = np.hanning(2 * width + 1)
    window /= np.sqrt((window**2).sum())
    return np.convolve(noise, window, mode="same")[2 * width : 2 * width + frames]


def per_frame(seconds: Sequence[bool], knobs: Knobs) -> np.ndarray:
    """A value for each second, repeated for each frame."""
    return np.repeat(np.asarray(seconds, dtype=bool), knobs.fps)


def amplitude(rng: np.random.Generator, loudness: Curve, moving: Sequence[bool], knobs: Knobs) -> Curve:
    """How far a mover is displaced at every frame, about 0 to 1; 0 while it does not move.

    Correlates with the loudness by ``knobs.loudness_correlation``; the rest is chance.
    """
    spread = float(loudness.std())
    own = (loudness - loudness.mean()) / spread if spread > 1e-3 else smooth_noise(rng, len(loudness), 5)
    other = smooth_noise(rng, len(loudness), 5)
    with_it = knobs.loudness_correlation
    curve = np.clip(0.6 + 0.3 * (with_it * own + np.sqrt(1 - with_it**2) * other), 0.05, 1.4)
    gate = np.convolve(np.pad(per_frame(moving, knobs).astype(float), 2, mode="edge"), np.ones(5) / 5, "valid")
    return curve * gate


def move(rng: np.random.Generator, layer: Layer, kind: str, amplitude: Curve, size: float, knobs: Knobs) -> None:
    """Add a motion of one kind to a layer's curves.

    Args:
        rng: the video's generator.
        layer: what is moved, in place.
        kind: one of `MOTIONS`.
        amplitude: from `amplitude`.
        size: the layer's side in sides of the picture.
        knobs: the settings.
    """
    time = np.arange(knobs.frames) / knobs.fps
    far = amplitude * np.exp(rng.uniform(*np.log(knobs.motion_amplitude)))
    if kind == "shake":
        frequency, direction = rng.uniform(3, 6), rng.uniform(0, 2 * np.pi)
        path = far * 0.045 * size * _wave(rng, time, frequency)
        layer.x = layer.x + path * np.cos(direction)
        layer.y = layer.y + path * np.sin(direction)
    elif kind == "pulse":
        layer.scale = layer.scale * np.exp(far * 0.07 * _wave(rng, time, rng.uniform(2.5, 5)))
    elif kind == "strike":
        layer.angle = layer.angle + far * 0.3 * rng.choice((-1, 1)) * _strokes(rng, time)
    elif kind == "sway":
        layer.angle = layer.angle + far * 0.22 * _wave(rng, time, rng.uniform(1.2, 2.2))
    else:
        layer.bend = layer.bend + far * 0.4 * _wave(rng, time, rng.uniform(2, 4))


def _wave(rng: np.random.Generator, time: Curve, frequency: float) -> Curve:
    """A sine whose frequency wanders by a fifth."""
    wander = 1 + 0.2 * smooth_noise(rng, len(time), 10)
    return np.sin(2 * np.pi * frequency * np.cumsum(wander) * (time[1] - time[0]) + rng.uniform(0, 2 * np.pi))


def _strokes(rng: np.random.Generator, time: Curve) -> Curve:
    """Strokes at uneven times, each over in about a quarter of a second; in mid-course at the beginning."""
    curve = np.zeros_like(time)
    at = -float(rng.uniform(0, 0.6))
    while at < time[-1]:
        since = time - at
        stroke = np.where(since >= 0, np.minimum(since / 0.06, 1) * np.exp(-np.maximum(since - 0.06, 0) / 0.12), 0)
        curve = np.maximum(curve, stroke)
        at += float(rng.uniform(0.25, 0.6))
    return curve
