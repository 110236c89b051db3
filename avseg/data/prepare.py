"""Raw videos -> frames, sound, log-mel and optical flow, in AVSBench's layout.

One video is prepared by a pure function, `prepare_video`: one path in, finished files out. `prepare` maps it over all
cores; only what is missing is made, so a run that was stopped goes on where it was.
"""

import errno
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from avseg.data.avsbench import (
    FRAMES,
    DistantLayout,
    Layout,
    Subset,
    Video,
    frame_times,
    labelled_frames,
    read_distant_index,
    read_index,
    read_sizes,
    save_log_mel,
    write_image,
    write_sizes,
)
from avseg.data.flow_trees import export_published_flow, import_published_flow
from avseg.data.layout import flow_folder
from avseg.data.pool import Progress, run_all
from avseg.data.unfinished import working_in
from avseg.errors import AvsegError
from avseg.media.audio import EXAMPLE_SAMPLES, SAMPLE_RATE, frame_log_mel, load_audio, log_mel_at, read_wav, write_wav
from avseg.media.container import MediaWarning
from avseg.media.flow import FlowMethod, neighbour_flow, write_flow_png
from avseg.media.video import probe, read_pairs

__all__ = [
    "Job",
    "Outcome",
    "PrepareReport",
    "export_published_flow",
    "import_published_flow",
    "prepare",
    "prepare_video",
]

_KINDS = ("visual_frames", "audio_wav", "audio_log_mel")
_FIVE_EXAMPLES = (EXAMPLE_SAMPLES + (FRAMES - 1) * 0.96 * SAMPLE_RATE) / SAMPLE_RATE  # seconds; 0.96 s apart
_DISTANT_KINDS = ("images", "audios_log_mel")


