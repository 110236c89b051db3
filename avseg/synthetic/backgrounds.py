"""Where a scene is: textured surfaces drawn from noise, or a person's photographs."""

import hashlib
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from avseg.errors import AvsegError
from avseg.media.images import image_bytes
from avseg.synthetic.objects import Picture, read_picture

Picture8 = npt.NDArray[np.uint8]
Surface = npt.NDArray[Any]  # float32, (side, side) or (side, side, 3)
KINDS = ("terrain", "tiles", "boards", "pebbles", "fabric", "collage")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def find_photographs(folder: Path | None) -> tuple[tuple[Path, ...], str]:
    """The photographs of a folder, and a digest of them; nothing for None.

    Raises:
        AvsegError: the folder is missing or holds no photograph.
    """
    if folder is None:
        return (), ""
    folder = Path(folder)
    paths = tuple(sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES))
    if not paths:
        raise AvsegError(f"{folder} holds no photograph: give a folder with JPEG, PNG or WebP files")
    content = hashlib.sha256()
    for path in paths:
        content.update(path.read_bytes())
    return paths, content.hexdigest()


def draw_background(
    rng: np.random.Generator, kind: str, side: int, textures: Sequence[Picture], photographs: Sequence[Path]
) -> Picture8:
    """A background of (side, side, 3) RGB.

    Args:
        rng: its own generator, so that what it draws moves nothing else.
        kind: one of `KINDS`, or ``photo``.
        side: pixels.
        textures: cut-outs that the collage takes patches from.
        photographs: what ``photo`` takes a square from.
    """
    if kind == "photo":
        return _photograph(rng, photographs[int(rng.integers(len(photographs)))], side)
    palette = _palette(rng)
    if kind == "terrain":
        image = _coloured(_fractal(rng, side, 1.0), palette)
        if rng.random() < 0.6:
            horizon = int(side * rng.uniform(0.25, 0.6))
            image[:horizon] = _coloured(_fractal(rng, side, 1.7), _palette(rng))[:horizon]
    elif kind == "tiles":
        image = _tiles(rng, side, palette)
    elif kind == "boards":
        image = _boards(rng, side, palette)
    elif kind == "pebbles":
        image = _pebbles(rng, side, palette)
    elif kind == "fabric":
        image = _fabric(rng, side, palette)
    else:
        image = _collage(rng, side, palette, textures)
    light = 1 + 0.35 * (_fractal(rng, side, 2.2) - 0.5)
    image = image * light[..., None] + rng.normal(0, 4, (side, side, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def _fractal(rng: np.random.Generator, side: int, roughness: float) -> Surface:
    """Fractal noise in 0..1: octaves whose weight falls with ``2**-roughness``."""
    total = np.zeros((side, side), np.float32)
    cells, weight = 3, 1.0
    while cells < side:
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        total += weight * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * 2**-roughness
    low, high = np.percentile(total, (1, 99))
    return np.clip((total - low) / (high - low), 0, 1)


def _palette(rng: np.random.Generator) -> Surface:
    """Four colours from dark to light around one or two hues, (4, 3) RGB."""
    hue = rng.uniform(0, 180)
    hsv = np.empty((1, 4, 3), np.float32)
    hsv[0, :, 0] = (hue + rng.normal(0, 14, 4) + 90 * (rng.random(4) < 0.15)) % 180 * 2
    hsv[0, :, 1] = np.clip(rng.uniform(0.08, 0.6) + rng.normal(0, 0.1, 4), 0, 0.8)
    hsv[0, :, 2] = np.sort(rng.uniform(0.2, 0.95, 4))
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0] * 255


def _coloured(values: Surface, palette: Surface) -> Surface:
    stops = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(values, stops, palette[:, c]) for c in range(3)], -1).astype(np.float32)


