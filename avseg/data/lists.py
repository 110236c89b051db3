"""CSV files within limits, and the small lists of a data set: sizes of videos, and which labels may be used."""

import csv
import io
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from avseg.data.frames import Frame
from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.reading import read_text, reason

_PIXELS = re.compile("[1-9][0-9]{0,4}")
_MOST_ROWS = 1_000_000  # five times VGGSound's
_LONGEST_NAME = 200  # bytes, so that a file name made of it is not too long


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


def label_subset(frames: Iterable[Frame], fraction: float, seed: int = 0) -> list[str]:
    """Names of the training videos whose labels are used when only a share of them may be.

    Subsets of one seed are nested (10 % lies within 25 %) and spread over categories: the videos of each category are
    shuffled, the i-th of n stands at (i + ½) / n, and all are taken in that order.

    Args:
        frames: A table; other splits are left out.
        fraction: Share of the labels in (0, 1]; at least one video is kept.
        seed: Random seed of the order.

    Raises:
        ValueError: ``fraction`` isn't in (0, 1], or there are no training videos.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], not {fraction}")
    groups: dict[str, list[str]] = defaultdict(list)
    for frame in frames:
        if frame.split == "train" and frame.k == 1:
            groups[frame.category].append(frame.video)
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
    frames: Sequence[Frame], fractions: Iterable[float], seed: int = 0, out: str | Path | None = None
) -> dict[Path, int]:
    """Write nested subsets of a data set's labels, one file for each share.

    Args:
        frames: The data set's table.
        fractions: Shares of the labelled training videos in (0, 1].
        seed: See `label_subset`.
        out: Where the files go; None: ``ROOT/labels``.

    Returns:
        How many videos each file names, by file: ``s4-labels-10-seed0.txt`` has 10 %.

    Raises:
        AvsegError: no training videos.
        ValueError: a share isn't in (0, 1].
    """
    data = frames[0].data
    if all(frame.split != "train" for frame in frames):
        raise AvsegError(f"{data.index} lists no training videos: there are no labels to choose from.")
    chosen = {fraction: label_subset(frames, fraction, seed) for fraction in sorted(set(fractions))}
    folder = data.root / "labels" if out is None else Path(out)
    files = {}
    for fraction, names in chosen.items():
        path = folder / f"{data.name}-labels-{100 * fraction:g}-seed{seed}.txt"
        write_label_subset(path, names)
        files[path] = len(names)
    return files


def read_label_subset(path: str | Path, frames: Iterable[Frame]) -> set[str]:
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
    unknown = sorted(names - {frame.video for frame in frames if frame.split == "train"})
    if unknown:
        raise AvsegError(
            f"data.labelled: {path} names {short(unknown[0])}, which is no training video; correct the line."
        )
    return names


def read_rows(path: Path, columns: Sequence[str], missing: str) -> list[tuple[int, dict[str, str]]]:
    """(line, values of ``columns``) of every row of a CSV with a header; other columns are passed over.

    Raises:
        AvsegError: no such file (``missing`` is the sentence), a missing column, an incomplete row, or no CSV.
    """
    table = read_table(path, missing)
    header = table[0][1] if table else []
    absent = [column for column in columns if column not in header]
    if absent:
        raise AvsegError(f"{path} has no column {absent[0]!r}: its first line should be {','.join(columns)}.")
    positions = [header.index(column) for column in columns]
    rows = []
    for line, cells in table[1:]:
        if len(cells) <= max(positions):
            raise AvsegError(f"{path}, line {line} is incomplete: it needs {','.join(columns)}.")
        rows.append((line, {column: cells[i] for column, i in zip(columns, positions, strict=True)}))
    return rows


def read_table(path: Path, missing: str) -> list[tuple[int, list[str]]]:
    """(line, cells without spaces around them) of every row of a CSV but empty ones.

    Raises:
        AvsegError: no such file (``missing`` is the sentence), or no CSV in UTF-8, or UTF-16 with its mark.
    """
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""))
        listed = ((reader.line_num, [cell.strip() for cell in row]) for row in islice(reader, _MOST_ROWS + 1))
        rows = [(line, cells) for line, cells in listed if any(cells)]
    except FileNotFoundError:
        raise AvsegError(missing) from None
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({error.strerror}): copy it again.") from None
    except csv.Error as error:
        raise AvsegError(f"{path}, line {reader.line_num} cannot be read as CSV ({error}): copy it again.") from None
    except ValueError as error:
        raise AvsegError(f"{path}, {error}: save it as CSV in UTF-8.") from None
    if len(rows) > _MOST_ROWS:
        raise AvsegError(f"{path} has more than {_MOST_ROWS:,} rows: name the list of videos, or copy it again.")
    return rows


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV with a header, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def short(text: str) -> str:
    """``text`` in quotes for a message, cut where it is long."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}…"


def check_name(name: str, path: Path, line: int) -> None:
    """Raise AvsegError unless a name in a list is a plain file name: a list must not lead out of its folder."""
    if (
        name in ("", ".", "..")
        or any(c in "/\\" or ord(c) < 32 for c in name)
        or len(name.encode("utf-8", "replace")) > _LONGEST_NAME
    ):
        raise AvsegError(f"{path}, line {line}: {short(name)} is not a plain name; correct the line.")
