"""``avseg demo``, ``train``, ``evaluate`` and ``compare``."""

import logging
from typing import Any, Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from avseg.commands.console import note, show
from avseg.commands.parser import Parser
from avseg.config import add_config_arguments, config_from_parsed


def demo_parser() -> Parser:
    parser = Parser(
        "avseg demo",
        "[options]",
        "See the whole job run: write a small generated benchmark, prepare it, train a supervised baseline and a model "
        "with unlabelled frames, evaluate both, segment a video that neither has seen, and write a report. What an "
        "earlier run with the same options finished is kept.",
        "avseg demo\navseg demo --model avsegformer\navseg demo --objects procedural --out runs/offline",
    )
    parser.add_argument(
        "--out", type=str | None, help="folder of everything it writes; runs/demo, or runs/demo_MODEL, if not given"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the benchmark and of training")
    parser.add_argument("--model", type=Literal["tpavi", "avsegformer"], default="tpavi", help="base model")
    parser.add_argument(
        "--objects",
        type=str,
        default="auto",
        help="auto (photographed things with recordings where they are available), procedural (the built-in set, with "
        "nothing downloaded), or a folder of cut-outs with sounds",
    )
    parser.add_argument("--videos", type=PositiveInt, default=200, help="videos in all")
    parser.add_argument("--val", type=PositiveInt, default=20, help="of them for validation")
    parser.add_argument("--test", type=PositiveInt, default=60, help="of them for testing")
    return parser


def demo(options: Any) -> int:
    from avseg.demo import run_demo

    quiet_lightning()
    values = vars(options)
    base = values.pop("model")
    out = values.pop("out") or ("runs/demo" if base == "tpavi" else f"runs/demo_{base}")
    run_demo(out=out, base=base, **values)
    return 0


def train_parser() -> Parser:
    parser = Parser(
        "avseg train",
        "[--config FILE] [--SECTION.FIELD VALUE ...]",
        "Train a model. A configuration is a YAML file, options for single fields, or both; --print_config shows the "
        "whole of it. The run's folder takes --run.resume true to go on after a stop.",
        "avseg train --config configs/s4_tpavi_resnet50_ufe.yaml \\\n"
        "    --data.root AVSBench --run.out runs/ufe --optim.batch_size 8\n"
        "avseg train --config configs/demo.yaml --print_config",
    )
    add_config_arguments(parser)
    return parser


def train(options: Any) -> int:
    config = config_from_parsed(train_parser(), options)
    from avseg.training.run import train as train_model

    quiet_lightning()

    result = train_model(config)
    print(f"{result.folder}: {result.steps} steps, {result.seconds:.0f} s")
    for subset in ("s4", "ms3") if config.data.subset == "both" else (config.data.subset,):
        print(
            f"next: avseg evaluate {result.folder} --data.root {config.data.root} --data.subset {subset} "
            "--data.split test"
        )
    return 0


def quiet_lightning() -> None:
    """Leave out Lightning's remarks on devices and products; its warnings stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def evaluate_parser() -> Parser:
    parser = Parser(
        "avseg evaluate",
        "CKPT --data.root ROOT [options]",
        "Score a model on a split, under T = 5 (a video's frames together), T = 1 (each alone) and the T that it was "
        "trained with: M_J (mIoU) and M_F (F-score) as AVSBench defines them, per category and overall.",
        "avseg evaluate runs/demo/ufe --data.root runs/demo/data --data.subset s4 \\\n"
        "    --data.split test --json ufe.json",
    )
    parser.add_argument(
        "checkpoint", metavar="CKPT", type=str, help="folder of a trained model, a .ckpt of a run, or a published name"
    )
    parser.add_argument("--data.root", type=str, required=True, help="folder of Single-source/ and Multi-sources/")
    parser.add_argument("--data.subset", type=Literal["s4", "ms3"], default="s4", help="single or multiple sources")
    parser.add_argument("--data.split", type=Literal["train", "val", "test"], default="test", help="which videos")
    parser.add_argument("--data.workers", type=NonNegativeInt, default=2, help="processes that load clips")
    parser.add_argument(
        "--data.flow",
        type=Literal["computed", "published", "shuffled"],
        default="computed",
        help="motion for a model that takes it: avseg's own, UFE's published 8-bit trees, or, as a control, that of "
        "another video",
    )
    parser.add_argument(
        "--size",
        type=Literal["truth", "model", "seen"],
        default="truth",
        help="at which size masks are scored: the truth's own, the model's image size, or the size to which the model "
        "enlarges images before it looks at them",
    )
    parser.add_argument("--json", type=str | None, help="also write the scores of every video to this file")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
    return parser


def evaluate(options: Any) -> int:
    from avseg.evaluation.evaluate import evaluate_checkpoint, scores_table, selection_table
    from avseg.inference import choose_device
    from avseg.openvocab.pretrained import is_open_vocabulary

    if is_open_vocabulary(options.checkpoint):
        return _evaluate_open_vocabulary(options)
    evaluation = evaluate_checkpoint(
        options.checkpoint,
        options.data.root,
        options.data.subset,
        options.data.split,
        out=options.json,
        device=choose_device(options.device),
        workers=options.data.workers,
        flow=options.data.flow,
        size=options.size,
    )
    if evaluation.flow == "none" and options.data.flow != "computed":
        note(f"{options.checkpoint} takes no motion, so --data.flow {options.data.flow} changes nothing.")
    show(scores_table(evaluation))
    if evaluation.diagnostics:
        show(selection_table(evaluation))
    if options.json:
        print(f"scores of every video: {options.json}")
    return 0


def _evaluate_open_vocabulary(options: Any) -> int:
    from avseg.errors import AvsegError
    from avseg.evaluation.evaluate import scores_table, selection_table
    from avseg.openvocab.score import evaluate_open_vocabulary
    from avseg.openvocab.segmenter import OpenVocabulary

    if options.size != "truth" or options.data.flow != "computed":
        raise AvsegError(
            "open-vocabulary is scored at the truth's size with computed flow: leave out --size and --data.flow."
        )
    evaluation = evaluate_open_vocabulary(
        OpenVocabulary.downloaded(options.device),
        options.data.root,
        options.data.subset,
        options.data.split,
        options.json,
        options.data.workers,
    )
    show(scores_table(evaluation))
    if evaluation.diagnostics:
        show(selection_table(evaluation))
    if options.json:
        print(f"scores of every video: {options.json}")
    return 0


def compare_parser() -> Parser:
    parser = Parser(
        "avseg compare",
        "A.json B.json",
        "Is model B better than model A? Differences of the scores that `avseg evaluate --json` wrote, paired by "
        "video, with bootstrap intervals. Several seeds of a model: their files joined by commas.",
        "avseg compare baseline.json ufe.json\navseg compare base-0.json,base-1.json ufe-0.json,ufe-1.json",
    )
    parser.add_argument("baseline", metavar="A.json", type=str, help="scores of model A")
    parser.add_argument("candidate", metavar="B.json", type=str, help="scores of model B, on the same videos")
    parser.add_argument("--samples", type=NonNegativeInt, default=10_000, help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap's random numbers")
    return parser


def compare(options: Any) -> int:
    from avseg.evaluation.compare import compare_files, comparison_table

    baseline, candidate = options.baseline.split(","), options.candidate.split(",")
    show(comparison_table(compare_files(baseline, candidate, options.samples, options.seed)))
    return 0
