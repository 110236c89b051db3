"""The LightningModule: one training step of Algorithm 1, validation, optimiser and what a checkpoint holds."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from avseg.config import Config, model_config_to_dict
from avseg.data.clip import LabelledBatch, TrainBatch
from avseg.errors import AvsegError
from avseg.evaluation.evaluate import video_logits
from avseg.evaluation.metrics import FScore, MeanJaccard
from avseg.models import AVSModel, normalise
from avseg.training.consistency import Draws, EMATeacher, loss_count, mix_seed, ufe_losses

LOG_EVERY = 10  # steps; reading a loss back makes a GPU wait


class AVSTask(pl.LightningModule):
    """Trains an `AVSModel` on `TrainBatch`es.

    Optimisation is manual: the labelled and the strong pass each run backward at once, so that one graph is alive
    at a time. Learning rate, perturbations and dropout are functions of the seed and the step, so that a resumed run
    needs no state but weights and the optimiser's.

    Args:
        model: Moved by the optimiser.
        config: The whole configuration.
        total_steps: Steps of the run, for the schedule.
        steps_per_epoch: Steps of an epoch, at whose end no gradient is left over.
    """

    def __init__(self, model: AVSModel, config: Config, total_steps: int, steps_per_epoch: int):
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        if config.run.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        self.frozen_steps = config.optim.freeze_image_encoder * steps_per_epoch
        self.encoder_weights = [weight for weight in model.image_encoder.parameters() if weight.requires_grad]
        self.ema = EMATeacher(model, config.ufe.ema_decay) if config.ufe.teacher == "ema" else None
        self.teacher_average: nn.Module | None = self.ema.model if self.ema else None  # registered: saved, moved
        if config.run.compile:
            for each in (model, self.teacher_average):
                if each is not None:
                    each.compile(dynamic=False)
        self.jaccard, self.f_score = MeanJaccard(), FScore()
        self.latest: dict[str, float] = {}
        self.steps_done = 0

    @property
    def teacher(self) -> AVSModel:
        """The model that gives pseudo masks: the student itself, or its moving average."""
        return self.ema.model if self.ema else self.model

    def training_step(self, batch: TrainBatch, batch_idx: int) -> None:
        """One iteration of Algorithm 1; weights move every ``optim.accumulate`` steps and at an epoch's end."""
        torch.manual_seed(mix_seed(self.config.run.seed, batch.step, self.global_rank))  # dropout, stochastic depth
        draws = Draws.of(self.config.run.seed, batch.step, self.global_rank)
        frozen = batch.step < self.frozen_steps
        if frozen:
            self.model.image_encoder.eval()
        if self.trainer.world_size == 1:  # under DDP every parameter must take part, so there gradients are dropped
            for weight in self.encoder_weights:
                weight.requires_grad_(not frozen)

        notes: dict[str, Tensor] = {}
        losses = ufe_losses(batch, self.model, self.teacher, self.config.ufe, self.config.perturb, draws, notes)
        steps, moves = self.move_of(batch.step)
        count = loss_count(batch, self.config.ufe)
        terms: dict[str, Tensor] = {}
        for index, named in enumerate(losses, start=1):
            travels = index == count and moves
            loss = torch.stack(list(named.values())).sum() / steps
            if travels and self.trainer.world_size > 1:
                loss = loss + _nothing_of(self.model)
            with nullcontext() if travels else self._unsynchronised():
                self.manual_backward(loss)
            terms.update({name: term.detach() for name, term in named.items()})
        if self.trainer.world_size > 1:
            share_statistics(self.model, self.trainer.world_size)
        if moves:
            self._move_weights(batch.step, frozen)
        if frozen:
            self.model.train()
        self._log_step(batch, terms, notes)

    def move_of(self, step: int) -> tuple[int, bool]:
        """How many steps' mean gradient makes the move that ``step`` belongs to, and whether it is the last of them.

        An epoch's last move is of the steps that are left. So nothing waits between epochs, where Lightning clears
        gradients to validate, where checkpoints are written, and where the image encoder starts to learn.
        """
        place = step % self.steps_per_epoch
        first = place - place % self.config.optim.accumulate
        steps = min(self.config.optim.accumulate, self.steps_per_epoch - first)
        return steps, place + 1 == first + steps

    def _move_weights(self, step: int, frozen: bool) -> None:
        optimiser = self.optimizers()
        assert isinstance(optimiser, pl.core.optimizer.LightningOptimizer)
        if frozen:
            self.model.image_encoder.zero_grad(set_to_none=True)
        if self.config.optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = self.learning_rate(step)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update(self.model)

    def learning_rate(self, step: int) -> float:
        """The learning rate at ``step``: linear warm-up, then constant or a cosine to zero."""
        optim = self.config.optim
        rate = optim.learning_rate * min(1.0, (step + 1) / max(1, optim.warmup_steps))
        if optim.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / max(1, self.total_steps)))
        return rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam or AdamW over everything that is trained."""
        optim = self.config.optim
        trained = [p for p in self.model.parameters() if p.requires_grad]
        kind = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
        fused = optim.fused and self.device.type in ("cpu", "cuda")
        return kind(trained, lr=optim.learning_rate, weight_decay=optim.weight_decay, fused=fused)

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        """Score one validation video at the T of training and at the model's size, not the truth's."""
        assert batch.masks is not None
        inputs = normalise(batch, self.model.config)
        logits = video_logits(self.model, inputs, batch, self.config.model.frames_per_clip)
        self.jaccard.update(logits, batch.masks, batch.valid)
        self.f_score.update(logits, batch.masks, batch.valid)

    def on_train_epoch_end(self) -> None:
        """Put what was logged on disk, so that a run can be watched."""
        for logger in self.loggers:
            logger.save()

    def on_validation_epoch_end(self) -> None:
        """Log ``val/miou`` and ``val/f_score``."""
        scores = {"val/miou": self.jaccard.compute(), "val/f_score": self.f_score.compute()}
        self.jaccard.reset()
        self.f_score.reset()
        for name, score in scores.items():
            self.log(name, score, logger=False, sync_dist=False)
        self._write({name: float(score) for name, score in scores.items()}, self.steps_done)

    def _log_step(self, batch: TrainBatch, terms: dict[str, Tensor], notes: dict[str, Tensor]) -> None:
        """Every few steps: stop on a non-finite loss, and write the losses down."""
        self.steps_done = batch.step + 1
        last = batch.step + 1 == self.total_steps
        if not last and batch.step % LOG_EVERY and self.device.type != "cpu":
            return
        values = {f"loss/{name}": float(term) for name, term in terms.items()}
        values["loss/sup"] = sum(float(term) for name, term in terms.items() if not name.startswith("unsup"))
        values["loss"] = sum(float(term) for term in terms.values())
        values.update({name: float(note) for name, note in notes.items()})
        if self.trainer.world_size > 1:  # what is told, and what stops a run, is of all devices
            mean = _mean(torch.tensor(list(values.values()), device=self.device), self.trainer.world_size)
            values = dict(zip(values, mean.tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            clips = ", ".join(batch.labelled.names[:4])
            raise _diverged(f"The loss is {values['loss']} at step {batch.step} (clips {clips} …)")
        self.latest.update(values)
        if last or batch.step % LOG_EVERY == 0:
            self._write({**values, "lr": self.learning_rate(batch.step)}, batch.step)

    def _write(self, values: dict[str, float], step: int) -> None:
        self.latest.update(values)
        for logger in self.loggers:
            logger.log_metrics({"epoch": float(self.current_epoch), **values}, step=step)

    @contextmanager
    def _unsynchronised(self) -> Iterator[None]:
        """Under DDP, keep gradients local: they travel once, with the last backward of a step."""
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        with block() if block is not None else nullcontext():
            yield

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint tells which model it holds, so that it can be loaded alone, and how many steps are done.

        Raises:
            AvsegError: a weight is NaN or infinite; nothing is written then.
        """
        floats = [each for each in self.model.state_dict().values() if each.is_floating_point()]
        if not bool(torch.stack([each.isfinite().all() for each in floats]).all()):
            raise _diverged(f"Weights are NaN or infinite after step {self.steps_done - 1}")
        checkpoint["avseg_model"] = model_config_to_dict(self.model.config)
        # Lightning's own count is of moves, of which accumulating gradients needs fewer.
        checkpoint["avseg_steps"] = self.steps_done
        checkpoint["avseg_validation"] = {name: x for name, x in self.latest.items() if name.startswith("val/")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting steps, from the last validation."""
        self.steps_done = checkpoint["avseg_steps"]
        self.latest.update(checkpoint["avseg_validation"])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are ours to move."""
        return batch.to(device, non_blocking=True)


def _nothing_of(model: nn.Module) -> Tensor:
    """Zero, with a gradient of zero for every weight: several devices wait for each, and Eq. 5 doesn't reach all."""
    return 0 * torch.stack([weight.sum() for weight in model.parameters() if weight.requires_grad]).sum()


def _diverged(what: str) -> AvsegError:
    mend = "lower optim.learning_rate, or set optim.clip_norm; the last checkpoint is whole."
    return AvsegError(f"{what}: {mend}")


@torch.no_grad()
def share_statistics(model: nn.Module, processes: int) -> None:
    """Give every process the mean of all processes' running batch-norm statistics.

    Each device normalises by its own batch, as alone, so the running statistics are a mean over batches of a device's
    size, whichever device had them. Called after every step, for at the next one they make pseudo masks.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    pairs = [(norm.running_mean, norm.running_var) for norm in norms if norm.track_running_stats]
    running = [each for pair in pairs for each in pair if each is not None]
    if running:
        mean = _mean(torch.cat([each.flatten() for each in running]), processes)
        for each, shared in zip(running, mean.split([each.numel() for each in running]), strict=True):
            each.copy_(shared.view_as(each))


def _mean(values: Tensor, processes: int) -> Tensor:
    torch.distributed.all_reduce(values)
    return values / processes
