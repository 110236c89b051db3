"""AVSBench on disk (S4, MS3) and UFE's distant frames of MS3: their folders, their CSVs, their tables of frames."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avseg.data.frames import SPLITS, DataSet, Frame, Subset, by_video
from avseg.data.lists import check_name, read_rows, short, write_rows
from avseg.errors import AvsegError

FRAMES = 5
"""Frames of every video of S4 and MS3, numbered k = 1..5."""

# S4 has a folder for each split and category; MS3 has one for each split of sounds and masks only, and its frames have
# `.mp4` inside their name.
_S4 = {
    "raw": "s4_data/raw_videos/{split}/{category}/{video}.mp4",
    "image": "s4_data/visual_frames/{split}/{category}/{video}/{video}_{k}.png",
    "flow": "s4_data/{flow}/{split}/{category}/{video}/{video}_{k}.png",
    "published_flow": "{split}/{category}/{video}/{video}_{k}.png",
    "wav": "s4_data/audio_wav/{split}/{category}/{video}.wav",
    "log_mel": "s4_data/audio_log_mel/{split}/{category}/{video}.pkl",
    "mask": "s4_data/gt_masks/{split}/{category}/{video}/{video}_{k}.png",
    "hidden_mask": "hidden_masks/{split}/{category}/{video}/{video}_{k}.png",
    "hidden_object": "hidden_objects/{split}/{category}/{video}/{video}_{k}.png",
}
_MS3 = {
    "raw": "ms3_data/raw_videos/{video}.mp4",
    "image": "ms3_data/visual_frames/{video}/{video}.mp4_{k}.png",
    "flow": "ms3_data/{flow}/{video}/{video}.mp4_{k}.png",
    "published_flow": "{video}/{video}.mp4_{k}.png",
    "wav": "ms3_data/audio_wav/{split}/{video}.wav",
    "log_mel": "ms3_data/audio_log_mel/{split}/{video}.pkl",
    "mask": "ms3_data/gt_masks/{split}/{video}/{video}_{k}.png",
    "hidden_mask": "hidden_masks/{split}/{video}/{video}_{k}.png",
    "hidden_object": "hidden_objects/{split}/{video}/{video}_{k}.png",
}
_DISTANT = {
    "raw": "../{source}",
    "image": "images/{video}.png",
    "flow": "{flow}/{video}.png",
    "published_flow": "{video}/{video}.mp4_middle.png",
    "log_mel": "audios_log_mel/{video}.pkl",
}

_COLUMNS = {"s4": ("name", "start", "category", "split"), "ms3": ("video_id", "split"), "distant": ("n", "video")}
_FRAME_COLUMNS = {"s4": ("name", "category", "split", "time", "label"), "ms3": ("video_id", "split", "time")}


def avsbench(root: str | Path, subset: Subset) -> DataSet:
    """S4 or MS3 below the folder that holds ``Single-source/`` and ``Multi-sources/``."""
    if subset not in ("s4", "ms3"):
        raise ValueError(f"subset must be s4 or ms3, not {subset!r}")
    root = Path(root)
    folder = root / ("Single-source" if subset == "s4" else "Multi-sources")
    tree = f"{subset.upper()}_flows"
    trees = [root / tree, folder / tree, folder / f"{subset}_data" / tree]
    return DataSet(
        name=subset,
        root=root,
        folder=folder,
        index=folder / f"{subset}_meta_data.csv",
        files=_S4 if subset == "s4" else _MS3,
        published_flow=next((found for found in trees if found.is_dir()), trees[0]),
    )


def distant_frames(folder: str | Path) -> DataSet:
    """MS3's distant frames in the form of UFE's ``MS3_Extend``: the middle frame of each of many unlabelled videos.

    The videos lie beside this folder, usually in ``VGGSound/``. Published releases have no index.
    """
    folder = Path(folder)
    return DataSet("distant", folder, folder, folder / "index.csv", _DISTANT, folder)


def distant_folder(root: str | Path) -> Path:
    """Where the distant frames of the MS3 in ``root`` are looked for unless told otherwise."""
    return Path(root) / "MS3_Extend"


def frame_times(count: int = FRAMES) -> npt.NDArray[np.float64]:
    """Timestamps of frames 1..count in seconds, ``(count,)``: frame k is at (k − 1) + 15/16.

    AVSBench takes sixteen frames of each second and keeps the last.
    """
    return np.arange(count, dtype=np.float64) + 15 / 16


def video_frames(data: DataSet, video: str, split: str, category: str = "") -> tuple[Frame, ...]:
    """The five frames of a video of S4 or MS3.

    The first frame of S4's training videos has a published mask, and all frames of any other video.
    """
    labels = 1 if data.name == "s4" and split == "train" else FRAMES
    times = frame_times().tolist()
    return tuple(Frame(data, video, k, times[k - 1], split, category, k <= labels) for k in range(1, FRAMES + 1))


def read_frames(data: DataSet) -> list[Frame]:
    """The table of frames of a data set, in the order of its CSV.

    UFE's CSV of frames (``s4_semi_meta_data.csv``) must tell the same as the CSV of videos where it is there too. For
    MS3's distant frames without a CSV, every image in ``images/`` by number.

    Raises:
        AvsegError: no CSV, a missing column, no rows, an unknown split, a video that is listed twice, a name that
            isn't a plain file name, two CSVs that differ, or a folder without distant frames.
    """
    if data.name == "distant":
        return _read_distant(data)
    frames: list[Frame] = []
    lines: dict[Path, int] = {}
    for line, row in read_rows(data.index, _COLUMNS[data.name], _missing_index(data)):
        found = _video_of(row, data, data.index, line)
        first = lines.setdefault(found[0].raw, line)
        if first != line:
            raise AvsegError(f"{data.index} lists {found[0].video} in lines {first} and {line}: remove one of them.")
        frames += found
    if not frames:
        raise AvsegError(f"{data.index} lists no videos: copy it again.")
    if frame_index(data).is_file():
        _check_frame_index(data, frames)
    return frames


def write_index(data: DataSet, frames: Iterable[Frame]) -> None:
    """Write the CSV that `read_frames` reads, whole or not at all."""
    rows: list[tuple[object, ...]] = []
    for video, *_ in by_video(frames):
        if data.name == "s4":
            rows.append((video.video, 0, video.category, video.split))
        else:
            rows.append((video.video, video.split if data.name == "ms3" else video.source))
    write_rows(data.index, _COLUMNS[data.name], rows)


def frame_index(data: DataSet) -> Path:
    """UFE's CSV with a row for each frame. S4's name is the published one; MS3's was not published."""
    return data.folder / f"{data.name}_semi_meta_data.csv"


