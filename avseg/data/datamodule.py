"""Loaders of labelled clips and of distant frames: what a step receives is a function of the seed and the step alone.

There is no sampler state: `StepDataset` turns the number of a step into its batches. So training resumes exactly at
any step, every arm of a comparison sees the same labelled clips, and worker processes share out whole steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avseg.config import Config, InputConfig
from avseg.data.assemble import stored_batch
from avseg.data.avsbench import (
    FRAMES,
    DistantLayout,
    FlowSource,
    Layout,
    Subset,
)
from avseg.data.clip import Batch, DistantBatch, LabelledBatch, TrainBatch, collate
from avseg.data.items import (
    DistantItem,
    LabelledItem,
    check_files,
    layouts_of,
    load_item,
    shuffle_flow,
    training_items,
    whole_videos,
)
from avseg.data.loader import Batches, ordered_loader
from avseg.data.pool import cores
from avseg.data.stills import Still
from avseg.data.store import Store
from avseg.errors import AvsegError

Embeddings = Mapping[Layout | DistantLayout, Mapping[str, Tensor]]
"""Audio embeddings by layout and key: ``(5, 128)`` of a video, ``(1, 128)`` of one of MS3's distant frames."""

B = TypeVar("B", bound=Batch)

_LABELLED_STREAM, _DISTANT_STREAM = 0, 1


@dataclass(frozen=True)
class TrainingData:
    """What a training run reads; made by `training_data`.

    Attributes:
        config: The run's configuration.
        labelled_items: Labelled clips, in the order of the index; with both subsets S4's come first.
        distant_items: Distant clips; empty without distant frames.
        full_size: Labelled clips when all labels are used; the length of an epoch, whatever ``data.labelled`` says.
        rank, world_size: Which of how many training processes this is.
        embeddings: See `Embeddings`; or None.
        store: What clips are read from; None: their files.
    """

    config: Config
    labelled_items: tuple[LabelledItem, ...]
    distant_items: tuple[DistantItem, ...]
    full_size: int
    rank: int = 0
    world_size: int = 1
    embeddings: Embeddings | None = None
    store: Store | None = None

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
        """Which flow is read: a model without the NF branch needs none. Items tell whose flow their clips carry."""
        return stored_flow(self.config.data.flow) if self.config.model.neighbouring_frames else "none"

    @property
    def stills(self) -> list[Still]:
        """The frames that training reads, each once: those of labelled clips, then those of distant ones."""
        return _stills([*self.labelled_items, *self.distant_items])

    @property
    def validation_stills(self) -> list[Still]:
        """The frames that validation reads, each once.

        Raises:
            AvsegError: as `validation_items`.
        """
        return _stills(self.validation_items)

    @property
    def validation_items(self) -> list[LabelledItem]:
        """The validation videos of the run's subsets; with both, S4's come first.

        Raises:
            AvsegError: a faulty index, no validation videos, or one alone whose flow should be another's.
        """
        items = [item for layout in layouts_of(self.config.data) for item in whole_videos(layout, "val")]
        return shuffle_flow(items) if _shuffled(self.config) else items

    def with_embeddings(self, embeddings: Embeddings) -> "TrainingData":
        """The same data whose clips also carry ``audio`` (see `avseg.data.embeddings`)."""
        return replace(self, embeddings=embeddings)

    def with_store(self, store: Store | None) -> "TrainingData":
        """The same data read from memory-mapped arrays (see `avseg.data.store`)."""
        return replace(self, store=store)

    def labelled_indices(self, step: int) -> list[int]:
        """Which of ``labelled_items`` this process sees at ``step``, whatever else the run does."""
        return self._indices(_LABELLED_STREAM, step, len(self.labelled_items))

    def distant_indices(self, step: int) -> list[int]:
        """Which of ``distant_items`` this process sees at ``step``; none during burn-in.

        The stream begins where burn-in ends and runs on across epochs: every distant clip is seen once before any is
        seen again.
        """
        if not self.distant_items or step < self.burn_in_steps:
            return []
        return self._indices(_DISTANT_STREAM, step - self.burn_in_steps, len(self.distant_items))

    def loader(self, first_step: int = 0, last_step: int | None = None) -> Batches:
        """One `TrainBatch` for each step from ``first_step`` up to, not including, ``last_step`` (None: the end)."""
        last_step = self.total_steps if last_step is None else last_step
        return self.ordered(StepDataset(self), range(first_step, last_step))

    def ordered(self, dataset: Dataset, order: range) -> Batches:
        """A loader of ``dataset[i]`` for every i of ``order`` with ``data.workers``: threads where there is a store."""
        workers = self.config.data.workers
        if workers is None:
            workers = 1 if self.store is not None else min(4, cores())
        return ordered_loader(dataset, order, workers, threads=self.store is not None)

    def batch(self, items: Sequence[LabelledItem | DistantItem], kind: type[B]) -> B:
        """Load some items as one batch.

        Raises:
            AvsegError: a file is missing or faulty.
        """
        inputs = self.config.model.inputs
        if self.store is not None:
            batch = stored_batch(self.store, items, inputs.image_size, kind)
        else:
            batch = collate([load_item(item, inputs, self.flow) for item in items], kind)
        if self.embeddings is None:
            return batch
        rows = [self.embeddings[item.layout][item.source.key][[k - 1 for k in item.frames]] for item in items]
        return replace(batch, audio=torch.stack(rows))

    def _indices(self, stream: int, step: int, size: int) -> list[int]:
        batch = self.config.optim.batch_size
        start = (step * self.world_size + self.rank) * batch
        places = [divmod(position, size) for position in range(start, start + batch)]
        return [int(_permutation(self.config.run.seed, stream, turn, size)[place]) for turn, place in places]


