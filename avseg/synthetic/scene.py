"""The plan of a scene: who is there, who sounds, where everything is and when it moves. Numbers only."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avseg.synthetic.arrange import draw_area, draw_camera, draw_layer, per_second, place
from avseg.synthetic.backgrounds import KINDS
from avseg.synthetic.knobs import Knobs
from avseg.synthetic.layers import Camera, Curve, Layer
from avseg.synthetic.motion import MOTIONS, amplitude, move, per_frame, smooth_noise
from avseg.synthetic.objects import Category, ObjectSet, Picture, Recording
from avseg.synthetic.sounds import NOMINAL_DB, Ambience, Track, draw_track, envelope

SUBSETS = ("s4", "ms3")
SPLITS = ("train", "val", "test", "distant")


@dataclass(frozen=True)
class HeldOut:
    """What training never shows: names of pictures, and whole categories."""

    pictures: frozenset[str]
    categories: frozenset[str]


@dataclass
class SceneObject:
    """One object that could sound."""

    category: str
    layer: Layer
    sounding: tuple[bool, ...]  # each second
    moving: tuple[bool, ...]
    motion: str
    track: Track
    follows: Track  # whose loudness it moves with while it is silent
    unseen_picture: bool
    unseen_object: bool


@dataclass
class Scene:
    """A planned video."""

    name: str
    subset: str
    split: str
    index: int
    category: str  # of the first object that sounds
    objects: list[SceneObject]
    layers: list[Layer]  # objects and clutter, far to near
    camera: Camera
    background: str
    light: Curve
    blur: float
    grain: float
    ambience: Ambience
    snr_db: float
    seed: int

    @property
    def depth(self) -> list[int]:
        """For every object its place from far (0) to near, among all layers."""
        places = {id(layer): number for number, layer in enumerate(self.layers)}
        return [places[id(thing.layer)] for thing in self.objects]


def hold_out(objects: ObjectSet, knobs: Knobs, seed: int) -> HeldOut:
    """Choose the pictures and categories that training never shows.

    Every category that training shows keeps a picture there, so a category with one picture loses none.
    """
    rng = np.random.default_rng([seed, 77])
    count = round(knobs.unseen_objects * len(objects.categories))
    if knobs.unseen_objects > 0 and len(objects.categories) >= 8:
        count = max(1, count)
    unseen = {objects.categories[i].name for i in rng.permutation(len(objects.categories))[:count]}
    seen = [c for c in objects.categories if c.name not in unseen]
    wanted = round(knobs.unseen_pictures * sum(len(c.pictures) for c in seen))
    spare = {c.name: [c.pictures[i].name for i in rng.permutation(len(c.pictures))[1:]] for c in seen}
    pictures: list[str] = []
    while len(pictures) < wanted and any(spare.values()):
        for name in rng.permutation([n for n, left in spare.items() if left]):
            if len(pictures) < wanted:
                pictures.append(spare[name].pop())
    return HeldOut(frozenset(pictures), frozenset(unseen))


def plan_scene(
    objects: ObjectSet,
    held_out: HeldOut,
    knobs: Knobs,
    subset: str,
    split: str,
    index: int,
    seed: int,
    photographs: int = 0,
) -> Scene:
    """Plan one video. The same arguments give the same plan.

    Args:
        objects: the object set.
        held_out: what training scenes must not show.
        knobs: the settings.
        subset: ``s4`` or ``ms3``.
        split: ``train``, ``val``, ``test`` or ``distant``.
        index: the video's number within the split.
        seed: the benchmark's seed.
        photographs: how many photographs there are for backgrounds; 0 for procedural backgrounds.
    """
    key = [seed, SUBSETS.index(subset), SPLITS.index(split)]
    rng = np.random.default_rng([*key, index])
    place_index, visit = divmod(index, knobs.visits)
    here = np.random.default_rng([*key, place_index, 29])  # what all visits to a place have in common
    training = split in ("train", "distant")
    cast = _who(here, objects, held_out if training else HeldOut(frozenset(), frozenset()), knobs, key, place_index)
    sounding = _who_sounds(rng, len(cast), subset, visit, knobs)
    ambience, snr, tracks, others = _what_is_heard(rng, cast, sounding, objects, held_out, training, knobs)
    moving, motions = _who_moves(rng, sounding, subset, knobs)
    camera = draw_camera(rng, knobs)
    areas = [draw_area(here, knobs.area, knobs) for _ in cast]
    standing = [draw_layer(here, p, area, knobs) for (_, p), area in zip(cast, areas, strict=True)]
    clutter = []
    if objects.clutter:
        for _ in range(int(here.integers(knobs.clutter[0], knobs.clutter[1] + 1))):
            picture = objects.clutter[int(here.integers(len(objects.clutter)))]
            clutter.append(draw_layer(here, picture, draw_area(here, knobs.clutter_area, knobs), knobs))
    for i, layer in enumerate(standing):
        loudness = np.where(per_frame(sounding[i], knobs), envelope(tracks[i], knobs), envelope(others[i], knobs))
        size = math.sqrt(areas[i])
        move(rng, layer, motions[i], amplitude(rng, loudness, moving[i], knobs), size, knobs)
    for layer in clutter:
        if rng.random() < knobs.motion_clutter:
            kind = MOTIONS[int(rng.integers(len(MOTIONS)))]
            loudness = smooth_noise(rng, knobs.frames, 6)
            size = math.sqrt(float(np.mean(knobs.clutter_area)))
            move(rng, layer, kind, amplitude(rng, loudness, [True] * knobs.seconds, knobs), size, knobs)
    layers = place(here, standing, clutter, camera, knobs)
    planned = [
        SceneObject(
            category=category.name,
            layer=standing[i],
            sounding=sounding[i],
            moving=moving[i],
            motion=motions[i],
            track=tracks[i],
            follows=others[i],
            unseen_picture=picture.name in held_out.pictures,
            unseen_object=category.name in held_out.categories,
        )
        for i, (category, picture) in enumerate(cast)
    ]
    kinds = ("photo",) if photographs else KINDS
    light = np.exp(per_second(rng, knobs) * 0.08 * knobs.appearance)
    scene = Scene(
        name=video_name(seed, subset, split, index),
        subset=subset,
        split=split,
        index=index,
        category=next(
            (c.name for (c, _), seconds in zip(cast, sounding, strict=True) if any(seconds)), cast[0][0].name
        ),
        objects=planned,
        layers=layers,
        camera=camera,
        background=kinds[int(here.integers(len(kinds)))],
        light=light,
        blur=float(rng.uniform(*knobs.blur)),
        grain=float(rng.uniform(*knobs.grain)),
        ambience=ambience,
        snr_db=snr,
        seed=int(here.integers(2**31)),
    )
    order = rng.permutation(len(planned))
    scene.objects = [planned[int(i)] for i in order]
    return scene


def video_name(seed: int, subset: str, split: str, index: int) -> str:
    """Eleven characters like a YouTube id's, a function of the arguments."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    rng = np.random.default_rng([seed, SUBSETS.index(subset), SPLITS.index(split), index, 11])
    return "".join(letters[int(i)] for i in rng.integers(0, 64, 11))


