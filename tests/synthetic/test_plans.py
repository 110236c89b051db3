"""What must hold before any training: nothing but sound, look and motion tells the sounding object from the others.

All on plans of scenes, hundreds of numbers with fixed seeds; tolerances are those of the samples' own errors.
"""

import itertools
from collections.abc import Iterable

import numpy as np
import pytest

from avseg.media.audio import log_mel_examples
from avseg.synthetic import Knobs, ObjectSet, load_objects, make_knobs
from avseg.synthetic.layers import alpha_patch, index_map
from avseg.synthetic.motion import MOTIONS, amplitude, smooth_noise, stationary
from avseg.synthetic.objects import read_recording
from avseg.synthetic.scene import HeldOut, Scene, hold_out, plan_scene, video_name
from avseg.synthetic.sounds import envelope, mix, render_ambience, render_track, stretches_of

SCENES = 120
SIDE = 48
SURE = 3.5  # standard errors


@pytest.fixture(scope="module")
def knobs() -> Knobs:
    return make_knobs("full")


@pytest.fixture(scope="module")
def objects() -> ObjectSet:
    return load_objects()


@pytest.fixture(scope="module")
def held_out(objects: ObjectSet, knobs: Knobs) -> HeldOut:
    return hold_out(objects, knobs, 0)


@pytest.fixture(scope="module")
def scenes(objects: ObjectSet, held_out: HeldOut, knobs: Knobs) -> list[Scene]:
    return [plan_scene(objects, held_out, knobs, "s4", "train", i, 0) for i in range(SCENES)]


@pytest.fixture(scope="module")
def counts(scenes: list[Scene], knobs: Knobs) -> list[np.ndarray]:
    """Pixels (seconds, objects, 2) of every scene: visible, and inside the picture."""
    found = []
    for scene in scenes:
        patches = [alpha_patch(layer, SIDE) for layer in scene.layers]
        layers = [o.layer for o in scene.objects]
        both = [index_map(scene.layers, scene.camera, patches, layers, f, SIDE)[1] for f in knobs.mask_frames()]
        found.append(np.stack(both))
    return found


def same_mean(first: Iterable[float], second: Iterable[float]) -> float:
    """Difference of two samples' means in standard errors."""
    a, b = np.asarray(list(first)), np.asarray(list(second))
    return float(abs(a.mean() - b.mean()) / np.sqrt(a.var() / len(a) + b.var() / len(b)))


def test_the_first_second_is_like_the_others(scenes: list[Scene], knobs: Knobs) -> None:
    at = knobs.mask_frames()
    quantities = {
        "x": lambda o: o.layer.x[at],
        "y": lambda o: o.layer.y[at],
        "area": lambda o: np.log(o.layer.scale[at]) * 2,
        "angle": lambda o: o.layer.angle[at],
        "light": lambda o: np.log(o.layer.gain[at]),
    }
    for name, measure in quantities.items():
        values = np.stack([measure(o) for scene in scenes for o in scene.objects])
        assert same_mean(values[:, 0], values[:, 1:].reshape(-1)) < SURE, name
        change = np.abs(values - values.mean(1, keepdims=True))  # how far from its own mean
        assert same_mean(change[:, 0], change[:, 4]) < SURE, name
        middle = np.abs(values[:, 1:4] - values.mean(1, keepdims=True)).mean(1)
        assert same_mean(change[:, [0, 4]].mean(1), middle) < 2 * SURE, name


def test_the_first_second_is_as_loud_as_the_others(scenes: list[Scene], knobs: Knobs) -> None:
    levels = []
    for scene in scenes[:80]:
        source = next(o for o in scene.objects if all(o.sounding))
        sound = render_track(source.track, source.sounding, knobs).reshape(knobs.seconds, -1)
        levels.append(10 * np.log10((sound.astype(float) ** 2).mean(1)))
    values = np.stack(levels)
    own = values - values.mean(1, keepdims=True)
    assert abs(own[:, 0].mean()) < SURE * own[:, 0].std() / np.sqrt(len(own))
    assert same_mean(np.abs(own[:, 0]), np.abs(own[:, 1:]).mean(1)) < SURE