def training_data(
    config: Config, rank: int = 0, world_size: int = 1, embeddings: Embeddings | None = None
) -> TrainingData:
    """The data of a training run.

    Every file that training will read is looked for (not opened), so that a hole shows before hours have passed.

    Raises:
        AvsegError: a faulty or missing index, file or folder; no distant frames where ``ufe.distant_frames`` asks for
            some; a number of frames per clip that isn't 1 or 5.
    """
    length = config.model.frames_per_clip
    if length not in (1, FRAMES):
        raise AvsegError(f"model.frames_per_clip is {length}: AVSBench's clips have 1 or {FRAMES}.")
    if not config.data.root:
        raise AvsegError("data.root is not set: give the folder that holds Single-source/ and Multi-sources/.")
    labelled, distant, full_size = training_items(config.data, length, config.ufe.distant_frames)
    if _shuffled(config):
        labelled, distant = shuffle_flow(labelled), shuffle_flow(distant)
    data = TrainingData(config, tuple(labelled), tuple(distant), full_size, rank, world_size, embeddings)
    check_files(data.stills, data.flow, config.model.inputs.flow_method)
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
        labelled = [data.labelled_items[i] for i in data.labelled_indices(step)]
        distant = [data.distant_items[i] for i in data.distant_indices(step)]
        return TrainBatch(
            step=step,
            labelled=data.batch(labelled, LabelledBatch),
            distant=data.batch(distant, DistantBatch) if distant else None,
        )


class ValidationDataset(Dataset[LabelledBatch]):
    """Video i of the validation videos -> its five frames as a `LabelledBatch` of one clip."""

    def __init__(self, data: TrainingData):
        self.data, self.items = data, data.validation_items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> LabelledBatch:
        return self.data.batch([self.items[i]], LabelledBatch)


class EvaluationDataset(Dataset[LabelledBatch]):
    """Video i -> its five frames as a `LabelledBatch` of one clip, from the files."""

    def __init__(self, items: Sequence[LabelledItem], inputs: InputConfig, flow: FlowSource, hidden: bool):
        self.items, self.inputs, self.flow, self.hidden = list(items), inputs, flow, hidden

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> LabelledBatch:
        return collate([load_item(self.items[i], self.inputs, self.flow, self.hidden)], LabelledBatch)


def evaluation_clips(
    root: str | Path,
    subset: Subset,
    split: str,
    inputs: InputConfig,
    workers: int = 0,
    *,
    flow: FlowSource | Literal["shuffled"] = "computed",
    hidden: bool = False,
) -> Batches:
    """Every video of a split in the order of the index, one `LabelledBatch` of B = 1 and T = 5 each.

    Args:
        root, subset, split: Which videos.
        inputs: Of the model that will see them.
        workers: Processes that load; 0: a thread.
        flow: Which flow; ``shuffled`` as in ``data.flow``, ``none`` for a model without the NF branch.
        hidden: Also read the generated benchmark's hidden masks (only S4's training split has any).

    Raises:
        AvsegError: a faulty index or an empty split; while iterating, a missing or faulty file.
    """
    items = whole_videos(Layout(root, subset), split)
    if flow == "shuffled":
        items = shuffle_flow(items)
    return ordered_loader(EvaluationDataset(items, inputs, stored_flow(flow), hidden), range(len(items)), workers)


def validation_clips(data: TrainingData) -> Batches:
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


def _shuffled(config: Config) -> bool:
    return config.data.flow == "shuffled" and config.model.neighbouring_frames


def _stills(items: Sequence[LabelledItem | DistantItem]) -> list[Still]:
    """The frames of clips, each once, and after them those that lend their flow alone."""
    stills = [still for item in items for still in item.stills]
    known = {(still.layout, still.source, still.k) for still in stills}
    lenders = [still for item in items for still in item.moving_stills]
    return list(dict.fromkeys([*stills, *(s for s in lenders if (s.layout, s.source, s.k) not in known)]))


@lru_cache(maxsize=8)
def _permutation(seed: int, stream: int, turn: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed % 2**32, stream, turn]).permutation(size)
