"""The generated benchmark on disk: AVSBench's layout, its hidden truth, and the facts of every scene."""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avseg import __version__
from avseg.data.avsbench import avsbench, distant_folder, distant_frames, video_frames
from avseg.data.frames import SPLITS, DataSet, Frame, Subset
from avseg.data.parallel import run_all
from avseg.errors import AvsegError
from avseg.files import check_folder, whole_file, write_json
from avseg.media.images import write_image
from avseg.media.writer import VideoWriter
from avseg.reading import read_json, read_json_lines
from avseg.synthetic.backgrounds import find_photographs
from avseg.synthetic.knobs import VERSION, Knobs, benchmark_hash, make_knobs
from avseg.synthetic.objects import load_objects
from avseg.synthetic.paint import Painter
from avseg.synthetic.scene import Scene, describe, hold_out, plan_scene
from avseg.synthetic.sounds import mix

SHARE = 0.15  # of the videos for validation, and again for testing, as in AVSBench


@dataclass(frozen=True)
class BenchmarkInfo:
    """What a generated benchmark is: all of it is in ``benchmark.json`` under the subset's name."""

    root: Path
    subset: str
    version: str
    edition: str
    hash: str
    seed: int
    counts: dict[str, int]
    objects: str  # name of the object set
    categories: tuple[str, ...]
    unseen_pictures: tuple[str, ...]
    unseen_categories: tuple[str, ...]
    knobs: Knobs


def write_benchmark(
    root: str | Path,
    subset: str = "s4",
    videos: int = 200,
    seed: int = 0,
    objects: str | Path | None = None,
    backgrounds: str | Path | None = None,
    distant: int = 0,
    edition: str = "full",
    val: int | None = None,
    test: int | None = None,
    size: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **overrides: Any,
) -> BenchmarkInfo:
    """Write the generated benchmark as AVSBench's raw videos, masks and CSV.

    The same arguments give the same files, whatever the number of workers. Started again after a stop, it
    writes only what is missing.

    Args:
        root: the folder that will hold ``Single-source`` or ``Multi-sources``.
        subset: ``s4`` or ``ms3``.
        videos: labelled videos of all three splits together, shared out 70 : 15 : 15.
        seed: another seed, other scenes (and other pictures held out).
        objects: a folder of cut-outs and sounds; None for the built-in procedural set.
        backgrounds: a folder of photographs; None for procedural backgrounds.
        distant: MS3 only: further unlabelled videos, in VGGSound's form.
        edition: ``full`` or ``small``.
        val: videos for validation instead of 15 %.
        test: videos for testing instead of 15 %.
        size: pixels of both sides, instead of the edition's.
        workers: processes; None for one a core.
        progress: called with (videos done, videos in all) as videos are finished.
        overrides: any field of `Knobs`.

    Raises:
        AvsegError: an option is out of range, the objects or backgrounds are unusable, or ``root`` already
            holds a benchmark with other settings.
    """
    counts = _share_out(_subset(subset), videos, distant, val, test)
    check_folder(root)
    knobs = make_knobs(edition, size=size, **overrides)
    job = _Job(
        root=Path(root).absolute(),
        subset=_subset(subset),
        seed=seed,
        knobs=knobs,
        objects=None if objects is None else Path(objects).absolute(),
        backgrounds=None if backgrounds is None else Path(backgrounds).absolute(),
    )
    info = _claim(job, counts)
    data = avsbench(job.root, job.subset)
    finished = {(record["split"], record["index"]) for record in _finished(data)}
    todo = [(job, split, i) for split, count in counts.items() for i in range(count) if (split, i) not in finished]
    total = sum(counts.values())
    run_all(
        _write, todo, workers, None if progress is None else lambda done, left: progress(total - left + done, total)
    )
    order = list(counts)
    records = sorted(_finished(data), key=lambda r: (order.index(r["split"]), r["index"]))
    with whole_file(scenes_file(data)) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    _write_tables(data, records)
    return info


def read_benchmark(root: str | Path, subset: str = "s4") -> BenchmarkInfo:
    """What ``root/benchmark.json`` says of a subset.

    Raises:
        AvsegError: there is no generated benchmark of that subset.
    """
    path = Path(root) / "benchmark.json"
    stored = _stored(Path(root)).get(subset)
    if stored is None:
        raise AvsegError(f"{path} tells of no generated {subset} benchmark: write it with avseg data synth")
    try:
        return _info(Path(root), subset, stored)
    except (KeyError, TypeError, ValueError):
        raise AvsegError(f"{path} is damaged: write the benchmark again into a new folder.") from None


def _info(root: Path, subset: str, stored: Mapping[str, Any]) -> BenchmarkInfo:
    return BenchmarkInfo(
        root=root,
        subset=subset,
        version=stored["version"],
        edition=stored["edition"],
        hash=stored["hash"],
        seed=stored["seed"],
        counts=stored["counts"],
        objects=stored["objects"],
        categories=tuple(stored["categories"]),
        unseen_pictures=tuple(stored["unseen_pictures"]),
        unseen_categories=tuple(stored["unseen_categories"]),
        knobs=Knobs(**stored["knobs"]),
    )


