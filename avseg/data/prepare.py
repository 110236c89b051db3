"""Raw videos -> frames, sound, log-mel and optical flow, in AVSBench's layout.

`prepare` maps `prepare_video`, a pure function of one video, over all cores; only what is missing is made, so a run
that was stopped goes on where it was. `avseg.data.mine` makes distant frames with the same function.
"""

import errno
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from avseg.config import FrontEnd
from avseg.data.avsbench import FRAMES, avsbench, distant_folder, distant_frames, read_frames
from avseg.data.cluster import Cluster
from avseg.data.frames import DataSet, Frame, Subset, by_video
from avseg.data.front_end import PreparedWith, check_alignment, choose_front_end
from avseg.data.lists import read_sizes, write_sizes
from avseg.data.log_mel import save_log_mel
from avseg.data.parallel import run_all, working_in
from avseg.errors import AvsegError
from avseg.media.audio import EXAMPLE_SAMPLES, SAMPLE_RATE, frame_log_mel, load_audio, log_mel_at, read_wav, write_wav
from avseg.media.container import MediaWarning
from avseg.media.flow import FlowMethod, neighbour_flow, write_flow_png
from avseg.media.front_end import official_pairs, official_sound, sampled_sound
from avseg.media.images import resize, stored_size, write_image
from avseg.media.sound import iter_sound
from avseg.media.video import FramePair, probe, read_pairs
from avseg.progress import Progress

_FIVE_EXAMPLES = (EXAMPLE_SAMPLES + (FRAMES - 1) * 0.96 * SAMPLE_RATE) / SAMPLE_RATE  # seconds; 0.96 s apart


@dataclass(frozen=True)
class Job:
    """One video, and how its files are to be made.

    Attributes:
        frames: Its frames. Those of S4 and MS3 are at their timestamps, with consecutive log-mel examples as AVSBench
            pairs them; one of MS3's distant frames is the middle of its video, with the example that belongs to that
            timestamp (`avseg.media.audio.window_starts`).
        raw: The raw video.
        size: Side of the square images.
        flow_method: ``farneback`` or ``dis``.
        front_end: See `avseg.config.InputConfig`.
        overwrite: Make files that are there already, too.
        measure: Also find the raw video's width and height; `run_jobs` sets it where they are not known.
    """

    frames: tuple[Frame, ...]
    raw: Path
    size: int
    flow_method: FlowMethod
    front_end: FrontEnd = "clean"
    overwrite: bool = False
    measure: bool = False

    @property
    def name(self) -> str:
        """What the report calls it."""
        video = self.frames[0]
        return f"{video.data.folder.name}/{video.video}" if video.data.name == "distant" else video.video

    @property
    def wav(self) -> Path | None:
        """File of the sound; None makes none."""
        return self.frames[0].path("wav") if "wav" in self.frames[0].data.files else None

    def lacks(self, path: Path | None) -> bool:
        """Whether ``path`` is to be made."""
        return path is not None and (self.overwrite or not exists(path))

    @property
    def missing_images(self) -> list[Frame]:
        """Frames of which the image or the flow is to be made."""
        return [f for f in self.frames if self.lacks(f.image) or self.lacks(f.flow(self.flow_method))]

    @property
    def sound_missing(self) -> bool:
        """Whether the sound or its log-mel is to be made."""
        return self.lacks(self.wav) or self.lacks(self.frames[0].log_mel)

    @property
    def files(self) -> list[Path]:
        """Everything that should be there in the end."""
        wav = [self.wav] if self.wav else []
        images = [path for frame in self.frames for path in (frame.image, frame.flow(self.flow_method))]
        return [*images, self.frames[0].log_mel, *wav]


