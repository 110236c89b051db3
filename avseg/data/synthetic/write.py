"""The generated benchmark on disk: AVSBench's layout, its hidden truth, and the facts of every scene."""

import csv
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from avseg import __version__
from avseg.data.synthetic.backgrounds import find_photographs
from avseg.data.synthetic.knobs import VERSION, Knobs, benchmark_hash, make_knobs
from avseg.data.synthetic.objects import load_objects
from avseg.data.synthetic.paint import Painter
from avseg.data.synthetic.scene import Scene, describe, hold_out, plan_scene
from avseg.data.synthetic.sounds import mix
from avseg.errors import AvsegError
from avseg.files import whole_file, write_json
from avseg.media.writer import VideoWriter

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


@dataclass(frozen=True)
class Layout:
    """Where one subset's files are. ``home`` holds the CSV, ``scenes.jsonl`` and the hidden truth."""

    root: Path
    subset: str

    @property
    def home(self) -> Path:
        """``Single-source`` or ``Multi-sources``."""
        return self.root / ("Single-source" if self.subset == "s4" else "Multi-sources")

    @property
    def data(self) -> Path:
        """The folder that AVSBench's archive unpacks to."""
        return self.home / ("s4_data" if self.subset == "s4" else "ms3_data")

    @property
    def table(self) -> Path:
        """AVSBench's CSV."""
        return self.home / ("s4_meta_data.csv" if self.subset == "s4" else "ms3_meta_data.csv")

    @property
    def scenes(self) -> Path:
        """One JSON object a line and video: the facts of its scene."""
        return self.home / "scenes.jsonl"

    def video(self, split: str, category: str, name: str) -> Path:
        """The video file."""
        if split == "distant":
            return self.root / "VGGSound" / f"{name}_000000.mp4"
        if self.subset == "ms3":
            return self.data / "raw_videos" / f"{name}.mp4"
        return self.data / "raw_videos" / split / category / f"{name}.mp4"

    def mask(self, split: str, category: str, name: str, k: int) -> Path:
        """The true mask k = 1, 2, ... of a video: in ``gt_masks`` where it is published, else in ``hidden_masks``."""
        published = split != "distant" and (self.subset == "ms3" or split != "train" or k == 1)
        tree = self.data / "gt_masks" if published else self.home / "hidden_masks"
        return tree / self._inside(split, category, name, k)

    def object_map(self, split: str, category: str, name: str, k: int) -> Path:
        """The PNG whose grey level is the number of the object visible at a pixel, 0 where there is none."""
        return self.home / "hidden_objects" / self._inside(split, category, name, k)

    def _inside(self, split: str, category: str, name: str, k: int) -> Path:
        folder = Path(split) / category if self.subset == "s4" else Path(split)
        return folder / name / f"{name}_{k}.png"


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
    counts = _share_out(subset, videos, distant, val, test)
    knobs = make_knobs(edition, size=size, **overrides)
    job = _Job(
        root=Path(root).absolute(), subset=subset, seed=seed, knobs=knobs,
        objects=None if objects is None else Path(objects).absolute(),
        backgrounds=None if backgrounds is None else Path(backgrounds).absolute(),
    )
    info = _claim(job, counts)
    layout = Layout(job.root, subset)
    records = {(r["split"], r["name"]): r for r in read_scenes(layout.scenes)
               if layout.video(r["split"], r["category"], r["name"]).is_file()}
    finished = {(r["split"], r["index"]) for r in records.values()}
    todo = [(split, i) for split, count in counts.items() for i in range(count) if (split, i) not in finished]
    total = sum(counts.values())
    if progress:
        progress(total - len(todo), total)
    layout.home.mkdir(parents=True, exist_ok=True)
    _rewrite_scenes(layout.scenes, records.values())  # a line cut off by a stop goes
    if todo:
        with open(layout.scenes, "a", encoding="utf-8") as log:
            for done, record in enumerate(_produce(job, todo, workers), total - len(todo) + 1):
                records[record["split"], record["name"]] = record
                log.write(json.dumps(record) + "\n")
                log.flush()
                if progress:
                    progress(done, total)
    order = list(counts)
    ordered = sorted(records.values(), key=lambda r: (order.index(r["split"]), r["index"]))
    _rewrite_scenes(layout.scenes, ordered)
    _write_tables(layout, ordered)
    return info


