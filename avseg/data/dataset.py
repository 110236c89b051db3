"""Which frames a run learns from: its labelled clips, its distant clips, and the files that these need."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np

from avseg.config import DataConfig
from avseg.data.avsbench import FRAMES, avsbench, distant_folder, distant_frames, read_frames
from avseg.data.clip import windows
from avseg.data.frames import DataSet, Frame, by_video
from avseg.data.lists import read_label_subset
from avseg.data.rows import FlowSource
from avseg.errors import AvsegError
from avseg.media.flow import FlowMethod
from avseg.media.images import in_another_format

FAR = 4
"""From this frame on S4's frames are ``far`` from the labelled first second."""

Clip: TypeAlias = tuple[Frame, ...]
"""T frames of one video that enter a model together."""


def data_sets(config: DataConfig) -> tuple[DataSet, ...]:
    """The subsets that ``data.subset`` names, in their order: S4 before MS3."""
    root = str(config.root)
    if config.subset == "both":
        return avsbench(root, "s4"), avsbench(root, "ms3")
    return (avsbench(root, config.subset),)


def training_clips(config: DataConfig, length: int, distant: bool) -> tuple[list[Clip], list[Clip], int]:
    """The clips of a training run.

    Args:
        config: Which data.
        length: T, from 1 to the number of frames of a video; `avseg.data.clip.windows` says which clips there are.
            Every label counts in one labelled clip, and every distant frame in one distant clip.
        distant: Whether distant clips are wanted; ``data.distant`` says which.

    Returns:
        Labelled clips, distant clips, and how many labelled clips there are when all labels are used.

    Raises:
        AvsegError: a faulty or missing index or list, no training videos, or no distant frames where some are needed.
    """
    tables: dict[DataSet, list[Frame]] = {}
    for data in data_sets(config):
        tables[data] = [frame for frame in read_frames(data) if frame.split == "train"]
        if not tables[data]:
            raise AvsegError(f"{data.index} lists no training videos: their split should be train.")
    everything = list(chain.from_iterable(tables.values()))
    names = {frame.video for frame in everything}
    if config.labelled is not None:
        names = read_label_subset(config.labelled, everything)
    labelled = [clip for video in by_video(everything) for clip in _cut(video, length)]
    others: list[Clip] = []
    for data, table in tables.items() if distant else ():
        if config.distant == "labelled":
            others += _distant_clips(table, length, lambda frame: frame.labelled and frame.video in names)
        elif data.name == "s4":
            others += _s4_distant_clips(config, table, names, length)
        else:
            others += _ms3_distant_clips(config, data, length)
    return [clip for clip in labelled if clip[0].video in names], others, len(labelled)


def whole_videos(data: DataSet, split: str) -> list[Clip]:
    """The videos of a split in the order of the index, all five frames of each.

    Raises:
        AvsegError: a faulty index or an empty split.
    """
    frames = read_frames(data)
    videos = by_video(frame for frame in frames if frame.split == split)
    if videos:
        return videos
    if split == "val":
        mend = "training is validated on them, so write val in the column split of some videos"
    else:
        found = sorted({frame.split for frame in frames})
        mend = f"its videos are of {' and '.join(found)}: choose --data.split {found[0]}, or correct the column split"
    raise AvsegError(f"{data.index} lists no videos of split {split!r}: {mend}.")


def check_length(length: int) -> None:
    """Raise AvsegError unless videos have as many frames as a clip is to have."""
    if not 1 <= length <= FRAMES:
        raise AvsegError(
            f"model.frames_per_clip is {length}: this data set's videos have {FRAMES} frames, so give 1 to {FRAMES}."
        )