@dataclass(frozen=True)
class Job:
    """One video and the files that are to be made of it.

    Attributes:
        name: What the report calls it.
        raw: The raw video.
        frames, flows: Files of its frames and of their flow, one for each moment.
        log_mel: File of the log-mel tensor.
        wav: File of the sound; None makes none.
        moments: ``seconds``: frames 1..5 at (k − 1) + 15/16 s, and consecutive log-mel examples, as AVSBench pairs
            them; ``middle``: the middle frame, and the example centred on it.
        size: Side of the square frames.
        flow_method: ``farneback`` or ``dis``.
        overwrite: Make files that are there already, too.
        measure: Also find the raw video's width and height.
    """

    name: str
    raw: Path
    frames: tuple[Path, ...]
    flows: tuple[Path, ...]
    log_mel: Path
    wav: Path | None
    moments: Literal["seconds", "middle"]
    size: int
    flow_method: FlowMethod
    overwrite: bool = False
    measure: bool = False

    def lacks(self, path: Path | None) -> bool:
        """Whether ``path`` is to be made."""
        return path is not None and (self.overwrite or not _exists(path))

    @property
    def pictures_missing(self) -> list[int]:
        """Places of the moments whose frame or flow is to be made."""
        return [
            i
            for i, (frame, flow) in enumerate(zip(self.frames, self.flows, strict=True))
            if self.lacks(frame) or self.lacks(flow)
        ]

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


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did.

    Attributes:
        videos: Videos in the index (and distant frames, for MS3).
        written: Files made, by kind: ``frames``, ``flow``, ``wav``, ``log_mel``.
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
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Make frames, 16 kHz sound, log-mel and flow of every video of a subset, as far as they are missing.

    For MS3 the distant frames of ``MS3_Extend/index.csv`` are prepared as well, where there is such a list. Their
    sound is the 0.96 s centred on the frame. (UFE's published release pairs the middle frame with the first second's
    sound, an error that is not repeated here.)

    Args:
        root: The folder that holds ``Single-source/`` and ``Multi-sources/``.
        subset: ``s4`` or ``ms3``.
        size: Side of the frames; None: that of frames or masks that are there, else 224.
        flow_method: ``farneback``, or ``dis``, which goes into a folder of its own.
        workers: Processes; None: one a core.
        overwrite: Make everything anew.
        progress: Called with (videos done, videos that need work).

    Returns:
        A report. A video that can't be decoded or has no sound is in its ``failures``; the rest is made.

    Raises:
        AvsegError: no index; frames but no raw videos to compute flow from; ``size`` contradicts frames or masks that
            are there; another run is preparing the same subset; the disk is full.
    """
    layout = Layout(root, subset)
    videos = read_index(root, subset)
    side = _side(layout, videos, size, overwrite)
    sizes = {layout.video_sizes: read_sizes(layout.video_sizes)}
    jobs = [(layout.video_sizes, _job(layout, video, side, flow_method, overwrite)) for video in videos]
    folders = [layout.data / kind for kind in (*_KINDS, flow_folder(flow_method))]
    if subset == "ms3" and DistantLayout(layout.distant).index.is_file():
        distant = DistantLayout(layout.distant)
        sizes[distant.video_sizes] = read_sizes(distant.video_sizes)
        jobs += [(distant.video_sizes, job) for job in _distant_jobs(distant, side, flow_method, overwrite)]
        folders += [distant.folder / kind for kind in (*_DISTANT_KINDS, flow_folder(flow_method))]
    for place, (file, job) in enumerate(jobs):
        if Path(job.name).name not in sizes[file] and job.raw.is_file():
            jobs[place] = (file, replace(job, measure=True))
    todo = [(file, job) for file, job in jobs if job.measure or job.pictures_missing or job.sound_missing]
    _check_raw(layout, [job for _, job in todo])
    kept = 0 if overwrite else sum(_exists(path) for _, job in jobs for path in job.files)
    with working_in(layout.root / ".avseg" / f"prepare-{subset}", folders):
        try:
            outcomes = run_all(prepare_video, [job for _, job in todo], workers, progress)
        except OSError as error:
            raise AvsegError(
                f"{layout.root} cannot be written to ({error.strerror}): make room or change permissions, then run "
                "again; what is made already is kept."
            ) from None
        for (file, job), outcome in zip(todo, outcomes, strict=True):
            if outcome.size is not None:
                sizes[file][Path(job.name).name] = outcome.size
        for file, known in sizes.items():
            if known and (not file.is_file() or read_sizes(file) != known):
                write_sizes(file, known)
    named = [(job.name, outcome) for (_, job), outcome in zip(todo, outcomes, strict=True)]
    return PrepareReport(
        videos=len(jobs),
        written=dict(sum((outcome.written for outcome in outcomes), Counter())),
        kept=kept,
        failures=[(name, reason) for name, outcome in named for reason in outcome.failures],
        notes=[(name, note) for name, outcome in named for note in outcome.notes],
    )


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
            outcome.notes.append(f"{job.raw} has {seconds:.1f} s of sound: its last log-mel example is repeated.")
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


def _job(layout: Layout, video: Video, side: int, flow_method: FlowMethod, overwrite: bool) -> Job:
    numbers = range(1, FRAMES + 1)
    return Job(
        name=video.name,
        raw=layout.raw_video(video),
        frames=tuple(layout.frame(video, k) for k in numbers),
        flows=tuple(layout.flow(video, k, flow_method) for k in numbers),
        log_mel=layout.log_mel(video),
        wav=layout.wav(video),
        moments="seconds",
        size=side,
        flow_method=flow_method,
        overwrite=overwrite,
    )


def _distant_jobs(layout: DistantLayout, side: int, flow_method: FlowMethod, overwrite: bool) -> list[Job]:
    return [
        Job(
            name=f"{layout.folder.name}/{frame.name}",
            raw=layout.raw_video(frame),
            frames=(layout.image(frame),),
            flows=(layout.flow(frame, flow_method),),
            log_mel=layout.log_mel(frame),
            wav=None,
            moments="middle",
            size=side,
            flow_method=flow_method,
            overwrite=overwrite,
        )
        for frame in read_distant_index(layout.folder)
    ]


def _side(layout: Layout, videos: Sequence[Video], size: int | None, overwrite: bool) -> int:
    """The frames' side: as asked, or that of what is there; masks and frames must agree."""
    stored = None if overwrite else _first_size(layout.frame(video, 1) for video in videos)
    masks = _first_size(layout.mask(video, k) for video in videos for k in labelled_frames(video)[:1])
    side = size or (stored or masks or (224, 224))[0]
    if stored is not None and stored != (side, side):
        raise AvsegError(
            f"{layout.data / 'visual_frames'} holds frames of {stored[0]}×{stored[1]} pixels, not {side}×{side}: give "
            f"--size {stored[0]}, or --overwrite to make them anew."
        )
    if masks is not None and masks != (side, side):
        raise AvsegError(
            f"{layout.data / 'gt_masks'} holds masks of {masks[0]}×{masks[1]} pixels, not {side}×{side}: give --size "
            f"{masks[0]} (a model's own size is set by --model.inputs.image_size)."
        )
    return side


def _first_size(paths: Iterable[Path]) -> tuple[int, int] | None:
    for path in paths:
        try:
            with Image.open(path) as image:
                return image.size
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
            continue
    return None


def _check_raw(layout: Layout, todo: Sequence[Job]) -> None:
    """Say once, rather than for each of thousands of videos, that there are no raw videos at all."""
    needing = [job for job in todo if job.pictures_missing]
    if not needing or any(job.raw.is_file() for job in needing):
        return
    folder = layout.data / "raw_videos"
    frames = any(_exists(path) for job in needing for path in job.frames)
    if frames:
        raise AvsegError(
            f"{folder} holds none of the raw videos, which optical flow is computed from (frames alone lack their "
            "neighbours): put AVSBench's raw videos there, or use UFE's published flow with --data.flow published."
        )
    raise AvsegError(
        f"{folder} holds none of the {len(needing)} videos that {layout.index.name} lists: put them there."
    )


def _tells(warning: warnings.WarningMessage) -> bool:
    return issubclass(warning.category, MediaWarning)


def _exists(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
