"""Pictures of the built-in objects: drawn shapes with volume and texture, several looks of each category."""

import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from avseg.synthetic.drawing import Drawing, darker, draw_colour

REVISION = "shapes-1"
"""Changes whenever a drawing does: it is part of the benchmark's hash."""

LOOKS = 4
CLUTTER_LOOKS = 24


def looks(category: str) -> tuple[str, ...]:
    """Names of the pictures of a category."""
    return tuple(f"{category}-{i}" for i in range(LOOKS))


def clutter_looks() -> tuple[str, ...]:
    """Names of the silent pictures."""
    return tuple(f"clutter-{i}" for i in range(CLUTTER_LOOKS))


def draw(name: str) -> npt.NDArray[np.uint8]:
    """Draw a picture by its name, (256, 256, 4) RGBA; the same name gives the same picture."""
    category, number = name.rsplit("-", 1)
    drawing = Drawing(np.random.default_rng([zlib.crc32(category.encode()), int(number)]))
    if category == "clutter":
        _CLUTTER[int(number) % len(_CLUTTER)](drawing)
    else:
        _DRAW[category](drawing)
    return drawing.finish()


def _siren_truck(d: Drawing) -> None:
    body = draw_colour(d, (-12, 12), (0.75, 0.95))
    length, roof = d.rng.uniform(0.55, 0.68), d.rng.uniform(0.32, 0.42)
    d.box(0.03, roof, length, 0.75 - roof, body)
    d.polygon([(length, roof + 0.06), (0.86, roof + 0.06), (0.97, 0.55), (0.97, 0.75), (length, 0.75)], body)
    d.polygon([(length + 0.06, roof + 0.1), (0.85, roof + 0.1), (0.92, 0.55), (length + 0.06, 0.55)], (0.6, 0.8, 0.9))
    d.box(0.05, 0.58, length - 0.05, 0.05, (0.95, 0.95, 0.9))
    d.line([(0.08, roof - 0.05), (length, roof - 0.05)], 0.03, (0.75, 0.75, 0.78))
    d.box(length + 0.06, roof - 0.01, 0.1, 0.07, (0.15, 0.35, 1.0))
    for x in (0.2, float(d.rng.uniform(0.4, 0.5)), 0.8):
        d.ellipse(x, 0.77, 0.09, 0.09, (0.1, 0.1, 0.1))
        d.ellipse(x, 0.77, 0.04, 0.04, (0.75, 0.75, 0.75))


def _drum(d: Drawing) -> None:
    side = draw_colour(d, (0, 360))
    wide, high = d.rng.uniform(0.28, 0.44), d.rng.uniform(0.3, 0.5)
    top, bottom = 0.5 - high / 2, 0.5 + high / 2
    d.ellipse(0.5, bottom, wide, 0.11, side)
    d.box(0.5 - wide, top, 2 * wide, high, side)
    steps = int(d.rng.integers(4, 8))
    zigzag = [(0.5 - wide + 2 * wide * i / steps, top + 0.07 if i % 2 else bottom) for i in range(steps + 1)]
    d.line(zigzag, 0.018, (0.95, 0.92, 0.8))
    d.ellipse(0.5, top, wide + 0.02, 0.12, (0.75, 0.6, 0.25))
    d.ellipse(0.5, top - 0.01, wide - 0.02, 0.09, (0.96, 0.94, 0.88))
    d.line([(0.5, top - 0.02), (0.85, top - 0.2)], 0.025, (0.7, 0.5, 0.3))


def _bird(d: Drawing) -> None:
    body = draw_colour(d, (30, 240), (0.5, 0.95))
    d.polygon([(0.1, 0.42), (0.36, 0.5), (0.33, 0.62), (0.04, 0.56)], darker(body))
    d.ellipse(0.48, 0.56, 0.26, d.rng.uniform(0.15, 0.2), body, -15, 0.45)
    d.ellipse(0.5, 0.62, 0.17, 0.09, (0.95, 0.9, 0.75), -10)
    d.ellipse(0.72, 0.36, 0.13, 0.13, body)
    d.polygon([(0.82, 0.31), (0.98, 0.37), (0.82, 0.42)], (0.98, 0.65, 0.1))
    d.ellipse(0.75, 0.34, 0.025, 0.025, (0.05, 0.05, 0.05), rough=0)
    d.ellipse(0.42, 0.52, 0.18, 0.09, darker(body, 0.7), 15 + float(d.rng.uniform(-15, 15)), 0.5)
    for x in (0.47, 0.56):
        d.line([(x, 0.73), (x + 0.02, 0.9), (x + 0.08, 0.92)], 0.02, (0.85, 0.5, 0.15))


