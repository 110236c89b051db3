"""Loaders of labelled clips and of distant frames: what a step receives is a function of the seed and the step alone.

There is no sampler state: `StepDataset` turns the number of a step into its batches. So training resumes exactly at
any step, every arm of a comparison sees the same labelled clips, and worker processes share out whole steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

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
    labelled_frames,
    load_clip,
    load_distant_clip,
    read_distant_index,
    read_index,
    read_label_subset,
)
from avseg.data.clip import Clip, DistantBatch, LabelledBatch, TrainBatch, collate
from avseg.data.loader import ordered_loader
from avseg.errors import AvsegError

_LABELLED_STREAM, _DISTANT_STREAM = 0, 1


@dataclass(frozen=True)
class LabelledItem:
    """Frames of a video that make one labelled clip."""

    video: Video
    frames: tuple[int, ...]


@dataclass(frozen=True)
class DistantItem:
    """Frames that make one distant clip.

    Attributes:
        source: A training video, or one of MS3's distant frames.
        frames: Numbers k of a video's frames; empty for MS3's distant frames.
        excluded: Frames among them whose label is used: ``valid`` is False there.
    """

    source: Video | DistantFrame
    frames: tuple[int, ...] = ()
    excluded: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrainingData:
    """What a training run reads; made by `training_data`.

    Attributes:
        config: The run's configuration.
        layout: Where the subset lies.
        distant_layout: Where MS3's distant frames lie; None for S4 and without distant frames.
        labelled_items: Labelled clips, in the order of the index.
        distant_items: Distant clips; empty without distant frames.
        full_size: Labelled clips when all labels are used; the length of an epoch, whatever ``data.labelled`` says.
        rank, world_size: Which of how many training processes this is.
        embeddings: Audio embeddings ``(5, 128)`` by video, or None.
        distant_embeddings: ``(1, 128)`` by name of MS3's distant frames, or None.
    """

    config: Config
    layout: Layout
    distant_layout: DistantLayout | None
    labelled_items: tuple[LabelledItem, ...]
    distant_items: tuple[DistantItem, ...]
    full_size: int
    rank: int = 0
    world_size: int = 1
    embeddings: Mapping[str, Tensor] | None = None
    distant_embeddings: Mapping[str, Tensor] | None = None

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
    def videos(self) -> list[Video]:
        """The videos that training reads, each once: those of labelled clips, then those of distant ones."""
        sources = [item.video for item in self.labelled_items]
        sources += [item.source for item in self.distant_items if isinstance(item.source, Video)]
        return list(dict.fromkeys(sources))

    @property
    def distant_frames(self) -> list[DistantFrame]:
        """MS3's distant frames that training reads."""
        return [item.source for item in self.distant_items if isinstance(item.source, DistantFrame)]

    def with_embeddings(
        self, embeddings: Mapping[str, Tensor], distant_embeddings: Mapping[str, Tensor] | None = None
    ) -> "TrainingData":
        """The same data whose clips also carry ``audio`` (see `avseg.data.embeddings`)."""
        return replace(self, embeddings=embeddings, distant_embeddings=distant_embeddings)

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
    config: Config,
    rank: int = 0,
    world_size: int = 1,
    embeddings: Mapping[str, Tensor] | None = None,
    distant_embeddings: Mapping[str, Tensor] | None = None,
) -> TrainingData:
    """The data of a training run.

    Every file that training will read is looked for (not opened), so that a hole shows before hours have passed.

    Raises:
        AvsegError: a faulty or missing index, file or folder; no distant frames where ``ufe.distant_frames`` asks for
            some; a number of frames per clip that isn't 1 or 5.
    """
    if config.model.frames_per_clip not in (1, FRAMES):
        raise AvsegError(
            f"model.frames_per_clip is {config.model.frames_per_clip}: AVSBench's clips have 1 or {FRAMES}."
        )
    if not config.data.root:
        raise AvsegError("data.root is not set: give the folder that holds Single-source/ and Multi-sources/.")
    layout = Layout(config.data.root, config.data.subset)
    index = read_index(layout.root, layout.subset)
    videos = [video for video in index if video.split == "train"]
    if not videos:
        raise AvsegError(f"{layout.index} lists no training videos: their split should be train.")
    names = {video.name for video in videos}
    if config.data.labelled is not None:
        names = read_label_subset(config.data.labelled, videos)
    items = _labelled_items(videos, config.model.frames_per_clip)
    distant_layout, distant_items = None, []
    if config.ufe.distant_frames and layout.subset == "s4":
        distant_items = _s4_distant_items(videos, names, config.model.frames_per_clip)
    elif config.ufe.distant_frames:
        distant_layout, distant_items = _ms3_distant_items(config, layout)
    data = TrainingData(
        config=config,
        layout=layout,
        distant_layout=distant_layout,
        labelled_items=tuple(item for item in items if item.video.name in names),
        distant_items=tuple(distant_items),
        full_size=len(items),
        rank=rank,
        world_size=world_size,
        embeddings=embeddings,
        distant_embeddings=distant_embeddings,
    )
    _check_files(data)
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
        clip = load_clip(data.layout, item.video, item.frames, data.config.model.inputs, data.flow)
        return _with_audio(clip, data.embeddings, item.frames)

    def _distant_clip(self, item: DistantItem) -> Clip:
        data = self.data
        inputs = data.config.model.inputs
        if isinstance(item.source, DistantFrame):
            assert data.distant_layout is not None
            clip = load_distant_clip(data.distant_layout, item.source, inputs, data.flow)
            return _with_audio(clip, data.distant_embeddings, (1,))
        clip = load_clip(data.layout, item.source, item.frames, inputs, data.flow, labelled=())
        for row, k in enumerate(item.frames):
            if k in item.excluded:
                clip.valid[row] = False
        return _with_audio(clip, data.embeddings, item.frames)