def shuffle_flow(clips: Sequence[Clip]) -> list[Clip]:
    """The clips, each with the flow of another video, so that flow tells nothing of what sounds.

    A control: parameters, batches and the kind of flow stay. Frame k of a video gets the flow of frame k of another one
    of its subset and split (of MS3's distant frames, another of them), which is a function of the index alone: the same
    in every run, whatever its seed, labels and other options are.

    Raises:
        AvsegError: a split of a single video, or a faulty index.
    """
    lenders: dict[tuple[DataSet, str], Clip] = {}
    for data, split in dict.fromkeys((clip[0].data, clip[0].split) for clip in clips):
        videos = by_video(frame for frame in read_frames(data) if frame.split == split)
        if len(videos) < 2:
            lonely = f"video of split {split}" if split else "distant frame"
            raise AvsegError(
                f"{data.folder} has one {lonely}, which none can lend its flow: set data.flow to computed."
            )
        order = np.random.default_rng(0).permutation(len(videos))
        for one, other in zip(order, np.roll(order, 1), strict=True):
            lenders[data, videos[one][0].key] = videos[other]

    def lender(frame: Frame) -> Frame:
        # Its flow alone is wanted: no mask of it, neither a published nor a hidden one.
        return replace(lenders[frame.data, frame.key][frame.k - 1], labelled=False, counted=False)

    return [tuple(replace(frame, flow_from=lender(frame)) for frame in clip) for clip in clips]


def unique_frames(clips: Iterable[Clip]) -> list[Frame]:
    """The frames of clips, each once, with its label if any clip uses it; those that only lend their flow come last."""
    found: dict[tuple[DataSet, str], Frame] = {}
    frames = [frame for clip in clips for frame in clip]
    for frame in chain(frames, (frame.flow_from for frame in frames)):
        if frame is not None and (frame.labelled or frame.id not in found):
            found[frame.id] = replace(frame, counted=True, flow_from=None)
    return list(found.values())


def check_files(frames: Iterable[Frame], flow: FlowSource, method: FlowMethod = "farneback") -> None:
    """Look for (not into) every file that frames need.

    Args:
        frames: The frames.
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

    for frame in frames:
        root = frame.data.root.parent if frame.data.name == "distant" else frame.data.root
        command = f"avseg data prepare {root}"
        if frame.labelled:
            need(frame.mask, "restore the mask, or take its video out of the CSV")
        need(frame.log_mel, f"run `{command}`")
        need(frame.image, f"run `{command}`")
        if flow == "computed":
            option = "" if method == "farneback" else f" --flow_method {method}"
            need(frame.flow(method), f"run `{command}{option}`")
        elif flow == "published":
            for path in frame.published_flow:
                need(path, "put UFE's published flow there, or use --data.flow computed")


def _cut(video: Clip, length: int) -> list[Clip]:
    """The labelled clips of a video: those in which a label counts."""
    clips = [
        tuple(replace(video[k - 1], counted=k not in again) for k in ks) for ks, again in windows(len(video), length)
    ]
    return [clip for clip in clips if any(frame.labelled and frame.counted for frame in clip)]


def _distant_clips(frames: Iterable[Frame], length: int, wanted: Callable[[Frame], bool]) -> list[Clip]:
    """Clips in which the frames that are ``wanted`` count, without their labels."""
    clips = [
        tuple(replace(video[k - 1], labelled=False, counted=k not in again and wanted(video[k - 1])) for k in ks)
        for video in by_video(frames)
        for ks, again in windows(len(video), length)
    ]
    return [clip for clip in clips if any(frame.counted for frame in clip)]


def _s4_distant_clips(config: DataConfig, frames: Sequence[Frame], names: set[str], length: int) -> list[Clip]:
    """The frames whose labels are not used, or those of them that ``data.distant`` asks for."""
    if config.distant != "all" and length != 1:
        raise AvsegError(
            f"data.distant is {config.distant}, which single frames can be and clips of {length} cannot: set "
            "model.frames_per_clip to 1, or data.distant to all."
        )
    ks = {"near": range(1, FAR), "far": range(FAR, FRAMES + 1)}.get(config.distant, range(1, FRAMES + 1))
    return _distant_clips(frames, length, lambda frame: frame.k in ks and not (frame.labelled and frame.video in names))


def _ms3_distant_clips(config: DataConfig, data: DataSet, length: int) -> list[Clip]:
    """MS3's distant frames. Beside S4, which has its own, they may be missing unless their folder was named."""
    folder = Path(config.distant_root) if config.distant_root else distant_folder(data.root)
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
    return [(frame,) for frame in read_frames(distant_frames(folder))]
