"""The generated benchmark on disk: the layout, the truth, the same files again."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import read_videos

from avseg.errors import AvsegError
from avseg.media.audio import load_audio
from avseg.media.video import probe, read_frames
from avseg.synthetic import load_objects, make_knobs, read_benchmark, read_scenes, write_benchmark
from avseg.synthetic.baselines import baselines, jaccard, motion_energy
from avseg.synthetic.paint import Painter
from avseg.synthetic.scene import hold_out, plan_scene
from avseg.synthetic.write import mask_file, scene_frames, true_mask, video_file

TINY: dict[str, Any] = {"edition": "small", "size": 64, "categories": 4}


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def read_png(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


@pytest.fixture(scope="module")
def s4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "s4"
    write_benchmark(root, "s4", videos=6, val=1, test=2, workers=1, **TINY)
    return root


@pytest.fixture(scope="module")
def ms3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "ms3"
    write_benchmark(root, "ms3", videos=3, distant=2, workers=1, **TINY)
    return root


def test_s4_has_avsbenchs_layout(s4: Path) -> None:
    videos = read_videos(s4, "s4")
    assert [v[0].split for v in videos] == ["train"] * 3 + ["val"] + ["test"] * 2
    with open(s4 / "Single-source" / "s4_meta_data.csv", newline="") as file:
        assert next(csv.reader(file)) == ["name", "start", "category", "split"]
    for video in videos:
        info = probe(video[0].raw)
        assert (info.width, info.height) == (64, 64)
        assert info.has_audio
        assert info.fps == pytest.approx(25)
        assert info.duration == pytest.approx(5, abs=0.05)
        assert len(video[0].video) == 11
        for frame in (frame for frame in video if frame.labelled):
            mask = read_png(frame.mask)
            assert mask.shape == (64, 64)
            assert set(np.unique(mask)) == {0, 255}


def test_the_hidden_truth_is_not_published(s4: Path) -> None:
    for video in read_videos(s4, "s4"):
        hidden = [k for k in range(1, 6) if video[k - 1].hidden_mask.exists()]
        assert hidden == ([2, 3, 4, 5] if video[0].split == "train" else [])
        published = sorted(p.name for p in video[0].mask.parent.iterdir())
        assert published == [frame.mask.name for frame in video if frame.labelled]


def test_masks_say_where_the_sounding_object_is_visible(s4: Path) -> None:
    for record in read_scenes(s4, "s4"):
        video = scene_frames(s4, record)
        sounding = [o["object"] for o in record["objects"] if all(o["sounding"])]
        assert len(sounding) == 1
        assert len({o["category"] for o in record["objects"]}) == len(record["objects"])
        assert record["objects"][sounding[0] - 1]["category"] == video[0].category
        for k in range(1, 6):
            seen = read_png(video[k - 1].path("hidden_object"))
            path = mask_file(video[k - 1])
            assert np.array_equal(read_png(path) > 0, seen == sounding[0])
            assert (seen == sounding[0]).mean() == pytest.approx(
                record["objects"][sounding[0] - 1]["visible"][k - 1], abs=1e-3
            )


def test_the_video_shows_the_masks_moment(tmp_path: Path) -> None:
    settings = {**TINY, "crf": 1, "grain": (0, 0), "motion_amplitude": (2, 2), "camera_still": 0.0, "camera": 4.0}
    write_benchmark(tmp_path, "s4", videos=1, workers=1, **settings)
    knobs = make_knobs(**settings)
    objects = load_objects(None, knobs.categories)
    scene = plan_scene(objects, hold_out(objects, knobs, 0), knobs, "s4", "train", 0, 0)
    painter = Painter(scene, knobs, objects.clutter)
    path = read_videos(tmp_path, "s4")[0][0].raw
    for picture, frame in zip(read_frames(path, [15 / 16, 2 + 15 / 16]), (23, 73), strict=True):
        near = range(frame - 3, frame + 4)
        errors = {i: float(np.abs(painter.frame(i).astype(float) - picture).mean()) for i in near}
        assert min(errors, key=errors.__getitem__) == frame


def test_the_picture_changes_inside_the_mask_and_nowhere_else() -> None:
    knobs = make_knobs(**TINY, clutter=(0, 0), shadow=0.0, blur=(0, 0), grain=(0, 0), feather=(0.4, 0.4))
    objects = load_objects(None, knobs.categories)
    scene = plan_scene(objects, hold_out(objects, knobs, 0), knobs, "s4", "train", 1, 0)
    painter = Painter(scene, knobs, objects.clutter)
    maps, _ = painter.index_maps()
    source = next(o for o in scene.objects if all(o.sounding))
    frame = knobs.mask_frames()[2]
    with_it = painter.frame(frame).astype(float)
    source.layer.x = source.layer.x + 9  # out of the picture
    changed = np.abs(with_it - painter.frame(frame)).max(-1) > 8
    mask = true_mask(scene, maps[2], 2) > 0
    assert changed[mask].mean() > 0.8
    near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not changed[~near].any()


def test_files_are_the_same_for_any_number_of_workers(s4: Path, tmp_path: Path) -> None:
    write_benchmark(tmp_path / "again", "s4", videos=6, val=1, test=2, workers=2, **TINY)
    first, second = files(s4), files(tmp_path / "again")
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_another_seed_gives_other_scenes(s4: Path, tmp_path: Path) -> None:
    info = write_benchmark(tmp_path / "b", "s4", videos=1, seed=1, workers=1, **TINY)
    assert info.hash != read_benchmark(s4, "s4").hash
    assert {v[0].video for v in read_videos(tmp_path / "b", "s4")}.isdisjoint(v[0].video for v in read_videos(s4, "s4"))


def test_what_was_stopped_goes_on_where_it_was(s4: Path, tmp_path: Path) -> None:
    root = tmp_path / "stopped"
    calls: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_benchmark(root, "s4", videos=6, val=1, test=2, workers=1, progress=stop, **TINY)
    assert not (root / "Single-source" / "s4_meta_data.csv").exists()
    done = {p: p.stat().st_mtime_ns for p in root.rglob("*.mp4")}
    assert len(done) == 2
    calls.clear()
    write_benchmark(root, "s4", videos=6, val=1, test=2, workers=1, progress=lambda *now: calls.append(now), **TINY)
    assert calls[0] == (2, 6)
    assert calls[-1] == (6, 6)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert files(root) == files(s4)


@pytest.mark.parametrize(
    "change",
    [{"subset": None}, {"split": "../x"}, {"name": "../x"}, {"index": "1"}, {"category": 5}, {"subset": "ms3"}],
)
def test_a_damaged_scene_is_named(s4: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    root = tmp_path / "copy"
    shutil.copytree(s4, root)
    scene = next(root.rglob("scene.json"))
    facts = json.loads(scene.read_text()) | change
    for damaged in (facts, {}, [facts], None):
        scene.write_text(json.dumps(damaged))
        with pytest.raises(AvsegError, match=r"scene\.json .*: remove the folder that it is in\."):
            write_benchmark(root, "s4", videos=6, val=1, test=2, workers=1, **TINY)
    listed = root / "Single-source" / "scenes.jsonl"
    listed.write_text(json.dumps({"name": "a", "split": "test"}) + "\n")
    with pytest.raises(AvsegError, match=r"scenes\.jsonl holds what is no scene: delete it"):
        baselines(root, "s4", "test")


def test_other_settings_in_the_same_folder_are_refused(s4: Path) -> None:
    before = files(s4)
    with pytest.raises(AvsegError, match="other settings"):
        write_benchmark(s4, "s4", videos=6, val=1, test=2, workers=1, **{**TINY, "motion_silent": 0.1})
    assert files(s4) == before


def test_a_folder_of_someone_elses_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Single-source" / "s4_data").mkdir(parents=True)
    with pytest.raises(AvsegError, match="not generated"):
        write_benchmark(tmp_path, "s4", videos=3, workers=1, **TINY)


def test_benchmark_json_tells_what_it_is(s4: Path) -> None:
    info = read_benchmark(s4, "s4")
    stored = json.loads((s4 / "benchmark.json").read_text())["s4"]
    assert stored["hash"] == info.hash
    assert stored["version"] == info.version
    assert info.knobs == make_knobs(**TINY)
    assert info.counts == {"train": 3, "val": 1, "test": 2}
    assert info.objects == "procedural"
    assert len(info.categories) == 4
    with pytest.raises(AvsegError, match="no generated ms3"):
        read_benchmark(s4, "ms3")


def test_ms3_has_its_own_layout_with_changing_sources(ms3: Path) -> None:
    videos = read_videos(ms3, "ms3")
    assert [v[0].split for v in videos] == ["train", "val", "test"]
    records = {r["name"]: r for r in read_scenes(ms3, "ms3")}
    for video in videos:
        assert video[0].raw == ms3 / "Multi-sources" / "ms3_data" / "raw_videos" / f"{video[0].video}.mp4"
        assert video[0].raw.is_file()
        things = records[video[0].video]["objects"]
        for k in range(1, 6):
            seen = read_png(video[k - 1].path("hidden_object"))
            loud = [o["object"] for o in things if o["sounding"][k - 1]]
            assert np.array_equal(read_png(video[k - 1].mask) > 0, np.isin(seen, loud))
        assert len({tuple(o["sounding"][k] for o in things) for k in range(5)}) > 1


def test_distant_videos_come_in_vggsounds_form(ms3: Path) -> None:
    distant = [r for r in read_scenes(ms3, "ms3") if r["split"] == "distant"]
    rows = list(csv.reader((ms3 / "VGGSound" / "vggsound.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == [r["name"] for r in distant]
    index = list(csv.DictReader((ms3 / "MS3_Extend" / "index.csv").read_text().splitlines()))
    for number, (record, row) in enumerate(zip(distant, index, strict=True)):
        assert row == {"n": str(number), "video": f"VGGSound/{record['name']}_000000.mp4"}
        assert probe(ms3 / row["video"]).has_audio
        video = scene_frames(ms3, record)
        assert video_file(video[0]) == ms3 / row["video"]
        assert video[0].hidden_mask.is_file()
        assert not video[0].mask.exists()
    assert not {r["name"] for r in distant} & {v[0].video for v in read_videos(ms3, "ms3")}


def test_the_sound_in_the_file_is_the_scenes(s4: Path) -> None:
    for record in read_scenes(s4, "s4")[:3]:
        sound = load_audio(scene_frames(s4, record)[0].raw)
        seconds = sound[: 5 * 16000].reshape(5, 16000)
        assert (20 * np.log10(np.sqrt((seconds**2).mean(1))) > -40).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"subset": "s5"}, "s4 or ms3"),
        ({"videos": 0}, "from 1"),
        ({"videos": 4, "test": 3, "val": 3}, "cannot hold"),
        ({"videos": 12, "test": 8, "val": 4}, "any for training: ask for 13"),
        ({"videos": 8, "test": 7}, "any for training"),
        ({"distant": 3}, "for ms3"),
        ({"edition": "huge"}, "no edition"),
        ({"nonsense": 3}, "no knob"),
        ({"motion_silent": 1.5}, "share"),
        ({"area": (0.3, 0.1)}, "low to high"),
        ({"objects": "nowhere"}, "not a folder"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=words):
        write_benchmark(tmp_path / "x", **{"videos": 3, "workers": 1, **arguments})
    assert not (tmp_path / "x").exists()


def test_baselines_choose_among_true_objects(s4: Path) -> None:
    scores = {b.name: b for b in baselines(s4, "s4", "train")}
    expected = []
    for record in [r for r in read_scenes(s4, "s4") if r["split"] == "train"]:
        # masks of different objects never overlap: the right one scores 1, all others 0
        right = next(i for i, o in enumerate(record["objects"]) if all(o["sounding"]))
        largest = [np.argmax([o["visible"][k] for o in record["objects"]]) == right for k in range(5)]
        expected.append((1 / len(record["objects"]), np.mean(largest)))
    assert scores["random_object"].miou == pytest.approx(np.mean([e[0] for e in expected]), abs=1e-6)
    assert scores["largest_object"].miou == pytest.approx(np.mean([e[1] for e in expected]), abs=1e-6)
    assert scores["random_object"].videos == 3
    for name, column in (("random_object", 0), ("largest_object", 1)):
        error = np.std([e[column] for e in expected], ddof=1) / np.sqrt(3)
        assert scores[name].error == pytest.approx(error, abs=1e-6)
    with pytest.raises(AvsegError, match="no generated"):
        baselines(s4, "s4", "nowhere")


def test_what_moves_with_the_camera_stands_still() -> None:
    seen = np.zeros((6, 9), dtype=np.uint8)
    seen[1:3, 1:3], seen[3:5, 5:8] = 1, 2
    flow = np.tile(np.array([5.0, -1.0])[:, None, None], (1, 6, 9))
    flow[:, seen == 1] += np.array([[3.0], [-4.0]])
    assert motion_energy(flow, seen, 3) == pytest.approx([5, 0, -1]), "the third is out of sight"


def test_motion_alone_finds_the_only_mover(tmp_path: Path) -> None:
    still = {"camera_still": 1.0, "appearance": 0.0, "motion_clutter": 0.0, "motion_amplitude": (1.2, 1.2)}
    settings = {**TINY, "size": 96, "motion_sounding": 1.0, "motion_silent": 0.0, **still}
    write_benchmark(tmp_path, "s4", videos=3, workers=1, **settings)
    scores = {b.name: b.miou for b in baselines(tmp_path, "s4", "train")}
    assert scores["motion_alone"] > 0.85
    assert scores["random_object"] < 0.6


def test_jaccard_rewards_an_empty_answer_to_silence() -> None:
    nothing, half = np.zeros((4, 4), bool), np.arange(16).reshape(4, 4) < 8
    assert jaccard(half, nothing) == pytest.approx(0.5)
    assert jaccard(nothing, nothing) == 1
    assert jaccard(half, half) == pytest.approx(1)


def test_motion_energy_ignores_the_camera() -> None:
    seen = np.zeros((8, 8), np.uint8)
    seen[:3, :3], seen[5:, 5:] = 1, 2
    flow = np.ones((2, 8, 8)) * 3.0
    flow[0, :3, :3] += 2
    assert motion_energy(flow, seen, 2) == pytest.approx([2, 0])
