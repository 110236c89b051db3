"""How a scene is arranged: the size, pose and light of its cut-outs, the camera, and who stands before whom."""

import math
from collections.abc import Sequence

import numpy as np

from avseg.synthetic.knobs import Knobs
from avseg.synthetic.layers import Camera, Curve, Layer, Patch, alpha_patch, index_map
from avseg.synthetic.motion import smooth_noise, stationary
from avseg.synthetic.objects import Picture, read_picture

PLACEMENTS = 40  # draws of all positions before the best one is taken
PLAN_SIDE = 56  # pixels at which a placement is judged
LEAST_VISIBLE = 0.45  # of every object, at every labelled moment
OVERLAP = (0.1, 0.5)  # hidden share that counts as an occlusion where one is wanted

# one standard deviation of what changes from second to second
DRIFT, TURN, GROWTH, SLANT, LIGHT, CAST = 0.05, 0.15, 0.1, 0.08, 0.15, 0.05
LIMIT = 1.5  # standard deviations


def per_second(rng: np.random.Generator, knobs: Knobs) -> Curve:
    """A stationary AR(1) over the seconds, one value a frame, within `LIMIT` standard deviations."""
    return np.clip(stationary(rng, knobs), -LIMIT, LIMIT)


def draw_area(rng: np.random.Generator, bounds: tuple[float, float], knobs: Knobs) -> float:
    """An area whose growth over the seconds stays within the bounds, even in logarithm."""
    spread = 2 * LIMIT * GROWTH * knobs.appearance
    low, high = math.log(bounds[0]) + spread, math.log(bounds[1]) - spread
    if low > high:
        low = high = (low + high) / 2
    return math.exp(float(rng.uniform(low, high)))


def draw_layer(rng: np.random.Generator, picture: Picture, area: float, knobs: Knobs) -> Layer:
    """A cut-out of some area somewhere, its pose, size and light changing from second to second."""
    alpha = read_picture(picture)[..., 3]
    height, width = alpha.shape
    scale = math.sqrt(area / max(float((alpha > 127).sum()), 1.0))
    scale = min(scale, 0.95 / max(height, width))
    how = knobs.appearance
    margin = [min(0.5, 0.5 * scale * n) for n in (width, height)]
    frames = np.ones(knobs.frames)
    return Layer(
        picture=picture,
        mirrored=bool(rng.random() < 0.5),
        x=float(rng.uniform(margin[0], 1 - margin[0])) + DRIFT * how * per_second(rng, knobs),
        y=float(rng.uniform(margin[1], 1 - margin[1])) + DRIFT * how * per_second(rng, knobs),
        angle=float(rng.normal(0, 0.12)) + TURN * how * per_second(rng, knobs),
        scale=scale * np.exp(GROWTH * how * per_second(rng, knobs)),
        shear=float(rng.normal(0, 0.08)) + SLANT * how * per_second(rng, knobs),
        bend=frames * 0,
        bend_towards=float(rng.uniform(0, 2 * np.pi)),
        gain=np.exp(float(rng.normal(0, 0.1)) + LIGHT * how * per_second(rng, knobs)),
        cast=np.exp(np.stack([CAST * how * per_second(rng, knobs) for _ in range(3)], -1)),
        parallax=1.0,
        feather=float(rng.uniform(*knobs.feather)),
        colour_match=float(rng.uniform(*knobs.colour_match)),
    )


def draw_camera(rng: np.random.Generator, knobs: Knobs) -> Camera:
    """Drift, jitter, zoom and roll; in some scenes none."""
    still = bool(rng.random() < knobs.camera_still)
    how = 0.0 if still else knobs.camera
    shake = float(rng.uniform(0, 0.004))
    drift = [0.025 * per_second(rng, knobs) + shake * smooth_noise(rng, knobs.frames, 3) for _ in range(2)]
    return Camera(
        x=how * drift[0],
        y=how * drift[1],
        zoom=np.exp(how * 0.03 * per_second(rng, knobs)),
        roll=how * 0.02 * per_second(rng, knobs),
        still=still,
    )