def _guitar(d: Drawing) -> None:
    wood = draw_colour(d, (15, 40), (0.6, 0.9))
    d.box(0.46, 0.08, 0.08, 0.5, (0.3, 0.18, 0.1))
    d.box(0.44, 0.02, 0.12, 0.1, (0.22, 0.13, 0.08))
    upper, lower = d.rng.uniform(0.15, 0.19), d.rng.uniform(0.22, 0.28)
    for swell, colour in ((0.015, darker(wood)), (0.0, wood)):
        d.ellipse(0.5, 0.52, upper + swell, 0.14 + swell, colour)
        d.ellipse(0.5, 0.75, lower + swell, 0.21 + swell, colour)
    d.ellipse(0.5, 0.62, 0.075, 0.075, (0.1, 0.06, 0.04))
    d.box(0.4, 0.8, 0.2, 0.03, (0.25, 0.15, 0.1))
    for x in np.linspace(0.475, 0.525, 4):
        d.line([(float(x), 0.05), (float(x), 0.81)], 0.005, (0.92, 0.92, 0.88), 0)


def _tractor(d: Drawing) -> None:
    body = draw_colour(d, (60, 150), (0.6, 0.9), (0.45, 0.8))
    high = d.rng.uniform(0.16, 0.26)
    d.box(0.42, 0.42, 0.5, 0.28, body)
    d.box(0.16, high, 0.34, 0.5 - high, darker(body, 0.8))
    d.box(0.2, high + 0.05, 0.25, 0.2, (0.65, 0.82, 0.9))
    d.line([(0.78, 0.42), (0.78, 0.2)], 0.035, (0.3, 0.3, 0.32))
    big = d.rng.uniform(0.2, 0.25)
    for x, y, r in ((0.27, 0.94 - big, big), (0.82, 0.82, 0.12)):
        d.ellipse(x, y, r, r, (0.12, 0.12, 0.12), rough=0.6)
        d.ellipse(x, y, r * 0.55, r * 0.55, (0.9, 0.75, 0.2))
        d.ellipse(x, y, r * 0.2, r * 0.2, (0.3, 0.3, 0.3))


def _bell(d: Drawing) -> None:
    metal = draw_colour(d, (38, 52), (0.55, 0.9), (0.7, 0.95))
    wide = d.rng.uniform(0.34, 0.42)
    d.ellipse(0.5, 0.12, 0.06, 0.07, darker(metal, 0.7))
    d.ellipse(0.5, 0.86, 0.08, 0.08, darker(metal))
    curve = [(0.2, 0.16), (0.24, 0.35), (0.27, 0.55), (0.34, 0.7), (wide, 0.82)]
    left = [(0.5 - x, y) for x, y in curve]
    d.polygon([*left, *((1 - x, y) for x, y in reversed(left))], metal)
    d.ellipse(0.5, 0.17, 0.2, 0.09, metal)
    for y in (0.32, 0.7):
        d.line([(0.5 - 0.22 - y * 0.14, y), (0.5 + 0.22 + y * 0.14, y)], 0.025, darker(metal, 0.75))


