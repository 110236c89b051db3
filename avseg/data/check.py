"""What is missing, unreadable or of the wrong size in a prepared data set, by path."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from avseg.data.avsbench import FRAMES, avsbench, distant_folder, distant_frames, read_frames
from avseg.data.frames import DataSet, Frame, Subset, by_video
from avseg.data.log_mel import load_log_mel
from avseg.data.parallel import run_all
from avseg.errors import AvsegError
from avseg.media.audio import load_audio, read_wav
from avseg.media.flow import FlowMethod, read_flow_png, read_published
from avseg.media.images import in_another_format, read_image, read_mask, stored_size
from avseg.progress import Progress


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
class _Job:
    """The frames of a video, the size they should have, and whose flow is looked at; none: the published flow."""

    frames: tuple[Frame, ...]
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
    data = avsbench(root, subset)
    frames = read_frames(data)
    sizes = Counter(size for frame in frames if frame.k == 1 and (size := stored_size(frame.image)))
    size = sizes.most_common(1)[0][0] if sizes else (224, 224)
    methods = _methods(data, frames[0].published_flow[0].is_file())
    jobs = [_Job(video, size, methods) for video in by_video(frames)]
    distant = distant_frames(distant_folder(root))
    if subset == "ms3" and distant.folder.is_dir():
        methods = _methods(distant, (distant.folder / "flows_x").is_dir())
        jobs += [_Job((frame,), size, methods) for frame in read_frames(distant)]
    return [problem for found in run_all(_check_one, jobs, workers, progress) for problem in found]


def _methods(data: DataSet, published: bool) -> Sequence[FlowMethod]:
    """Whose flow a data set should have; none where published flow stands in for ours."""
    found = [method for method in get_args(FlowMethod) if data.folder_of("flow", method).is_dir()]
    return found or ([] if published else ["farneback"])


def _check_one(job: _Job) -> list[Problem]:
    problems: list[Problem] = []

    def look(path: Path, read: Callable[[Path], str | None], size: bool = True) -> None:
        """Note what is wrong with a file, which ``read`` says or raises; the header's ``size`` first."""
        if not path.is_file():
            other = in_another_format(path)
            problems.append(Problem(path, f"is missing: {other}." if other else "is missing."))
            return
        try:
            found = stored_size(path) if size else None
            fault = read(path) if found in (None, job.size) else _size_fault(found, job.size)
        except (AvsegError, ValueError, OSError) as error:
            # The message begins with the path, as all of ours do.
            fault = str(error).removeprefix(str(path)).strip()
        if fault is not None:
            problems.append(Problem(path, fault))

    video = job.frames[0]
    distant = video.data.name == "distant"
    for frame in job.frames:
        look(frame.image, _readable(read_image))
        if distant:
            look(frame.log_mel, _log_mel_fault(None), size=False)
        for method in job.methods:
            look(frame.flow(method), _readable(read_flow_png))
        for path in () if job.methods else frame.published_flow:
            look(path, _readable(lambda path: read_published(path, path)))
    for frame in job.frames:
        if frame.labelled:
            look(frame.mask, _readable(read_mask))
    if not distant:
        look(video.path("wav"), _wav_fault, size=False)
        look(video.log_mel, _log_mel_fault(FRAMES), size=False)
    return problems


def _readable(read: Callable[[Path], object]) -> Callable[[Path], None]:
    def fault(path: Path) -> None:
        read(path)

    return fault


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