def describe(scene: Scene, counts: npt.NDArray[np.int64], knobs: Knobs) -> dict[str, Any]:
    """The facts of a scene for `scenes.jsonl`.

    Args:
        scene: the plan.
        counts: (seconds, objects, 2) pixels visible and inside the picture, at the five labelled moments.
        knobs: the settings.
    """
    pixels = knobs.size**2
    entries = []
    for i, thing in enumerate(scene.objects):
        track = thing.track
        entries.append(
            {
                "object": i + 1,
                "category": thing.category,
                "picture": thing.layer.picture.name,
                "recording": track.recording.name,
                "sounding": list(thing.sounding),
                "moving": list(thing.moving),
                "motion": thing.motion,
                "follows": thing.follows.recording.name,
                "area": [round(int(c) / pixels, 4) for c in counts[:, i, 1]],
                "visible": [round(int(c) / pixels, 4) for c in counts[:, i, 0]],
                "depth": scene.depth[i],
                "unseen_picture": thing.unseen_picture,
                "unseen_object": thing.unseen_object,
                "stretches": [[round(v, 3) for v in part] for part in track.stretches],
                "stretches_shared": track.shared,
                "windows": [[round(v, 3) for v in (w.at, w.start, w.length)] for w in track.windows],
                "level_db": round(track.level_db, 2),
                "semitones": round(12 * math.log2(track.speed), 2),
                "reverb": round(track.reverb, 3),
            }
        )
    return {
        "name": scene.name,
        "subset": scene.subset,
        "split": scene.split,
        "index": scene.index,
        "category": scene.category,
        "snr_db": round(scene.snr_db, 2),
        "background": scene.background,
        "camera_still": scene.camera.still,
        "blur": round(scene.blur, 2),
        "grain": round(scene.grain, 2),
        "layers": len(scene.layers),
        "clutter": [layer.picture.name for layer in scene.layers if not layer.picture.category],
        "objects": entries,
    }


