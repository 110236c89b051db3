"""Which clips a training run reads: its labelled items, its distant items, and the files that these need."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from avseg.config import DataConfig, InputConfig
from avseg.data.avsbench import (
    FRAMES,
    DistantFrame,
    DistantLayout,
    FlowSource,
    Layout,
    Video,
    labelled_frames,
    read_distant_index,
    read_index,
    read_label_subset,
    read_mask,
)
from avseg.data.clip import Clip, windows
from avseg.data.stills import Still, load_stills
from avseg.errors import AvsegError
from avseg.media.flow import FlowMethod
from avseg.media.picture_files import in_another_format

FAR = 4
"""From this frame on S4's frames are ``far`` from the labelled first second."""


@dataclass(frozen=True)
class LabelledItem:
    """Frames of a video that make one labelled clip.

    Attributes:
        layout: Where the video lies.
        source: A row of the index.
        frames: Numbers k; those among them that have a published mask are labelled.
        excluded: Frames among them that are seen and count nowhere: ``valid`` is False there.
        moves_as: The video whose flow the clip carries; None: its own.
    """

    layout: Layout
    source: Video
    frames: tuple[int, ...]
    excluded: tuple[int, ...] = ()
    moves_as: Video | None = None

    @cached_property
    def stills(self) -> tuple[Still, ...]:
        """The frames one by one."""
        labelled = labelled_frames(self.source)
        return tuple(Still(self.layout, self.source, k, k in labelled) for k in self.frames)

    @cached_property
    def moving_stills(self) -> tuple[Still, ...]:
        """The frames whose flow the clip carries, one by one."""
        return _moving_stills(self)


@dataclass(frozen=True)
class DistantItem:
    """Frames that make one distant clip.

    Attributes:
        layout: Where the source lies: a `Layout` for a video, a `DistantLayout` for one of MS3's distant frames.
        source: A training video, or one of MS3's distant frames.
        frames: Numbers k; (1,) for MS3's distant frames.
        excluded: As `LabelledItem.excluded`; such as a frame whose label is used.
        moves_as: As `LabelledItem.moves_as`.
    """

    layout: Layout | DistantLayout
    source: Video | DistantFrame
    frames: tuple[int, ...] = (1,)
    excluded: tuple[int, ...] = ()
    moves_as: Video | DistantFrame | None = None

    @cached_property
    def stills(self) -> tuple[Still, ...]:
        """The frames one by one."""
        return tuple(Still(self.layout, self.source, k) for k in self.frames)

    @cached_property
    def moving_stills(self) -> tuple[Still, ...]:
        """The frames whose flow the clip carries, one by one."""
        return _moving_stills(self)


Item = TypeVar("Item", LabelledItem, DistantItem)


def layouts_of(config: DataConfig) -> tuple[Layout, ...]:
    """The subsets that ``data.subset`` names, in their order: S4 before MS3."""
    if config.subset == "both":
        return Layout(config.root, "s4"), Layout(config.root, "ms3")
    return (Layout(config.root, config.subset),)


def training_items(config: DataConfig, length: int, distant: bool) -> tuple[list[LabelledItem], list[DistantItem], int]:
    """The clips of a training run.

    Args:
        config: Which data.
        length: T, from 1 to the number of frames of a video; `avseg.data.clip.windows` says which clips there are.
            Every label counts in one labelled clip, and every distant frame in one distant clip.
        distant: Whether distant clips are wanted; ``data.distant`` says which.

    Returns:
        Labelled items, distant items, and how many labelled items there are when all labels are used.

    Raises:
        AvsegError: a faulty or missing index or list, no training videos, or no distant frames where some are needed.
    """
    videos: dict[Layout, list[Video]] = {}
    for layout in layouts_of(config):
        videos[layout] = [video for video in read_index(layout.root, layout.subset) if video.split == "train"]
        if not videos[layout]:
            raise AvsegError(f"{layout.index} lists no training videos: their split should be train.")
    everyone = [video for listed in videos.values() for video in listed]
    names = {video.name for video in everyone}
    if config.labelled is not None:
        names = read_label_subset(config.labelled, everyone)
    items = [item for layout, listed in videos.items() for item in _labelled_items(layout, listed, length)]
    distant_items: list[DistantItem] = []
    for layout, listed in videos.items() if distant else ():
        if config.distant == "labelled":
            distant_items += _labels_as_distant_items(layout, listed, names, length)
        elif layout.subset == "s4":
            distant_items += _s4_distant_items(config, layout, listed, names, length)
        else:
            distant_items += _ms3_distant_items(config, layout, length)
    return [item for item in items if item.source.name in names], distant_items, len(items)