class EvaluationDataset(Dataset[LabelledBatch]):
    """Video i of a split -> its five frames as a `LabelledBatch` of one clip."""

    def __init__(
        self,
        layout: Layout,
        videos: Sequence[Video],
        inputs: InputConfig,
        flow: FlowSource,
        hidden: bool,
        embeddings: Mapping[str, Tensor] | None,
    ):
        self.layout, self.videos, self.inputs = layout, list(videos), inputs
        self.flow, self.hidden, self.embeddings = flow, hidden, embeddings

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> LabelledBatch:
        frames = range(1, FRAMES + 1)
        clip = load_clip(self.layout, self.videos[i], frames, self.inputs, self.flow, self.hidden)
        return collate([_with_audio(clip, self.embeddings, frames)], LabelledBatch)


def evaluation_clips(
    root: str | Path,
    subset: Subset,
    split: str,
    inputs: InputConfig,
    workers: int = 0,
    *,
    flow: FlowSource = "computed",
    hidden: bool = False,
    embeddings: Mapping[str, Tensor] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Every video of a split in the order of the index, one `LabelledBatch` of B = 1 and T = 5 each.

    Args:
        root, subset, split: Which videos.
        inputs: Of the model that will see them.
        workers: Processes that load.
        flow: Which flow; ``none`` for a model without the NF branch.
        hidden: Also read the generated benchmark's hidden masks (only S4's training split has any).
        embeddings: Audio embeddings ``(5, 128)`` by video.
        rank, world_size: Give every ``world_size``-th video, from the ``rank``-th on.

    Raises:
        AvsegError: a faulty index or an empty split; while iterating, a missing or faulty file.
    """
    layout = Layout(root, subset)
    videos = [video for video in read_index(root, subset) if video.split == split]
    if not videos:
        raise AvsegError(f"{layout.index} lists no videos of split {split!r}: choose one of those in its column split.")
    dataset = EvaluationDataset(layout, videos, inputs, flow, hidden, embeddings)
    return ordered_loader(dataset, range(rank, len(videos), world_size), workers)


@lru_cache(maxsize=8)
def _permutation(seed: int, stream: int, turn: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed % 2**32, stream, turn]).permutation(size)


def _with_audio(clip: Clip, embeddings: Mapping[str, Tensor] | None, frames: Sequence[int]) -> Clip:
    if embeddings is None:
        return clip
    return replace(clip, audio=embeddings[clip.name][[k - 1 for k in frames]])


def _labelled_items(videos: Sequence[Video], length: int) -> list[LabelledItem]:
    if length == FRAMES:
        return [LabelledItem(video, tuple(range(1, FRAMES + 1))) for video in videos]
    return [LabelledItem(video, (k,)) for video in videos for k in labelled_frames(video)]


def _s4_distant_items(videos: Sequence[Video], names: set[str], length: int) -> list[DistantItem]:
    items = []
    for video in videos:
        used = labelled_frames(video) if video.name in names else ()
        if length == FRAMES:
            items.append(DistantItem(video, tuple(range(1, FRAMES + 1)), used))
        else:
            items += [DistantItem(video, (k,)) for k in range(1, FRAMES + 1) if k not in used]
    return items


def _ms3_distant_items(config: Config, layout: Layout) -> tuple[DistantLayout, list[DistantItem]]:
    if config.model.frames_per_clip != 1:
        raise AvsegError(
            "MS3's distant frames are single frames: set model.frames_per_clip to 1, or ufe.distant_frames to false."
        )
    folder = Path(config.data.distant_root) if config.data.distant_root else layout.distant
    if not folder.is_dir():
        raise AvsegError(
            f"{folder} does not exist, and ufe.distant_frames needs MS3's distant frames: name the folder of UFE's "
            "MS3_Extend with --data.distant_root, or set ufe.distant_frames to false."
        )
    return DistantLayout(folder), [DistantItem(frame) for frame in read_distant_index(folder)]


def _check_files(data: TrainingData) -> None:
    checked: set[Path] = set()

    def need(path: Path, mend: str) -> None:
        if path not in checked and not path.is_file():
            raise AvsegError(f"{path} does not exist: {mend}.")
        checked.add(path)

    prepare = f"run `avseg data prepare {data.layout.root}`"
    restore = "restore the mask, or take its video out of the CSV"
    for labelled in data.labelled_items:
        for k in set(labelled.frames) & set(labelled_frames(labelled.video)):
            need(data.layout.mask(labelled.video, k), restore)
        _need_inputs(need, data, labelled.video, labelled.frames, prepare)
    for distant in data.distant_items:
        if isinstance(distant.source, Video):
            _need_inputs(need, data, distant.source, distant.frames, prepare)
        elif data.distant_layout is not None:
            layout = data.distant_layout
            motion = {"computed": (layout.flow(distant.source),), "published": layout.published_flow(distant.source)}
            for path in (layout.image(distant.source), layout.log_mel(distant.source), *motion.get(data.flow, ())):
                need(path, prepare)


def _need_inputs(
    need: Callable[[Path, str], None], data: TrainingData, video: Video, frames: Sequence[int], prepare: str
) -> None:
    layout = data.layout
    need(layout.log_mel(video), prepare)
    for k in frames:
        need(layout.frame(video, k), prepare)
        if data.flow == "computed":
            need(layout.flow(video, k), prepare)
        elif data.flow == "published":
            for path in layout.published_flow(video, k):
                need(path, "put UFE's published flow there, or use --data.flow computed")
