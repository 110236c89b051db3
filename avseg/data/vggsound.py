"""Folders like VGGSound's: videos called ``<id>_<start>.mp4``, a CSV of labels, and what these mean in AVSBench."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from avseg.data.lists import read_rows, read_table, short
from avseg.errors import AvsegError

_FILE = re.compile(r"([^\\]+)_(\d+)\.mp4", re.IGNORECASE)
_CATEGORY = re.compile(r"[\w.-]+")
# What the columns of a CSV with a header may be called, letters only.
_HEADERS = (
    ("id", ("id", "youtubeid", "ytid", "videoid", "youtubevideoid", "video", "name")),
    ("start", ("start", "startseconds", "startsecond", "starttime", "num")),
    ("label", ("label", "labels", "class")),
)


@dataclass(frozen=True)
class SoundVideo:
    """One video of such a folder.

    Attributes:
        video: YouTube id; may begin with ``-`` and contain ``_``.
        start: Second of the original recording at which it begins.
        label: What sounds, in the words of the CSV.
        category: What that is called in AVSBench.
        path: The file.
    """

    video: str
    start: int
    label: str
    category: str
    path: Path

    @property
    def key(self) -> str:
        """Id and start, as VGGSound's files are called."""
        return f"{self.video}_{self.start:06d}"


def read_folder(
    source: str | Path, categories: Mapping[str, str], labels: str | Path | None = None
) -> list[SoundVideo]:
    """The videos of a folder whose label has a category, in the order of their ids.

    Args:
        source: Folder of ``<id>_<start>.mp4``, also in sub-folders; the start may be zero-padded.
        categories: Categories by `plain` label, as `read_mapping` gives them.
        labels: CSV with id, start second, label and anything further, with or without a header; None: the only one in
            ``source``.

    Raises:
        AvsegError: no folder, no CSV or several, a faulty one, no such videos, none that has a label, or none whose
            label has a category.
    """
    source = Path(source)
    if not source.is_dir():
        raise AvsegError(f"{source} is no folder: name one that holds <id>_<start>.mp4 files.")
    table = _only_table(source) if labels is None else Path(labels)
    known = read_labels(table)
    files = _find_videos(source)
    if not files:
        raise AvsegError(f"{source} holds no videos that are called <id>_<start>.mp4: name a folder like VGGSound's.")
    labelled = [(place, known[place]) for place in sorted(files) if place in known]
    if not labelled:
        raise AvsegError(
            f"{table} has no row for any of the {len(files)} videos in {source}: its rows should be id,start,label."
        )
    meant = {label: categories.get(plain(label)) for label in {label for _, label in labelled}}
    found = [
        SoundVideo(*place, label, category, files[place])
        for place, label in labelled
        if (category := meant[label]) is not None
    ]
    if not found:
        raise AvsegError(
            f"none of the labels that {table} gives to videos in {source} has a category: name a table of "
            "label,category with --mapping."
        )
    return found


def read_labels(path: Path) -> dict[tuple[str, int], str]:
    """Labels by id and start, from a CSV in VGGSound's own form (no header) or with one.

    Raises:
        AvsegError: it can't be read, or a row is incomplete or has no number where the start should be.
    """
    rows = read_table(path, f"{path} does not exist: name the CSV of labels with --csv.")
    places: Sequence[int] = (0, 1, 2)
    if rows and not (len(rows[0][1]) > 2 and _second(rows[0][1][1]) is not None):
        places = _columns(rows[0][1], path)
        rows = rows[1:]
    labels: dict[tuple[str, int], str] = {}
    for line, row in rows:
        if len(row) <= max(places):
            raise AvsegError(f"{path}, line {line} is incomplete: it needs id, start and label.")
        video, start, label = (row[place] for place in places)
        second = _second(start)
        if second is None:
            raise AvsegError(f"{path}, line {line}: the start {short(start)} is no whole second; correct the line.")
        labels.setdefault((video, second), label)
    return labels


def read_mapping(path: str | Path | None = None) -> dict[str, str]:
    """AVSBench's category of each label, by `plain` label; None: the package's table of VGGSound's labels.

    Raises:
        AvsegError: no such file, no columns ``label`` and ``category``, no rows, a label with two categories, or a
            category that can't be a folder's name.
    """
    if path is None:
        with resources.as_file(resources.files("avseg.data").joinpath("vggsound.csv")) as table:
            return read_mapping(table)
    path = Path(path)
    mapping: dict[str, str] = {}
    for line, row in read_rows(path, ("label", "category"), f"{path} does not exist: name a CSV of label,category."):
        if not _CATEGORY.fullmatch(row["category"]):
            raise AvsegError(f"{path}, line {line}: {short(row['category'])} is no category's name; correct the line.")
        if mapping.setdefault(plain(row["label"]), row["category"]) != row["category"]:
            raise AvsegError(f"{path}, line {line} gives {short(row['label'])} a second category: remove one of them.")
    if not mapping:
        raise AvsegError(f"{path} lists no labels: its rows should be label,category.")
    return mapping


def with_names(mapping: Mapping[str, str], categories: Iterable[str]) -> dict[str, str]:
    """``mapping``, and every category (its own and further ones) as a label of itself, unless it is one already."""
    names = {plain(category): category for category in sorted({*mapping.values(), *categories})}
    return {**names, **mapping}


def plain(label: str) -> str:
    """A label without case, commas, hyphens and underscores, which copies of the list differ in."""
    return " ".join(re.findall(r"[^\W_]+", label.casefold()))


def youtube_ids(names: Iterable[str]) -> set[str]:
    """The ids that names of videos may stand for: the whole, and without ``_36`` or ``_6000_11000`` at the end."""
    found = set()
    for name in names:
        found.add(name)
        if re.fullmatch(r"[\w-]{11}_.*", name):
            found.add(name[:11])
        while match := re.fullmatch(r"(.+)_\d+", name):
            name = match[1]
            found.add(name)
    return found


def _only_table(source: Path) -> Path:
    tables = sorted(source.glob("*.csv"))
    if len(tables) == 1:
        return tables[0]
    if not tables:
        raise AvsegError(f"{source} holds no CSV of labels: name one with --csv.")
    raise AvsegError(f"{source} holds {len(tables)} CSVs: name that of the labels with --csv.")


def _find_videos(source: Path) -> dict[tuple[str, int], Path]:
    files: dict[tuple[str, int], Path] = {}
    for folder, below, names in os.walk(source):
        below.sort()
        for name in sorted(names):
            match = None if name.startswith(".") else _FILE.fullmatch(name)
            if match:
                files.setdefault((match[1], int(match[2])), Path(folder, name))
    return files


def _second(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if 0 <= value < 1e9 and value.is_integer() else None


def _columns(header: Sequence[str], path: Path) -> list[int]:
    names = ["".join(re.findall("[a-z]", cell.casefold())) for cell in header]
    places = []
    for column, known in _HEADERS:
        place = next((names.index(name) for name in known if name in names), None)
        if place is None:
            raise AvsegError(
                f"{path} has no column {column!r}: its first line should be id,start,label, or its first row, without "
                "a header, a video's id, start second and label."
            )
        places.append(place)
    return places
