"""One raw video -> its frames, flow, sound and log-mel: a pure function, and how it is mapped over many.

Both `avseg.data.prepare` and `avseg.data.mine` say with a `Job` which files they want.
"""

import errno
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from avseg.data.avsbench import (
    FRAMES,
    DistantFrame,
    DistantLayout,
    Layout,
    Video,
    frame_times,
    read_sizes,
    save_log_mel,
    write_image,
    write_sizes,
)
from avseg.data.layout import flow_folder
from avseg.data.pool import Progress, run_all
from avseg.errors import AvsegError
from avseg.media.audio import EXAMPLE_SAMPLES, SAMPLE_RATE, frame_log_mel, load_audio, log_mel_at, read_wav, write_wav
from avseg.media.container import MediaWarning
from avseg.media.flow import FlowMethod, neighbour_flow, write_flow_png
from avseg.media.video import probe, read_pairs

_FIVE_EXAMPLES = (EXAMPLE_SAMPLES + (FRAMES - 1) * 0.96 * SAMPLE_RATE) / SAMPLE_RATE  # seconds; 0.96 s apart


@dataclass(frozen=True)
class Job:
    """One video and the files that are to be made of it.

    Attributes:
        name: What the report calls it.
        raw: The raw video.
        sizes: CSV that keeps the raw video's width and height.
        frames, flows: Files of its frames and of their flow, one for each moment.
        log_mel: File of the log-mel tensor.
        wav: File of the sound; None makes none.
        moments: ``seconds``: frames 1..5 at (k − 1) + 15/16 s, and consecutive log-mel examples, as AVSBench pairs
            them; ``middle``: the middle frame, and the example centred on it.
        size: Side of the square frames.
        flow_method: ``farneback`` or ``dis``.
        overwrite: Make files that are there already, too.
        measure: Also find the raw video's width and height; `run_jobs` sets it where ``sizes`` doesn't know them.
    """

    name: str
    raw: Path
    sizes: Path
    frames: tuple[Path, ...]
    flows: tuple[Path, ...]
    log_mel: Path
    wav: Path | None
    moments: Literal["seconds", "middle"]
    size: int
    flow_method: FlowMethod
    overwrite: bool = False
    measure: bool = False

    @property
    def short_name(self) -> str:
        """What ``sizes`` calls it."""
        return Path(self.name).name

    def lacks(self, path: Path | None) -> bool:
        """Whether ``path`` is to be made."""
        return path is not None and (self.overwrite or not exists(path))

    @property
    def pictures_missing(self) -> list[int]:
        """Places of the moments whose frame or flow is to be made."""
        return [
            i
            for i, (frame, flow) in enumerate(zip(self.frames, self.flows, strict=True))
            if self.lacks(frame) or self.lacks(flow)
        ]

    @property
    def unfinished(self) -> bool:
        """Whether anything is to be made."""
        return bool(self.pictures_missing) or self.sound_missing

    @property
    def sound_missing(self) -> bool:
        """Whether the sound or its log-mel is to be made."""
        return self.lacks(self.wav) or self.lacks(self.log_mel)

    @property
    def files(self) -> list[Path]:
        """Everything that should be there in the end."""
        return [*self.frames, *self.flows, self.log_mel, *([self.wav] if self.wav else [])]


@dataclass
class Outcome:
    """What became of a `Job`.

    Attributes:
        written: Files made, by kind.
        failures: Sentences that say what couldn't be made, and why.
        notes: Sentences about what was made but is unusual.
        size: The raw video's width and height, where they were asked for.
    """

    written: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None


def video_job(layout: Layout, video: Video, side: int, flow_method: FlowMethod, overwrite: bool = False) -> Job:
    """The job of a video of S4 or MS3: five frames ``side`` pixels high and wide, and their sound."""
    numbers = range(1, FRAMES + 1)
    return Job(
        name=video.name,
        raw=layout.raw_video(video),
        sizes=layout.video_sizes,
        frames=tuple(layout.frame(video, k) for k in numbers),
        flows=tuple(layout.flow(video, k, flow_method) for k in numbers),
        log_mel=layout.log_mel(video),
        wav=layout.wav(video),
        moments="seconds",
        size=side,
        flow_method=flow_method,
        overwrite=overwrite,
    )


def distant_job(
    layout: DistantLayout,
    frame: DistantFrame,
    side: int,
    flow_method: FlowMethod,
    overwrite: bool = False,
    raw: Path | None = None,
) -> Job:
    """The job of one of MS3's distant frames: the middle frame of ``raw`` (None: of the video that its list names).

    Its sound is the 0.96 s centred on the frame. (UFE's published release pairs the middle frame with the first
    second's sound, an error that is not repeated here.)
    """
    return Job(
        name=f"{layout.folder.name}/{frame.name}",
        raw=layout.raw_video(frame) if raw is None else raw,
        sizes=layout.video_sizes,
        frames=(layout.image(frame),),
        flows=(layout.flow(frame, flow_method),),
        log_mel=layout.log_mel(frame),
        wav=None,
        moments="middle",
        size=side,
        flow_method=flow_method,
        overwrite=overwrite,
    )