def test_appearance_is_a_stationary_ar1() -> None:
    knobs, rng = make_knobs("full"), np.random.default_rng(0)
    values = np.stack([stationary(rng, knobs)[knobs.mask_frames()] for _ in range(3000)])
    assert values.mean(0) == pytest.approx(np.zeros(5), abs=0.08)
    assert values.std(0) == pytest.approx(np.ones(5), abs=0.06)
    for k in range(4):
        assert np.corrcoef(values[:, k], values[:, k + 1])[0, 1] == pytest.approx(0.5, abs=0.06)


def test_sounding_and_silent_objects_look_alike(scenes: list[Scene], counts: list[np.ndarray], knobs: Knobs) -> None:
    sounding: dict[str, list[float]] = {"area": [], "depth": [], "visible": [], "parallax": [], "speed": []}
    silent: dict[str, list[float]] = {name: [] for name in sounding}
    for scene, pixels in zip(scenes, counts, strict=True):
        for i, thing in enumerate(scene.objects):
            into = sounding if all(thing.sounding) else silent
            # the first slot's share of categories is even in a split, the others' by chance: compare the placing
            into["area"].append(float(np.log(np.mean(thing.layer.scale) ** 2)))
            into["depth"].append(scene.depth[i] / len(scene.layers))
            into["visible"].append(float((pixels[:, i, 0] / np.maximum(pixels[:, i, 1], 1)).mean()))
            into["parallax"].append(thing.layer.parallax)
            drift = np.abs(np.diff(thing.layer.gain)).mean()
            into["speed"].append(float(drift))
    for name in sounding:
        assert same_mean(sounding[name], silent[name]) < SURE, name


def test_objects_have_the_wanted_size_and_can_be_seen(
    scenes: list[Scene], counts: list[np.ndarray], knobs: Knobs
) -> None:
    for scene, pixels in zip(scenes, counts, strict=True):
        assert knobs.objects_per_scene[0] <= len(scene.objects) <= knobs.objects_per_scene[1]
        assert len({o.category for o in scene.objects}) == len(scene.objects)
        assert (pixels[..., 1] / SIDE**2 < knobs.area[1] * 1.1).all()
        assert (pixels[..., 0] > 0).all()
    inside = np.concatenate([p[..., 1].reshape(-1) for p in counts]) / SIDE**2
    assert np.mean(inside > knobs.area[0] * 0.9) > 0.95


def test_enough_frames_have_occlusion(counts: list[np.ndarray]) -> None:
    hidden = np.concatenate([(1 - p[..., 0] / np.maximum(p[..., 1], 1)).max(1) for p in counts])
    assert np.mean(hidden > 0.05) > 0.3


def test_movers_are_as_often_sounding_as_was_set(scenes: list[Scene], knobs: Knobs) -> None:
    rates = {True: knobs.motion_sounding, False: knobs.motion_silent}
    for sounding, rate in rates.items():
        moves = [all(o.moving) for s in scenes for o in s.objects if all(o.sounding) == sounding]
        assert abs(np.mean(moves) - rate) < SURE * np.sqrt(rate * (1 - rate) / len(moves))
        kinds = [o.motion for s in scenes for o in s.objects if all(o.sounding) == sounding]
        assert set(kinds) == set(MOTIONS)


def test_a_silent_object_follows_anothers_sound(scenes: list[Scene]) -> None:
    for scene in scenes:
        for thing in scene.objects:
            assert thing.follows.recording.category != thing.category
            assert thing.track.recording.category == thing.category


def test_still_objects_keep_still_and_movers_move(objects: ObjectSet, held_out: HeldOut) -> None:
    knobs = make_knobs("full", appearance=0.0, clutter=(0, 0))
    for i in range(8):
        for thing in plan_scene(objects, held_out, knobs, "s4", "train", i, 0).objects:
            layer = thing.layer
            curves = (layer.x, layer.y, layer.angle, np.log(layer.scale), layer.bend)
            assert (sum(float(c.std()) for c in curves) > 1e-4) == all(thing.moving)