def scenes_file(data: DataSet) -> Path:
    """``scenes.jsonl`` beside the CSV: the facts of one scene a line."""
    return data.folder / "scenes.jsonl"


def read_scenes(root: str | Path, subset: str = "s4") -> list[dict[str, Any]]:
    """The facts of every scene of a generated benchmark, in the order of its CSV.

    Raises:
        AvsegError: there are none, or the file was changed.
    """
    path = scenes_file(avsbench(root, _subset(subset)))
    if not path.is_file():
        raise AvsegError(f"{path} cannot be read: write the generated benchmark to its end first.")
    mend = "delete it and run avseg data synth again"
    return [_scene(record, path, mend) for _, record in read_json_lines(path, mend)]


def _scene(record: Any, path: Path, mend: str) -> dict[str, Any]:
    """A scene's facts as `describe` wrote them, as far as files are found by them."""
    kinds = {"name": str, "subset": str, "split": str, "category": str, "index": int, "objects": list}
    if not isinstance(record, dict) or not all(type(record.get(key)) is kind for key, kind in kinds.items()):
        raise AvsegError(f"{path} holds what is no scene: {mend}.")
    return record


def scene_frames(root: str | Path, record: Mapping[str, Any]) -> tuple[Frame, ...]:
    """The frames of the video that a scene's facts are of; in S4 its category is what sounds."""
    data = avsbench(root, _subset(record["subset"]))
    frames = video_frames(data, record["name"], record["split"], record["category"] if data.name == "s4" else "")
    return tuple(dataclasses.replace(f, labelled=f.labelled and f.split != "distant") for f in frames)


def video_file(frame: Frame) -> Path:
    """Where a frame's generated video is: AVSBench's path, or VGGSound's for a distant one."""
    return frame.data.root / distant_name(frame.video) if frame.split == "distant" else frame.raw


def mask_file(frame: Frame) -> Path:
    """Where a frame's truth is: published, or hidden."""
    return frame.mask if frame.labelled else frame.hidden_mask


def distant_name(name: str) -> str:
    """Path of a distant video below the benchmark's folder, named as VGGSound's files are."""
    return f"VGGSound/{name}_000000.mp4"


@dataclass(frozen=True)
class _Job:
    """All that a process needs to know to write any video."""

    root: Path
    subset: Subset
    seed: int
    knobs: Knobs
    objects: Path | None
    backgrounds: Path | None


