"""Raw videos -> frames, sound, log-mel and optical flow, in AVSBench's layout.

`prepare` maps a pure function of one video (`avseg.data.jobs`) over all cores; only what is missing is made, so a run
that was stopped goes on where it was.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avseg.config import AUDIO_OFFSET, FrontEnd
from avseg.data.avsbench import (
    DistantLayout,
    Layout,
    Subset,
    Video,
    labelled_frames,
    read_distant_index,
    read_index,
)
from avseg.data.flow_trees import export_published_flow, import_published_flow
from avseg.data.jobs import Job, Outcome, distant_folders, distant_job, exists, prepare_video, run_jobs, video_job
from avseg.data.layout import flow_folder
from avseg.data.made import Made
from avseg.data.pool import Progress
from avseg.data.unfinished import working_in
from avseg.errors import AvsegError
from avseg.media.flow import FlowMethod
from avseg.media.picture_files import stored_size

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
    front_end: FrontEnd | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Make frames, 16 kHz sound, log-mel and flow of every video of a subset, as far as they are missing.

    For MS3 the distant frames of ``MS3_Extend/index.csv`` are prepared as well, where there is such a list. Their
    sound is that of the frame's moment, as in any video. (UFE's published release pairs the middle frame with the first
    second's sound, an error that is not repeated here.)

    Args:
        root: The folder that holds ``Single-source/`` and ``Multi-sources/``.
        subset: ``s4`` or ``ms3``.
        size: Side of the frames; None: that of frames or masks that are there, else 224.
        flow_method: ``farneback``, or ``dis``, which goes into a folder of its own.
        front_end: ``clean``, or ``avsbench``, which makes what AVSBench's authors made of the same videos; None: that
            of files that are there, else ``clean``.
        workers: Processes; None: one a core.
        overwrite: Make everything anew.
        progress: Called with (videos done, videos that need work).

    Returns:
        A report. A video that can't be decoded or has no sound is in its ``failures``; the rest is made.

    Raises:
        AvsegError: no index; frames but no raw videos to compute flow from; ``size`` contradicts frames or masks that
            are there, or ``front_end`` files; another run is preparing the same subset; the disk is full.
    """
    layout = Layout(root, subset)
    videos = read_index(root, subset)
    side = frame_side(layout, videos, size, overwrite)
    made: dict[Layout | DistantLayout, Made] = {layout: how_to_make(layout, front_end, overwrite)}
    front_end = made[layout].front_end
    jobs = [video_job(layout, video, side, flow_method, overwrite, front_end) for video in videos]
    folders = [layout.data / kind for kind in (*_KINDS, flow_folder(flow_method))]
    if subset == "ms3" and DistantLayout(layout.distant).index.is_file():
        distant = DistantLayout(layout.distant)
        frames = read_distant_index(distant.folder)
        # Published distant frames may stand beside videos that were prepared here: each keeps its own front end.
        kept_as_made = not overwrite and Made.of(distant) is not None
        made[distant] = how_to_make(distant, None if kept_as_made else front_end, overwrite)
        front_end = made[distant].front_end
        others = [distant_job(distant, frame, side, flow_method, overwrite, front_end=front_end) for frame in frames]
        if any(job.sound_missing for job in others):
            check_alignment(distant, made[distant])
        jobs += others
        folders += distant_folders(distant, flow_method)
    _check_raw(layout, jobs)
    kept = 0 if overwrite else sum(exists(path) for job in jobs for path in job.files)
    with working_in(marker(layout.root, subset), folders):
        for where, how in made.items():
            how.write(where)
        outcomes = run_jobs(jobs, layout.root, workers, progress)
    named = [(job.name, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    return PrepareReport(
        videos=len(jobs),
        written=dict(sum((outcome.written for outcome in outcomes), Counter())),
        kept=kept,
        failures=[(name, reason) for name, outcome in named for reason in outcome.failures],
        notes=[(name, note) for name, outcome in named for note in outcome.notes],
    )


def how_to_make(layout: Layout | DistantLayout, front_end: FrontEnd | None, overwrite: bool = False) -> Made:
    """How missing files are to be made: as asked, or as those that are there, else ``clean``.

    Raises:
        AvsegError: they would not go together with files that are there and stay.
    """
    there = None if overwrite else Made.of(layout)
    if there is None:
        return Made(front_end or "clean")
    if front_end not in (None, there.front_end):
        raise AvsegError(
            f"{layout.folder} holds files made with front end {there.front_end}, not {front_end}: give --front_end "
            f"{there.front_end}, or --overwrite to make them anew."
        )
    return there


def check_alignment(layout: DistantLayout, made: Made) -> None:
    """Refuse to put sound beside other sound that was cut elsewhere.

    Raises:
        AvsegError: files that are there were made with another ``audio_offset``.
    """
    if made.audio_offset not in (None, AUDIO_OFFSET):
        raise AvsegError(
            f"{layout.folder / 'audios_log_mel'} holds sound that was cut {made.audio_offset - AUDIO_OFFSET:.2f} s "
            "later than avseg cuts it now: remove that folder, and run again."
        )


def marker(root: Path, subset: Subset) -> Path:
    """The file that a run holds while it prepares a subset below ``root``; see `avseg.data.unfinished`."""
    return root / ".avseg" / f"prepare-{subset}"


def frame_side(layout: Layout, videos: Sequence[Video], size: int | None = None, overwrite: bool = False) -> int:
    """The frames' side: as asked, or that of what is there, else 224.

    Raises:
        AvsegError: ``size`` contradicts frames (unless they are overwritten) or masks that are there.
    """
    stored = None if overwrite else first_size(layout.frame(video, 1) for video in videos)
    masks = first_size(layout.mask(video, k) for video in videos for k in labelled_frames(video)[:1])
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


def first_size(paths: Iterable[Path]) -> tuple[int, int] | None:
    """Width and height of the first picture that can be read; None without one."""
    return next((size for path in paths if (size := stored_size(path))), None)


def _check_raw(layout: Layout, jobs: Sequence[Job]) -> None:
    """Say once, rather than for each of thousands of videos, that there are no raw videos at all."""
    needing = [job for job in jobs if job.pictures_missing]
    if not needing or any(job.raw.is_file() for job in needing):
        return
    distant = DistantLayout(layout.distant)
    if all(job.sizes == distant.video_sizes for job in needing):
        raise AvsegError(
            f"{layout.root} holds none of the {len(needing)} videos that {distant.index} lists and that still have to "
            "be prepared: put them, or a link to their folder, there."
        )
    folder = layout.data / "raw_videos"
    frames = any(exists(path) for job in needing for path in job.frames)
    if frames:
        raise AvsegError(
            f"{folder} holds none of the raw videos, which optical flow is computed from (frames alone lack their "
            "neighbours): put AVSBench's raw videos there, or use UFE's published flow with --data.flow published."
        )
    raise AvsegError(
        f"{folder} holds none of the {len(needing)} videos that {layout.index.name} lists: put them there."
    )