def _who(
    rng: np.random.Generator, objects: ObjectSet, hidden: HeldOut, knobs: Knobs, key: Sequence[int], index: int
) -> list[tuple[Category, Picture]]:
    """The cast: different categories, the first one in turn so that a split has each equally often."""
    known = [c for c in objects.categories if c.name not in hidden.categories]
    turn = np.random.default_rng([*key, 23, index // len(known)]).permutation(len(known))
    first = known[int(turn[index % len(known)])]
    count = min(len(known), int(rng.integers(knobs.objects_per_scene[0], knobs.objects_per_scene[1] + 1)))
    rest = [c for c in known if c is not first]
    cast = [first, *(rest[int(i)] for i in rng.permutation(len(rest))[: count - 1])]
    choice = []
    for category in cast:
        pictures = [p for p in category.pictures if p.name not in hidden.pictures]
        choice.append((category, pictures[int(rng.integers(len(pictures)))]))
    return choice


def _who_sounds(rng: np.random.Generator, count: int, subset: str, visit: int, knobs: Knobs) -> list[tuple[bool, ...]]:
    """For every object which seconds it sounds. In S4 the objects of a place take turns from visit to visit."""
    if subset == "s4":
        return [(i == visit % count,) * knobs.seconds for i in range(count)]
    low, high = (min(n, count) for n in knobs.sounding)
    sets: list[tuple[int, ...]] = [()]
    weights = [knobs.silent_seconds]
    for size in range(low, high + 1):
        same = list(itertools.combinations(range(count), size))
        sets += same
        weights += [(1 - knobs.silent_seconds) / (high - low + 1) / len(same)] * len(same)
    p = np.array(weights)
    # The set differs from the second before. With steps proportional to p, p (1 - p) is stationary, so that
    # the first second is distributed like the others.
    start = p * (1 - p) if (p * (1 - p)).sum() > 0 else p
    current = int(rng.choice(len(sets), p=start / start.sum()))
    chosen = [current]
    for _ in range(knobs.seconds - 1):
        step = p.copy()
        step[current] = 0
        if step.sum() > 0:
            current = int(rng.choice(len(sets), p=step / step.sum()))
        chosen.append(current)
    return [tuple(i in sets[c] for c in chosen) for i in range(count)]


def _what_is_heard(
    rng: np.random.Generator,
    cast: Sequence[tuple[Category, Picture]],
    sounding: Sequence[tuple[bool, ...]],
    objects: ObjectSet,
    held_out: HeldOut,
    training: bool,
    knobs: Knobs,
) -> tuple[Ambience, float, list[Track], list[Track]]:
    levels = NOMINAL_DB + rng.uniform(-knobs.loudness_db, knobs.loudness_db, len(cast))
    snr = float(rng.uniform(*knobs.snr_db))
    heard = [level for level, seconds in zip(levels, sounding, strict=True) if any(seconds)]
    noise_db = float(np.mean(heard) if heard else NOMINAL_DB) - snr
    ambience = Ambience(noise_db, float(rng.uniform(0.5, 1.5)), int(rng.integers(2**31)))
    known = [c for c in objects.categories if not (training and c.name in held_out.categories)]
    tracks, others = [], []
    for (category, _), seconds, level in zip(cast, sounding, levels, strict=True):
        tracks.append(draw_track(rng, _one(rng, category), training, seconds, knobs, float(level), noise_db))
        strangers = [c for c in known if c is not category]
        other = strangers[int(rng.integers(len(strangers)))] if strangers else category
        every = (True,) * knobs.seconds
        others.append(draw_track(rng, _one(rng, other), training, every, knobs, float(level), noise_db))
    return ambience, snr, tracks, others


def _one(rng: np.random.Generator, category: Category) -> Recording:
    return category.recordings[int(rng.integers(len(category.recordings)))]


def _who_moves(
    rng: np.random.Generator, sounding: Sequence[tuple[bool, ...]], subset: str, knobs: Knobs
) -> tuple[list[tuple[bool, ...]], list[str]]:
    """For every object which seconds it moves, and how. In S4 an object moves throughout or not at all."""
    moving, motions = [], []
    for seconds in sounding:
        draws = rng.random(knobs.seconds)
        if subset == "s4":
            draws[:] = draws[0]
        chance = np.where(seconds, knobs.motion_sounding, knobs.motion_silent)
        moving.append(tuple(bool(v) for v in draws < chance))
        motions.append(MOTIONS[int(rng.integers(len(MOTIONS)))])
    return moving, motions
