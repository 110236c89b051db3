"""How much flow adds to the image features while training begins (Eq. 2), and what that does to the loss.

    python benchmarks/fusion.py ROOT OUT [--arms none,sum,gated] [--steps 125] [--config FILE] [--OPTION=VALUE …]

ROOT is a prepared benchmark; OPTIONs override the configuration (such as --run.seed=100). Each arm trains without
distant frames, as its configuration says, and is stopped after so many steps of its schedule. No score is looked at.
Results are added to OUT/fusion.jsonl: the loss of every step, and the norm of what flow adds over that of the image
features, for each of the four scales.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from avseg.config import Config, load_config
from avseg.models.motion import MotionBranch
from avseg.provenance import provenance
from avseg.synthetic import read_benchmark
from avseg.training.run import train
from avseg.training.task import AVSTask

CONFIG = Path(__file__).parents[1] / "avseg" / "experiments" / "scales" / "small_tpavi.yaml"
ARMS = ("none", "sum", "gated", "normalised")
SHOWN = (0, 10, 30, 50, 100)


class _Watch(pl.Callback):
    """Keeps the loss and what flow added to the image features in each step, and ends training after ``steps``."""

    def __init__(self, steps: int):
        self.steps = steps
        self.losses: list[float] = []
        self.shares: list[list[float]] = []
        self._seen: list[float] = []

    def fuse(self, branch: MotionBranch, image: Tensor, motion: Tensor, scale: int) -> Tensor:
        """Eq. 2 as it is, looked at."""
        refined = _FUSE(branch, image, motion, scale)
        self._seen.append(((refined - image).detach().norm() / image.detach().norm()).item())
        return refined

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any) -> None:
        assert isinstance(pl_module, AVSTask)
        self.losses.append(pl_module.latest["loss"])  # on a CPU that of this step
        scales = 4
        if self._seen:
            calls = len(self._seen) // scales
            self.shares.append([sum(self._seen[scale::scales]) / calls for scale in range(scales)])
        self._seen = []
        trainer.should_stop = trainer.global_step >= self.steps


_FUSE = MotionBranch._fuse


def measure(config: Config, steps: int) -> dict[str, Any]:
    """Train for ``steps`` steps in a folder that is thrown away."""
    watch = _Watch(steps)
    MotionBranch._fuse = lambda *given: watch.fuse(*given)  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            config.run.out = folder
            config.run.validate_every = config.optim.epochs
            train(config, callbacks=[watch])
    finally:
        MotionBranch._fuse = _FUSE  # type: ignore[method-assign]
    return {"loss": watch.losses, "share": watch.shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", default="none,sum,gated")
    parser.add_argument("--steps", type=int, default=125)
    parser.add_argument("--config", type=Path, default=CONFIG)
    options, overrides = parser.parse_known_args()
    arms = options.arms.split(",")
    if not set(arms) <= set(ARMS):
        parser.error(f"--arms: give some of {', '.join(ARMS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for arm in arms:
        flow = (
            f"--model.neighbouring_frames={str(arm != 'none').lower()}",
            *(() if arm == "none" else (f"--model.flow_fusion={arm}",)),
        )
        fixed = (f"--data.root={options.root}", "--ufe.distant_frames=false", *flow)
        config = load_config(options.config, *overrides, *fixed)
        found = measure(config, options.steps)
        row = {
            "model": config.model.base, "arm": arm, "seed": config.run.seed, **found,
            "benchmark": read_benchmark(options.root, config.data.subset).hash, **provenance(),
        }  # fmt: skip
        with (options.out / "fusion.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        last = found["loss"][-25:]
        print(f"{config.model.base} {arm}: mean loss of the last {len(last)} steps {sum(last) / len(last):.3f}")
        for step in SHOWN:
            if step < len(found["share"]):
                print(f"  step {step}: flow adds", *(f"{share:.2f}" for share in found["share"][step]))


if __name__ == "__main__":
    main()
