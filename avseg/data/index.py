"""The lists that come with AVSBench: its CSVs of videos, UFE's CSVs of frames, sizes of videos, subsets of labels."""

import csv
import io
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from avseg.data.layout import FRAMES, SPLITS, DistantFrame, DistantLayout, Layout, Subset, Video, labelled_frames
from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.reading import read_text, reason

_COLUMNS = {"s4": ("name", "start", "category", "split"), "ms3": ("video_id", "split")}
_FRAME_COLUMNS = {"s4": ("name", "start", "category", "split", "time", "label"), "ms3": ("video_id", "split", "time")}

_PIXELS = re.compile("[1-9][0-9]{0,4}")
_MOST_ROWS = 1_000_000  # five times VGGSound's
_LONGEST_NAME = 200  # bytes, so that a file's name made of it is none too long


def read_index(root: str | Path, subset: Subset) -> list[Video]:
    """The videos of a subset in the order of its CSV.

    UFE's CSV of frames (``s4_semi_meta_data.csv``) must tell the same as the CSV of videos where it is there too.

    Raises:
        AvsegError: no CSV, a missing column, no rows, an unknown split, a video that is listed twice, a name that
            isn't a plain file name, or two CSVs that differ.
    """
    layout = Layout(root, subset)
    rows = read_rows(layout.index, _COLUMNS[subset], _absent(layout))
    videos: list[Video] = []
    seen: dict[Path, int] = {}
    for line, row in rows:
        video = _video(row, subset, layout.index, line)
        first = seen.setdefault(layout.raw_video(video), line)
        if first != line:
            raise AvsegError(f"{layout.index} lists {video.name} in lines {first} and {line}: remove one of them.")
        videos.append(video)
    if not videos:
        raise AvsegError(f"{layout.index} lists no videos: copy it again.")
    if layout.frame_index.is_file():
        _check_frame_index(layout, videos)
    return videos


def write_index(root: str | Path, subset: Subset, videos: Iterable[Video]) -> None:
    """Write the CSV of videos of a subset, whole or not at all."""
    rows: list[tuple[object, ...]]
    if subset == "s4":
        rows = [(video.name, video.start, video.category, video.split) for video in videos]
    else:
        rows = [(video.name, video.split) for video in videos]
    write_rows(Layout(root, subset).index, _COLUMNS[subset], rows)


def read_frame_index(root: str | Path, subset: Subset) -> list[tuple[Video, int, bool]]:
    """UFE's list of frames: (video, k, whether k is labelled) for each training frame.

    Its ``time`` counts from 0 in S4 and from 1 in MS3, where every frame is labelled; validation and test videos have
    one row without a time in S4, and are left out here.

    Raises:
        AvsegError: as `read_index`, or a time that no frame has.
    """
    layout = Layout(root, subset)
    path, first = layout.frame_index, 0 if subset == "s4" else 1
    frames = []
    for line, row in read_rows(path, _FRAME_COLUMNS[subset], f"{path} does not exist: write it, or do without."):
        video = _video(row, subset, path, line)
        if video.split != "train":
            continue
        time = row["time"]
        if time not in map(str, range(first, first + FRAMES)):
            raise AvsegError(f"{path}, line {line}: time {short(time)} is not one of {first}..{first + FRAMES - 1}.")
        frames.append((video, int(time) - first + 1, subset == "ms3" or row["label"] == "Y"))
    return frames


def write_frame_index(root: str | Path, subset: Subset, videos: Iterable[Video]) -> None:
    """Write UFE's list of frames (see `read_frame_index`), as its published ``s4_semi_meta_data.csv`` has it."""
    layout = Layout(root, subset)
    rows: list[tuple[object, ...]] = []
    for video in videos:
        if subset == "ms3":
            rows += [(video.name, video.split, k) for k in range(1, FRAMES + 1)]
            continue
        start = (video.name, video.start, video.category, video.split)
        if video.split != "train":
            rows.append((*start, "", "Y"))
            continue
        labelled = labelled_frames(video)
        rows += [(*start, k - 1, "Y" if k in labelled else "N") for k in range(1, FRAMES + 1)]
    write_rows(layout.frame_index, _FRAME_COLUMNS[subset], rows)


