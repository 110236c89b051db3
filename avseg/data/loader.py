"""Loaders of labelled clips and of distant clips: what a step receives is a function of the seed and the step alone.

There is no sampler state: `StepDataset` turns the number of a step into its batches. So training resumes exactly at
any step, every arm of a comparison sees the same labelled clips, and threads share out whole steps.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avseg.config import Config, InputConfig
from avseg.data.avsbench import avsbench
from avseg.data.cache import Cache
from avseg.data.clip import Batch, DistantBatch, EvaluationBatch, LabelledBatch, TrainBatch
from avseg.data.dataset import (
    Clip,
    check_files,
    check_length,
    data_sets,
    shuffle_flow,
    training_clips,
    unique_frames,
    whole_videos,
)
from avseg.data.frames import DataSet, Frame, Subset
from avseg.data.front_end import warn_of_other_front_end
from avseg.data.parallel import cores
from avseg.data.rows import FlowSource, Row, batch_of, fit_of, read_row
from avseg.errors import AvsegError
from avseg.media.images import read_mask

Embeddings = Mapping[DataSet, Mapping[str, Tensor]]
"""Audio embeddings by data set and video key: ``(5, 128)``, ``(1, 128)`` of one of MS3's distant frames."""

B = TypeVar("B", bound=Batch)

_LABELLED_STREAM, _DISTANT_STREAM = 0, 1

AHEAD = 2
"""Batches that each thread makes before they are asked for."""