class _Writer:
    """A job with its objects loaded."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.objects = load_objects(job.objects, job.knobs.categories)
        self.held_out = hold_out(self.objects, job.knobs, job.seed)
        self.photographs, _ = find_photographs(job.backgrounds)
        # a set without clutter lends the pictures of its objects as texture
        self.textures = self.objects.clutter or tuple(p for c in self.objects.categories for p in c.pictures)

    def write(self, split: str, index: int) -> None:
        """Write one video with its masks and facts; the video comes last, so where it is, all is."""
        job, knobs = self.job, self.job.knobs
        scene = plan_scene(
            self.objects, self.held_out, knobs, job.subset, split, index, job.seed, len(self.photographs)
        )
        painter = Painter(scene, knobs, self.textures, self.photographs)
        maps, counts = painter.index_maps()
        record = describe(scene, counts, knobs)
        frames = scene_frames(job.root, record)
        for second, (frame, seen) in enumerate(zip(frames, maps, strict=True)):
            write_image(frame.path("hidden_object"), seen)
            write_image(mask_file(frame), true_mask(scene, seen, second))
        write_json(frames[0].path("hidden_object").with_name("scene.json"), record)
        sound = mix([(o.track, o.sounding) for o in scene.objects if any(o.sounding)], scene.ambience, knobs)
        with VideoWriter(
            video_file(frames[0]),
            knobs.size,
            knobs.size,
            knobs.fps,
            audio=sound,
            sample_rate=knobs.sample_rate,
            crf=knobs.crf,
        ) as file:
            for image in painter.frames():
                file.write(image)


@lru_cache(maxsize=1)
def _writer(job: _Job) -> _Writer:
    return _Writer(job)


def _write(task: tuple[_Job, str, int]) -> None:
    job, split, index = task
    _writer(job).write(split, index)


def true_mask(scene: Scene, seen: npt.NDArray[np.uint8], second: int) -> npt.NDArray[np.uint8]:
    """255 where an object that sounds in that second is visible, from its map of visible objects."""
    loud = [i + 1 for i, thing in enumerate(scene.objects) if thing.sounding[second]]
    return np.where(np.isin(seen, loud), 255, 0).astype(np.uint8)


def _finished(data: DataSet) -> list[dict[str, Any]]:
    """The facts of the videos that are there."""
    mend, records = "remove the folder that it is in", []
    for path in sorted((data.folder / "hidden_objects").rglob("scene.json")):
        record = _scene(read_json(path, mend), path, mend)
        frame = scene_frames(data.root, record)[0]
        if frame.split not in (*SPLITS, "distant") or frame.path("hidden_object").with_name("scene.json") != path:
            raise AvsegError(f"{path} tells of another scene than its folder's: {mend}.")
        if video_file(frame).is_file():
            records.append(record)
    return records


def _subset(subset: str) -> Subset:
    if subset not in ("s4", "ms3"):
        raise AvsegError(f"there is no subset '{subset}': choose s4 or ms3.")
    return "s4" if subset == "s4" else "ms3"


def _share_out(subset: str, videos: int, distant: int, val: int | None, test: int | None) -> dict[str, int]:
    if distant and subset == "s4":
        raise AvsegError("--distant is for ms3: in s4 the distant frames are the unlabelled seconds of training videos")
    if videos < 1 or distant < 0 or min(val or 0, test or 0) < 0:
        raise AvsegError(f"cannot write {videos} videos: give a number from 1, and no negative split")
    share = max(1, round(SHARE * videos)) if videos >= 3 else 0
    val, test = share if val is None else val, share if test is None else test
    # Only who wants videos of one split alone, and says 0 for another, has none for training.
    if val + test > videos or (val and test and val + test == videos):
        raise AvsegError(
            f"{videos} videos of all splits together cannot hold {val} for validation, {test} for testing and any for "
            f"training: ask for {val + test + 1} videos or more, or for fewer of these."
        )
    counts = {"train": videos - val - test, "val": val, "test": test}
    return {**counts, "distant": distant} if subset == "ms3" else counts


def _claim(job: _Job, counts: dict[str, int]) -> BenchmarkInfo:
    """Note in ``benchmark.json`` what is written here, or refuse where something else is."""
    objects = load_objects(job.objects, job.knobs.categories)
    held_out = hold_out(objects, job.knobs, job.seed)
    _, photographs = find_photographs(job.backgrounds)
    info = BenchmarkInfo(
        root=job.root,
        subset=job.subset,
        version=VERSION[job.knobs.edition],
        edition=job.knobs.edition,
        hash=benchmark_hash(job.knobs, objects, job.subset, job.seed, counts, photographs),
        seed=job.seed,
        counts=counts,
        objects=objects.source,
        categories=tuple(c.name for c in objects.categories),
        unseen_pictures=tuple(sorted(held_out.pictures)),
        unseen_categories=tuple(sorted(held_out.categories)),
        knobs=job.knobs,
    )
    stored = _stored(job.root)
    if job.subset in stored:
        if stored[job.subset].get("hash") != info.hash:
            raise AvsegError(
                f"{job.root} already holds an {job.subset} benchmark with other settings "
                f"(hash {stored[job.subset].get('hash')}, asked for {info.hash}): "
                "name another folder, or remove that one"
            )
        return info
    data = avsbench(job.root, job.subset)
    if (data.folder / f"{data.name}_data").exists():
        raise AvsegError(f"{data.folder} exists and was not generated: name another folder")
    facts = {k: v for k, v in dataclasses.asdict(info).items() if k not in ("root", "subset")}
    write_json(job.root / "benchmark.json", {**stored, job.subset: {**facts, "avseg": __version__}})
    return info


def _stored(root: Path) -> dict[str, Any]:
    path = root / "benchmark.json"
    if not path.is_file():
        return {}
    mend = "remove it and the folder beside it, and write again"
    stored = read_json(path, mend)
    if not isinstance(stored, dict) or not all(isinstance(facts, dict) for facts in stored.values()):
        raise AvsegError(f"{path} is not what `avseg data synth` writes: {mend}.")
    return stored


def _write_tables(data: DataSet, records: Iterable[Mapping[str, Any]]) -> None:
    labelled = [r for r in records if r["split"] != "distant"]
    further = [r for r in records if r["split"] == "distant"]
    if data.name == "s4":
        _write_csv(
            data.index,
            [("name", "start", "category", "split"), *((r["name"], 0, r["category"], r["split"]) for r in labelled)],
        )
        return
    _write_csv(data.index, [("video_id", "split"), *((r["name"], r["split"]) for r in labelled)])
    if further:
        # VGGSound's own table has no header
        _write_csv(
            data.root / "VGGSound" / "vggsound.csv",
            [(r["name"], 0, r["category"].replace("_", " "), "train") for r in further],
        )
        _write_csv(
            distant_frames(distant_folder(data.root)).index,
            [("n", "video"), *((n, distant_name(r["name"])) for n, r in enumerate(further))],
        )


def _write_csv(path: Path, rows: Iterable[tuple[Any, ...]]) -> None:
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