def _dog(d: Drawing) -> None:
    fur = draw_colour(d, (15, 40), (0.25, 0.7), (0.4, 0.9))
    leg = d.rng.uniform(0.2, 0.3)
    for x in (0.2, 0.3, 0.56, 0.65):
        d.box(x, 0.55, 0.07, leg + 0.07, darker(fur, 0.8), 0.5)
    d.line([(0.16, 0.5), (0.06, 0.36), (0.08, 0.24)], 0.05, fur, 0.5)
    d.ellipse(0.43, 0.52, 0.29, 0.15, fur, rough=0.5)
    d.ellipse(0.74, 0.33, 0.16, 0.15, fur, rough=0.4)
    d.ellipse(0.87, 0.38, 0.1, 0.075, darker(fur, 1.15))
    d.ellipse(0.95, 0.35, 0.03, 0.025, (0.05, 0.04, 0.04))
    d.ellipse(0.64, 0.32, 0.06, 0.14, darker(fur, 0.55), 12)
    d.ellipse(0.79, 0.29, 0.022, 0.022, (0.04, 0.03, 0.03), rough=0)


def _bee(d: Drawing) -> None:
    yellow = draw_colour(d, (42, 56), (0.7, 0.95), (0.8, 1.0))
    for x, turn in ((0.4, -60), (0.56, -115)):
        d.ellipse(x, 0.28, 0.24, 0.1, (0.82, 0.9, 0.95), turn + float(d.rng.uniform(-8, 8)), 0.15)
    d.ellipse(0.45, 0.6, 0.34, 0.2, yellow, rough=0.4)
    for x, tall in ((0.25, 0.14), (0.4, 0.19), (0.55, 0.18)):
        d.ellipse(x, 0.6, 0.04, tall, (0.12, 0.09, 0.05), rough=0.5)
    d.ellipse(0.82, 0.55, 0.13, 0.13, (0.18, 0.13, 0.08), rough=0.5)
    d.ellipse(0.87, 0.51, 0.035, 0.045, (0.8, 0.8, 0.85))
    d.line([(0.86, 0.43), (0.95, 0.3)], 0.014, (0.1, 0.08, 0.05))
    d.polygon([(0.13, 0.56), (0.02, 0.61), (0.13, 0.65)], (0.1, 0.08, 0.05))


def _horn(d: Drawing) -> None:
    brass = draw_colour(d, (40, 52), (0.6, 0.85), (0.75, 0.95))
    flare = d.rng.uniform(0.16, 0.24)
    d.line([(0.05, 0.42), (0.62, 0.42)], 0.045, brass)
    d.line([(0.25, 0.42), (0.2, 0.5), (0.22, 0.6), (0.6, 0.62), (0.66, 0.52), (0.6, 0.42)], 0.045, darker(brass, 0.9))
    d.polygon([(0.6, 0.39), (0.8, 0.36), (0.93, 0.42 - flare), (0.93, 0.42 + flare), (0.8, 0.48), (0.6, 0.45)], brass)
    d.ellipse(0.93, 0.42, 0.04, flare, darker(brass, 0.6))
    for x in (0.36, 0.43, 0.5):
        d.box(x, 0.3, 0.045, 0.36, darker(brass, 0.85))
        d.ellipse(x + 0.022, 0.29, 0.035, 0.02, (0.95, 0.95, 0.9))


def _clock(d: Drawing) -> None:
    case = draw_colour(d, (0, 360), (0.4, 0.8))
    for x, turn in ((0.3, -35), (0.7, 35)):
        d.ellipse(x, 0.14, 0.13, 0.09, (0.75, 0.72, 0.65), turn)
        d.line([(x, 0.85), (x + (x - 0.5) * 0.4, 0.97)], 0.05, darker(case))
    d.ellipse(0.5, 0.55, 0.38, 0.38, case)
    d.ellipse(0.5, 0.55, 0.31, 0.31, (0.96, 0.95, 0.9), rough=0.08)
    for angle in np.arange(12) * np.pi / 6:
        x, y = 0.5 + 0.26 * np.cos(angle), 0.55 + 0.26 * np.sin(angle)
        d.ellipse(float(x), float(y), 0.017, 0.017, (0.1, 0.1, 0.1), rough=0)
    for long, wide in ((0.22, 0.02), (0.14, 0.03)):
        angle = d.rng.uniform(0, 2 * np.pi)
        d.line(
            [(0.5, 0.55), (0.5 + long * float(np.cos(angle)), 0.55 + long * float(np.sin(angle)))],
            wide,
            (0.08, 0.08, 0.08),
        )


