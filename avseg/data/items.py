"""Which clips a training run reads: its labelled items, its distant items, and the files that these need."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avseg.config import DataConfig
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
)
from avseg.errors import AvsegError


@dataclass(frozen=True)
class LabelledItem:
    """Frames of a video that make one labelled clip.

    Attributes:
        layout: Where the video lies. Names may recur between subsets, so that only the two together tell a video.
        video: A row of the index.
        frames: Numbers k.
    """

    layout: Layout
    video: Video
    frames: tuple[int, ...]


@dataclass(frozen=True)
class DistantItem:
    """Frames that make one distant clip.

    Attributes:
        layout: Where the source lies: a `Layout` for a video, a `DistantLayout` for one of MS3's distant frames.
        source: A training video, or one of MS3's distant frames.
        frames: Numbers k of a video's frames; empty for MS3's distant frames.
        excluded: Frames among them whose label is used: ``valid`` is False there.
    """

    layout: Layout | DistantLayout
    source: Video | DistantFrame
    frames: tuple[int, ...] = ()
    excluded: tuple[int, ...] = ()


def layouts_of(config: DataConfig) -> tuple[Layout, ...]:
    """The subsets that ``data.subset`` names, in their order: S4 before MS3."""
    if config.subset == "both":
        return Layout(config.root, "s4"), Layout(config.root, "ms3")
    return (Layout(config.root, config.subset),)


def training_items(config: DataConfig, length: int, distant: bool) -> tuple[list[LabelledItem], list[DistantItem], int]:
    """The clips of a training run.

    Args:
        config: Which data.
        length: T, 1 or 5.
        distant: Whether distant clips are wanted.

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
        if layout.subset == "s4":
            distant_items += _s4_distant_items(layout, listed, names, length)
        else:
            distant_items += _ms3_distant_items(config, layout, length)
    return [item for item in items if item.video.name in names], distant_items, len(items)


def check_files(labelled: Iterable[LabelledItem], distant: Iterable[DistantItem], flow: FlowSource) -> None:
    """Look for (not into) every file that items need.

    Raises:
        AvsegError: the first that isn't there.
    """
    checked: set[Path] = set()

    def need(path: Path, mend: str) -> None:
        if path not in checked and not path.is_file():
            raise AvsegError(f"{path} does not exist: {mend}.")
        checked.add(path)

    for item in labelled:
        for k in set(item.frames) & set(labelled_frames(item.video)):
            need(item.layout.mask(item.video, k), "restore the mask, or take its video out of the CSV")
        _need_inputs(need, item.layout, item.video, item.frames, flow)
    for other in distant:
        if isinstance(other.layout, Layout) and isinstance(other.source, Video):
            _need_inputs(need, other.layout, other.source, other.frames, flow)
        elif isinstance(other.layout, DistantLayout) and isinstance(other.source, DistantFrame):
            layout, frame = other.layout, other.source
            motion = {"computed": (layout.flow(frame),), "published": layout.published_flow(frame)}
            for path in (layout.image(frame), layout.log_mel(frame), *motion.get(flow, ())):
                need(path, f"run `avseg data prepare {layout.folder.parent}`")


def _labelled_items(layout: Layout, videos: Sequence[Video], length: int) -> list[LabelledItem]:
    if length == FRAMES:
        return [LabelledItem(layout, video, tuple(range(1, FRAMES + 1))) for video in videos]
    return [LabelledItem(layout, video, (k,)) for video in videos for k in labelled_frames(video)]


def _s4_distant_items(layout: Layout, videos: Sequence[Video], names: set[str], length: int) -> list[DistantItem]:
    items = []
    for video in videos:
        used = labelled_frames(video) if video.name in names else ()
        if length == FRAMES:
            items.append(DistantItem(layout, video, tuple(range(1, FRAMES + 1)), used))
        else:
            items += [DistantItem(layout, video, (k,)) for k in range(1, FRAMES + 1) if k not in used]
    return items


def _ms3_distant_items(config: DataConfig, layout: Layout, length: int) -> list[DistantItem]:
    """MS3's distant frames. Beside S4, which has its own, they may be missing unless their folder was named."""
    folder = Path(config.distant_root) if config.distant_root else layout.distant
    spare = config.subset == "both" and not config.distant_root
    if spare and (length != 1 or not folder.is_dir()):
        return []
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


def _need_inputs(
    need: Callable[[Path, str], None], layout: Layout, video: Video, frames: Sequence[int], flow: FlowSource
) -> None:
    prepare = f"run `avseg data prepare {layout.root}`"
    need(layout.log_mel(video), prepare)
    for k in frames:
        need(layout.frame(video, k), prepare)
        if flow == "computed":
            need(layout.flow(video, k), prepare)
        elif flow == "published":
            for path in layout.published_flow(video, k):
                need(path, "put UFE's published flow there, or use --data.flow computed")
