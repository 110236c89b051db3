"""The whole path on generated videos: write, prepare, train twice, evaluate, segment, report."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avseg.config import Config, load_config
from avseg.data.parallel import working_in
from avseg.errors import AvsegError
from avseg.files import check_file, write_json
from avseg.progress import progress as bar
from avseg.reading import read_yaml

if TYPE_CHECKING:
    from avseg.evaluation.scores import Evaluation
    from avseg.render import GridRow
    from avseg.synthetic import BenchmarkInfo

BASELINE = ("--model.neighbouring_frames=false", "--ufe.distant_frames=false")
PROTOCOL = "T=1"  # as the demo's models are trained
PICTURES = 6


@dataclass
class Demo:
    """What a demo is made of; its stages fill ``seconds``.

    Attributes:
        out: Folder of everything it writes.
        seed: Of the benchmark and of training.
        base: Base model; its configuration is ``configs/demo.yaml``, or ``configs/demo_<base>.yaml``.
        objects: ``auto`` takes stamps where they are available, ``procedural`` the built-in set; else a folder.
        videos, val, test: Videos in all, and how many of them are for validation and test.
        overrides: Further options of both trainings, as on the command line of `avseg train`.
        seconds: Wall time of each stage.
    """

    out: Path = Path("runs/demo")
    seed: int = 0
    base: str = "tpavi"
    objects: str = "auto"
    videos: int = 200
    val: int = 20
    test: int = 60
    overrides: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The benchmark's folder."""
        return self.out / "data"

    def config(self, arm: str) -> Config:
        """The configuration of ``baseline`` or ``ufe``."""
        folder = files("avseg") / "configs"
        source = folder / ("demo.yaml" if self.base == "tpavi" else f"demo_{self.base}.yaml")
        if not source.is_file():
            others = sorted(path.name[5:-5] for path in folder.iterdir() if path.name.startswith("demo_"))
            raise AvsegError(f"There is no demo of '{self.base}': choose {' or '.join(['tpavi', *others])}.")
        own = BASELINE if arm == "baseline" else ()
        fixed = (f"--data.root={self.root}", f"--run.out={self.out / arm}", f"--run.seed={self.seed}")
        return load_config(Path(str(source)), *own, *self.overrides, *fixed)


