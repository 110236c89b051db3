"""Calibrate an edition of the generated benchmark, without UFE: what each way to answer scores on a split.

Without training: choosing among the true masks at random, the largest object, or by motion. With training, all with
one configuration as the supervised baseline: a blind model (black images), a deaf model (silence), the baseline.

    python benchmarks/calibrate.py ROOT OUT [--arms baseline,deaf,blind] [--split test] [--config FILE] [--OPTION=V …]

ROOT is a prepared benchmark; OPTIONs override the configuration. Results are appended to OUT/calibration.jsonl.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from avseg.config import load_config
from avseg.demo import BASELINE
from avseg.evaluation.evaluate import evaluate_checkpoint
from avseg.models.base import register
from avseg.models.tpavi import TPAVI
from avseg.provenance import provenance
from avseg.synthetic import read_benchmark
from avseg.synthetic.baselines import baselines
from avseg.training.run import train

CONFIG = Path(__file__).parents[1] / "avseg" / "configs" / "demo.yaml"


@register("deaf")
class Deaf(TPAVI):
    """TPAVI that hears silence."""

    def embed_audio(self, log_mel: Tensor) -> Tensor:
        return super().embed_audio(torch.full_like(log_mel, -4.6))


@register("blind")
class Blind(TPAVI):
    """TPAVI that sees black."""

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        return super().pyramid(torch.zeros_like(frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", default="baseline,deaf,blind")
    parser.add_argument("--split", default="test")
    parser.add_argument("--config", type=Path, default=CONFIG)
    options, overrides = parser.parse_known_args()
    benchmark = read_benchmark(options.root, "s4")
    common = {"benchmark": benchmark.hash, "version": benchmark.version, "edition": benchmark.edition}
    options.out.mkdir(parents=True, exist_ok=True)

    def note(row: dict[str, object]) -> None:
        with (options.out / "calibration.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "split": options.split, **common, **provenance()}) + "\n")
        print(row, flush=True)

    if "baseline" in options.arms:
        for found in baselines(options.root, "s4", options.split):
            note({"arm": found.name, **{k: v for k, v in asdict(found).items() if k != "name"}})
    for arm in options.arms.split(","):
        folder = options.out / arm
        base = () if arm == "baseline" else (f"--model.base={arm}",)
        fixed = (f"--data.root={options.root}", f"--run.out={folder}")
        run = train(load_config(options.config, *BASELINE, *base, *overrides, *fixed))
        evaluation = evaluate_checkpoint(folder, options.root, "s4", options.split, workers=0, progress=False)
        scores, found = evaluation.scores["T=1"], evaluation.diagnostics["T=1"]
        note({
            "arm": arm, "miou": scores.miou, "f_score": scores.f_score, "steps": run.steps,
            "selection": found["sounding"]["selection"], "quality": found["sounding"]["quality"],
        })  # fmt: skip


if __name__ == "__main__":
    main()