def read_benchmark(root: str | Path, subset: str = "s4") -> BenchmarkInfo:
    """What ``root/benchmark.json`` says of a subset.

    Raises:
        AvsegError: there is no generated benchmark of that subset.
    """
    stored = _stored(Path(root)).get(subset)
    if stored is None:
        raise AvsegError(f"{Path(root) / 'benchmark.json'} tells of no generated {subset} benchmark: "
                         f"write it with avseg data synth")
    return BenchmarkInfo(
        root=Path(root), subset=subset, version=stored["version"], edition=stored["edition"], hash=stored["hash"],
        seed=stored["seed"], counts=stored["counts"], objects=stored["objects"],
        categories=tuple(stored["categories"]), unseen_pictures=tuple(stored["unseen_pictures"]),
        unseen_categories=tuple(stored["unseen_categories"]), knobs=Knobs(**stored["knobs"]),
    )


def read_scenes(path: Path) -> list[dict[str, Any]]:
    """The records of a ``scenes.jsonl``; a last line that a stop cut off is left out, no file is no record."""
    records = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return records


@dataclass(frozen=True)
class _Job:
    """All that a process needs to know to write any video."""

    root: Path
    subset: str
    seed: int
    knobs: Knobs
    objects: Path | None
    backgrounds: Path | None