def read_distant_index(folder: str | Path) -> list[DistantFrame]:
    """MS3's distant frames: the rows of ``index.csv``, or, without that file, every picture in ``images/`` by number.

    Raises:
        AvsegError: the folder has neither, or its CSV is faulty.
    """
    layout = DistantLayout(folder)
    if layout.index.is_file():
        frames = []
        for line, row in read_rows(layout.index, ("n", "video"), ""):
            _check_name(row["n"], layout.index, line)
            for part in row["video"].split("/"):
                _check_name(part, layout.index, line)
            frames.append(DistantFrame(row["n"], row["video"]))
        if len({frame.name for frame in frames}) < len(frames):
            raise AvsegError(f"{layout.index} gives two videos the same n: number them anew.")
    else:
        names = sorted((p.stem for p in (layout.folder / "images").glob("*.png")), key=_number)
        frames = [DistantFrame(name) for name in names]
    if not frames:
        raise AvsegError(
            f"{layout.folder} has no distant frames: expected index.csv with the columns n and video, or "
            "images/<n>.png (the MS3_Extend of UFE); name its folder with --data.distant_root."
        )
    return frames


def write_distant_index(folder: str | Path, frames: Iterable[DistantFrame]) -> None:
    """Write ``index.csv`` with the columns ``n`` and ``video``, whole or not at all."""
    write_rows(DistantLayout(folder).index, ("n", "video"), [(frame.name, frame.video) for frame in frames])


def read_sizes(path: Path) -> dict[str, tuple[int, int]]:
    """Width and height of raw videos by name, from ``video_sizes.csv``; empty without that file."""
    if not path.is_file():
        return {}
    sizes = {}
    for line, row in read_rows(path, ("name", "width", "height"), f"{path} does not exist."):
        if not all(_PIXELS.fullmatch(row[side]) for side in ("width", "height")):
            raise AvsegError(
                f"{path}, line {line} holds no size in pixels: delete the file and run `avseg data prepare`."
            )
        sizes[row["name"]] = (int(row["width"]), int(row["height"]))
    return sizes