def test_amplitude_correlates_with_loudness_as_set() -> None:
    rng = np.random.default_rng(3)
    for wanted in (0.0, 0.5, 1.0):
        knobs = make_knobs("full", loudness_correlation=wanted)
        found = []
        for _ in range(150):
            loudness = np.abs(smooth_noise(rng, knobs.frames, 5)) + 0.2
            found.append(np.corrcoef(amplitude(rng, loudness, [True] * 5, knobs), loudness)[0, 1])
        assert np.mean(found) == pytest.approx(wanted, abs=0.08)


def test_every_sounding_second_is_audible(scenes: list[Scene], knobs: Knobs) -> None:
    for scene in scenes[:80]:
        source = next(o for o in scene.objects if all(o.sounding))
        sound = render_track(source.track, source.sounding, knobs).reshape(knobs.seconds, -1)
        levels = 10 * np.log10((sound.astype(float) ** 2).mean(1))
        assert (levels > knobs.audible_db).all()
        noise = render_ambience(scene.ambience, knobs).astype(float)
        whole = 10 * np.log10((sound.astype(float) ** 2).mean() / (noise**2).mean())
        assert whole == pytest.approx(scene.snr_db, abs=0.1)
        assert knobs.snr_db[0] <= scene.snr_db <= knobs.snr_db[1]


def test_a_listener_of_the_first_second_knows_the_others_as_well(objects: ObjectSet) -> None:
    knobs = make_knobs("small")
    few = objects.first(knobs.categories)
    held_out = hold_out(few, knobs, 0)
    heard, who = [], []
    for i in range(60):
        scene = plan_scene(few, held_out, knobs, "s4", "train", i, 0)
        tracks = [(o.track, o.sounding) for o in scene.objects if any(o.sounding)]
        examples = log_mel_examples(mix(tracks, scene.ambience, knobs)).reshape(-1, 96, 64)[:5]
        heard.append(np.concatenate([examples.mean(1), examples.std(1)], -1))
        who.append(scene.category)
    features, names = np.stack(heard), np.array(who)
    features = (features - features[:, 0].mean(0)) / features[:, 0].std(0)
    right = []
    for second in range(5):
        distance = ((features[:, second, None] - features[None, :, 0]) ** 2).sum(-1)
        distance[np.arange(len(names)), np.arange(len(names))] = np.inf  # never its own video
        right.append(float(np.mean(names[distance.argmin(1)] == names)))
    assert right[0] > 0.75
    assert np.mean(right[1:]) > right[0] - 0.08


def test_training_never_shows_what_is_held_out(objects: ObjectSet, held_out: HeldOut, knobs: Knobs) -> None:
    assert held_out.pictures
    assert held_out.categories
    seen: dict[str, set[str]] = {"train": set(), "test": set()}
    categories: dict[str, set[str]] = {"train": set(), "test": set()}
    followed: set[str] = set()
    for subset, split, into, count in (
        ("s4", "train", "train", 40),
        ("ms3", "distant", "train", 10),
        ("s4", "test", "test", 40),
    ):
        for i in range(count):
            scene = plan_scene(objects, held_out, knobs, subset, split, i, 0)
            seen[into] |= {o.layer.picture.name for o in scene.objects}
            categories[into] |= {o.category for o in scene.objects}
            if into == "train":
                followed |= {o.follows.recording.category for o in scene.objects}
            for thing in scene.objects:
                assert thing.unseen_picture == (thing.layer.picture.name in held_out.pictures)
                assert thing.unseen_object == (thing.category in held_out.categories)
    assert not seen["train"] & held_out.pictures
    assert not (categories["train"] | followed) & held_out.categories
    assert seen["test"] & held_out.pictures
    assert categories["test"] & held_out.categories
    # every category that training knows keeps a picture there
    for category in objects.categories:
        if category.name not in held_out.categories:
            assert any(p.name not in held_out.pictures for p in category.pictures)


def test_training_and_test_hear_different_stretches(objects: ObjectSet, held_out: HeldOut, knobs: Knobs) -> None:
    for category in objects.categories:
        for recording in category.recordings:
            training, shared = stretches_of(recording, True, knobs)
            testing, _ = stretches_of(recording, False, knobs)
            length = len(read_recording(recording, knobs.sample_rate)) / knobs.sample_rate
            assert not shared
            assert all(0 <= a < b <= length for a, b in training + testing)
            assert all(b <= c or d <= a for a, b in training for c, d in testing)
    for split in ("train", "test"):
        for i in range(15):
            scene = plan_scene(objects, held_out, knobs, "s4", split, i, 0)
            for thing in scene.objects:
                allowed, _ = stretches_of(thing.track.recording, split == "train", knobs)
                for window in thing.track.windows:
                    end = window.start + window.length * thing.track.speed
                    assert any(a - 1e-6 <= window.start and end <= b + 1e-6 for a, b in allowed)


