"""What can be watched of a run beside its own numbers."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from avseg.evaluation.pseudo import pseudo_quality
from avseg.training.logs import MetricsCSV
from avseg.training.task import AVSTask


class PseudoMasks(Callback):
    """Writes down how good the teacher's masks are, by the generated benchmark's hidden truth: ``pseudo.csv``.

    A row holds ``step``, ``epoch``, and the fields of `avseg.evaluation.pseudo.PseudoQuality`. Training is bit for bit
    what it is without this. Data without a hidden truth give no file; a run that is resumed drops the rows of steps
    that are done again.

    Args:
        every: Every so many epochs a row; the first and the last epoch always have one.
        videos: Size of the sample of training videos.
    """

    def __init__(self, every: int = 1, videos: int = 60):
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}")
        self.every, self.videos = every, videos
        self.table: MetricsCSV | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the rows of the epochs before."""
        task = _task(pl_module)
        done = trainer.current_epoch * task.total_steps // task.config.optim.epochs
        self.table = MetricsCSV(Path(task.config.run.out) / "pseudo.csv", done)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the teacher, and add a row."""
        epoch, task = trainer.current_epoch, _task(pl_module)
        due = epoch == 0 or (epoch + 1) % self.every == 0 or epoch + 1 == task.config.optim.epochs
        if not due or not trainer.is_global_zero:
            return
        data, teacher = task.config.data, task.teacher
        subset = "s4" if data.subset == "both" else data.subset
        found = pseudo_quality(teacher, data.root, subset, flow=data.flow, videos=self.videos)
        if found is not None:
            assert self.table is not None
            self.table.log_metrics({"epoch": float(epoch), **vars(found)}, task.steps_done)
            self.table.save()


def _task(module: LightningModule) -> AVSTask:
    assert isinstance(module, AVSTask)
    return module
