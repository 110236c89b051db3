"""What distant frames could be worth at most: UFE whose teacher knows the generated benchmark's hidden truth.

    python benchmarks/ceiling.py ROOT OUT [--config FILE] [--OPTION=VALUE …]

ROOT is a prepared S4 benchmark; OPTIONs override the configuration (such as --run.seed=1). Everything is as in a run
with distant frames, only that pseudo masks are the true ones. A diagnostic: no method may know them. Results are added
to OUT/ceiling.jsonl.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from avseg.config import InputConfig, PerturbConfig, UFEConfig, load_config
from avseg.data.avsbench import avsbench
from avseg.data.clip import DistantBatch
from avseg.data.dataset import whole_videos
from avseg.data.rows import read_row
from avseg.evaluation.evaluate import evaluate_checkpoint
from avseg.models import AVSModel
from avseg.provenance import provenance
from avseg.synthetic import read_benchmark
from avseg.training import consistency
from avseg.training.run import train

CONFIG = Path(__file__).parents[1] / "avseg" / "experiments" / "scales" / "small_tpavi.yaml"


class Truth:
    """The true masks of distant frames, ``(B, T, 1, H, W)`` bool."""

    def __init__(self, root: Path, inputs: InputConfig):
        self.inputs = inputs
        self.videos = {(v[0].category, v[0].video): v for v in whole_videos(avsbench(root, "s4"), "train")}

    def __call__(self, batch: DistantBatch) -> Tensor:
        rows = []
        for category, name, times in zip(batch.categories, batch.names, batch.times, strict=True):
            frames = [round(float(time) + 1 / 16) for time in times]
            clip = [self.videos[category, name][k - 1] for k in frames]
            read = [read_row(frame, self.inputs, "none", hidden=True)["mask"] for frame in clip]
            rows.append(torch.from_numpy(np.stack(read))[:, None])
        return torch.stack(rows).to(batch.frames.device)


def know_the_truth(truth: Truth) -> None:
    """Give Algorithm 1 true masks in place of the teacher's, moved by the same weak perturbation."""
    usual = consistency.weak_view

    def weak_view(batch: DistantBatch, perturbs: PerturbConfig, generator: Generator) -> DistantBatch:
        known = replace(batch, masks=truth(batch)) if isinstance(batch, DistantBatch) else batch
        return usual(known, perturbs, generator)

    def with_pseudo_masks(teacher: AVSModel, weak: DistantBatch, ufe: UFEConfig) -> DistantBatch:
        assert weak.masks is not None
        return replace(weak, masks=weak.masks.float())

    consistency.weak_view, consistency.with_pseudo_masks = weak_view, with_pseudo_masks  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG)
    options, overrides = parser.parse_known_args()
    fixed = (f"--data.root={options.root}", "--ufe.distant_frames=true")
    config = load_config(options.config, *overrides, *fixed)
    name = f"{'nf+' if config.model.neighbouring_frames else ''}truth-seed{config.run.seed}"
    config.run.out = str(options.out / name)
    config.run.resume = True
    know_the_truth(Truth(options.root, config.model.inputs))
    run = train(config)
    evaluation = evaluate_checkpoint(run.folder, options.root, "s4", "test", workers=0, progress=False)
    scores = evaluation.scores["T=1"]
    row = {
        "arm": name, "seed": config.run.seed, "miou": scores.miou, "f_score": scores.f_score, "steps": run.steps,
        "protocol": "T=1", "benchmark": read_benchmark(options.root, "s4").hash, **provenance(),
    }  # fmt: skip
    with (options.out / "ceiling.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row)


if __name__ == "__main__":
    main()
