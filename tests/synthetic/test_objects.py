"""The objects of the generated benchmark, its knobs and its hash."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avseg.errors import AvsegError
from avseg.media.audio import log_mel_examples, write_wav
from avseg.synthetic import EDITIONS, Knobs, benchmark_hash, load_objects, make_knobs, write_benchmark
from avseg.synthetic.backgrounds import KINDS, draw_background, find_photographs
from avseg.synthetic.objects import PICTURE_SIDE, read_picture, read_recording


def cut_out(path: Path, colour: tuple[int, int, int] = (200, 60, 40), size: tuple[int, int] = (40, 30)) -> None:
    rgba = np.zeros((size[1] + 10, size[0] + 10, 4), np.uint8)
    rgba[5:-5, 5:-5] = (*colour, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba).save(path)


def tone(path: Path, frequency: float, seconds: float = 1.5, level: float = 0.3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * 16000)) / 16000
    write_wav(path, (level * np.sin(2 * np.pi * frequency * time)).astype(np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "objects"
    cut_out(root / "bell.png")
    tone(root / "bell.wav", 900)
    cut_out(root / "dogs" / "rex.png", (90, 90, 20))
    tone(root / "dogs" / "rex.wav", 300)
    cut_out(root / "dogs" / "fido.png", (120, 100, 60))
    tone(root / "dogs" / "fido.wav", 330)
    cut_out(root / "stone.png", (90, 90, 90))
    return root


def test_the_procedural_set_is_rich_enough() -> None:
    objects = load_objects()
    assert len(objects.categories) >= 10
    assert len(objects.clutter) >= 10
    for category in objects.categories:
        assert len(category.pictures) >= 3
        assert len(category.recordings) >= 3
        pictures = [read_picture(p) for p in category.pictures]
        for rgba in pictures:
            inside = rgba[..., 3] > 127
            assert 0.1 < inside.mean() < 0.98
            assert rgba[inside][:, :3].std(0).max() > 12  # texture, no flat colour
        assert len({p.shape for p in pictures} | {p.tobytes() for p in pictures}) > len(pictures)


def test_procedural_categories_differ_in_timbre() -> None:
    objects = load_objects()
    features, names = [], []
    for category in objects.categories:
        for recording in category.recordings:
            sound = read_recording(recording, 16000)
            examples = log_mel_examples(sound).reshape(-1, 96, 64)
            features.append(np.concatenate([examples.mean((0, 1)) - examples.mean(), examples.std(1).mean(0)]))
            names.append(category.name)
    matrix, labels = np.stack(features), np.array(names)
    distance = ((matrix[:, None] - matrix[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    assert np.mean(labels[distance.argmin(1)] == labels) > 0.8


def test_a_plain_folder_is_paired_by_name(folder: Path) -> None:
    objects = load_objects(folder)
    found = {c.name: (len(c.pictures), len(c.recordings)) for c in objects.categories}
    assert found == {"bell": (1, 1), "dogs": (2, 2)}
    assert [p.name for p in objects.clutter] == ["stone.png"]


def test_an_index_says_category_and_role(folder: Path) -> None:
    (folder / "index.csv").write_text(
        "picture,sound,category,licence,role\n"
        "dogs/rex.png,dogs/fido.wav,dog,CC0,object\n"
        "bell.png,bell.wav,bell,CC0,object\n"
        "dogs/fido.png,,,CC0,clutter\n"
    )
    objects = load_objects(folder)
    assert [c.name for c in objects.categories] == ["dog", "bell"]
    assert [p.name for p in objects.clutter] == ["dogs/fido.png"]
    assert [c.name for c in load_objects(folder, 1).categories] == ["dog"]
    (folder / "bell.wav").unlink()
    with pytest.raises(AvsegError, match=r"bell\.wav"):
        load_objects(folder)


def test_a_benchmark_can_be_made_of_a_folder(folder: Path, tmp_path: Path) -> None:
    info = write_benchmark(tmp_path / "b", videos=1, objects=folder, workers=1, size=64, edition="small")
    assert info.categories == ("bell", "dogs")
    assert len(list((tmp_path / "b").rglob("*.mp4"))) == 1


def test_pictures_are_trimmed_and_shrunk(tmp_path: Path) -> None:
    cut_out(tmp_path / "a.png", size=(900, 300))
    tone(tmp_path / "a.wav", 500)
    cut_out(tmp_path / "b.png")
    tone(tmp_path / "b.wav", 700)
    shapes = [read_picture(c.pictures[0]).shape for c in load_objects(tmp_path).categories]
    assert shapes == [(85, PICTURE_SIDE, 4), (30, 40, 4)]


def test_recordings_lose_their_silent_ends(tmp_path: Path) -> None:
    sound = np.zeros(32000, np.float32)
    sound[8000:20000] = 0.05 * np.sin(np.arange(12000) / 5)
    write_wav(tmp_path / "a.wav", sound)
    for name in "ab":
        cut_out(tmp_path / f"{name}.png")
    tone(tmp_path / "b.wav", 500)
    recording = load_objects(tmp_path).categories[0].recordings[0]
    trimmed = read_recording(recording, 16000)
    assert len(trimmed) == pytest.approx(12000, abs=640)
    assert np.sqrt((trimmed**2).mean()) == pytest.approx(0.1, rel=1e-3)


def read_all(folder: Path) -> None:
    for category in load_objects(folder).categories:
        read_picture(category.pictures[0])
        read_recording(category.recordings[0], 16000)


@pytest.mark.parametrize("what", ["empty", "one", "opaque", "silent", "broken", "columns"])
def test_unusable_objects_are_named(what: str, folder: Path) -> None:
    if what == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif what == "one":
        shutil.rmtree(folder / "dogs")
    elif what == "opaque":
        Image.new("RGB", (30, 30), (200, 0, 0)).save(folder / "bell.png")
    elif what == "silent":
        write_wav(folder / "bell.wav", np.zeros(16000, np.float32))
    elif what == "broken":
        (folder / "bell.png").write_bytes(b"no picture")
    else:
        (folder / "index.csv").write_text("a,b\n1,2\n")
    words = {"opaque": r"bell\.png", "silent": r"bell\.wav", "broken": r"bell\.png", "columns": "no column"}
    with pytest.raises(AvsegError, match=words.get(what, "two")):
        read_all(folder)


def test_every_background_has_texture() -> None:
    objects = load_objects()
    for kind in KINDS:
        for seed in range(3):
            image = draw_background(np.random.default_rng(seed), kind, 96, objects.clutter, ())
            assert image.shape == (96, 96, 3)
            assert image.dtype == np.uint8
            assert image.astype(float).std((0, 1)).max() > 8, kind


def test_photographs_can_be_backgrounds(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)).save(tmp_path / "a.jpg")
    paths, digest = find_photographs(tmp_path)
    assert digest
    assert draw_background(np.random.default_rng(0), "photo", 64, (), paths).shape == (64, 64, 3)
    plain = write_benchmark(tmp_path / "p", videos=1, workers=1, size=64, edition="small")
    (tmp_path / "photos").mkdir()
    shutil.copy(tmp_path / "a.jpg", tmp_path / "photos" / "a.jpg")
    info = write_benchmark(
        tmp_path / "q", videos=1, workers=1, size=64, edition="small", backgrounds=tmp_path / "photos"
    )
    assert info.hash != plain.hash
    with pytest.raises(AvsegError, match="no photograph"):
        find_photographs(tmp_path / "photos" / "none")


def test_the_hash_covers_all_that_decides(folder: Path) -> None:
    objects, counts = load_objects(folder), {"train": 3, "val": 1, "test": 1}
    base = benchmark_hash(Knobs(), objects, "s4", 0, counts)
    assert base == benchmark_hash(Knobs(), load_objects(folder), "s4", 0, dict(counts))
    others = {
        benchmark_hash(Knobs(motion_silent=0.3), objects, "s4", 0, counts),
        benchmark_hash(Knobs(), objects, "ms3", 0, counts),
        benchmark_hash(Knobs(), objects, "s4", 1, counts),
        benchmark_hash(Knobs(), objects, "s4", 0, {**counts, "test": 2}),
        benchmark_hash(EDITIONS["small"], objects, "s4", 0, counts),
        benchmark_hash(Knobs(), load_objects(), "s4", 0, counts),
    }
    tone(folder / "bell.wav", 901)
    others.add(benchmark_hash(Knobs(), load_objects(folder), "s4", 0, counts))
    assert len(others | {base}) == 8


def test_the_hash_does_not_depend_on_the_place(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert load_objects(folder).digest == load_objects(tmp_path / "elsewhere").digest


def test_knobs_keep_their_ranges() -> None:
    assert make_knobs("small").size == 128
    assert make_knobs("full", size=None).size == 224
    assert make_knobs("full", objects_per_scene=3).objects_per_scene == (3, 3)
    assert make_knobs("full", snr_db=[3, 4]).snr_db == (3.0, 4.0)
    assert {f.name for f in dataclasses.fields(Knobs)} >= {"motion_silent", "motion_sounding", "appearance_rho"}
    for wrong in ({"appearance_rho": 1.0}, {"size": 31}, {"area": "x"}, {"area": (0, 0.1)}, {"sounding": (0, 1)}):
        with pytest.raises(AvsegError):
            make_knobs("full", **wrong)
