"""One person's session on the page: the result, its images under any threshold, and the files to take home."""

import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import numpy as np

from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.inference import FPS, Segmenter
from avseg.inference.result import Result
from avseg.media.images import resize
from avseg.media.video import probe
from avseg.progress import Progress
from avseg.render import overlay


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        seconds: Length of the stretch that is segmented.
        megabytes: Size of the file, in units of 2^20 bytes.
    """

    seconds: float = 120.0
    megabytes: float = 500.0


MOST_THUMBNAILS = 40
_THUMBNAIL = 176  # pixels of the longer side
_PICTURE = 1280
_MEASURED = 480


@dataclass(frozen=True)
class Stretch:
    """Which part of a video is looked at, and how often.

    Attributes:
        fps: Moments per second; None takes every frame.
        start: First moment, in seconds.
        end: Moments before this many seconds; None goes on to the last.
    """

    fps: float | None = FPS
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Files:
    """What can be downloaded, all under one threshold."""

    video: Path
    masks: Path
    coco: Path


@dataclass(eq=False)
class Session:
    """A segmented video that a person looks at.

    Attributes:
        result: The scores.
        folder: Where this session's files are written; nobody else's are.
        rate: Moments that were segmented per second of waiting.
        index: The moment that is shown.
        threshold: That the person looks with.
        drawn: That the files were written with.
    """

    result: Result
    folder: Path
    rate: float = 0.0
    index: int = 0
    threshold: float = 0.5
    drawn: float = 0.5
    _writing: Lock = field(default_factory=Lock, repr=False)
    _frame: tuple[int, np.ndarray] | None = field(default=None, repr=False)
    _shares: tuple[float, np.ndarray] | None = field(default=None, repr=False)
    _small: list[np.ndarray] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """The video's name without its suffix."""
        return Path(self.result.video.info.path).stem

    def show(self, index: int) -> None:
        """Choose the moment that is shown, the nearest one there is; its frame is decoded once."""
        index = min(max(0, index), len(self.result) - 1)
        self._shown(index)
        self.index = index

    def _shown(self, index: int) -> tuple[int, np.ndarray]:
        known = self._frame
        if known is None or known[0] != index:
            self._frame = known = index, self._within(self.result.moment(index).frame, _PICTURE)
        return known

    def _within(self, frame: np.ndarray, side: int) -> np.ndarray:
        """The frame as displayed, with square pixels, no larger than ``side`` of them either way."""
        return resize(frame, _size(*self.result.video.info.display_size, side))

    def shares(self, threshold: float) -> np.ndarray:
        """``(n,)`` share of the frame that sounds, measured on images of 480 pixels, which is quick."""
        known = self._shares
        if known is None or known[0] != threshold:
            width, height = _size(*self.result.size, _MEASURED)
            view = replace(self.result.view, width=width, height=height)
            found = [float((view.enlarge(score) >= threshold).mean()) for score in self.result.scores]
            self._shares = known = threshold, np.array(found)
        return known[1]

    def picture(self, threshold: float, score: bool = False) -> np.ndarray:
        """The shown moment with its mask, ``(h, w, 3)`` uint8, at most 1280 pixels wide or high.

        Args:
            threshold: Probability from which a pixel is marked.
            score: Whether the tint's opacity follows the score everywhere.
        """
        index, frame = self._shown(self.index)
        found = _score(self.result, index, frame)
        return overlay(frame, found >= threshold, found if score else None, alpha=0.75 if score else 0.45)

    def thumbnails(self, threshold: float) -> list[tuple[int, np.ndarray]]:
        """Evenly spaced moments, each with its number, marked under a threshold."""
        chosen = self.chosen()
        if not self._small:
            times = (float(self.result.times[index]) for index in chosen)
            self._small = [self._within(frame, _THUMBNAIL) for frame in self.result.video.shown(times)]
        marked = []
        for index, frame in zip(chosen, self._small, strict=True):
            marked.append((index, overlay(frame, _score(self.result, index, frame) >= threshold)))
        return marked

    def chosen(self) -> list[int]:
        """The numbers of the moments that have a thumbnail."""
        count = min(MOST_THUMBNAILS, len(self.result))
        return [int(index) for index in np.linspace(0, len(self.result) - 1, count).round()]

    def write(self, threshold: float, progress: Progress | None = None) -> Files:
        """Write overlay video, masks and COCO file under a threshold, without running the model.

        Raises:
            AvsegError: the video was deleted meanwhile.
        """
        with self._writing:  # in the order in which they were asked for
            result = self.result.at(threshold)
            folder = self.folder / f"{threshold:.2f}"
            video = result.save_video(folder / f"{self.name}-marked.mp4", progress)
            files = Files(video, folder / f"{self.name}-masks.zip", folder / f"{self.name}-coco.json")
            with TemporaryDirectory(dir=self.folder) as scratch, whole_file(files.masks) as temporary:
                masks = result.save_masks(Path(scratch) / "masks")
                with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:  # PNGs are compressed already
                    for path in sorted(masks.iterdir()):
                        archive.write(path, f"{self.name}-masks/{path.name}")
            result.to_coco(files.coco)
            self.drawn = threshold
        return files

    def there(self) -> bool:
        """Whether the video and the folder are still there: both are deleted after an hour."""
        source = self.result.source
        return self.folder.is_dir() and (not isinstance(source, Path) or source.is_file())

    def close(self) -> None:
        """Delete everything of this session."""
        shutil.rmtree(self.folder, ignore_errors=True)


