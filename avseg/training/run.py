"""A configuration -> data, model, Trainer -> a run folder."""

import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException

from avseg.config import Config
from avseg.data.cache import open_cache
from avseg.data.dataset import check_files, check_length, unique_frames
from avseg.data.embeddings import audio_embeddings
from avseg.data.frames import DataSet, Frame
from avseg.data.loader import TrainingData, training_data, validation_clips
from avseg.data.parallel import working_in
from avseg.errors import AvsegError
from avseg.files import check_folder, whole_file, write_json
from avseg.models import AVSModel, build, load
from avseg.models.base import base_class, check_model
from avseg.models.encoders import check_weights
from avseg.models.loading import check_source
from avseg.models.weights import weights_fingerprint
from avseg.progress import progress
from avseg.provenance import provenance
from avseg.reading import read_json
from avseg.training.checkpoints import (
    BEST,
    LAST,
    Checkpoints,
    WholeFiles,
    check_facts,
    check_resumable,
    facts_of,
    read_checkpoint,
)
from avseg.training.logs import MetricsCSV, StepProgress, check_logger, further_loggers
from avseg.training.start import own_start, start_from
from avseg.training.task import AVSTask


@dataclass
class RunResult:
    """What a run leaves.

    Attributes:
        folder: The run's folder: ``config.json`` and ``model.safetensors`` of the last weights, ``best/``,
            ``checkpoints/``, ``metrics.csv``, ``config.yaml``, ``run.json``.
        steps: Training steps done in all.
        seconds: Wall time of this call.
    """

    folder: Path
    steps: int
    seconds: float


def train(config: Config, callbacks: Sequence[pl.Callback] = ()) -> RunResult:
    """Train the model that ``config`` describes and leave it in ``config.run.out``.

    Args:
        config: The run.
        callbacks: Lightning callbacks that look on, such as `avseg.training.watch.PseudoMasks`.

    Raises:
        AvsegError: a configuration, data or weights that no training can start from; a non-finite loss.
    """
    started = time.perf_counter()
    _check(config)
    folder = Path(config.run.out)
    before = _before(config, folder)
    trainer = build_trainer(config, callbacks)
    data = training_data(config, rank=trainer.global_rank, world_size=trainer.world_size)
    _check_validation(data)
    check_files(unique_frames(data.validation), data.flow, config.model.inputs.flow_method)
    facts = facts_of(config, data)
    if before is not None:
        check_facts(before, facts, folder)
    with _alone(folder, trainer):
        before = _before(config, folder)  # again, for another run may have ended meanwhile
        # Weights may have to be fetched: nothing that could have been told before may follow.
        start = load(config.weights.start) if config.weights.start else None
        model = build(config.model, own_start(config.weights, start), seed=config.run.seed)
        if start is not None:
            start_from(model, start, str(config.weights.start))
        show = config.run.progress and trainer.is_global_zero
        if model.audio_encoder.frozen:
            data = _with_embeddings(data, model, trainer.strategy.root_device, show)
        data = _with_cache(data, show)
        _attach_logs(trainer, folder, config, data, before["steps"] if before else 0)
        if trainer.is_global_zero:
            with whole_file(folder / "config.yaml") as temporary:
                temporary.write_text(yaml.safe_dump(facts["config"], sort_keys=False), encoding="utf-8")

        task = AVSTask(model, config, data.total_steps, data.steps_per_epoch)
        _fit(trainer, task, data, facts, _last(folder) if before else None)
        if trainer.is_global_zero:
            _leave(folder, task, trainer, config, time.perf_counter() - started)
    return RunResult(folder, data.total_steps, time.perf_counter() - started)