def run_demo(
    out: str | Path = "runs/demo",
    seed: int = 0,
    base: str = "tpavi",
    objects: str = "auto",
    videos: int = 200,
    val: int = 20,
    test: int = 60,
    overrides: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run the demo and return what ``summary.json`` holds.

    Stages that an earlier call finished with the same settings are kept, so a stopped demo can be called again.

    Args:
        out: Where to. Afterwards it holds ``report.html``, ``overlay.mp4``, ``summary.json`` and the two models
            ``baseline/`` and ``ufe/``.
        seed, base, objects, videos, val, test, overrides: See `Demo`.

    Raises:
        AvsegError: objects that cannot be had, too few videos, or a folder that holds something else or is in use.
    """
    demo = Demo(Path(out), seed, base, objects, videos, val, test, tuple(overrides))
    _check(demo)
    configs = {arm: demo.config(arm) for arm in ("baseline", "ufe")}
    with working_in(demo.out / ".avseg" / "demo", ()):
        return _run_stages(demo, configs)


def _run_stages(demo: Demo, configs: dict[str, Config]) -> dict[str, Any]:
    benchmark = write_videos(demo)
    prepare_videos(demo)
    for config in configs.values():
        train_arm(demo, config)
    evaluations = {arm: evaluate_arm(demo, arm) for arm in configs}
    held_back = segment_one(demo)
    summary = summarise(demo, benchmark, evaluations)
    with _timed(demo, "report"):
        report(demo, benchmark, evaluations, summary, held_back)
    summary["seconds"] = round(sum(demo.seconds.values()), 1)
    summary["stages"] = {name: round(value, 1) for name, value in demo.seconds.items()}
    write_json(demo.out / "summary.json", summary)
    show(demo, evaluations)
    return summary


def _check(demo: Demo) -> None:
    """Before anything is downloaded or written."""
    check_file(demo.out / "summary.json")
    if demo.objects not in ("auto", "procedural") and not Path(demo.objects).is_dir():
        raise AvsegError(f"{demo.objects} is no folder of cut-outs with sounds: give one, auto or procedural.")
    if demo.val + demo.test >= demo.videos:
        raise AvsegError(
            f"{demo.videos} videos leave none to train on beside {demo.val} for validation and {demo.test} for "
            "testing: ask for more with --videos, or for fewer with --val and --test."
        )
    from avseg.models.encoders import check_weights

    config = demo.config("ufe")  # both arms start from the same weights
    check_weights(config.model, config.weights)


def write_videos(demo: Demo) -> "BenchmarkInfo":
    """Stage 1: the generated benchmark as raw mp4 files, masks and a CSV."""
    from avseg.synthetic import write_benchmark

    with _timed(demo, "objects"):
        folder = find_objects(demo)
    with _timed(demo, "writing videos"), bar("Writing", "videos") as progress:
        return write_benchmark(
            demo.root,
            "s4",
            videos=demo.videos,
            val=demo.val,
            test=demo.test,
            seed=demo.seed,
            objects=folder,
            edition="small",
            progress=progress,
        )


def find_objects(demo: Demo) -> Path | None:
    """The folder of cut-outs and recordings to generate from; None is the built-in procedural set."""
    from avseg.synthetic.stamps import stamps_if_any

    if demo.objects != "auto":
        return None if demo.objects == "procedural" else Path(demo.objects)
    return stamps_if_any(demo.out / "stamps", _say)


def prepare_videos(demo: Demo) -> None:
    """Stage 2: frames, log-mel and flow, exactly as from AVSBench's own raw videos."""
    from avseg.data.prepare import prepare
    from avseg.synthetic import read_benchmark

    size = read_benchmark(demo.root, "s4").knobs.size
    with _timed(demo, "preparing"), bar("Preparing", "videos") as progress:
        found = prepare(demo.root, "s4", size=size, progress=progress)
    if found.failures:
        name, reason = found.failures[0]
        raise AvsegError(f"{name}: {reason} ({len(found.failures)} in all; delete {demo.root} and run again.)")


def train_arm(demo: Demo, config: Config) -> None:
    """Stage 3: one model. Both arms share seed, initial weights, labelled batches and number of steps."""
    from avseg.training.run import train

    folder = Path(config.run.out)
    with _timed(demo, f"training {folder.name}"):
        config.run.resume = True  # it begins where there is nothing; said each time, so that files tell the same
        same = _same_config(folder / "config.yaml", config)
        if same and (folder / "run.json").is_file():
            _say(f"{folder} is trained already")
            return
        if folder.exists() and not same:
            shutil.rmtree(folder)
        train(config)


def evaluate_arm(demo: Demo, arm: str) -> "Evaluation":
    """Stage 4: M_J and M_F on the test split, as `avseg evaluate` measures them."""
    from avseg.evaluation.evaluate import evaluate_checkpoint

    with _timed(demo, f"evaluating {arm}"):
        folder = demo.out / arm
        return evaluate_checkpoint(folder, demo.root, "s4", "test", out=folder / "test.json", workers=0)


def segment_one(demo: Demo) -> str:
    """Stage 5: the first test video, which no training saw, as an overlay that plays with its sound; its name."""
    from avseg.data.avsbench import avsbench, read_frames
    from avseg.inference import AVSegmenter, segment_video

    frame = next(frame for frame in read_frames(avsbench(demo.root, "s4")) if frame.split == "test")
    with _timed(demo, "segmenting"), bar("Segmenting", "moments") as progress:
        segmenter = AVSegmenter.from_pretrained(demo.out / "ufe")
        found = segment_video(frame.raw, segmenter, demo.out / "segmented", overwrite=True, progress=progress)
        shutil.copyfile(found.video, demo.out / "overlay.mp4")
    return frame.video


def summarise(demo: Demo, benchmark: "BenchmarkInfo", evaluations: "dict[str, Evaluation]") -> dict[str, Any]:
    """What ``summary.json`` holds: scores in [0, 1], and all that is needed to check them."""
    from avseg.evaluation.compare import compare
    from avseg.provenance import provenance
    from avseg.synthetic.baselines import baselines
    from avseg.training.run import read_run

    with _timed(demo, "reference points"):
        points = {found.name: found.miou for found in baselines(demo.root, "s4", "test")}
    gain = next(
        row.difference
        for row in compare([evaluations["baseline"]], [evaluations["ufe"]])
        if (row.protocol, row.metric) == (PROTOCOL, "miou")
    )

    def scores(arm: str) -> dict[str, Any]:
        found = evaluations[arm].scores
        own = {"miou": found[PROTOCOL].miou, "f_score": found[PROTOCOL].f_score}
        return own | {name: {"miou": s.miou, "f_score": s.f_score} for name, s in found.items()}

    origin = provenance()
    return {
        "baseline": scores("baseline"),
        "ufe": scores("ufe"),
        "difference": {"metric": "miou", **asdict(gain)},
        "protocol": PROTOCOL,
        "seconds": 0.0,
        "machine": origin["machine"],
        "objects": benchmark.objects,
        "model": demo.base,
        "seed": demo.seed,
        "steps": read_run(demo.out / "ufe")["steps"],
        "benchmark": {
            "version": benchmark.version,
            "hash": benchmark.hash,
            "edition": benchmark.edition,
            "counts": benchmark.counts,
        },
        "reference_points": points,
        "revision": origin["revision"],
        "test_root": str(demo.root),
        "provenance": origin,
    }


def report(
    demo: Demo,
    benchmark: "BenchmarkInfo",
    evaluations: "dict[str, Evaluation]",
    summary: dict[str, Any],
    held_back: str,
) -> None:
    """Stage 6: one page with the table, curves, images and video."""
    from avseg.evaluation.report import Arm, Report, write_report
    from avseg.render import qualitative_grid
    from avseg.training.logs import read_metrics

    names = {"baseline": "baseline", "ufe": "UFE"}
    arms = tuple(
        Arm(name, (evaluations[arm],), read_metrics(demo.out / arm / "metrics.csv")) for arm, name in names.items()
    )
    percent = {f"{name.replace('_', ' ')}, mIoU": f"{100 * v:.1f}" for name, v in summary["reference_points"].items()}
    write_report(
        demo.out / "report.html",
        Report(
            title="avseg demo: does unlabeled frame exploitation help?",
            arms=arms,
            protocol=PROTOCOL,
            pictures=[
                (
                    f"{PICTURES} test videos, evenly spaced in the list (not chosen by score), at their third second.",
                    qualitative_grid(_moments(demo)),
                )
            ],
            video="overlay.mp4",
            video_caption=f"Test video {held_back}, segmented by the UFE model five times a second.",
            facts={
                "Benchmark": {
                    "version": f"{benchmark.edition} {benchmark.version}",
                    "hash": benchmark.hash,
                    "objects": benchmark.objects,
                    "videos": ", ".join(f"{count} {split}" for split, count in benchmark.counts.items()),
                },
                "For orientation: choosing among the true object masks without listening": percent,
                "Run": {
                    "seed": demo.seed,
                    "steps of each arm": summary["steps"],
                    "machine": summary["machine"],
                    "date": summary["provenance"]["date"],
                    "revision": summary["revision"] or "not a checkout",
                    **{f"seconds, {name}": round(value) for name, value in demo.seconds.items()},
                },
            },
            commands=[
                f"avseg demo --model {demo.base} --out {demo.out} --seed {demo.seed}",
                f"avseg evaluate {demo.out / 'ufe'} --data.root {demo.root} --data.subset s4 --data.split test",
            ],
            limits=["The scenes are generated: they say how the method behaves here, not how well it does on film."],
            generated=True,
        ),
    )


def _moments(demo: Demo) -> "list[GridRow]":
    """Frame, flow, truth and both predictions of a few test videos' third second."""
    import torch

    from avseg.data.loader import evaluation_clips
    from avseg.models import load, normalise
    from avseg.render import GridRow, flow_colours

    models = {name: load(demo.out / arm) for arm, name in (("baseline", "baseline"), ("ufe", "UFE"))}
    clips = list(evaluation_clips(demo.root, "s4", "test", models["UFE"].config.inputs))
    chosen = [clips[i * len(clips) // PICTURES] for i in range(min(PICTURES, len(clips)))]
    rows = []
    for clip in chosen:
        pictures: dict[str, Any] = {
            "frame": clip.frames[0, 2].permute(1, 2, 0).numpy(),
            "flow": flow_colours(clip.flow[0, 2].float().numpy()),
            "truth": clip.masks[0, 2, 0].numpy() if clip.masks is not None else None,
        }
        one = type(clip)(
            **{name: value[:, 2:3] if isinstance(value, torch.Tensor) else value for name, value in vars(clip).items()}
        )
        for name, model in models.items():
            with torch.no_grad():
                logits = model.predict(normalise(one, model.config)).logits
            pictures[name] = (logits[0, 0, 0].sigmoid() > model.config.threshold).numpy()
        rows.append(GridRow(pictures, clip.categories[0], float(clip.times[0, 2]), clip.names[0]))
    return rows


def show(demo: Demo, evaluations: "dict[str, Evaluation]") -> None:
    """Print the table, the verdict and where everything is."""
    from rich.console import Console

    from avseg.evaluation.compare import compare, comparison_table
    from avseg.evaluation.report import verdict

    console = Console(markup=False, emoji=False, highlight=False)
    rows = compare([evaluations["baseline"]], [evaluations["ufe"]])
    console.print(comparison_table(rows, names=("baseline", "UFE")))
    main = next(row for row in rows if (row.protocol, row.metric) == (PROTOCOL, "miou"))
    console.print(verdict("UFE", "baseline", main, generated=True))
    console.print(f"Report: {demo.out / 'report.html'}")
    console.print(f"Video:  {demo.out / 'overlay.mp4'}")
    console.print(f"Models: {demo.out / 'baseline'}, {demo.out / 'ufe'} (for --checkpoint)")


def _same_config(file: Path, config: Config) -> bool:
    try:
        return bool(read_yaml(file) == config.to_dict())
    except AvsegError:
        return False


@contextmanager
def _timed(demo: Demo, stage: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        demo.seconds[stage] = demo.seconds.get(stage, 0.0) + time.perf_counter() - started


def _say(text: str) -> None:
    from rich.console import Console

    Console(markup=False, emoji=False, highlight=False).print(text)