def place(
    rng: np.random.Generator, objects: Sequence[Layer], clutter: Sequence[Layer], camera: Camera, knobs: Knobs
) -> list[Layer]:
    """Move the layers about until all objects can be seen, and two overlap or none does, as was drawn.

    Sounding or silent makes no difference here: the layers don't say which is which.
    """
    wanted = len(objects) > 1 and rng.random() < knobs.occlusion
    everyone = [*objects, *clutter]
    patches = {id(layer): alpha_patch(layer, PLAN_SIDE) for layer in everyone}
    best: tuple[float, list[Layer], list[tuple[Curve, Curve]]] | None = None
    for _ in range(PLACEMENTS):
        order = [everyone[int(i)] for i in rng.permutation(len(everyone))]
        for layer in everyone:
            _throw(rng, layer)
        if wanted:
            pair = rng.permutation(len(objects))[:2]
            _approach(rng, objects[int(pair[0])], objects[int(pair[1])])
        penalty = _penalty(order, objects, patches, camera, knobs, wanted)
        if best is None or penalty < best[0]:
            best = penalty, order, [(layer.x.copy(), layer.y.copy()) for layer in everyone]
        if penalty <= 0:
            break
    assert best is not None
    for layer, (x, y) in zip(everyone, best[2], strict=True):
        layer.x, layer.y = x, y
    for place, layer in enumerate(best[1]):
        layer.parallax = 0.7 + 0.6 * (place + 1) / len(everyone)
    return best[1]


def _throw(rng: np.random.Generator, layer: Layer) -> None:
    """A new place for the middle of a layer's path."""
    height, width = read_picture(layer.picture).shape[:2]
    scale = float(layer.scale.mean())
    for axis, length in (("x", width), ("y", height)):
        margin = min(0.5, 0.5 * scale * length)
        curve = getattr(layer, axis)
        setattr(layer, axis, curve - curve.mean() + float(rng.uniform(margin, 1 - margin)))


def _approach(rng: np.random.Generator, first: Layer, second: Layer) -> None:
    """Put the second so near the first that they overlap."""
    radius = sum(
        float(layer.scale.mean()) * math.sqrt(np.prod(read_picture(layer.picture).shape[:2])) / 2
        for layer in (first, second)
    )
    distance, angle = radius * float(rng.uniform(0.5, 0.9)), float(rng.uniform(0, 2 * np.pi))
    goal = first.x.mean() + distance * math.cos(angle), first.y.mean() + distance * math.sin(angle)
    second.x = second.x - second.x.mean() + float(np.clip(goal[0], 0.1, 0.9))
    second.y = second.y - second.y.mean() + float(np.clip(goal[1], 0.1, 0.9))


def _penalty(
    order: Sequence[Layer],
    objects: Sequence[Layer],
    patches: dict[int, Patch],
    camera: Camera,
    knobs: Knobs,
    wanted: bool,
) -> float:
    """0 where the placement is as wanted, more the further it is from it."""
    whole = np.array([float((read_picture(o.picture)[..., 3] > 127).sum()) for o in objects]) * PLAN_SIDE**2
    counts = np.stack(
        [
            index_map(order, camera, [patches[id(layer)] for layer in order], objects, frame, PLAN_SIDE)[1]
            for frame in knobs.mask_frames()
        ]
    ).astype(np.float64)
    full = whole * np.stack([[o.scale[f] ** 2 for o in objects] for f in knobs.mask_frames()])
    shown = counts[..., 0] / np.maximum(full, 1)
    hidden = 1 - counts[..., 0] / np.maximum(counts[..., 1], 1)
    penalty = 4 * np.maximum(LEAST_VISIBLE - shown, 0).max()
    most = hidden.max(1)  # in every labelled moment, the object that is hidden most
    if wanted:
        penalty += np.maximum(OVERLAP[0] - np.median(most), 0) + np.maximum(np.median(most) - OVERLAP[1], 0)
    else:
        penalty += np.maximum(most - 0.05, 0).mean()
    return float(penalty)