def _read_distant(data: DataSet) -> list[Frame]:
    if data.index.is_file():
        frames = []
        for line, row in read_rows(data.index, _COLUMNS["distant"], ""):
            check_name(row["n"], data.index, line)
            for part in row["video"].split("/"):
                check_name(part, data.index, line)
            source = row["video"] if "/" in row["video"] else f"VGGSound/{row['video']}"
            frames.append(Frame(data, row["n"], source=source))
        if len({frame.video for frame in frames}) < len(frames):
            raise AvsegError(f"{data.index} gives two videos the same n: number them anew.")
    else:
        names = sorted((path.stem for path in data.folder_of("image").glob("*.png")), key=_number)
        frames = [Frame(data, name) for name in names]
    if not frames:
        raise AvsegError(
            f"{data.folder} has no distant frames: expected index.csv with the columns n and video, or "
            "images/<n>.png (the MS3_Extend of UFE); name its folder with --data.distant_root."
        )
    return frames


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0, name)


def _missing_index(data: DataSet) -> str:
    if data.root.name in ("Single-source", "Multi-sources"):
        return f"{data.index} does not exist: give the folder above, {data.root.parent}."
    return (
        f"{data.index} does not exist: {data.root} should hold that file and {data.folder.name}/{data.name}_data/; "
        "AVSBench is available from its authors on request, `avseg data synth` makes a stand-in."
    )


def _video_of(row: Mapping[str, str], data: DataSet, path: Path, line: int) -> tuple[Frame, ...]:
    name = row["name" if data.name == "s4" else "video_id"]
    check_name(name, path, line)
    if row["split"] not in SPLITS:
        raise AvsegError(f"{path}, line {line}: split {short(row['split'])} is not one of {', '.join(SPLITS)}.")
    if data.name == "s4":
        check_name(row["category"], path, line)
    return video_frames(data, name, row["split"], row.get("category", ""))


def _check_frame_index(data: DataSet, frames: Iterable[Frame]) -> None:
    """UFE's list of training frames must name each of them once, with its label.

    Its ``time`` counts from 0 in S4 and from 1 in MS3, where every frame is labelled; validation and test videos have
    one row without a time in S4.
    """
    path, first = frame_index(data), 0 if data.name == "s4" else 1
    known = {frame.video: frame for frame in frames if frame.split == "train"}
    listed: dict[str, set[int]] = defaultdict(set)
    for line, row in read_rows(path, _FRAME_COLUMNS[data.name], ""):
        video = _video_of(row, data, path, line)
        if row["split"] != "train":
            continue
        if row["time"] not in map(str, range(first, first + FRAMES)):
            raise AvsegError(
                f"{path}, line {line}: time {short(row['time'])} is not one of {first}..{first + FRAMES - 1}."
            )
        k = int(row["time"]) - first + 1
        labelled = data.name == "ms3" or row["label"] == "Y"
        if video[0].video not in known or labelled != video[k - 1].labelled:
            raise AvsegError(
                f"{path} and {data.index} differ over frame {k} of {video[0].video}: take both from one release."
            )
        listed[video[0].video].add(k)
    for name in known:
        if len(listed[name]) != FRAMES:
            raise AvsegError(
                f"{path} lists {len(listed[name])} frames of {name}, not {FRAMES}: take it from the same release as "
                "the other CSV."
            )
