"""What is missing, unreadable or of the wrong size in a prepared data set, by path."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from avseg.data.avsbench import (
    FRAMES,
    DistantFrame,
    DistantLayout,
    Layout,
    Subset,
    Video,
    labelled_frames,
    load_log_mel,
    read_distant_index,
    read_image,
    read_index,
    read_mask,
)
from avseg.data.layout import flow_folder
from avseg.data.pool import Progress, run_all
from avseg.errors import AvsegError
from avseg.media.audio import load_audio, read_wav
from avseg.media.flow import FlowMethod, read_flow_png, read_published
from avseg.media.picture_files import in_another_format, stored_size


@dataclass(frozen=True)
class Problem:
    """One fault.

    Attributes:
        path: The file at fault.
        what: What is wrong with it, as the rest of a sentence that begins with the path.
    """

    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


@dataclass(frozen=True)
class _Video:
    layout: Layout
    video: Video
    size: tuple[int, int]
    methods: Sequence[FlowMethod]


@dataclass(frozen=True)
class _Distant:
    layout: DistantLayout
    frame: DistantFrame
    size: tuple[int, int]
    methods: Sequence[FlowMethod]


def check(
    root: str | Path, subset: Subset, *, workers: int | None = None, progress: Progress | None = None
) -> list[Problem]:
    """Read every prepared file of a subset and list the faulty ones, in the order of the index.

    Frames, masks and flow should have the size that most frames have. Raw videos are not looked at: `prepare` reads
    them, training doesn't. Our flow is read of every method that has a folder; where none has, UFE's published flow,
    if it is there.

    Args:
        root, subset: Which data set.
        workers: Processes; None: one a core.
        progress: Called with (videos done, videos).

    Raises:
        AvsegError: the index is missing or faulty.
    """
    layout = Layout(root, subset)
    videos = read_index(root, subset)
    size = _usual_size(layout, videos)
    methods = _methods(layout.data, layout.published_flow(videos[0], 1)[0].is_file())
    jobs: list[_Video | _Distant] = [_Video(layout, video, size, methods) for video in videos]
    if subset == "ms3" and layout.distant.is_dir():
        distant = DistantLayout(layout.distant)
        methods = _methods(distant.folder, (distant.folder / "flows_x").is_dir())
        jobs += [_Distant(distant, frame, size, methods) for frame in read_distant_index(layout.distant)]
    return [problem for found in run_all(_check_one, jobs, workers, progress) for problem in found]


def _methods(folder: Path, published: bool) -> Sequence[FlowMethod]:
    """Whose flow should be in ``folder``; none where published flow stands in for ours."""
    found = [method for method in get_args(FlowMethod) if (folder / flow_folder(method)).is_dir()]
    return found or ([] if published else ["farneback"])


def _check_one(job: _Video | _Distant) -> list[Problem]:
    problems: list[Problem] = []

    def look(path: Path, read: Callable[[Path], str | None]) -> None:
        """``read`` says what is wrong, or raises."""
        if not path.is_file():
            other = in_another_format(path)
            problems.append(Problem(path, f"is missing: {other}." if other else "is missing."))
            return
        try:
            fault = read(path)
        except (AvsegError, ValueError, OSError) as error:
            # The message begins with the path, as all of ours do.
            fault = str(error).removeprefix(str(path)).strip()
        if fault is not None:
            problems.append(Problem(path, fault))

    def sized(read: Callable[[Path], object]) -> Callable[[Path], str | None]:
        """The header's size first, whatever there is behind it."""

        def fault(path: Path) -> str | None:
            found = stored_size(path)
            if found not in (None, job.size):
                return _size_fault(found, job.size)
            read(path)
            return None

        return fault

    picture, mask, flow = sized(read_image), sized(read_mask), sized(read_flow_png)
    published = sized(lambda path: read_published(path, path))

    if isinstance(job, _Distant):
        look(job.layout.image(job.frame), picture)
        look(job.layout.log_mel(job.frame), _log_mel_fault(None))
        ours = [job.layout.flow(job.frame, method) for method in job.methods]
        _look_at_flow(look, ours, job.layout.published_flow(job.frame), flow, published)
        return problems
    for k in range(1, FRAMES + 1):
        look(job.layout.frame(job.video, k), picture)
        ours = [job.layout.flow(job.video, k, method) for method in job.methods]
        _look_at_flow(look, ours, job.layout.published_flow(job.video, k), flow, published)
    for k in labelled_frames(job.video):
        look(job.layout.mask(job.video, k), mask)
    look(job.layout.wav(job.video), _wav_fault)
    look(job.layout.log_mel(job.video), _log_mel_fault(FRAMES))
    return problems


def _look_at_flow(
    look: Callable[[Path, Callable[[Path], str | None]], None],
    computed: Sequence[Path],
    published: tuple[Path, Path],
    read_computed: Callable[[Path], str | None],
    read_published: Callable[[Path], str | None],
) -> None:
    for path in computed:
        look(path, read_computed)
    for path in () if computed else published:
        look(path, read_published)


def _log_mel_fault(count: int | None) -> Callable[[Path], str | None]:
    def fault(path: Path) -> str | None:
        found = tuple(load_log_mel(path).shape)
        if count is None or found[0] == count:
            return None
        return f"is a tensor of {found}, not {(count, *found[1:])}: delete it and run `avseg data prepare`."

    return fault


def _wav_fault(path: Path) -> str | None:
    try:
        wave, rate = read_wav(path)
    except AvsegError:
        # Published sounds may be WAV files of another kind than 16-bit PCM.
        wave, rate = load_audio(path), 16_000
    if len(wave) == 0:
        return "has no sound in it: delete it and run `avseg data prepare`."
    if rate != 16_000:
        return f"has {rate} samples a second, not 16,000: delete it and run `avseg data prepare`."
    return (
        None if np.isfinite(wave).all() else "holds values that are not finite: delete it and run `avseg data prepare`."
    )


def _size_fault(found: tuple[int, int], size: tuple[int, int]) -> str:
    return f"has {found[0]}×{found[1]} pixels, not {size[0]}×{size[1]} as most frames."


def _usual_size(layout: Layout, videos: list[Video]) -> tuple[int, int]:
    sizes = Counter(size for video in videos if (size := stored_size(layout.frame(video, 1))))
    return sizes.most_common(1)[0][0] if sizes else (224, 224)
