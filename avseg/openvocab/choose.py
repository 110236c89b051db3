"""Which candidates sound: how surely each is heard and seen, and how much of the motion is its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avseg.errors import AvsegError
from avseg.inference.moments import Found
from avseg.media.images import encode_rle
from avseg.openvocab.see import Sighting

_STILL = 0.1  # pixels per 40 ms below which motion says little
_SAME = 0.85  # intersection over union from which two masks are of one thing


@dataclass(frozen=True)
class Choice:
    """How candidates are heard, looked for and chosen.

    Attributes:
        window, hop: Seconds of the tagger's windows, and between two.
        least_sound: Probability from which a class is looked for.
        most_nouns: How many nouns are looked for at once.
        quiet: Decibels relative to full scale below which nothing is heard.
        keep: Candidates count whose score reaches this share of the best one's.
        least_score: Score that the best candidate must reach.
        motion: Power of the motion in the score; 0 leaves motion out.
        size: Side of the square in which frames are looked at, in pixels.

    Raises:
        AvsegError: a value out of its range.
    """

    window: float = 2.0
    hop: float = 1.0
    least_sound: float = 0.1
    most_nouns: int = 6
    quiet: float = -60.0
    keep: float = 0.6
    least_score: float = 0.02
    motion: float = 0.5
    size: int = 352

    def __post_init__(self) -> None:
        for name, least, most in (
            ("window", 0.1, 30),
            ("hop", 0.05, 30),
            ("least_sound", 0, 1),
            ("most_nouns", 1, 50),
            ("quiet", -100, 0),
            ("keep", 0, 1),
            ("least_score", 0, 1),
            ("motion", 0, 10),
            ("size", 32, 2048),
        ):
            if not least <= getattr(self, name) <= most:
                raise AvsegError(f"{name} is {getattr(self, name)}: give a number from {least} to {most}.")


def choose(sightings: Sequence[Sighting], flow: np.ndarray, how: Choice) -> tuple[np.ndarray, tuple[Found, ...]]:
    """Score candidates by ``sound · sight · motion^p`` and unite the best.

    Where one thing was found under several names, ``sound · sight`` is summed over them, up to 1: what is heard as a
    bark, a dog and an animal is heard more surely than what is heard as one of these. It is called by the surest.

    Args:
        sightings: The candidates.
        flow: ``(2, S, S)`` in pixels per 40 ms.
        how: Power and thresholds.

    Returns:
        Scores ``(S, S)`` float16, the highest of the united masks at each pixel, and what was united, best first;
        zeros and nothing where no candidate is good enough.
    """
    residual = without_camera(flow)
    scored = []
    for inside, same in _things(sightings):
        moves = motion_of(residual, inside)
        evidence = min(1.0, sum(_evidence(one) for one in same))
        scored.append((evidence * moves**how.motion, moves, inside, same[0]))
    scored.sort(key=lambda each: -each[0])
    best = scored[0][0] if scored else 0.0
    united = np.zeros(flow.shape[1:], dtype=np.float32)
    found: list[Found] = []
    for score, moves, inside, (wanted, sight, mask) in scored:
        if score < max(how.least_score, how.keep * best) or not inside.any():
            continue
        united = np.maximum(united, mask)
        found.append(Found(wanted.name, wanted.noun, score, wanted.sound, sight, moves, encode_rle(inside)))
    return united.astype(np.float16), tuple(found)


def _evidence(one: Sighting) -> float:
    return one.wanted.sound * one.sight


def _things(sightings: Sequence[Sighting]) -> list[tuple[np.ndarray, list[Sighting]]]:
    """Sightings that cover the same pixels, together: each thing's mask and its names, the surest first."""
    found: list[tuple[np.ndarray, list[Sighting]]] = []
    for one in sorted(sightings, key=lambda one: -_evidence(one)):
        inside = one.mask >= 0.5
        for mask, same in found:
            if one.mask is same[0].mask or (inside & mask).sum() > _SAME * (inside | mask).sum():
                same.append(one)
                break
        else:
            found.append((inside, [one]))
    return found


def without_camera(flow: np.ndarray) -> np.ndarray:
    """The length ``(S, S)`` of motion beyond what an affine map of the whole frame, the camera's, explains.

    The map is fitted by least squares, and once more without the half of the pixels that it explains worst, which
    objects of their own motion are among.

    Args:
        flow: ``(2, S, S)``.
    """
    height, width = flow.shape[1:]
    y, x = np.mgrid[0:height, 0:width]
    places = np.stack([np.ones(height * width), (x / width - 0.5).ravel(), (y / height - 0.5).ravel()], axis=1)
    motion = flow.reshape(2, -1).T.astype(np.float64)
    step = max(1, len(places) // 4096)
    sample, seen = places[::step], motion[::step]
    residual = motion
    kept = np.ones(len(sample), dtype=bool)
    for _ in range(2):
        fit = np.linalg.lstsq(sample[kept], seen[kept], rcond=None)[0]
        off = np.linalg.norm(seen - sample @ fit, axis=1)
        kept = off <= np.median(off)
        residual = motion - places @ fit
    return np.asarray(np.linalg.norm(residual, axis=1).reshape(height, width))


def motion_of(residual: np.ndarray, inside: np.ndarray) -> float:
    """How much more a candidate moves than what is around it: in [0, 1], a half where both move alike.

    Args:
        residual: ``(S, S)``, see `without_camera`.
        inside: ``(S, S)`` bool.
    """
    within = float(residual[inside].mean()) if inside.any() else 0.0
    around = float(residual[~inside].mean()) if not inside.all() else 0.0
    return (within + _STILL) / (within + around + 2 * _STILL)