@dataclass
class Outcome:
    """What became of a `Job`.

    Attributes:
        written: Files made, by kind: ``frames``, ``flow``, ``wav``, ``log_mel``.
        failures: Sentences that say what couldn't be made, and why.
        notes: Sentences about what was made but is unusual.
        size: The raw video's width and height, where they were asked for.
    """

    written: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        videos: Videos in the index (and distant frames, for MS3).
        written: As `Outcome.written`.
        kept: Files that were there already.
        failures: (name, reason) of videos of which something couldn't be made.
        notes: (name, remark) of videos that are unusual: sound shorter than five examples, a single frame, damage.
    """

    videos: int
    written: dict[str, int]
    kept: int
    failures: list[tuple[str, str]]
    notes: list[tuple[str, str]]


def prepare(
    root: str | Path,
    subset: Subset,
    *,
    size: int | None = None,
    flow_method: FlowMethod = "farneback",
    front_end: FrontEnd | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> PrepareReport:
    """Make frames, 16 kHz sound, log-mel and flow of every video of a subset, as far as they are missing.

    For MS3 the distant frames of ``MS3_Extend/index.csv`` are prepared as well, where there is such a list. Their
    sound is that of the frame's timestamp, as in any video. (UFE's published release pairs the middle frame with the
    first second's sound, an error that is not repeated here.)

    Args:
        root: The folder that holds ``Single-source/`` and ``Multi-sources/``.
        subset: ``s4`` or ``ms3``.
        size: Side of the images; None: that of images or masks that are there, else 224.
        flow_method: ``farneback``, or ``dis``, which goes into a folder of its own.
        front_end: ``clean``, or ``avsbench``, which makes what AVSBench's authors made of the same videos; None: that
            of files that are there, else ``clean``.
        workers: Processes; None: one a core.
        overwrite: Make everything anew.
        progress: Called with (videos done, videos that need work).
        cluster: Machines that share the work and the folder ``root``; None: this one.

    Returns:
        A report. A video that can't be decoded or has no sound is in its ``failures``; the rest is made.

    Raises:
        AvsegError: no index; frames but no raw videos to compute flow from; ``size`` contradicts images or masks that
            are there, or ``front_end`` files; another run is preparing the same subset; the disk is full.
    """
    data = avsbench(root, subset)
    frames = read_frames(data)
    side = image_side(frames, size, overwrite)
    prepared = {data: choose_front_end(data, front_end, overwrite)}
    front_end = prepared[data].front_end
    jobs = [Job(video, video[0].raw, side, flow_method, front_end, overwrite) for video in by_video(frames)]
    folders = [data.folder_of(kind, flow_method) for kind in ("image", "wav", "log_mel", "flow")]
    distant = distant_frames(distant_folder(root))
    if subset == "ms3" and distant.index.is_file():
        # Published distant frames may stand beside videos that were prepared here: each keeps its own front end.
        keep = not overwrite and PreparedWith.of(distant) is not None
        prepared[distant] = choose_front_end(distant, None if keep else front_end, overwrite)
        front_end = prepared[distant].front_end
        others = [Job((f,), f.raw, side, flow_method, front_end, overwrite) for f in read_frames(distant)]
        if any(job.sound_missing for job in others):
            check_alignment(distant, prepared[distant])
        jobs += others
        folders += [distant.folder_of(kind, flow_method) for kind in ("image", "flow", "log_mel")]
    _check_raw(data, jobs)
    kept = 0 if overwrite else sum(exists(path) for job in jobs for path in job.files)
    with working_in(marker(data.root, subset), folders):
        for where, how in prepared.items():
            how.write(where)
        outcomes = run_jobs(jobs, data.root, workers, progress, cluster)
    named = [(job.name, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    return PrepareReport(
        videos=len(jobs),
        written=dict(sum((outcome.written for outcome in outcomes), Counter())),
        kept=kept,
        failures=[(name, reason) for name, outcome in named for reason in outcome.failures],
        notes=[(name, note) for name, outcome in named for note in outcome.notes],
    )


def run_jobs(
    jobs: Sequence[Job],
    folder: Path,
    workers: int | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> list[Outcome]:
    """`prepare_video` of every job, shared out over processes; the raw videos' sizes are noted beside the data.

    Args:
        jobs: What is to be made; those that need nothing cost nothing.
        folder: The folder that an error names.
        workers: Processes; None: one a core.
        progress: Called with (videos done, videos that need work).
        cluster: See `prepare`.

    Returns:
        An outcome for each job.

    Raises:
        AvsegError: nothing can be written (the disk is full, or may not be written to), or a CSV of sizes is faulty.
    """
    sizes = {data: read_sizes(data.video_sizes) for data in {job.frames[0].data: None for job in jobs}}
    todo: dict[int, Job] = {}
    for i, job in enumerate(jobs):
        video = job.frames[0]
        measure = video.video not in sizes[video.data] and job.raw.is_file()
        if measure or job.missing_images or job.sound_missing:
            todo[i] = replace(job, measure=measure)
    try:
        done = run_all(prepare_video, list(todo.values()), workers, progress, cluster, _lost)
    except OSError as error:
        raise AvsegError(
            f"{folder} cannot be written to ({error.strerror}): make room or change permissions, then run again; what "
            "is made already is kept."
        ) from None
    outcomes = [Outcome() for _ in jobs]
    for i, outcome in zip(todo, done, strict=True):
        outcomes[i] = outcome
        if outcome.size is not None:
            sizes[jobs[i].frames[0].data][jobs[i].frames[0].video] = outcome.size
    for data, known in sizes.items():
        if known and (not data.video_sizes.is_file() or read_sizes(data.video_sizes) != known):
            write_sizes(data.video_sizes, known)
    return outcomes


def _lost(job: Job) -> Outcome:
    return Outcome(failures=[f"{job.raw} ended every worker that was given it (perhaps for want of memory)."])


def prepare_video(job: Job) -> Outcome:
    """Make what is missing of one video. Each file is whole, or isn't there.

    Raises:
        OSError: nothing can be written (the disk is full, or may not be written to).
    """
    outcome = Outcome()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for part in (_make_images, _make_sound):
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
    outcome.notes += sorted({str(each.message) for each in caught if issubclass(each.category, MediaWarning)})
    return outcome


def _make_images(job: Job, outcome: Outcome) -> None:
    missing = job.missing_images
    if not missing and not job.measure:
        return
    _check_is_there(job.raw)
    info = probe(job.raw)
    outcome.size = (info.width, info.height)
    pairs = _read_pairs(job, missing, info.duration) if missing else []
    for frame, pair in zip(missing, pairs, strict=True):
        flow = frame.flow(job.flow_method)
        if job.lacks(frame.image):
            write_image(frame.image, pair.frame)
            outcome.written["frames"] += 1
        if job.lacks(flow):
            write_flow_png(flow, neighbour_flow(pair, job.flow_method))
            outcome.written["flow"] += 1
    if any(pair.neighbour is None for pair in pairs):
        outcome.notes.append(f"{job.raw} has a single frame: its flow is zero.")


def _read_pairs(job: Job, frames: Sequence[Frame], duration: float) -> list[FramePair]:
    size, middle = (job.size, job.size), frames[0].data.name == "distant"
    if job.front_end == "avsbench" and not middle:
        return official_pairs(job.raw, [frame.k for frame in frames], size)
    times = [duration / 2] if middle else [frame.time for frame in frames]
    if job.front_end == "clean":
        return read_pairs(job.raw, times, size=size)
    pairs = read_pairs(job.raw, times)
    return [
        replace(
            pair,
            frame=resize(pair.frame, size, "bilinear"),
            neighbour=None if pair.neighbour is None else resize(pair.neighbour, size, "bilinear"),
        )
        for pair in pairs
    ]


def _make_sound(job: Job, outcome: Outcome) -> None:
    if not job.sound_missing:
        return
    video, rate = job.frames[0], SAMPLE_RATE
    if job.wav is None or job.lacks(job.wav):
        _check_is_there(job.raw)
        wave = _read_sound(job)
        if job.wav is not None:
            write_wav(job.wav, wave)
            outcome.written["wav"] += 1
    if job.wav is not None:
        # Always from the stored file, so that a run that was stopped in between makes the same log-mel.
        try:
            wave, rate = read_wav(job.wav)
        except AvsegError:  # published sounds may be WAV files of another kind than 16-bit PCM
            wave = load_audio(job.wav)
    if not job.lacks(video.log_mel):
        return
    if video.data.name == "distant":
        examples = log_mel_at(wave, [probe(job.raw).duration / 2], rate)
    else:
        examples = frame_log_mel(wave, FRAMES, rate)
        if (seconds := len(wave) / rate) < _FIVE_EXAMPLES:
            outcome.notes.append(f"{job.wav} has {seconds:.1f} s of sound: its last log-mel example is repeated.")
    save_log_mel(video.log_mel, torch.from_numpy(examples))
    outcome.written["log_mel"] += 1


def _read_sound(job: Job) -> npt.NDArray[np.float32]:
    """``(n,)`` or ``(n, channels)`` at 16 kHz."""
    if job.front_end == "clean":
        return load_audio(job.raw)
    if job.frames[0].data.name != "distant":
        return official_sound(job.raw)
    blocks = list(sampled_sound(iter_sound(job.raw)))
    if not blocks:
        raise AvsegError(f"{job.raw} has no sound that can be decoded: copy or convert it again.")
    return np.concatenate(blocks)


def _check_is_there(raw: Path) -> None:
    if not raw.is_file():
        raise AvsegError(f"{raw} does not exist: put the raw video there, or take its row out of the CSV.")


def exists(path: Path) -> bool:
    """Whether a file is there and not empty."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def marker(root: Path, subset: Subset) -> Path:
    """The file that a run holds while it prepares a subset below ``root``; see `avseg.data.parallel.working_in`."""
    return root / ".avseg" / f"prepare-{subset}"


