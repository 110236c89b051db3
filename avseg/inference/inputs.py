"""From what a person types to the videos that are meant: files, folders and patterns, each with a name of its own."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avseg.errors import AvsegError
from avseg.inference.output_paths import is_overlay
from avseg.inference.recording import Recording, listing
from avseg.inference.source import AnySource
from avseg.inference.video import output_name

VIDEOS = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".flv", ".wmv", ".ogv", ".3gp"),
)
"""Endings by which videos are found in folders; a file that is named itself may have any."""


@dataclass(frozen=True)
class Input:
    """One video to segment.

    Attributes:
        path: The file, or a folder of images with a sound file.
        name: What its results are called; no two inputs share one, whatever the case of letters.
        problem: Why nothing can be made of it, if that is known already.
    """

    path: Path
    name: str
    problem: str = ""

    def given(self, frame_rate: float | None = None) -> AnySource:
        """What to segment.

        Args:
            frame_rate: Of a folder of images.

        Raises:
            AvsegError: there is a problem.
        """
        if self.problem:
            raise AvsegError(self.problem)
        return Recording.from_folder(self.path, frame_rate) if self.path.is_dir() and frame_rate else self.path


def find_inputs(paths: Sequence[str | Path]) -> list[Input]:
    """The videos that some paths mean, in order, each once.

    A folder stands for the videos in it, not for those in its subfolders; a folder with images, one sound file and
    no video is itself one input. A pattern with ``*``, ``?`` or ``[]`` that is no file stands for the videos that
    match; ``**`` goes down into folders. In folders and patterns hidden files and overlays that avseg wrote are passed
    over.

    Results are called after the file; files of one name are told apart by the folders above them, and by their endings
    where those are the same.
    """
    found: dict[Path, str] = {}
    for given in paths:
        for path, problem in _expand(str(given)):
            found.setdefault(path, problem)
    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(_real(path), path)
    chosen = list(unique.values())
    return [Input(path, name, found[path]) for path, name in zip(chosen, _names(chosen), strict=True)]


def _expand(given: str) -> list[tuple[Path, str]]:
    path = Path(given)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", given):
        return [(path, f"{given} is an address, and only files are read: download it first.")]
    if given == "-":
        return [(path, "- would be a pipe, which can't be read twice: save the video as a file first.")]
    if path.is_dir():
        return _in_folder(path)
    if path.exists() or not glob.has_magic(given):
        return [(path, _nowhere(path))]
    matches = sorted(Path(match) for match in glob.glob(given, recursive=True))
    videos = [(match, _nowhere(match)) for match in matches if _is_video(match)]
    return videos or [(path, f"{given} matches no video: check the pattern.")]


def _in_folder(folder: Path) -> list[tuple[Path, str]]:
    files = sorted(folder.iterdir())
    videos = [(file, _nowhere(file)) for file in files if _is_video(file)]
    if videos:
        return videos
    pictures, sounds = listing(folder)
    if pictures and sounds:
        return [(folder, "")]
    if any(is_overlay(file) for file in files):
        return [(folder, f"{folder} holds nothing but overlays that avseg wrote: name a folder of videos.")]
    mend = "name a video, a folder of videos, or a folder of numbered images with a sound file."
    return [(folder, f"{folder} is a folder without videos: {mend}")]


def _is_video(path: Path) -> bool:
    if path.suffix.lower() not in VIDEOS or path.name.startswith("."):
        return False
    return (path.is_file() and not is_overlay(path)) or bool(_nowhere(path))


def _nowhere(path: Path) -> str:
    """What is wrong with a link to no file; empty for anything else."""
    if not path.is_symlink() or path.exists():
        return ""
    return f"{path} is a link to a file that isn't there, or to itself: mend or remove it."


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve can't stand links that lead to themselves


def _names(paths: list[Path]) -> list[str]:
    """A short name for each path that tells it from the others."""
    groups: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        groups.setdefault(output_name(path).casefold(), []).append(index)
    names = [output_name(path) for path in paths]
    for group in groups.values():
        if len(group) > 1:
            for index, name in zip(group, _told_apart([paths[index] for index in group]), strict=True):
                names[index] = name
    taken: set[str] = set()
    for index, name in enumerate(names):
        free, number = name, 2
        while not taken.isdisjoint(_places(free)):
            free, number = f"{name}_{number}", number + 1
        taken.update(_places(free))
        names[index] = free
    return names


def _told_apart(paths: list[Path]) -> list[str]:
    parents = [_real(path).parent for path in paths]
    share = len(set(parents)) < len(paths)
    ends = [f"{output_name(path)}_{path.suffix[1:]}" if share and path.suffix else output_name(path) for path in paths]
    names = ends
    for depth in range(max(len(parent.parts) for parent in parents)):
        above = [parent.parts[1:][len(parent.parts) - 1 - depth :] if depth else () for parent in parents]
        names = ["_".join([*folders, end]) for folders, end in zip(above, ends, strict=True)]
        if len({name.casefold() for name in names}) == len(names):
            break
    return names


def _places(name: str) -> tuple[str, str]:
    """The file and the folder that results of this name take."""
    return name.casefold(), f"{name}.mp4".casefold()