def _frog(d: Drawing) -> None:
    skin = draw_colour(d, (75, 140), (0.6, 0.9), (0.4, 0.75))
    for side in (-1, 1):
        d.ellipse(0.5 + side * 0.33, 0.72, 0.13, 0.17, darker(skin, 0.8), side * 25, 0.4)
        d.ellipse(0.5 + side * 0.3, 0.88, 0.16, 0.045, darker(skin, 0.7))
    d.ellipse(0.5, 0.62, d.rng.uniform(0.28, 0.34), 0.27, skin, rough=0.5)
    d.ellipse(0.5, 0.72, 0.2, 0.16, (0.88, 0.9, 0.6))
    for side in (-1, 1):
        d.ellipse(0.5 + side * 0.17, 0.33, 0.1, 0.1, skin)
        d.ellipse(0.5 + side * 0.17, 0.32, 0.06, 0.06, (0.95, 0.8, 0.2))
        d.ellipse(0.5 + side * 0.17, 0.32, 0.035, 0.02, (0.05, 0.05, 0.05), rough=0)
    d.line([(0.3, 0.5), (0.42, 0.55), (0.58, 0.55), (0.7, 0.5)], 0.015, darker(skin, 0.4))


def _kettle(d: Drawing) -> None:
    metal = draw_colour(d, (180, 260), (0.05, 0.7), (0.5, 0.9))
    d.line([(0.3, 0.36), (0.34, 0.14), (0.6, 0.14), (0.66, 0.36)], 0.045, (0.2, 0.18, 0.17))
    d.polygon([(0.68, 0.55), (0.94, 0.28), (0.99, 0.33), (0.76, 0.75)], darker(metal, 0.85))
    d.polygon([(0.22, 0.42), (0.74, 0.42), (0.84, 0.88), (0.1, 0.88)], metal)
    d.ellipse(0.48, 0.42, d.rng.uniform(0.24, 0.28), 0.1, metal)
    d.ellipse(0.48, 0.33, 0.05, 0.045, (0.15, 0.12, 0.1))
    d.line([(0.14, 0.8), (0.8, 0.8)], 0.02, darker(metal, 0.6))


def _leaves(d: Drawing) -> None:
    green = draw_colour(d, (70, 150), (0.4, 0.9), (0.3, 0.7))
    for angle in np.linspace(-2.7, -0.4, int(d.rng.integers(5, 10))):
        x, y = 0.5 + 0.26 * np.cos(angle), 0.62 + 0.26 * np.sin(angle)
        d.ellipse(
            float(x),
            float(y),
            0.27,
            0.06,
            darker(green, float(d.rng.uniform(0.7, 1.2))),
            float(np.degrees(angle)),
            0.5,
        )
    d.polygon([(0.3, 0.62), (0.7, 0.62), (0.63, 0.95), (0.37, 0.95)], draw_colour(d, (10, 30)))


def _books(d: Drawing) -> None:
    y = 0.9
    for _ in range(int(d.rng.integers(3, 6))):
        tall, wide = d.rng.uniform(0.09, 0.15), d.rng.uniform(0.5, 0.8)
        y -= tall
        x = d.rng.uniform(0.05, 0.95 - wide)
        d.box(x, y, wide, tall, draw_colour(d, (0, 360), (0.3, 0.9), (0.3, 0.9)))
        d.box(x + 0.02, y + tall * 0.25, wide * 0.1, tall * 0.5, (0.95, 0.9, 0.7))


def _bottle(d: Drawing) -> None:
    glass = draw_colour(d, (60, 220), (0.4, 0.9), (0.3, 0.8))
    neck = d.rng.uniform(0.05, 0.08)
    d.polygon(
        [
            (0.5 - neck, 0.04),
            (0.5 + neck, 0.04),
            (0.5 + neck, 0.3),
            (0.68, 0.42),
            (0.68, 0.96),
            (0.32, 0.96),
            (0.32, 0.42),
            (0.5 - neck, 0.3),
        ],
        glass,
        0.15,
    )
    d.box(0.32, 0.55, 0.36, 0.25, (0.92, 0.88, 0.75))
    d.box(0.5 - neck - 0.01, 0.02, 2 * neck + 0.02, 0.07, (0.3, 0.2, 0.15))


