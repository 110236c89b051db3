"""The table of frames: one record for each frame on disk, which preparing, checking, caching and training all read.

A data set is a `DataSet`, which says where its files are, and a function that yields its frames, such as
`avseg.data.avsbench.read_frames`. What a run learns from is chosen among these rows (`avseg.data.dataset`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from avseg.media.flow import FlowMethod

Subset = Literal["s4", "ms3"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataSet:
    """Where a data set keeps its files.

    Attributes:
        name: ``s4``, ``ms3`` or ``distant`` (MS3's distant frames).
        root: The folder that a person names.
        folder: The folder below which the files of its frames are.
        index: The CSV of its videos.
        files: For each kind of file a path below ``folder``, with the fields of `Frame` in braces, and ``{flow}`` for
            the folder of our flow.
        published_flow: The folder of UFE's 8-bit flow.
    """

    name: str
    root: Path
    folder: Path
    index: Path
    files: Mapping[str, str] = field(compare=False, repr=False)
    published_flow: Path = field(compare=False)

    @property
    def video_sizes(self) -> Path:
        """Width and height of the raw videos, which square frames no longer show; written by `prepare`."""
        return self.folder / "video_sizes.csv"

    @property
    def embeddings(self) -> Path:
        """Folder of computed audio embeddings."""
        return self.root / ".avseg" / "embeddings"

    @property
    def front_end(self) -> Path:
        """Where `prepare` notes which front end it used."""
        return self.root / ".avseg" / ("made.json" if self.name == "distant" else f"made-{self.name}.json")

    @property
    def cache(self) -> Path:
        """Folder of the memory-mapped arrays."""
        return self.root / ".avseg" / "store" / self.name

    def folder_of(self, kind: str, method: FlowMethod = "farneback") -> Path:
        """The folder that holds all files of one kind."""
        return self.folder / self.files[kind].replace("{flow}", flow_folder(method)).split("/{")[0]


@dataclass(frozen=True)
class Frame:
    """One frame of a video: a row of the table.

    Attributes:
        data: The data set. Names of videos may recur between data sets.
        video: The video's name without suffix, which may begin with ``-``; of MS3's distant frames their number ``n``.
        k: Its number, counted from 1.
        time: Its timestamp in seconds from the video's first frame; 0 where it is not known.
        split: ``train``, ``val`` or ``test``; empty for MS3's distant frames.
        category: What sounds; empty where the index doesn't say.
        labelled: Whether its published mask exists and may be used.
        source: The video file of one of MS3's distant frames, relative to the folder above ``MS3_Extend``.
        counted: Whether losses and scores count it; False: it is seen for what it tells of its clip's other frames.
        flow_from: The frame whose flow it carries; None: its own.
    """

    data: DataSet
    video: str
    k: int = 1
    time: float = 0.0
    split: str = ""
    category: str = ""
    labelled: bool = False
    source: str = ""
    counted: bool = True
    flow_from: Frame | None = None

    @property
    def key(self) -> str:
        """What tells the video from all others of its data set: one name may be in several splits or categories."""
        return "/".join(filter(None, (self.split, self.category, self.video)))

    @property
    def name(self) -> str:
        """The image's path below the data set's folder, which no other frame there has."""
        return self._below("image")

    @property
    def id(self) -> tuple[DataSet, str]:
        """What tells the frame from all others, whatever it is used for."""
        return self.data, self.name

    @property
    def image(self) -> Path:
        """An RGB PNG."""
        return self.path("image")

    @property
    def raw(self) -> Path:
        """The video as recorded."""
        return Path(os.path.normpath(self.path("raw")))

    @property
    def log_mel(self) -> Path:
        """The pickled ``(n, 1, 96, 64)`` tensor of the video's log-mel examples, of which the k-th is the frame's."""
        return self.path("log_mel")

    @property
    def mask(self) -> Path:
        """The published mask."""
        return self.path("mask")

    @property
    def hidden_mask(self) -> Path:
        """The truth of a frame that counts as unlabelled. Only the generated benchmark has it, for diagnostics."""
        return self.path("hidden_mask")

    def flow(self, method: FlowMethod = "farneback") -> Path:
        """Optical flow from this frame to its neighbouring frame, a 16-bit PNG of ours."""
        return self.data.folder / self._below("flow", flow=flow_folder(method))

    @property
    def published_flow(self) -> tuple[Path, Path]:
        """UFE's 8-bit ``u`` and ``v``."""
        name = self._below("published_flow")
        return self.data.published_flow / "flows_x" / name, self.data.published_flow / "flows_y" / name

    def path(self, kind: str) -> Path:
        """Where one of ``data.files`` is, such as ``wav`` (the sound at 16 kHz)."""
        return self.data.folder / self._below(kind)

    def _below(self, kind: str, flow: str = "") -> str:
        return self.data.files[kind].format(
            video=self.video, k=self.k, split=self.split, category=self.category, source=self.source, flow=flow
        )


def by_video(frames: Iterable[Frame]) -> list[tuple[Frame, ...]]:
    """The frames of each video, in their order; those of one video follow each other in the table."""
    return [tuple(group) for _, group in groupby(frames, lambda frame: (frame.data, frame.key))]


def flow_folder(method: FlowMethod) -> str:
    """Name of the folder of our flow: each method has its own, and Farnebäck's is ``flow``."""
    return "flow" if method == "farneback" else f"flow_{method}"
