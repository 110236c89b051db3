"""What a run writes while it trains: one CSV that survives a resumption, and a progress bar over all its steps."""

import csv
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.progress import ProgressBar


def check_logger(name: str) -> None:
    """Find out whether the package of ``run.logger`` is there.

    Raises:
        AvsegError: it isn't.
    """
    if name in ("tensorboard", "wandb") and find_spec(name) is None:
        raise AvsegError(f"run.logger is {name}, which is not installed: `pip install {name}`, or give csv.")


def further_loggers(name: str, folder: Path) -> list[Logger]:
    """The loggers of ``run.logger`` besides `MetricsCSV`, for a run in ``folder``."""
    if name == "tensorboard":
        from lightning.pytorch.loggers import TensorBoardLogger

        return [TensorBoardLogger(str(folder), name="", version="tensorboard")]
    if name == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        return [WandbLogger(folder.name, folder, project=os.environ.get("WANDB_PROJECT", "avseg"))]
    return []


class MetricsCSV(Logger):
    """``metrics.csv``: a row per logged step; columns appear as they are first logged, cells may be empty.

    A run that is resumed keeps the rows of the steps before and drops later ones, which will be measured again.

    Args:
        path: The file.
        first_step: Steps done before; rows from this step on are dropped.
    """

    def __init__(self, path: str | Path, first_step: int = 0):
        super().__init__()
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        if first_step and self.path.is_file():
            before = [row for row in read_metrics(self.path) if row["step"] <= first_step]
            self.rows = [{**row, "step": int(row["step"])} for row in before]

    @property
    def name(self) -> str:
        """Nothing: the file stands in the run's folder."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, as `name`."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> "MetricsCSV":
        """The logger itself, on the first process."""
        return self

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: ``config.yaml`` holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add ``metrics`` to the row of ``step``."""
        at = step or 0
        if not self.rows or self.rows[-1]["step"] != at:
            self.rows.append({"step": at})
        self.rows[-1].update(metrics)

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        names = list(dict.fromkeys(["step", "epoch", *(key for row in self.rows for key in row)]))
        with whole_file(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self.rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file a last time."""
        self.save()


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``, empty cells left out."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value != ""} for row in csv.DictReader(file)]


class StepProgress(Callback):
    """One bar over all steps of the run, with the current loss and the last validation.

    Args:
        title: What is being trained.
        total: Steps of the whole run.
    """

    def __init__(self, title: str, total: int):
        self.bar, self.total = ProgressBar(title, "steps"), total

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move it."""
        latest: dict[str, float] = getattr(pl_module, "latest", {})
        note = f"loss {latest['loss']:.3f}" if "loss" in latest else ""
        if "val/miou" in latest:
            note += f", val mIoU {100 * latest['val/miou']:.1f}"
        self.bar(batch.step + 1, self.total, note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop the bar, after an error too."""
        self.bar.close()