def write_sizes(path: Path, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Write ``video_sizes.csv``, whole or not at all."""
    write_rows(path, ("name", "width", "height"), [(name, *size) for name, size in sorted(sizes.items())])


def label_subset(videos: Sequence[Video], fraction: float, seed: int = 0) -> list[str]:
    """Names of the training videos whose labels are used when only a share of them may be.

    Subsets of one seed are nested (10 % lies within 25 %) and spread over categories: the videos of each category are
    shuffled, the i-th of n stands at (i + ½) / n, and all are taken in that order.

    Args:
        videos: An index; other splits are left out.
        fraction: Share of the labels in (0, 1]; at least one video is kept.
        seed: Which nest.

    Raises:
        ValueError: ``fraction`` isn't in (0, 1], or there are no training videos.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], not {fraction}")
    groups: dict[str, list[str]] = defaultdict(list)
    for video in videos:
        if video.split == "train":
            groups[video.category].append(video.name)
    if not groups:
        raise ValueError("there are no training videos to choose from")
    order = []
    for category in sorted(groups):
        names = sorted(groups[category])
        generator = random.Random(f"{seed}/{category}")
        generator.shuffle(names)
        # Within a tie (categories of one size) chance decides, not the alphabet.
        order += [((i + 0.5) / len(names), generator.random(), name) for i, name in enumerate(names)]
    order.sort()
    return [name for _, _, name in order[: max(1, round(fraction * len(order)))]]


def write_label_subset(path: str | Path, names: Iterable[str]) -> None:
    """Write the file that ``data.labelled`` takes: one name a line."""
    with whole_file(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_label_subsets(
    root: str | Path, subset: Subset, fractions: Iterable[float], seed: int = 0, out: str | Path | None = None
) -> dict[Path, int]:
    """Write nested subsets of a data set's labels, one file for each share.

    Args:
        root: The folder that holds ``Single-source/`` and ``Multi-sources/``.
        subset: ``s4`` or ``ms3``.
        fractions: Shares of the labelled training videos in (0, 1].
        seed: Which nest; see `label_subset`.
        out: Where the files go; None: ``ROOT/labels``.

    Returns:
        How many videos each file names, by file: ``s4-labels-10-seed0.txt`` has 10 %.

    Raises:
        AvsegError: a faulty or missing index, or no training videos.
        ValueError: a share isn't in (0, 1].
    """
    videos = read_index(root, subset)
    if all(video.split != "train" for video in videos):
        raise AvsegError(f"{Layout(root, subset).index} lists no training videos: there are no labels to choose from.")
    chosen = {fraction: label_subset(videos, fraction, seed) for fraction in sorted(set(fractions))}
    folder = Path(root) / "labels" if out is None else Path(out)
    files = {}
    for fraction, names in chosen.items():
        path = folder / f"{subset}-labels-{100 * fraction:g}-seed{seed}.txt"
        write_label_subset(path, names)
        files[path] = len(names)
    return files


def read_label_subset(path: str | Path, videos: Sequence[Video]) -> set[str]:
    """The names in a file of `write_label_subset`.

    Raises:
        AvsegError: no such file, no names, or a name that no training video has.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise AvsegError(
            f"data.labelled: {path} cannot be read ({reason(error)}): give a text file of names."
        ) from None
    names = {line.strip() for line in lines if line.strip()}
    if not names:
        raise AvsegError(f"data.labelled: {path} holds no names; write one training video's name a line.")
    unknown = sorted(names - {video.name for video in videos if video.split == "train"})
    if unknown:
        raise AvsegError(
            f"data.labelled: {path} names {short(unknown[0])}, which is no training video; correct the line."
        )
    return names


def _absent(layout: Layout) -> str:
    if layout.root.name in ("Single-source", "Multi-sources"):
        return f"{layout.index} does not exist: give the folder above, {layout.root.parent}."
    return (
        f"{layout.index} does not exist: {layout.root} should hold that file and {layout.folder.name}/"
        f"{layout.data.name}/; AVSBench is had from its authors on request, `avseg data synth` makes a stand-in."
    )


def _video(row: Mapping[str, str], subset: Subset, path: Path, line: int) -> Video:
    name = row["name" if subset == "s4" else "video_id"]
    _check_name(name, path, line)
    if row["split"] not in SPLITS:
        raise AvsegError(f"{path}, line {line}: split {short(row['split'])} is not one of {', '.join(SPLITS)}.")
    if subset == "ms3":
        return Video(name, "", row["split"], subset)
    _check_name(row["category"], path, line)
    start = row["start"]
    return Video(
        name, row["category"], row["split"], subset, int(start) if start.isdecimal() and len(start) < 10 else 0
    )


def _check_name(name: str, path: Path, line: int) -> None:
    # A list may come from anywhere: it must not lead out of its folder.
    if (
        name in ("", ".", "..")
        or any(c in "/\\" or ord(c) < 32 for c in name)
        or len(name.encode("utf-8", "replace")) > _LONGEST_NAME
    ):
        raise AvsegError(f"{path}, line {line}: {short(name)} is not a plain name; correct the line.")


def _check_frame_index(layout: Layout, videos: Sequence[Video]) -> None:
    known = {video.name: video for video in videos if video.split == "train"}
    listed: dict[str, set[int]] = defaultdict(set)
    for video, k, labelled in read_frame_index(layout.root, layout.subset):
        if video.name not in known or labelled != (k in labelled_frames(known[video.name])):
            raise AvsegError(
                f"{layout.frame_index} and {layout.index} differ over frame {k} of {video.name}: "
                "take both from one release."
            )
        listed[video.name].add(k)
    for name in known:
        if len(listed[name]) != FRAMES:
            raise AvsegError(
                f"{layout.frame_index} lists {len(listed[name])} frames of {name}, not {FRAMES}: "
                "take it from the same release as the other CSV."
            )


def read_rows(path: Path, columns: Sequence[str], absent: str) -> list[tuple[int, dict[str, str]]]:
    """(line, values of ``columns``) of every row of a CSV with a header; other columns are passed over.

    Raises:
        AvsegError: no such file (``absent`` is the sentence), a missing column, an incomplete row, or no CSV.
    """
    table = read_table(path, absent)
    first = table[0][1] if table else []
    missing = [column for column in columns if column not in first]
    if missing:
        raise AvsegError(f"{path} has no column {missing[0]!r}: its first line should be {','.join(columns)}.")
    places = [first.index(column) for column in columns]
    rows = []
    for line, cells in table[1:]:
        if len(cells) <= max(places):
            raise AvsegError(f"{path}, line {line} is incomplete: it needs {','.join(columns)}.")
        rows.append((line, {column: cells[place] for column, place in zip(columns, places, strict=True)}))
    return rows


def read_table(path: Path, absent: str) -> list[tuple[int, list[str]]]:
    """(line, cells without spaces around them) of every row of a CSV but empty ones.

    Raises:
        AvsegError: no such file (``absent`` is the sentence), or no CSV in UTF-8, or UTF-16 with its mark.
    """
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""))
        listed = ((reader.line_num, [cell.strip() for cell in row]) for row in islice(reader, _MOST_ROWS + 1))
        rows = [(line, cells) for line, cells in listed if any(cells)]
    except FileNotFoundError:
        raise AvsegError(absent) from None
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({error.strerror}): copy it again.") from None
    except csv.Error as error:
        raise AvsegError(f"{path}, line {reader.line_num} cannot be read as CSV ({error}): copy it again.") from None
    except ValueError as error:
        raise AvsegError(f"{path}, {error}: save it as CSV in UTF-8.") from None
    if len(rows) > _MOST_ROWS:
        raise AvsegError(f"{path} has more than {_MOST_ROWS:,} rows: name the list of videos, or copy it again.")
    return rows


def short(text: str) -> str:
    """``text`` in quotes for a message, cut where it is long."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}…"


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV with a header, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0, name)