def test_short_recordings_are_shared_and_say_so(objects: ObjectSet) -> None:
    recording = objects.categories[0].recordings[0]
    stretches, shared = stretches_of(recording, True, make_knobs("full", split_seconds=60.0))
    assert shared
    assert len(stretches) == 1


def test_a_recordings_windows_begin_anywhere(scenes: list[Scene]) -> None:
    starts = [w.start for s in scenes for o in s.objects for w in o.track.windows]
    assert len({round(s, 3) for s in starts}) > 0.5 * len(starts)
    assert max(starts) > 5


def test_ms3_sounds_change_every_second(objects: ObjectSet, held_out: HeldOut, knobs: Knobs) -> None:
    planned = [plan_scene(objects, held_out, knobs, "ms3", "train", i, 0) for i in range(60)]
    silent = np.zeros(knobs.seconds)
    moves: dict[bool, list[bool]] = {True: [], False: []}
    for scene in planned:
        sets = [tuple(o.sounding[k] for o in scene.objects) for k in range(knobs.seconds)]
        assert all(a != b for a, b in itertools.pairwise(sets))
        assert all(sum(s) <= 3 for s in sets)
        silent += [not any(s) for s in sets]
        for thing in scene.objects:
            for sounding, moving in zip(thing.sounding, thing.moving, strict=True):
                moves[sounding].append(moving)
    assert 0.05 < silent.sum() / (60 * knobs.seconds) < 0.3
    assert silent[0] / 60 == pytest.approx(silent[1:].mean() / 60, abs=0.17)
    for sounding, rate in ((True, knobs.motion_sounding), (False, knobs.motion_silent)):
        error = np.sqrt(rate * (1 - rate) / len(moves[sounding]))
        assert abs(np.mean(moves[sounding]) - rate) < SURE * error


def test_a_split_has_each_category_equally_often(scenes: list[Scene]) -> None:
    counts = np.unique([s.category for s in scenes], return_counts=True)[1]
    assert counts.max() - counts.min() <= 1


def test_visits_to_a_place_take_turns_in_what_sounds(objects: ObjectSet, held_out: HeldOut) -> None:
    knobs = make_knobs("full", visits=2, objects_per_scene=2)
    for place in range(8):
        first, second = (plan_scene(objects, held_out, knobs, "s4", "train", 2 * place + visit, 0) for visit in (0, 1))
        assert {o.layer.picture.name for o in first.objects} == {o.layer.picture.name for o in second.objects}
        assert first.category != second.category
        assert first.ambience != second.ambience


def test_a_plan_depends_on_its_own_number_only(objects: ObjectSet, held_out: HeldOut, knobs: Knobs) -> None:
    first, again, other = (plan_scene(objects, held_out, knobs, "s4", "train", i, 0) for i in (5, 5, 6))
    assert np.array_equal(first.objects[0].layer.x, again.objects[0].layer.x)
    assert first.ambience == again.ambience
    assert first.name == again.name != other.name
    assert first.ambience != other.ambience


def test_names_look_like_youtube_ids() -> None:
    names = [video_name(0, "s4", "train", i) for i in range(400)]
    assert all(len(n) == 11 for n in names)
    assert len(set(names)) == 400
    assert any(n.startswith("-") for n in names)
    assert any("_" in n for n in names)


def test_envelope_follows_the_sound(scenes: list[Scene], knobs: Knobs) -> None:
    correlations = []
    for scene in scenes[:20]:
        track = scene.objects[0].track
        sound = render_track(track, (True,) * 5, knobs)
        level = np.sqrt((sound.reshape(knobs.frames, -1).astype(float) ** 2).mean(1))
        correlations.append(np.corrcoef(level, envelope(track, knobs))[0, 1])
    assert np.median(correlations) > 0.7