def distant_folders(layout: DistantLayout, flow_method: FlowMethod) -> list[Path]:
    """The folders that a `distant_job` writes to."""
    return [layout.folder / kind for kind in ("images", flow_folder(flow_method), "audios_log_mel")]


def run_jobs(
    jobs: Sequence[Job], place: Path, workers: int | None = None, progress: Progress | None = None
) -> list[Outcome]:
    """`prepare_video` of every job, shared out over processes; the raw videos' sizes are noted in the jobs' CSVs.

    Args:
        jobs: What is to be made; those that need nothing cost nothing.
        place: The folder that an error names.
        workers: Processes; None: one a core.
        progress: Called with (videos done, videos that need work).

    Returns:
        An outcome for each job.

    Raises:
        AvsegError: nothing can be written (the disk is full, or may not be written to), or a CSV of sizes is faulty.
    """
    sizes = {file: read_sizes(file) for file in {job.sizes: None for job in jobs}}
    asked = [
        replace(job, measure=True) if job.short_name not in sizes[job.sizes] and job.raw.is_file() else job
        for job in jobs
    ]
    todo = [i for i, job in enumerate(asked) if job.measure or job.unfinished]
    try:
        done = run_all(prepare_video, [asked[i] for i in todo], workers, progress)
    except OSError as error:
        raise AvsegError(
            f"{place} cannot be written to ({error.strerror}): make room or change permissions, then run again; what "
            "is made already is kept."
        ) from None
    outcomes = [Outcome() for _ in jobs]
    for i, outcome in zip(todo, done, strict=True):
        outcomes[i] = outcome
        if outcome.size is not None:
            sizes[asked[i].sizes][asked[i].short_name] = outcome.size
    for file, known in sizes.items():
        if known and (not file.is_file() or read_sizes(file) != known):
            write_sizes(file, known)
    return outcomes


def prepare_video(job: Job) -> Outcome:
    """Make what is missing of one video. Each file is whole, or isn't there.

    Raises:
        OSError: nothing can be written (the disk is full, or may not be written to).
    """
    outcome = Outcome()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for part in (_make_pictures, _make_sound):
            try:
                part(job, outcome)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                    raise
                outcome.failures.append(f"{job.raw} cannot be read ({error}): copy or download it again.")
            except AvsegError as error:
                if str(error) not in outcome.failures:
                    outcome.failures.append(str(error))
            except Exception as error:
                # A strange file may raise anything; one video must not stop the other thousands.
                outcome.failures.append(f"{job.raw} cannot be prepared ({type(error).__name__}: {error}).")
    outcome.notes += sorted({str(warning.message) for warning in caught if _tells(warning)})
    return outcome


def _make_pictures(job: Job, outcome: Outcome) -> None:
    missing = job.pictures_missing
    if not missing and not job.measure:
        return
    if not job.raw.is_file():
        raise AvsegError(f"{job.raw} does not exist: put the raw video there, or take its row out of the CSV.")
    info = probe(job.raw)
    outcome.size = (info.width, info.height)
    times = frame_times(len(job.frames)) if job.moments == "seconds" else np.array([info.duration / 2])
    pairs = read_pairs(job.raw, times[missing], size=(job.size, job.size)) if missing else []
    for i, pair in zip(missing, pairs, strict=True):
        if job.lacks(job.frames[i]):
            write_image(job.frames[i], pair.frame)
            outcome.written["frames"] += 1
        if job.lacks(job.flows[i]):
            write_flow_png(job.flows[i], neighbour_flow(pair, job.flow_method))
            outcome.written["flow"] += 1
    if any(pair.neighbour is None for pair in pairs):
        outcome.notes.append(f"{job.raw} has a single frame: its flow is zero.")


def _make_sound(job: Job, outcome: Outcome) -> None:
    if not job.sound_missing:
        return
    if job.wav is None or job.lacks(job.wav):
        if not job.raw.is_file():
            raise AvsegError(f"{job.raw} does not exist: put the raw video there, or take its row out of the CSV.")
        wave, rate = load_audio(job.raw), SAMPLE_RATE
        if job.wav is not None:
            write_wav(job.wav, wave)
            outcome.written["wav"] += 1
    if job.wav is not None:
        # Always from the stored file, so that a run that was stopped in between makes the same log-mel.
        wave, rate = _read_wav(job.wav)
    if not job.lacks(job.log_mel):
        return
    if job.moments == "seconds":
        examples = frame_log_mel(wave, FRAMES, rate)
        if (seconds := len(wave) / rate) < _FIVE_EXAMPLES:
            heard = job.wav or job.raw
            outcome.notes.append(f"{heard} has {seconds:.1f} s of sound: its last log-mel example is repeated.")
    else:
        examples = log_mel_at(wave, [probe(job.raw).duration / 2], rate)
    save_log_mel(job.log_mel, torch.from_numpy(examples))
    outcome.written["log_mel"] += 1


def _read_wav(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    try:
        return read_wav(path)
    except AvsegError:
        # Published sounds may be WAV files of another kind than 16-bit PCM.
        return load_audio(path), SAMPLE_RATE


def _tells(warning: warnings.WarningMessage) -> bool:
    return issubclass(warning.category, MediaWarning)


def exists(path: Path) -> bool:
    """Whether a file is there and not empty."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
