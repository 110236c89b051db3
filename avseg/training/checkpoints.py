"""What a run writes to go on from, so that a run killed at any moment ends as one that was left alone."""

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from avseg.config import Config, RunConfig
from avseg.data.loader import TrainingData
from avseg.errors import AvsegError
from avseg.files import whole_file

LAST, BEST = "last.ckpt", "best.ckpt"

# What may differ in a run that is resumed: where files are, and how fast steps are done. Epochs have a rule of their
# own, and what data.root and data.labelled name is told by the clips that they give.
_FREE = {
    "model": ("image_encoder_config",),  # filled in when the model is built
    "data": ("root", "labelled", "distant_root", "store", "workers"),
    "optim": ("epochs", "fused"),
    "run": tuple(each.name for each in fields(RunConfig) if each.name != "seed"),
}


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that have their name only once they are whole. (Lightning copies them there from another folder.)"""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to the file ``path``."""
        with whole_file(path) as temporary:
            torch.save(checkpoint, temporary)


class Checkpoints(Checkpoint):
    """``last.ckpt`` after every validated epoch and at the end, and ``best.ckpt``, the one of the highest ``val/miou``.

    ``last.ckpt`` is written first and tells whether it is the best; ``best.ckpt`` is made of it afterwards. So one file
    decides how far a run is, and where a run was killed between the two, the resumed run makes up for it.

    Args:
        folder: Where they are.
        every: Epochs between validations.
    """

    def __init__(self, folder: Path, every: int):
        self.last, self.best, self.every = folder / LAST, folder / BEST, every
        self.facts: dict[str, Any] = {}  # what a resumed run must have in common with this one; see `facts_of`
        self.highest, self.highest_step, self.saved_step = -math.inf, 0, 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Where the run was killed before ``best.ckpt`` was made, make it."""
        self._keep_best(trainer, pl_module.steps_done)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the checkpoints of an epoch that was validated."""
        if (trainer.current_epoch + 1) % self.every == 0:
            score = float(trainer.callback_metrics["val/miou"])
            if score > self.highest:
                self.highest, self.highest_step = score, pl_module.steps_done
            self._save(trainer, pl_module.steps_done)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the last checkpoint where the last epoch was not validated."""
        if self.saved_step != pl_module.steps_done:
            self._save(trainer, pl_module.steps_done)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Store how good the best was, and what a resumed run must have in common."""
        epochs = pl_module.steps_done * pl_module.config.optim.epochs // pl_module.total_steps
        best = {"highest": self.highest, "highest_step": self.highest_step}
        checkpoint["avseg_run"] = {"epochs": epochs, **best, **self.facts}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Remember how good the best was."""
        run = checkpoint["avseg_run"]
        self.highest, self.highest_step = run["highest"], run["highest_step"]

    def _save(self, trainer: pl.Trainer, steps: int) -> None:
        trainer.save_checkpoint(self.last)
        self.saved_step = steps
        self._keep_best(trainer, steps)

    def _keep_best(self, trainer: pl.Trainer, steps: int) -> None:
        if trainer.is_global_zero and steps and steps == self.highest_step:
            with whole_file(self.best) as temporary:
                temporary.unlink()
                try:
                    os.link(self.last, temporary)  # no second file: `last.ckpt` is replaced, never written to
                except OSError:
                    shutil.copyfile(self.last, temporary)


def facts_of(config: Config, data: TrainingData) -> dict[str, Any]:
    """What a run must have in common with the one that it resumes: ``config``, ``devices``, a digest of its clips."""
    clips = "\n".join(f"{clip[0].key} {tuple(frame.k for frame in clip)}" for clip in [*data.labelled, *data.distant])
    return {"config": config.to_dict(), "devices": data.world_size, "clips": sha256(clips.encode()).hexdigest()}


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What a checkpoint says of its run: ``steps`` and ``epochs`` done, and `facts_of` the run.

    Raises:
        AvsegError: it is damaged, or not one that a run can go on from.
    """
    try:
        values: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        int(values["avseg_steps"])
    except Exception as error:
        raise AvsegError(
            f"{file} cannot be read ({type(error).__name__}): delete the run's folder and train again."
        ) from error
    if "avseg_run" not in values:
        raise AvsegError(
            f"{file} is of an earlier avseg, which did not store all that resuming needs: name another --run.out, and "
            "start from its weights with --weights.start."
        )
    return {"steps": int(values["avseg_steps"]), **values["avseg_run"]}


def check_resumable(before: dict[str, Any], config: Config, folder: Path) -> None:
    """Find out whether ``config`` describes the run in ``folder``, whose last checkpoint says ``before``.

    Raises:
        AvsegError: it describes another run, or a shorter one than was done.
    """
    mend = "to resume it, or name another --run.out (--weights.start begins a new run with these weights)."
    old, new = dict(_fixed(before["config"])), dict(_fixed(config.to_dict()))
    for name in new:
        # A field that is in one alone came with another version of avseg.
        if name in old and old[name] != new[name]:
            raise AvsegError(
                f"{folder} was trained with {name} {_word(old[name])}, and this run says {_word(new[name])}: "
                f"give {_word(old[name])} {mend}"
            )
    begun, asked = before["config"]["optim"]["epochs"], config.optim.epochs
    if asked < before["epochs"]:
        raise AvsegError(
            f"{folder} was trained for {before['epochs']} epochs, and optim.epochs is {asked}: "
            f"give {before['epochs']} or more {mend}"
        )
    if asked != begun and config.optim.schedule == "cosine":
        raise AvsegError(
            f"{folder} was begun with optim.epochs {begun}, which its cosine schedule follows, and this run says "
            f"{asked}: give {begun} {mend}"
        )


def check_facts(before: dict[str, Any], facts: dict[str, Any], folder: Path) -> None:
    """Find out whether a resumed run has the devices and the clips of the run before; see `facts_of`.

    Raises:
        AvsegError: it has not.
    """
    if before["devices"] != facts["devices"]:
        raise AvsegError(
            f"{folder} was trained on {before['devices']} device(s), which share out its clips, and this run has "
            f"{facts['devices']}: give --run.devices and --run.nodes that make {before['devices']}, or another "
            "--run.out."
        )
    if before["clips"] != facts["clips"]:
        raise AvsegError(
            f"{folder} was trained on other clips than data.root and data.labelled name now: name those that it was "
            "trained on to resume it, or give another --run.out."
        )


def _fixed(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of every field of a configuration that may not change."""
    for section, settings in values.items():
        for name, value in settings.items():
            if name in _FREE.get(section, ()):
                continue
            if name == "inputs":
                yield from ((f"{section}.{name}.{inner}", each) for inner, each in value.items())
            else:
                yield f"{section}.{name}", value


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