def image_side(frames: Sequence[Frame], size: int | None = None, overwrite: bool = False) -> int:
    """The images' side: as asked, or that of what is there, else 224.

    Raises:
        AvsegError: ``size`` contradicts images (unless they are overwritten) or masks that are there.
    """
    data = frames[0].data
    firsts = [frame for frame in frames if frame.k == 1]
    stored = None if overwrite else first_size(frame.image for frame in firsts)
    masks = first_size(frame.mask for frame in firsts)
    side = size or (stored or masks or (224, 224))[0]
    if stored is not None and stored != (side, side):
        raise AvsegError(
            f"{data.folder_of('image')} holds frames of {stored[0]}×{stored[1]} pixels, not {side}×{side}: give "
            f"--size {stored[0]}, or --overwrite to make them anew."
        )
    if masks is not None and masks != (side, side):
        raise AvsegError(
            f"{data.folder_of('mask')} holds masks of {masks[0]}×{masks[1]} pixels, not {side}×{side}: give --size "
            f"{masks[0]} (a model's own size is set by --model.inputs.image_size)."
        )
    return side


def first_size(paths: Iterable[Path]) -> tuple[int, int] | None:
    """Width and height of the first image that can be read; None without one."""
    return next((size for path in paths if (size := stored_size(path))), None)


def _check_raw(data: DataSet, jobs: Sequence[Job]) -> None:
    """Say once, rather than for each of thousands of videos, that there are no raw videos at all."""
    needing = [job for job in jobs if job.missing_images]
    if not needing or any(job.raw.is_file() for job in needing):
        return
    if all(job.frames[0].data.name == "distant" for job in needing):
        raise AvsegError(
            f"{data.root} holds none of the {len(needing)} videos that {needing[0].frames[0].data.index} lists and "
            "that still have to be prepared: put them, or a link to their folder, there."
        )
    folder = data.folder_of("raw")
    if any(exists(frame.image) for job in needing for frame in job.frames):
        raise AvsegError(
            f"{folder} holds none of the raw videos, which optical flow is computed from (frames alone lack their "
            "neighbours): put AVSBench's raw videos there, or use UFE's published flow with --data.flow published."
        )
    raise AvsegError(f"{folder} holds none of the {len(needing)} videos that {data.index.name} lists: put them there.")