def begin(
    video: Path,
    segmenter: Segmenter,
    folder: Path,
    stretch: Stretch | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Session:
    """Segment a video for a person to look at.

    Args:
        video: The file.
        segmenter: The model.
        folder: In it a folder of the session's own is made.
        stretch: Which part of the video.
        limits: What is taken.
        progress: Called with the moments done and (about) their total.

    Raises:
        AvsegError: the file is over a limit, or not a video with sound; the sentences are those of ``avseg segment``,
            with the file's name in place of its path.
    """
    stretch, limits = stretch or Stretch(), limits or Limits()
    with named(video):
        check(video, stretch, limits)
        began = time.monotonic()
        result = segmenter(video, stretch.fps, stretch.start, stretch.end, progress=progress)
        elapsed = time.monotonic() - began
        own = folder / secrets.token_urlsafe(16)
        own.mkdir(parents=True)
        session = Session(
            result, own, rate=len(result) / max(elapsed, 1e-6), threshold=result.threshold, drawn=result.threshold
        )
        # What sounds most is what a person wants to see first.
        session.show(int(session.shares(result.threshold).argmax()))
    return session


def check(video: Path, stretch: Stretch, limits: Limits) -> None:
    """See whether a file is within the limits, before anything else is done with it.

    Raises:
        AvsegError: it is larger, or the stretch longer, or it is no video.
    """
    megabytes = video.stat().st_size / 2**20
    if megabytes > limits.megabytes:
        raise AvsegError(
            f"{video} has {megabytes:.1f} MB where this page takes {limits.megabytes:g}: give a smaller file, or start "
            "the page with a higher --max-megabytes."
        )
    duration = probe(video).duration
    seconds = (duration if stretch.end is None else min(stretch.end, duration)) - stretch.start
    if seconds > limits.seconds:
        raise AvsegError(
            f"{video}: {seconds:.1f} s were asked for where this page takes {limits.seconds:g}: choose a shorter "
            "stretch, or start the page with a higher --max-seconds."
        )


@contextmanager
def named(video: Path) -> Iterator[None]:
    """Within, errors call the video by its name: a person doesn't know where the page put the file."""
    try:
        yield
    except AvsegError as error:
        raise AvsegError(str(error).replace(str(video), video.name)) from error


def _size(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _score(result: Result, index: int, frame: np.ndarray) -> np.ndarray:
    """A moment's score at the size of a (smaller) frame, ``(h, w)`` float32."""
    view = replace(result.view, width=frame.shape[1], height=frame.shape[0])
    return view.enlarge(result.scores[index])