def _fruit(d: Drawing) -> None:
    skin = draw_colour(d, (-20, 100), (0.6, 0.95))
    d.line([(0.5, 0.25), (0.55, 0.08)], 0.035, (0.35, 0.22, 0.1))
    d.ellipse(0.66, 0.14, 0.13, 0.055, (0.3, 0.6, 0.2), -20)
    d.ellipse(0.41, 0.57, 0.3, d.rng.uniform(0.3, 0.38), skin, rough=0.3)
    d.ellipse(0.59, 0.57, 0.3, d.rng.uniform(0.3, 0.38), skin, rough=0.3)


def _chair(d: Drawing) -> None:
    wood = draw_colour(d, (15, 45), (0.3, 0.8), (0.3, 0.8))
    for x in (0.22, 0.7):
        d.box(x, 0.5, 0.06, 0.47, wood, 0.4)
    d.box(0.24, 0.05, 0.07, 0.5, wood, 0.4)
    d.box(0.64, 0.05, 0.07, 0.5, wood, 0.4)
    for y in np.linspace(0.08, 0.32, int(d.rng.integers(2, 5))):
        d.box(0.28, float(y), 0.4, 0.06, darker(wood, 0.85), 0.4)
    d.polygon([(0.18, 0.48), (0.78, 0.48), (0.84, 0.6), (0.12, 0.6)], darker(wood, 1.1), 0.4)


def _stone(d: Drawing) -> None:
    angles = np.linspace(0, 2 * np.pi, int(d.rng.integers(7, 13)), endpoint=False)
    reach = d.rng.uniform(0.28, 0.47, len(angles))
    d.polygon(
        [(0.5 + float(r * np.cos(a)), 0.5 + float(r * np.sin(a)) * 0.8) for r, a in zip(reach, angles, strict=True)],
        draw_colour(d, (0, 360), (0.02, 0.2), (0.35, 0.8)),
        0.6,
    )


def _crate(d: Drawing) -> None:
    wood = draw_colour(d, (20, 45), (0.3, 0.7), (0.45, 0.85))
    d.polygon([(0.08, 0.3), (0.68, 0.3), (0.68, 0.92), (0.08, 0.92)], wood, 0.5)
    d.polygon([(0.68, 0.3), (0.92, 0.14), (0.92, 0.74), (0.68, 0.92)], darker(wood, 0.65), 0.5)
    d.polygon([(0.08, 0.3), (0.32, 0.14), (0.92, 0.14), (0.68, 0.3)], darker(wood, 1.15), 0.5)
    d.line([(0.1, 0.33), (0.66, 0.9)], 0.05, darker(wood, 0.8))


def _lamp(d: Drawing) -> None:
    shade = draw_colour(d, (0, 360), (0.3, 0.8))
    d.line([(0.5, 0.4), (0.5, 0.9)], 0.05, (0.35, 0.33, 0.3))
    d.ellipse(0.5, 0.92, d.rng.uniform(0.18, 0.26), 0.05, (0.3, 0.28, 0.26))
    d.polygon([(0.36, 0.08), (0.64, 0.08), (0.82, 0.46), (0.18, 0.46)], shade, 0.2)


_DRAW: dict[str, Callable[[Drawing], None]] = {
    "siren_truck": _siren_truck,
    "drum": _drum,
    "bird": _bird,
    "guitar": _guitar,
    "tractor": _tractor,
    "bell": _bell,
    "dog": _dog,
    "bee": _bee,
    "horn": _horn,
    "clock": _clock,
    "frog": _frog,
    "kettle": _kettle,
}
_CLUTTER: tuple[Callable[[Drawing], None], ...] = (_leaves, _books, _bottle, _fruit, _chair, _stone, _crate, _lamp)

CATEGORIES = tuple(_DRAW)
"""The built-in categories; the first ones look and sound most unlike each other."""