@dataclass(frozen=True)
class TrainingData:
    """What a training run reads; made by `training_data`.

    Attributes:
        config: The run's configuration.
        labelled: Labelled clips, in the order of the index; with both subsets S4's come first.
        distant: Distant clips; empty without distant frames.
        full_size: Labelled clips when all labels are used; the length of an epoch, whatever ``data.labelled`` says.
        rank, world_size: Which of how many training processes this is.
        embeddings: See `Embeddings`; or None.
        cache: What clips are read from; None: their files.
    """

    config: Config
    labelled: tuple[Clip, ...]
    distant: tuple[Clip, ...]
    full_size: int
    rank: int = 0
    world_size: int = 1
    embeddings: Embeddings | None = None
    cache: Cache | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the full labelled set; at least 1."""
        return max(1, self.full_size // (self.config.optim.batch_size * self.world_size))

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.config.optim.epochs * self.steps_per_epoch

    @property
    def burn_in_steps(self) -> int:
        """Steps before the first with distant frames (k of Alg. 1)."""
        return self.config.ufe.burn_in * self.steps_per_epoch

    @property
    def flow(self) -> FlowSource:
        """Which flow is read: a model without the NF branch needs none. Frames say whose flow they carry."""
        return stored_flow(self.config.data.flow) if self.config.model.neighbouring_frames else "none"

    @property
    def frames(self) -> list[Frame]:
        """The frames that training reads, each once: those of labelled clips, then those of distant ones."""
        return unique_frames([*self.labelled, *self.distant])

    @property
    def all_frames(self) -> list[Frame]:
        """The frames that training or validation reads, each once.

        Raises:
            AvsegError: as `validation`.
        """
        return unique_frames([*self.labelled, *self.distant, *self.validation])

    @property
    def validation(self) -> list[Clip]:
        """The validation videos of the run's subsets; with both, S4's come first.

        Raises:
            AvsegError: a faulty index, no validation videos, or one alone whose flow should be another's.
        """
        clips = [clip for data in data_sets(self.config.data) for clip in whole_videos(data, "val")]
        return shuffle_flow(clips) if _shuffled(self.config) else clips

    def with_embeddings(self, embeddings: Embeddings) -> "TrainingData":
        """The same data whose clips also carry ``audio`` (see `avseg.data.embeddings`)."""
        return replace(self, embeddings=embeddings)

    def with_cache(self, cache: Cache | None) -> "TrainingData":
        """The same data read from memory-mapped arrays (see `avseg.data.cache`)."""
        return replace(self, cache=cache)

    def labelled_indices(self, step: int) -> list[int]:
        """Which of ``labelled`` this process sees at ``step``, whatever else the run does."""
        return self._indices(_LABELLED_STREAM, step, len(self.labelled))

    def distant_indices(self, step: int) -> list[int]:
        """Which of ``distant`` this process sees at ``step``; none during burn-in.

        The stream begins where burn-in ends and runs on across epochs: every distant clip is seen once before any is
        seen again.
        """
        if not self.distant or step < self.burn_in_steps:
            return []
        return self._indices(_DISTANT_STREAM, step - self.burn_in_steps, len(self.distant))

    def loader(self, first_step: int = 0, last_step: int | None = None) -> "Batches":
        """One `TrainBatch` for each step from ``first_step`` up to, not including, ``last_step`` (None: the end)."""
        last_step = self.total_steps if last_step is None else last_step
        return self.ordered(StepDataset(self), range(first_step, last_step))

    def ordered(self, dataset: Dataset, order: range) -> "Batches":
        """A loader of ``dataset[i]`` for every i of ``order``, with ``data.workers`` threads."""
        workers = self.config.data.workers
        if workers is None:
            workers = 1 if self.cache is not None else min(4, cores())
        return OrderedLoader(dataset, order, workers)

    def batch(self, clips: Sequence[Clip], kind: type[B]) -> B:
        """Load some clips as one batch.

        Raises:
            AvsegError: a file is missing or faulty.
        """
        inputs = self.config.model.inputs
        rows: Callable[[Frame], Row] = lambda frame: read_row(frame, inputs, self.flow)  # noqa: E731
        batch = batch_of(clips, rows if self.cache is None else self.cache.row, inputs, kind)
        if self.embeddings is None:
            return batch
        audio = [self.embeddings[clip[0].data][clip[0].key][[frame.k - 1 for frame in clip]] for clip in clips]
        return replace(batch, audio=torch.stack(audio))

    def _indices(self, stream: int, step: int, size: int) -> list[int]:
        batch = self.config.optim.batch_size
        start = (step * self.world_size + self.rank) * batch
        positions = [divmod(position, size) for position in range(start, start + batch)]
        return [int(_permutation(self.config.run.seed, stream, turn, size)[i]) for turn, i in positions]


def training_data(
    config: Config, rank: int = 0, world_size: int = 1, embeddings: Embeddings | None = None
) -> TrainingData:
    """The data of a training run.

    Every file that training will read is looked for (not opened), so that a hole shows before hours have passed.

    Raises:
        AvsegError: a faulty or missing index, file or folder; no distant frames where ``ufe.distant_frames`` asks for
            some; more frames per clip than videos have.
    """
    length = config.model.frames_per_clip
    check_length(length)
    if not config.data.root:
        raise AvsegError("data.root is not set: give the folder that holds Single-source/ and Multi-sources/.")
    labelled, distant, full_size = training_clips(config.data, length, config.ufe.distant_frames)
    if _shuffled(config):
        labelled, distant = shuffle_flow(labelled), shuffle_flow(distant)
    data = TrainingData(config, tuple(labelled), tuple(distant), full_size, rank, world_size, embeddings)
    frames = data.frames
    check_files(frames, data.flow, config.model.inputs.flow_method)
    if rank == 0:
        warn_of_other_front_end(dict.fromkeys(frame.data for frame in frames), config.model.inputs)
    return data


class StepDataset(Dataset[TrainBatch]):
    """Step i of training -> the `TrainBatch` of this process at that step."""

    def __init__(self, data: TrainingData):
        self.data = data

    def __getitem__(self, step: int) -> TrainBatch:
        """Load the clips of ``step``.

        Raises:
            AvsegError: a file is missing or faulty.
        """
        data = self.data
        labelled = [data.labelled[i] for i in data.labelled_indices(step)]
        distant = [data.distant[i] for i in data.distant_indices(step)]
        return TrainBatch(
            step=step,
            labelled=data.batch(labelled, LabelledBatch),
            distant=data.batch(distant, DistantBatch) if distant else None,
        )


class ValidationDataset(Dataset[LabelledBatch]):
    """Video i of the validation videos -> its five frames as a `LabelledBatch` of one clip."""

    def __init__(self, data: TrainingData):
        self.data, self.clips = data, data.validation

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> LabelledBatch:
        return self.data.batch([self.clips[i]], LabelledBatch)


class EvaluationDataset(Dataset[LabelledBatch]):
    """Video i -> its five frames as a `LabelledBatch` of one clip, from the files.

    Args:
        clips: The videos.
        inputs: Of the model.
        flow: Which flow.
        hidden: Also read the generated benchmark's hidden masks.
        truth: Also give masks at their own size: batches are of `EvaluationBatch`.
    """

    def __init__(self, clips: Sequence[Clip], inputs: InputConfig, flow: FlowSource, hidden: bool, truth: bool = False):
        self.clips, self.inputs, self.flow, self.hidden, self.truth = list(clips), inputs, flow, hidden, truth

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> LabelledBatch:
        clip = self.clips[i]
        kind = EvaluationBatch if self.truth else LabelledBatch
        batch = batch_of([clip], lambda frame: read_row(frame, self.inputs, self.flow, self.hidden), self.inputs, kind)
        if not isinstance(batch, EvaluationBatch):
            return batch
        truth, known = _stored_masks(clip, self.hidden)
        fit = fit_of(clip[0], self.inputs)
        return replace(batch, truth=truth, known=known, area=(fit.left, fit.top, fit.width, fit.height))


def _stored_masks(clip: Clip, hidden: bool) -> tuple[Tensor, Tensor]:
    """Masks of a clip at their own size, ``(1, T, 1, h, w)`` bool, and which frames have one, ``(1, T, 1, 1, 1)``."""
    known = torch.tensor([frame.labelled or hidden for frame in clip])
    masks: list[npt.NDArray[np.bool_] | None] = []
    size: tuple[int, int] | None = None
    for frame in clip:
        path = frame.mask if frame.labelled else frame.hidden_mask if hidden else None
        masks.append(None if path is None else read_mask(path, size))
        if (mask := masks[-1]) is not None:
            size = (mask.shape[1], mask.shape[0])
    assert size is not None
    empty = np.zeros(size[::-1], dtype=np.bool_)
    truth = np.stack([empty if mask is None else mask for mask in masks])
    return torch.from_numpy(truth)[None, :, None], known[None, :, None, None, None]


def evaluation_clips(
    root: str | Path,
    subset: Subset,
    split: str,
    inputs: InputConfig,
    workers: int = 0,
    *,
    flow: FlowSource | Literal["shuffled"] = "computed",
    hidden: bool = False,
    truth: bool = False,
) -> "Batches":
    """Every video of a split in the order of the index, one `LabelledBatch` of B = 1 and T = 5 each.

    Args:
        root, subset, split: Which videos.
        inputs: Of the model that will see them.
        workers: Threads that load; at least one does.
        flow: Which flow; ``shuffled`` as in ``data.flow``, ``none`` for a model without the NF branch.
        hidden: Also read the generated benchmark's hidden masks (only S4's training split has any).
        truth: Also give masks at their own size: each batch is an `EvaluationBatch`.

    Raises:
        AvsegError: a faulty index or an empty split; while iterating, a missing or faulty file.
    """
    data = avsbench(root, subset)
    clips = whole_videos(data, split)
    warn_of_other_front_end([data], inputs)
    if flow == "shuffled":
        clips = shuffle_flow(clips)
    dataset = EvaluationDataset(clips, inputs, stored_flow(flow), hidden, truth)
    return OrderedLoader(dataset, range(len(clips)), workers)


def validation_clips(data: TrainingData) -> "Batches":
    """The validation videos of a training run as `evaluation_clips` has them.

    Processes share them out: each gets every ``world_size``-th, from the ``rank``-th on.

    Raises:
        AvsegError: as `evaluation_clips`.
    """
    dataset = ValidationDataset(data)
    return data.ordered(dataset, range(data.rank, len(dataset), data.world_size))


def stored_flow(flow: FlowSource | Literal["shuffled"]) -> FlowSource:
    """Which stored flow an option of ``data.flow`` reads."""
    return "computed" if flow == "shuffled" else flow


class Batches(Protocol):
    """What loaders are: batches in order, any number of times, and how many."""

    def __iter__(self) -> Iterator[Any]:
        """Begin anew."""

    def __len__(self) -> int:
        """How many batches there are."""


class OrderedLoader:
    """Gives ``dataset[i]`` for every i of ``order``, in that order, made in threads while the last one is in use.

    Copying and decoding let go of Python's lock, so threads do what worker processes would do, and no tensor is sent
    from process to process. Tensors are in page-locked memory where there is a GPU to copy them to.

    Args:
        dataset: What is loaded.
        order: Indices.
        workers: Threads; at least one works.
    """

    def __init__(self, dataset: Dataset, order: range, workers: int):
        self.dataset, self.order, self.workers = dataset, order, max(1, workers)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(self.workers, "avseg-loader") as threads:
            try:
                for i in self.order:
                    waiting.append(threads.submit(self._load, i))
                    if len(waiting) > AHEAD * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _load(self, i: int) -> Any:
        batch: Any = self.dataset[i]
        return batch.pin_memory() if torch.cuda.is_available() else batch


def _shuffled(config: Config) -> bool:
    return config.data.flow == "shuffled" and config.model.neighbouring_frames


@lru_cache(maxsize=8)
def _permutation(seed: int, stream: int, turn: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed % 2**32, stream, turn]).permutation(size)
