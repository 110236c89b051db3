"""One of two processes that train together, which writes down its whole state after every step.

Arguments: the data's root, a folder for runs, a JSON list of what each run is (see `RUNS` of test_devices.py), and, to
see what becomes of the other, which process makes a mistake. The environment says which process this is, as a cluster's
would.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from small_run import small_config

from avseg.config import Config, OptimConfig, UFEConfig
from avseg.errors import AvsegError
from avseg.training.run import train

QUERIES = {"queries": 4, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "feedforward": 16}
OPTIONS = {
    "avsegformer": {**QUERIES, "generator_layers": 1, "points": 2, "generator_feedforward": 16, "mask_hidden": 16,
                    "group_channels": 4},
    "ecmvae": {},
    "catr": {**QUERIES, "mask_stride": 4},
    "autr": {**QUERIES, "points": 2, "group_channels": 4},
    "sama": {"adapter_width": 16},
}  # fmt: skip

SAM = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "global_attn_indexes": [1]}


def configuration(root: Path, out: Path, base: str, teacher: str, student: str, accumulate: int) -> Config:
    """Two epochs of three steps, one of burn-in; an epoch's last move is of one step where two are accumulated."""
    config = small_config(
        root,
        out,
        UFEConfig(distant_frames=True, burn_in=1, teacher=teacher, student=student, ema_decay=0.5),  # type: ignore[arg-type]
        OptimConfig(batch_size=1, accumulate=accumulate, epochs=2, learning_rate=1e-3, name="adamw", clip_norm=1.0),
    )
    if base in OPTIONS:
        config.model.base, config.model.options = base, OPTIONS[base]
    if base == "sama":
        config.model.image_encoder, config.model.image_encoder_config = "sam_vit_b", SAM
    return config


def digest(values: Any) -> str:
    """A hash of every bit of tensors and numbers in nested dictionaries and lists."""
    if isinstance(values, torch.Tensor):
        return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(values, dict):
        values = [(str(name), digest(value)) for name, value in values.items()]
    elif isinstance(values, (list, tuple)):
        values = [digest(value) for value in values]
    return hashlib.sha256(repr(values).encode()).hexdigest()


class Diary(Callback):
    """Writes a line of hashes after every step: what the process has seen, and its whole state by name."""

    def __init__(self, file: Path):
        self.file = file

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        state = {name: digest(value) for name, value in pl_module.state_dict().items()}
        state["optimizer"] = digest(trainer.optimizers[0].state_dict())
        state["gradients"] = "" if any(p.grad is not None for p in pl_module.parameters()) else "none"
        line = {"seen": batch.labelled.names, "draw": torch.rand(()).item(), "state": state}
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Mistake(Callback):
    """What a person could mend goes wrong in one process."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if [str(trainer.global_rank)] == sys.argv[4:] and batch.step == 2:
            raise AvsegError("a file is missing: put it there.")


def main() -> None:
    root, out, runs = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    for run in runs:
        config = configuration(root, out / "-".join(map(str, run)), *run)
        config.run.devices = 2
        train(config, [Mistake(), Diary(out / f"{'-'.join(map(str, run))}.{os.environ['LOCAL_RANK']}")])


if __name__ == "__main__":
    try:
        main()
    except AvsegError as error:
        sys.exit(str(error))