def _fit(
    trainer: pl.Trainer, task: AVSTask, data: TrainingData, facts: dict[str, Any], checkpoint: Path | None
) -> None:
    next(each for each in trainer.checkpoint_callbacks if isinstance(each, Checkpoints)).facts = facts
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice on settings that are chosen here on purpose
        try:
            trainer.fit(task, datamodule=_Loaders(data), ckpt_path=checkpoint, weights_only=True)
        except SystemExit as leaving:
            if trainer.interrupted:  # Lightning leaves the program on Ctrl-C, which is the caller's to decide
                raise KeyboardInterrupt from leaving
            raise
        except RuntimeError as error:
            if trainer.world_size > 1 and (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
                raise AvsegError(
                    "Another process of this run has ended, and this one does not go on without it: what that one said "
                    "is the cause."
                ) from error
            raise


def _last(folder: Path) -> Path:
    return folder / "checkpoints" / LAST


def _before(config: Config, folder: Path) -> dict[str, Any] | None:
    """What the run in ``folder`` says of itself that ``config`` resumes; None where a new one begins.

    Raises:
        AvsegError: there is one, and it isn't to be resumed, or not so.
    """
    if not _last(folder).is_file():
        return None
    if not config.run.resume:
        raise AvsegError(f"{folder} holds a run already: give --run.resume true to continue it, or another --run.out.")
    before = read_checkpoint(_last(folder))
    check_resumable(before, config, folder)
    return before


@contextmanager
def _alone(folder: Path, trainer: pl.Trainer) -> Iterator[None]:
    """Refuse to train where another process does. The processes of one run count as one, which its first stands for."""
    if not trainer.is_global_zero:
        yield
        return
    held = f"{folder} is being trained by another process: wait for it to end, or give another --run.out."
    with working_in(folder / ".avseg" / "train", [_last(folder).parent, folder / "best"], held=held):
        for left in folder.glob(".tmp-*"):  # of a killed run; not further down, where other runs may be at work
            left.unlink(missing_ok=True)
        yield


def _check_validation(data: TrainingData) -> None:
    videos = len(data.validation)
    if videos < data.world_size:
        raise AvsegError(
            f"{data.config.data.root} has {videos} validation video(s) for {data.world_size} devices, each of which "
            f"needs one: give --run.devices and --run.nodes that make {videos} or fewer."
        )


def build_trainer(config: Config, callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    """The Lightning Trainer of a run; its loggers are attached once the data are known.

    Raises:
        AvsegError: the machine lacks the accelerator or as many devices.
    """
    run = config.run
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        return _trainer(config, callbacks)
    except (
        MisconfigurationException,
        ValueError,
    ) as error:  # the latter: not as SLURM was asked
        raise AvsegError(
            f"run.accelerator {run.accelerator} with run.devices {run.devices} is not available here "
            f"({' '.join(str(error).split()).removesuffix('.')}): give auto for both, or what `avseg doctor` lists."
        ) from error


def _trainer(config: Config, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    run = config.run
    trainer = pl.Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        precision=run.precision,
        max_epochs=config.optim.epochs,
        check_val_every_n_epoch=_every(config),
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=True,
        callbacks=[*callbacks, Checkpoints(_last(Path(run.out)).parent, _every(config))],
        plugins=_plugins(),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=run.out,
    )
    if trainer.world_size > 1 and SLURMEnvironment.detect():
        SLURMEnvironment(auto_requeue=False).validate_settings(trainer.num_devices, run.nodes)
    return trainer


def _plugins() -> list[Any]:
    plugins: list[Any] = [WholeFiles()]
    if SLURMEnvironment.detect():
        # Lightning would stop in the middle of an epoch for a requeue, with checkpoints of its own.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return plugins


def _every(config: Config) -> int:
    """Epochs between validations; a run that is shorter is validated when it ends."""
    return min(config.run.validate_every, config.optim.epochs)


class _Loaders(pl.LightningDataModule):
    """Gives the Trainer each epoch's steps and the validation videos, shared out over processes."""

    def __init__(self, data: TrainingData):
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        first = self.trainer.current_epoch * self.data.steps_per_epoch
        return self.data.loader(first, first + self.data.steps_per_epoch)

    def val_dataloader(self) -> Any:
        return validation_clips(self.data)


def _check(config: Config) -> None:
    """What can be told at once: settings, files that are named, the folder to write to."""
    config.check()
    check_model(config.model)
    if not config.data.root:
        raise AvsegError("data.root is not given: name the folder that holds Single-source/ or Multi-sources/.")
    check_length(config.model.frames_per_clip)
    if config.ufe.unsup_matching and base_class(config.model.base).matching is AVSModel.matching:
        raise AvsegError(f"ufe.unsup_matching weighs a matching loss, which {config.model.base} lacks: leave it out.")
    if config.ufe.frame_confidence and not base_class(config.model.base).tells_confidence:
        raise AvsegError(
            f"ufe.frame_confidence asks how sure {config.model.base} is, which it doesn't say: leave it out."
        )
    check_logger(config.run.logger)
    if config.weights.start is None:
        check_weights(config.model, config.weights)
    else:  # hardly any other is needed
        check_source(config.weights.start)
    _check_machines(config)
    check_folder(config.run.out)


# What starts one of these sets them, and nothing else makes processes on several machines find each other.
_STARTED = ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "NODE_RANK", "GROUP_RANK", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE")


def _check_machines(config: Config) -> None:
    run, processors = config.run, os.cpu_count() or 1
    if run.nodes > 1 and not any(name in os.environ for name in _STARTED):
        raise AvsegError(
            f"run.nodes is {run.nodes}, and this process was started alone: it would wait for the others for ever. "
            "Start it on every machine with srun or torchrun, or give run.nodes 1."
        )
    on_cpu = run.accelerator == "cpu" or (run.accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and run.devices != "auto" and run.devices > max(8, processors):
        raise AvsegError(
            f"run.devices is {run.devices}, and this machine's CPU has {processors} cores: give no more than that."
        )


def _attach_logs(trainer: pl.Trainer, folder: Path, config: Config, data: TrainingData, first_step: int) -> None:
    trainer.loggers = [MetricsCSV(folder / "metrics.csv", first_step), *further_loggers(config.run.logger, folder)]
    if config.run.progress and trainer.is_global_zero:
        trainer.callbacks.append(  # type: ignore[attr-defined]
            StepProgress(f"training {folder.name}", data.total_steps)
        )


def _with_embeddings(
    data: TrainingData, model: AVSModel, device: torch.device | str = "cpu", show: bool = False
) -> TrainingData:
    """§5.4: the frozen audio encoder's embeddings, computed once and stored."""
    encoder, fingerprint = model.audio_encoder, weights_fingerprint(model.audio_encoder)
    by_data: dict[DataSet, list[Frame]] = {}
    for frame in data.all_frames:
        by_data.setdefault(frame.data, []).append(frame)
    with progress("Embedding sounds", "videos", show) as tell:
        return data.with_embeddings(
            {found: audio_embeddings(frames, encoder, fingerprint, device, tell) for found, frames in by_data.items()}
        )


def _with_cache(data: TrainingData, show: bool) -> TrainingData:
    """Clips from memory-mapped arrays, which are built where they are missing."""
    config = data.config
    if config.data.store == "off":
        return data
    with progress("Caching frames", "frames", show) as tell:
        cache = open_cache(
            data.all_frames, config.model.inputs, data.flow, config.data.store, config.data.workers, tell
        )
    return data.with_cache(cache)


def _leave(folder: Path, task: AVSTask, trainer: pl.Trainer, config: Config, seconds: float) -> None:
    """The last weights as a folder to load, the best beside them, and where the run came from."""
    model = task.model.eval()
    model.save_pretrained(folder)
    best = folder / "checkpoints" / BEST
    if best.is_file():
        load(best).save_pretrained(folder / "best")
    write_json(
        folder / "run.json",
        {
            "steps": task.total_steps,
            "seconds": round(seconds, 1),
            "seed": config.run.seed,
            "parameters": sum(p.numel() for p in model.parameters()),
            "validation": {k: v for k, v in task.latest.items() if k.startswith("val/")},
            "validation_size": "model",  # masks brought to the model's size, which costs less than the truth's own
            **provenance(),
        },
    )


def read_run(folder: str | Path) -> dict[str, Any]:
    """A run's ``run.json``.

    Raises:
        AvsegError: it isn't there, or is something else.
    """
    file = Path(folder) / "run.json"
    result = read_json(file, "train the run again")
    if not isinstance(result, dict) or not {"steps", "seconds", "parameters"} <= set(result):
        raise AvsegError(f"{file} is not what a run leaves: train the run again.")
    return result