def _tiles(rng: np.random.Generator, side: int, palette: Surface) -> Surface:
    count = int(rng.integers(4, 10))
    cell = -(-side // count)
    shade = rng.uniform(0.2, 0.8, (count + 2, count + 2)) * rng.uniform(0.2, 1) + 0.2
    if rng.random() < 0.4:
        shade = np.indices(shade.shape).sum(0) % 2 * 0.6 + 0.2
    values = np.kron(shade, np.ones((cell, cell)))[:side, :side] + 0.25 * (_fractal(rng, side, 0.8) - 0.5)
    image = _coloured(np.clip(values, 0, 1), palette)
    joint = (np.arange(side) % cell) < max(1, cell // 16)
    image[joint, :] *= 0.7
    image[:, joint] *= 0.7
    return _turned(rng, image)


def _boards(rng: np.random.Generator, side: int, palette: Surface) -> Surface:
    grain = cv2.resize(_fractal(rng, side, 0.6), (side, side * 8))[:side]
    count = int(rng.integers(4, 9))
    shade = np.repeat(rng.uniform(-0.2, 0.2, count + 1), -(-side // count))[:side]
    image = _coloured(np.clip(grain * 0.7 + 0.15 + shade[None], 0, 1), palette)
    image[:, (np.arange(side) % -(-side // count)) < 2] *= 0.55
    return _turned(rng, image)


def _pebbles(rng: np.random.Generator, side: int, palette: Surface) -> Surface:
    count = int(rng.integers(60, 350))
    seeds = np.full((side, side), 255, np.uint8)
    seeds[rng.integers(0, side, count), rng.integers(0, side, count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shade = rng.uniform(0.1, 0.9, int(labels.max()) + 1)[labels]
    edge = np.clip(1.15 - distance / (side / np.sqrt(count)), 0.35, 1)
    return _coloured(np.clip(shade + 0.3 * (_fractal(rng, side, 0.8) - 0.5), 0, 1), palette) * edge[..., None]


def _fabric(rng: np.random.Generator, side: int, palette: Surface) -> Surface:
    ramp = np.arange(side) / side * 2 * np.pi
    bands = rng.uniform(6, 30, 2)
    values = 0.5 + 0.25 * np.sign(np.sin(ramp * bands[0]))[:, None] + 0.25 * np.sin(ramp * bands[1])[None]
    values = values * 0.7 + 0.3 * _fractal(rng, side, 0.5)
    return _turned(rng, _coloured(np.clip(values, 0, 1), palette))


def _collage(rng: np.random.Generator, side: int, palette: Surface, textures: Sequence[Picture]) -> Surface:
    """Patches from inside other cut-outs, softened: real texture without a whole thing in it."""
    image = _coloured(_fractal(rng, side, 1.0), palette)
    for _ in range(int(rng.integers(12, 26))):
        rgba = read_picture(textures[int(rng.integers(len(textures)))])
        middle = [slice(n // 5, max(n // 5 + 2, n * 4 // 5)) for n in rgba.shape[:2]]
        patch: Surface = rgba[middle[0], middle[1]].astype(np.float32)
        size = rng.integers(side // 6, side // 2, 2)
        patch = cv2.resize(patch, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA)
        y, x = rng.integers(-size[1] // 2, side - size[1] // 2), rng.integers(-size[0] // 2, side - size[0] // 2)
        top, left = max(0, int(y)), max(0, int(x))
        patch = patch[top - int(y) : side - int(y), left - int(x) : side - int(x)]
        region = image[top : top + patch.shape[0], left : left + patch.shape[1]]
        weight = patch[..., 3:] / 255 * float(rng.uniform(0.5, 0.9))
        region += (patch[..., :3] - region) * weight
    return cv2.GaussianBlur(image, (0, 0), side * float(rng.uniform(0.004, 0.015)))


def _turned(rng: np.random.Generator, image: Surface) -> Surface:
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(0, 180)), float(rng.uniform(1.0, 1.3)))
    return cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)


def _photograph(rng: np.random.Generator, path: Path, side: int) -> Picture8:
    image: Surface = _read_photograph(path)
    square = int(min(image.shape[:2]) * rng.uniform(0.5, 1.0))
    y, x = (int(rng.integers(0, n - square + 1)) for n in image.shape[:2])
    image = cv2.resize(image[y : y + square, x : x + square], (side, side), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image)


@lru_cache(maxsize=16)
def _read_photograph(path: Path) -> Picture8:
    data = image_bytes(path, "restore it", "remove or replace it")
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.draft("RGB", (800, 800))
            image = file.convert("RGB")
            image.thumbnail((800, 800))
            return np.asarray(image)
    except Exception as error:  # a damaged file can raise nearly any
        raise AvsegError(f"{path} is not a readable photograph: remove or replace it") from error