def whole_videos(layout: Layout, split: str) -> list[LabelledItem]:
    """The videos of a split in the order of the index, all five frames of each.

    Raises:
        AvsegError: a faulty index or an empty split.
    """
    videos = [video for video in read_index(layout.root, layout.subset) if video.split == split]
    if not videos:
        raise AvsegError(f"{layout.index} lists no videos of split {split!r}: {_instead(layout, split)}.")
    return _labelled_items(layout, videos, FRAMES)


def check_length(length: int) -> None:
    """Raise AvsegError unless videos have as many frames as a clip is to have."""
    if not 1 <= length <= FRAMES:
        raise AvsegError(
            f"model.frames_per_clip is {length}: this data set's videos have {FRAMES} frames, so give 1 to {FRAMES}."
        )


def shuffle_flow(items: Sequence[Item]) -> list[Item]:
    """The items, each with the flow of another video, so that flow tells nothing of what sounds.

    A control: parameters, batches and the kind of flow stay. Frame k of a video gets the flow of frame k of another one
    of its subset and split (of MS3's distant frames, another of them), which is a function of the index alone: the same
    in every run, whatever its seed, labels and other options are.

    Raises:
        AvsegError: a split of a single video, or a faulty index.
    """
    others: dict[Video | DistantFrame, Any] = {}
    for layout, split in dict.fromkeys((item.layout, _split(item)) for item in items):
        others |= _other_sources(layout, split)
    return [replace(item, moves_as=others[item.source]) for item in items]


def load_item(item: LabelledItem | DistantItem, inputs: InputConfig, flow: FlowSource, hidden: bool = False) -> Clip:
    """An item as a clip, read from its files.

    Args:
        item: What to read.
        inputs: Size, resize and flow bound.
        flow: Which flow.
        hidden: As in `avseg.data.avsbench.load_clip`.

    Raises:
        AvsegError: a file is missing, unreadable or of the wrong size.
    """
    clip = load_stills(item.stills, inputs, flow if item.moves_as is None else "none", hidden)
    if item.moves_as is not None:
        clip = replace(clip, flow=load_stills(item.moving_stills, inputs, flow).flow)
    for row, k in enumerate(item.frames):
        if k in item.excluded:
            clip.valid[row] = False
    return clip


def load_truth(item: LabelledItem, hidden: bool = False) -> list[npt.NDArray[np.bool_] | None]:
    """The masks ``(h, w)`` of an item's frames as they are stored; None of a frame without one.

    Args:
        item: What to read.
        hidden: As in `load_item`.

    Raises:
        AvsegError: a mask is missing, unreadable or of another size than the others.
    """
    layout, video = item.layout, item.source
    paths = [still.mask if still.labelled else layout.hidden_mask(video, still.k) for still in item.stills]
    wanted = [still.labelled or hidden for still in item.stills]
    masks: list[npt.NDArray[np.bool_] | None] = []
    size: tuple[int, int] | None = None
    for path, asked in zip(paths, wanted, strict=True):
        masks.append(read_mask(path, size) if asked else None)
        if (mask := masks[-1]) is not None:
            size = (mask.shape[1], mask.shape[0])
    return masks


def check_files(stills: Iterable[Still], flow: FlowSource, method: FlowMethod = "farneback") -> None:
    """Look for (not into) every file that frames need.

    Args:
        stills: The frames.
        flow: Which flow.
        method: How it was computed, where it is ours.

    Raises:
        AvsegError: the first that isn't there.
    """
    checked: set[Path] = set()

    def need(path: Path, mend: str) -> None:
        if path not in checked and not path.is_file():
            raise AvsegError(f"{path} does not exist: {in_another_format(path) or mend}.")
        checked.add(path)

    for still in stills:
        layout = still.layout
        command = f"avseg data prepare {layout.root if isinstance(layout, Layout) else layout.folder.parent}"
        prepare = f"run `{command}`"
        if still.labelled:
            need(still.mask, "restore the mask, or take its video out of the CSV")
        need(still.log_mel, prepare)
        need(still.image, prepare)
        if flow == "computed":
            asked = "" if method == "farneback" else f" --flow_method {method}"
            need(still.flow(method), f"run `{command}{asked}`")
        elif flow == "published":
            for path in still.published_flow:
                need(path, "put UFE's published flow there, or use --data.flow computed")


