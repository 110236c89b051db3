"""Where AVSBench keeps its files: one method for each kind of file, and the frames that a video has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from avseg.media.flow import FlowMethod

Subset = Literal["s4", "ms3"]

FRAMES = 5
"""Frames of every video, numbered k = 1..5."""

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Video:
    """One row of an index.

    Attributes:
        name: Name without suffix; may begin with ``-``.
        category: What sounds; empty in MS3, whose index doesn't say.
        split: ``train``, ``val`` or ``test``.
        subset: ``s4`` or ``ms3``.
        start: Second of the original recording at which the video begins (S4's index says; used by nothing here).
    """

    name: str
    category: str
    split: str
    subset: Subset
    start: int = 0

    @property
    def key(self) -> str:
        """What tells the video from all others of its subset: one name may be in several splits or categories."""
        return "/".join(filter(None, (self.split, self.category, self.name)))


@dataclass(frozen=True)
class DistantFrame:
    """A middle frame of an unlabelled video, as in UFE's ``MS3_Extend``.

    Attributes:
        name: The frame's number ``n``, as its files are called.
        video: The video it is from, relative to the folder above ``MS3_Extend``; a bare name lies in ``VGGSound/``.
            Empty where the list was not published.
    """

    name: str
    video: str = ""

    @property
    def key(self) -> str:
        """What tells the frame from all others: its name."""
        return self.name


def frame_times(count: int = FRAMES) -> npt.NDArray[np.float64]:
    """Moments of frames 1..count in seconds, ``(count,)``: frame k is at (k − 1) + 15/16.

    AVSBench takes sixteen frames of each second and keeps the last.
    """
    return np.arange(count, dtype=np.float64) + 15 / 16


def labelled_frames(video: Video) -> tuple[int, ...]:
    """The frames of ``video`` that have a published mask: the first of S4's training videos, else all five."""
    return (1,) if video.subset == "s4" and video.split == "train" else tuple(range(1, FRAMES + 1))


def flow_folder(method: FlowMethod) -> str:
    """Name of the folder of our flow: each method has its own, and Farnebäck's is ``flow``."""
    return "flow" if method == "farneback" else f"flow_{method}"


@dataclass(frozen=True)
class Layout:
    """Paths of one subset below the folder that holds ``Single-source/`` and ``Multi-sources/``.

    S4 files lie in ``<kind>/<split>/<category>/``; MS3 has a split level for sounds and masks only, and its frames
    have ``.mp4`` inside their name.
    """

    root: Path
    subset: Subset

    def __init__(self, root: str | Path, subset: Subset):
        if subset not in ("s4", "ms3"):
            raise ValueError(f"subset must be s4 or ms3, not {subset!r}")
        object.__setattr__(self, "root", Path(root))
        object.__setattr__(self, "subset", subset)

    @property
    def folder(self) -> Path:
        """``Single-source`` or ``Multi-sources``."""
        return self.root / ("Single-source" if self.subset == "s4" else "Multi-sources")

    @property
    def data(self) -> Path:
        """``s4_data`` or ``ms3_data``."""
        return self.folder / f"{self.subset}_data"

    @property
    def index(self) -> Path:
        """The CSV of all videos."""
        return self.folder / f"{self.subset}_meta_data.csv"

    @property
    def frame_index(self) -> Path:
        """UFE's CSV with a row for each frame. S4's name is the published one; MS3's was not published."""
        return self.folder / f"{self.subset}_semi_meta_data.csv"

    @property
    def video_sizes(self) -> Path:
        """Width and height of the raw videos, which square frames no longer tell; written by `prepare`."""
        return self.folder / "video_sizes.csv"

    @property
    def embeddings(self) -> Path:
        """Folder of computed audio embeddings."""
        return self.root / ".avseg" / "embeddings"

    @property
    def made(self) -> Path:
        """Where `prepare` notes which front end it used."""
        return self.root / ".avseg" / f"made-{self.subset}.json"

    @property
    def store(self) -> Path:
        """Folder of the memory-mapped store."""
        return self.root / ".avseg" / "store" / self.subset

    @property
    def distant(self) -> Path:
        """Where MS3's distant frames are looked for unless told otherwise."""
        return self.root / "MS3_Extend"

    def raw_video(self, video: Video) -> Path:
        """The video as recorded."""
        if self.subset == "s4":
            return self.data / "raw_videos" / video.split / video.category / f"{video.name}.mp4"
        return self.data / "raw_videos" / f"{video.name}.mp4"

    def frame(self, video: Video, k: int) -> Path:
        """Frame k, an RGB PNG."""
        return self.data / "visual_frames" / self._frame_name(video, k)

    def flow(self, video: Video, k: int, method: FlowMethod = "farneback") -> Path:
        """Optical flow from frame k to its neighbouring frame, a 16-bit PNG of ours."""
        return self.data / flow_folder(method) / self._frame_name(video, k)

    def published_flow(self, video: Video, k: int) -> tuple[Path, Path]:
        """UFE's 8-bit ``u`` and ``v`` of frame k: in the first place of three that exists, else beside this folder."""
        tree = f"{self.subset.upper()}_flows"
        places = [self.root / tree, self.folder / tree, self.data / tree]
        found = next((place for place in places if place.is_dir()), places[0])
        name = self._frame_name(video, k)
        return found / "flows_x" / name, found / "flows_y" / name

    def wav(self, video: Video) -> Path:
        """The sound, 16 kHz."""
        return self._split_folder("audio_wav", video) / f"{video.name}.wav"

    def log_mel(self, video: Video) -> Path:
        """The pickled ``(5, 1, 96, 64)`` tensor of log-mel examples."""
        return self._split_folder("audio_log_mel", video) / f"{video.name}.pkl"

    def mask(self, video: Video, k: int) -> Path:
        """The published mask of frame k."""
        return self._split_folder("gt_masks", video) / video.name / f"{video.name}_{k}.png"

    def hidden_mask(self, video: Video, k: int) -> Path:
        """The truth of a frame that counts as unlabelled. Only the generated benchmark has it, for diagnostics."""
        return self._hidden("hidden_masks", video, k)

    def hidden_object(self, video: Video, k: int) -> Path:
        """Which object covers each pixel of frame k, from the generated benchmark, for diagnostics."""
        return self._hidden("hidden_objects", video, k)

    def _hidden(self, kind: str, video: Video, k: int) -> Path:
        folder = self.folder / kind / video.split
        return (folder / video.category if self.subset == "s4" else folder) / video.name / f"{video.name}_{k}.png"

    def _split_folder(self, kind: str, video: Video) -> Path:
        folder = self.data / kind / video.split
        return folder / video.category if self.subset == "s4" else folder

    def _frame_name(self, video: Video, k: int) -> Path:
        if self.subset == "s4":
            return Path(video.split, video.category, video.name, f"{video.name}_{k}.png")
        return Path(video.name, f"{video.name}.mp4_{k}.png")


@dataclass(frozen=True)
class DistantLayout:
    """Paths of MS3's distant frames, in the form of UFE's ``MS3_Extend``.

    The middle frame of each of many unlabelled videos, which lie beside this folder, usually in ``VGGSound/``.
    """

    folder: Path

    def __init__(self, folder: str | Path):
        object.__setattr__(self, "folder", Path(folder))

    @property
    def index(self) -> Path:
        """CSV with the columns ``n`` and ``video``. Published releases have none."""
        return self.folder / "index.csv"

    @property
    def mined(self) -> Path:
        """Where `avseg.data.mine` says what it chose: a CSV with the columns ``n``, ``id``, ``start``, ``label``,
        ``category``."""
        return self.folder / "mined.csv"

    @property
    def numbers(self) -> Path:
        """Where `avseg.data.mine` keeps the number of every video that it ever tried."""
        return self.folder / "numbers.csv"

    @property
    def video_sizes(self) -> Path:
        """As `Layout.video_sizes`."""
        return self.folder / "video_sizes.csv"

    @property
    def embeddings(self) -> Path:
        """Folder of computed audio embeddings."""
        return self.folder / ".avseg" / "embeddings"

    @property
    def made(self) -> Path:
        """As `Layout.made`."""
        return self.folder / ".avseg" / "made.json"

    @property
    def store(self) -> Path:
        """As `Layout.store`."""
        return self.folder / ".avseg" / "store" / "distant"

    def raw_video(self, frame: DistantFrame) -> Path:
        """The unlabelled video."""
        above = self.folder.parent
        return above / frame.video if "/" in frame.video else above / "VGGSound" / frame.video

    def image(self, frame: DistantFrame) -> Path:
        """The middle frame, an RGB PNG."""
        return self.folder / "images" / f"{frame.name}.png"

    def flow(self, frame: DistantFrame, method: FlowMethod = "farneback") -> Path:
        """Optical flow to its neighbouring frame, a 16-bit PNG of ours."""
        return self.folder / flow_folder(method) / f"{frame.name}.png"

    def published_flow(self, frame: DistantFrame) -> tuple[Path, Path]:
        """UFE's 8-bit ``u`` and ``v``."""
        name = Path(frame.name, f"{frame.name}.mp4_middle.png")
        return self.folder / "flows_x" / name, self.folder / "flows_y" / name

    def log_mel(self, frame: DistantFrame) -> Path:
        """The pickled tensor whose first example is the frame's sound."""
        return self.folder / "audios_log_mel" / f"{frame.name}.pkl"
