"""Loaders of labelled clips and of distant frames: what a step receives is a function of the seed and the step alone.

There is no sampler state: `StepDataset` turns the number of a step into its batches. So training resumes exactly at
any step, every arm of a comparison sees the same labelled clips, and worker processes share out whole steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avseg.config import Config, InputConfig
from avseg.data.avsbench import (
    FRAMES,
    DistantFrame,
    DistantLayout,
    FlowSource,
    Layout,
    Subset,
    Video,
    load_clip,
    load_distant_clip,
    read_index,
)
from avseg.data.clip import Clip, DistantBatch, LabelledBatch, TrainBatch, collate
from avseg.data.items import DistantItem, LabelledItem, check_files, layouts_of, training_items
from avseg.data.loader import ordered_loader
from avseg.errors import AvsegError

Embeddings = Mapping[Layout | DistantLayout, Mapping[str, Tensor]]
"""Audio embeddings by layout and name: ``(5, 128)`` of a video, ``(1, 128)`` of one of MS3's distant frames."""

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
    """

    config: Config
    labelled_items: tuple[LabelledItem, ...]
    distant_items: tuple[DistantItem, ...]
    full_size: int
    rank: int = 0
    world_size: int = 1
    embeddings: Embeddings | None = None

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
        """The flow that clips carry: a model without the NF branch needs none, so none is read."""
        return self.config.data.flow if self.config.model.neighbouring_frames else "none"

    @property
    def sources(self) -> dict[Layout | DistantLayout, list[Video] | list[DistantFrame]]:
        """What training reads, by layout, each once: videos of labelled clips, then of distant ones; distant frames."""
        found: dict[Layout | DistantLayout, dict[Any, None]] = {}
        for labelled in self.labelled_items:
            found.setdefault(labelled.layout, {})[labelled.video] = None
        for distant in self.distant_items:
            found.setdefault(distant.layout, {})[distant.source] = None
        return {layout: list(sources) for layout, sources in found.items()}

    def with_embeddings(self, embeddings: Embeddings) -> "TrainingData":
        """The same data whose clips also carry ``audio`` (see `avseg.data.embeddings`)."""
        return replace(self, embeddings=embeddings)

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

    def loader(self, first_step: int = 0, last_step: int | None = None) -> DataLoader:
        """Batches of steps ``first_step`` up to, not including, ``last_step`` (None: the end), one `TrainBatch` each.

        With worker processes each holds its own copy of ``data.cache``, which is therefore of most use with
        ``data.workers`` 0.
        """
        last_step = self.total_steps if last_step is None else last_step
        return ordered_loader(StepDataset(self), range(first_step, last_step), self.config.data.workers)

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
    data = TrainingData(config, tuple(labelled), tuple(distant), full_size, rank, world_size, embeddings)
    check_files(labelled, distant, data.flow)
    return data


class StepDataset(Dataset[TrainBatch]):
    """Step i of training -> the `TrainBatch` of this process at that step."""

    def __init__(self, data: TrainingData):
        self.data = data
        self._cache: dict[LabelledItem | DistantItem, Clip] = {}

    def __getitem__(self, step: int) -> TrainBatch:
        """Load the clips of ``step``.

        Raises:
            AvsegError: a file is missing or faulty.
        """
        data = self.data
        labelled = [self._clip(data.labelled_items[i]) for i in data.labelled_indices(step)]
        distant = [self._clip(data.distant_items[i]) for i in data.distant_indices(step)]
        return TrainBatch(
            step=step,
            labelled=collate(labelled, LabelledBatch),
            distant=collate(distant, DistantBatch) if distant else None,
        )

    def _clip(self, item: LabelledItem | DistantItem) -> Clip:
        clip = self._cache.get(item)
        if clip is None:
            clip = self._labelled_clip(item) if isinstance(item, LabelledItem) else self._distant_clip(item)
            if self.data.config.data.cache:
                self._cache[item] = clip
        return clip

    def _labelled_clip(self, item: LabelledItem) -> Clip:
        data = self.data
        clip = load_clip(item.layout, item.video, item.frames, data.config.model.inputs, data.flow)
        return _with_audio(clip, data.embeddings, item.layout, item.frames)

    def _distant_clip(self, item: DistantItem) -> Clip:
        data = self.data
        inputs = data.config.model.inputs
        if isinstance(item.source, DistantFrame):
            assert isinstance(item.layout, DistantLayout)
            clip = load_distant_clip(item.layout, item.source, inputs, data.flow)
            return _with_audio(clip, data.embeddings, item.layout, (1,))
        assert isinstance(item.layout, Layout)
        clip = load_clip(item.layout, item.source, item.frames, inputs, data.flow, labelled=())
        for row, k in enumerate(item.frames):
            if k in item.excluded:
                clip.valid[row] = False
        return _with_audio(clip, data.embeddings, item.layout, item.frames)


class EvaluationDataset(Dataset[LabelledBatch]):
    """Video i -> its five frames as a `LabelledBatch` of one clip."""

    def __init__(
        self,
        videos: Sequence[tuple[Layout, Video]],
        inputs: InputConfig,
        flow: FlowSource,
        hidden: bool,
        embeddings: Embeddings | None,
    ):
        self.videos, self.inputs = list(videos), inputs
        self.flow, self.hidden, self.embeddings = flow, hidden, embeddings

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> LabelledBatch:
        frames = range(1, FRAMES + 1)
        layout, video = self.videos[i]
        clip = load_clip(layout, video, frames, self.inputs, self.flow, self.hidden)
        return collate([_with_audio(clip, self.embeddings, layout, frames)], LabelledBatch)


def evaluation_clips(
    root: str | Path,
    subset: Subset,
    split: str,
    inputs: InputConfig,
    workers: int = 0,
    *,
    flow: FlowSource = "computed",
    hidden: bool = False,
) -> DataLoader:
    """Every video of a split in the order of the index, one `LabelledBatch` of B = 1 and T = 5 each.

    Args:
        root, subset, split: Which videos.
        inputs: Of the model that will see them.
        workers: Processes that load.
        flow: Which flow; ``none`` for a model without the NF branch.
        hidden: Also read the generated benchmark's hidden masks (only S4's training split has any).

    Raises:
        AvsegError: a faulty index or an empty split; while iterating, a missing or faulty file.
    """
    videos = split_videos(Layout(root, subset), split)
    dataset = EvaluationDataset(videos, inputs, flow, hidden, None)
    return ordered_loader(dataset, range(len(videos)), workers)


def validation_clips(data: TrainingData) -> DataLoader:
    """The validation videos of a training run's subsets as `evaluation_clips` has them; with both, S4's come first.

    Processes share them out: each gets every ``world_size``-th, from the ``rank``-th on.

    Raises:
        AvsegError: as `evaluation_clips`.
    """
    config = data.config
    videos = [video for layout in layouts_of(config.data) for video in split_videos(layout, "val")]
    dataset = EvaluationDataset(videos, config.model.inputs, data.flow, False, data.embeddings)
    return ordered_loader(dataset, range(data.rank, len(videos), data.world_size), config.data.workers)


def split_videos(layout: Layout, split: str) -> list[tuple[Layout, Video]]:
    """The videos of a split in the order of the index, each with its layout.

    Raises:
        AvsegError: a faulty index or an empty split.
    """
    videos = [(layout, video) for video in read_index(layout.root, layout.subset) if video.split == split]
    if not videos:
        raise AvsegError(f"{layout.index} lists no videos of split {split!r}: choose one of those in its column split.")
    return videos


@lru_cache(maxsize=8)
def _permutation(seed: int, stream: int, turn: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed % 2**32, stream, turn]).permutation(size)


def _with_audio(
    clip: Clip, embeddings: Embeddings | None, layout: Layout | DistantLayout, frames: Sequence[int]
) -> Clip:
    if embeddings is None:
        return clip
    return replace(clip, audio=embeddings[layout][clip.name][[k - 1 for k in frames]])