def _instead(layout: Layout, split: str) -> str:
    """What to do without videos of ``split``."""
    if split == "val":
        return "training is validated on them, so write val in the column split of some videos"
    found = sorted({video.split for video in read_index(layout.root, layout.subset)})
    return f"its videos are of {' and '.join(found)}: choose --data.split {found[0]}, or correct the column split"


def _moving_stills(item: LabelledItem | DistantItem) -> tuple[Still, ...]:
    if item.moves_as is None:
        return item.stills
    return tuple(Still(item.layout, item.moves_as, k) for k in item.frames)


def _split(item: LabelledItem | DistantItem) -> str:
    return item.source.split if isinstance(item.source, Video) else ""


def _other_sources(layout: Layout | DistantLayout, split: str) -> dict[Video | DistantFrame, Video | DistantFrame]:
    """Another one for each: the next in an order that is drawn once and for all."""
    listed: Sequence[Video | DistantFrame]
    if isinstance(layout, Layout):
        listed = [video for video in read_index(layout.root, layout.subset) if video.split == split]
    else:
        listed = read_distant_index(layout.folder)
    if len(listed) < 2:
        lonely = f"video of split {split}" if split else "distant frame"
        raise AvsegError(f"{layout.folder} has one {lonely}, which none can lend its flow: set data.flow to computed.")
    order = np.random.default_rng(0).permutation(len(listed))
    return {listed[one]: listed[other] for one, other in zip(order, np.roll(order, 1), strict=True)}


def _labelled_items(layout: Layout, videos: Sequence[Video], length: int) -> list[LabelledItem]:
    return [
        LabelledItem(layout, video, clip, excluded)
        for video in videos
        for clip, excluded in windows(FRAMES, length)
        if not set(labelled_frames(video)).isdisjoint(set(clip) - set(excluded))
    ]


def _distant_items(layout: Layout, video: Video, wanted: Collection[int], length: int) -> list[DistantItem]:
    """Clips of a video in which the frames ``wanted`` count."""
    items = []
    for clip, again in windows(FRAMES, length):
        excluded = tuple(k for k in clip if k not in wanted or k in again)
        if len(excluded) < length:
            items.append(DistantItem(layout, video, clip, excluded))
    return items


def _labels_as_distant_items(
    layout: Layout, videos: Sequence[Video], names: set[str], length: int
) -> list[DistantItem]:
    """The frames whose labels are used; of a longer clip nothing but these counts."""
    used = [video for video in videos if video.name in names]
    return [item for video in used for item in _distant_items(layout, video, labelled_frames(video), length)]


def _s4_distant_items(
    config: DataConfig, layout: Layout, videos: Sequence[Video], names: set[str], length: int
) -> list[DistantItem]:
    if config.distant != "all" and length != 1:
        raise AvsegError(
            f"data.distant is {config.distant}, which single frames can be and clips of {length} cannot: set "
            "model.frames_per_clip to 1, or data.distant to all."
        )
    chosen = {"near": range(1, FAR), "far": range(FAR, FRAMES + 1)}.get(config.distant, range(1, FRAMES + 1))
    items = []
    for video in videos:
        used = labelled_frames(video) if video.name in names else ()
        items += _distant_items(layout, video, set(chosen) - set(used), length)
    return items


def _ms3_distant_items(config: DataConfig, layout: Layout, length: int) -> list[DistantItem]:
    """MS3's distant frames. Beside S4, which has its own, they may be missing unless their folder was named."""
    folder = Path(config.distant_root) if config.distant_root else layout.distant
    spare = config.subset == "both" and not config.distant_root
    if spare and (length != 1 or not folder.is_dir()):
        return []
    if config.distant != "all":
        raise AvsegError(
            f"data.distant is {config.distant}, which MS3's distant frames are not, being of unlabelled videos: set "
            "data.distant to all or labelled, or data.subset to s4."
        )
    if length != 1:
        raise AvsegError(
            "MS3's distant frames are single frames: set model.frames_per_clip to 1, or ufe.distant_frames to false."
        )
    if not folder.is_dir():
        raise AvsegError(
            f"{folder} does not exist, and ufe.distant_frames needs MS3's distant frames: name the folder of UFE's "
            "MS3_Extend with --data.distant_root, or set ufe.distant_frames to false."
        )
    return [DistantItem(DistantLayout(folder), frame) for frame in read_distant_index(folder)]