class _Writer:
    """A job with its objects loaded."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.layout = Layout(job.root, job.subset)
        self.objects = load_objects(job.objects, job.knobs.categories)
        self.held_out = hold_out(self.objects, job.knobs, job.seed)
        self.photographs, _ = find_photographs(job.backgrounds)
        # a set without clutter lends the pictures of its objects as texture
        self.textures = self.objects.clutter or tuple(p for c in self.objects.categories for p in c.pictures)

    def write(self, split: str, index: int) -> dict[str, Any]:
        """Write one video with its masks; the video comes last, so where it is, all is."""
        job, knobs = self.job, self.job.knobs
        scene = plan_scene(self.objects, self.held_out, knobs, job.subset, split, index, job.seed,
                           len(self.photographs))
        painter = Painter(scene, knobs, self.textures, self.photographs)
        maps, counts = painter.index_maps()
        category = scene.category if job.subset == "s4" else ""
        for second, seen in enumerate(maps):
            k = second + 1
            write_png(self.layout.object_map(split, category, scene.name, k), seen)
            write_png(self.layout.mask(split, category, scene.name, k), true_mask(scene, seen, second))
        sound = mix([(o.track, o.sounding) for o in scene.objects if any(o.sounding)], scene.ambience, knobs)
        with VideoWriter(self.layout.video(split, category, scene.name), knobs.size, knobs.size, knobs.fps,
                         audio=sound, sample_rate=knobs.sample_rate, crf=knobs.crf) as video:
            for frame in painter.frames():
                video.write(frame)
        return describe(scene, counts, knobs)


def true_mask(scene: Scene, seen: npt.NDArray[np.uint8], second: int) -> npt.NDArray[np.uint8]:
    """255 where an object that sounds in that second is visible, from its map of visible objects."""
    loud = [i + 1 for i, thing in enumerate(scene.objects) if thing.sounding[second]]
    return np.where(np.isin(seen, loud), 255, 0).astype(np.uint8)


def write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write a grey PNG, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", image)[1].tobytes())


_writer: _Writer | None = None  # of a worker process


def _begin(job: _Job) -> None:
    global _writer
    cv2.setNumThreads(1)  # the processes share the cores already
    _writer = _Writer(job)


def _work(split: str, index: int) -> dict[str, Any]:
    assert _writer is not None
    return _writer.write(split, index)


def _produce(job: _Job, todo: list[tuple[str, int]], workers: int | None) -> Iterator[dict[str, Any]]:
    count = min(workers or os.cpu_count() or 1, len(todo))
    if count <= 1:
        writer = _Writer(job)
        for split, index in todo:
            yield writer.write(split, index)
        return
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, (job,)) as pool:
        futures = [pool.submit(_work, split, index) for split, index in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _share_out(subset: str, videos: int, distant: int, val: int | None, test: int | None) -> dict[str, int]:
    if subset not in ("s4", "ms3"):
        raise AvsegError(f"there is no subset '{subset}': choose s4 or ms3")
    if distant and subset == "s4":
        raise AvsegError("--distant is for ms3: in s4 the distant frames are the unlabelled seconds of training videos")
    if videos < 1 or distant < 0 or min(val or 0, test or 0) < 0:
        raise AvsegError(f"cannot write {videos} videos: give a number from 1, and no negative split")
    share = max(1, round(SHARE * videos)) if videos >= 3 else 0
    val, test = share if val is None else val, share if test is None else test
    if val + test > videos:
        raise AvsegError(f"{videos} videos cannot hold {val} for validation and {test} for testing: ask for more")
    counts = {"train": videos - val - test, "val": val, "test": test}
    return {**counts, "distant": distant} if subset == "ms3" else counts


def _claim(job: _Job, counts: dict[str, int]) -> BenchmarkInfo:
    """Note in ``benchmark.json`` what is written here, or refuse where something else is."""
    objects = load_objects(job.objects, job.knobs.categories)
    held_out = hold_out(objects, job.knobs, job.seed)
    _, photographs = find_photographs(job.backgrounds)
    info = BenchmarkInfo(
        root=job.root, subset=job.subset, version=VERSION[job.knobs.edition], edition=job.knobs.edition,
        hash=benchmark_hash(job.knobs, objects, job.subset, job.seed, counts, photographs), seed=job.seed,
        counts=counts, objects=objects.source, categories=tuple(c.name for c in objects.categories),
        unseen_pictures=tuple(sorted(held_out.pictures)), unseen_categories=tuple(sorted(held_out.categories)),
        knobs=job.knobs,
    )
    stored = _stored(job.root)
    if job.subset in stored:
        if stored[job.subset].get("hash") != info.hash:
            raise AvsegError(f"{job.root} already holds an {job.subset} benchmark with other settings "
                             f"(hash {stored[job.subset].get('hash')}, asked for {info.hash}): "
                             "name another folder, or remove that one")
        return info
    if Layout(job.root, job.subset).data.exists():
        raise AvsegError(f"{Layout(job.root, job.subset).home} exists and was not generated: name another folder")
    facts = {k: v for k, v in dataclasses.asdict(info).items() if k not in ("root", "subset")}
    write_json(job.root / "benchmark.json", {**stored, job.subset: {**facts, "avseg": __version__}})
    return info


def _stored(root: Path) -> dict[str, Any]:
    path = root / "benchmark.json"
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AvsegError(f"{path} is not readable: remove it and the folder beside it, and write again") from error
    return dict(stored)


def _rewrite_scenes(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def _write_tables(layout: Layout, records: Iterable[Mapping[str, Any]]) -> None:
    labelled = [r for r in records if r["split"] != "distant"]
    further = [r for r in records if r["split"] == "distant"]
    if layout.subset == "s4":
        _write_csv(layout.table, [("name", "start", "category", "split"),
                                  *((r["name"], 0, r["category"], r["split"]) for r in labelled)])
        return
    _write_csv(layout.table, [("video_id", "split"), *((r["name"], r["split"]) for r in labelled)])
    if further:
        # VGGSound's own table has no header
        _write_csv(layout.root / "VGGSound" / "vggsound.csv",
                   [(r["name"], 0, r["category"].replace("_", " "), "train") for r in further])
        _write_csv(layout.root / "MS3_Extend" / "index.csv",
                   [("n", "video"), *((n, f"VGGSound/{r['name']}_000000.mp4") for n, r in enumerate(further))])


def _write_csv(path: Path, rows: Iterable[tuple[Any, ...]]) -> None:
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
