"""Distant frames for MS3 from a large collection: which videos, in what order, and the files that training reads.

`mine` chooses videos of a folder like VGGSound's whose label is one of the data set's categories, and makes
``MS3_Extend`` of their middle frames. What is chosen is a function of the seed, the count and the videos alone.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path

from avseg.config import FrontEnd
from avseg.data.avsbench import avsbench, distant_folder, distant_frames, read_frames, write_index
from avseg.data.frames import DataSet, Frame
from avseg.data.front_end import PreparedWith, check_alignment, choose_front_end
from avseg.data.lists import read_rows, write_rows
from avseg.data.parallel import working_in
from avseg.data.prepare import Job, first_size, image_side, marker, run_jobs
from avseg.data.vggsound import SoundVideo, read_folder, read_mapping, with_names, youtube_ids
from avseg.errors import AvsegError
from avseg.files import check_folder
from avseg.media.flow import FlowMethod
from avseg.progress import Progress
from avseg.reading import read_json

NUMBERS = "numbers.csv"
"""Keeps the number of every video that was ever tried."""


@dataclass(frozen=True)
class Mined:
    """A distant frame that was made: its number, and the video whose middle it is."""

    n: str
    video: SoundVideo


@dataclass(frozen=True)
class MineReport:
    """What `mine` did.

    Attributes:
        folder: The ``MS3_Extend`` that was written.
        frames: All that are listed there now, in the order in which categories took turns.
        found: Videos that could be taken, by category; 0 for a category of the data set that the folder lacks.
        known: Videos left out because the data set holds them.
        written: Files made in this run, by kind; none where all was there.
        failures: (key, reason) of broken videos, which others of their category replace.
        notes: (key, remark) of videos that are unusual: a single frame, damage.
    """

    folder: Path
    frames: tuple[Mined, ...]
    found: dict[str, int]
    known: int
    written: dict[str, int]
    failures: list[tuple[str, str]]
    notes: list[tuple[str, str]]


def mine(
    source: str | Path,
    like: str | Path,
    out: str | Path,
    *,
    count: int | None = None,
    seed: int = 0,
    labels: str | Path | None = None,
    mapping: str | Path | None = None,
    flow_method: FlowMethod = "farneback",
    workers: int | None = None,
    progress: Progress | None = None,
) -> MineReport:
    """Make distant frames of videos whose label is one of a data set's categories.

    Categories take turns until there are ``count`` videos; chance decides within a category. A smaller count is a
    subset of a larger one with the same seed. Of each video the middle frame, the flow to its neighbour and the 0.96 s
    of sound that belong to it are kept. Started again after a stop, it makes only what is missing.

    Args:
        source: A folder like VGGSound's; see `avseg.data.vggsound.read_folder`.
        like: The folder that holds the data set's ``Multi-sources/``. Videos in its lists, of MS3 and S4, are left out,
            frames have the size and the front end of its frames, and names of its categories are labels as well.
        out: The folder in which ``MS3_Extend`` is made.
        count: How many; None: all there are.
        seed: Which order.
        labels: The CSV of labels; None: the only one in ``source``.
        mapping: CSV with the columns ``label`` and ``category`` in place of the package's table.
        flow_method: ``farneback`` or ``dis``, as the data set was prepared.
        workers: Processes; None: one a core.
        progress: Called with (videos done, videos that are wanted so far).

    Raises:
        AvsegError: a folder or list is missing or faulty, no video fits, none that fits can be read, ``out`` holds
            distant frames of another origin or size, another run is at work there, or the disk is full.
    """
    check_folder(out)
    distant, data, s4 = distant_frames(distant_folder(out)), avsbench(like, "ms3"), avsbench(like, "s4")
    frames = read_frames(data)
    single = read_frames(s4) if s4.index.is_file() else []
    declared = {frame.category for frame in single} | _generated(data.root)
    table = read_mapping(mapping)
    fitting = read_folder(source, with_names(table, declared), labels)
    taken = youtube_ids({frame.video for frame in [*frames, *single]})
    queues = _queues([video for video in fitting if video.video not in taken], seed)
    if not queues:
        raise AvsegError(f"all {len(fitting)} videos of {source} that fit are in {like} already: name another folder.")
    folders = [distant.folder_of(kind, flow_method) for kind in ("image", "flow", "log_mel")]
    with working_in(marker(Path(out), "ms3"), folders):
        side = image_side(frames)
        _check_folder(distant, side)
        there, like_data = PreparedWith.of(distant), PreparedWith.of(data)
        if there and like_data and there.front_end != like_data.front_end:
            raise AvsegError(
                f"{distant.folder} holds files made with front end {there.front_end}, and {data.folder} with "
                f"{like_data.front_end}: name another --out, or remove that folder."
            )
        prepared = choose_front_end(distant, like_data.front_end if like_data else None)
        check_alignment(distant, prepared)
        prepared.write(distant)
        run = _Run(distant, side, flow_method, prepared.front_end, workers, progress)
        chosen = run.fill(queues, count)
        if not chosen:
            raise AvsegError(f"{source} has no video that fits and can be read; of the first: {run.failures[0][1]}")
        mined = tuple(Mined(run.numbers[video.key], video) for video in chosen)
        _write_lists(distant, mined, Path(source))
    wanted = sorted({*(declared or table.values()), *queues})
    return MineReport(
        folder=distant.folder,
        frames=mined,
        found={category: len(queues.get(category, ())) for category in wanted},
        known=len(fitting) - sum(map(len, queues.values())),
        written=dict(run.written),
        failures=run.failures,
        notes=run.notes,
    )


class _Run:
    """Distant frames in the making: which are numbered, which are made, which are broken."""

    def __init__(
        self,
        data: DataSet,
        side: int,
        flow_method: FlowMethod,
        front_end: FrontEnd,
        workers: int | None,
        progress: Progress | None,
    ) -> None:
        self.data, self.side, self.flow_method, self.front_end = data, side, flow_method, front_end
        self.workers, self.progress = workers, progress
        numbers = data.folder / NUMBERS
        rows = read_rows(numbers, ("n", "video"), "") if numbers.is_file() else []
        self.numbers = {row["video"]: row["n"] for _, row in rows}
        if not all(n.isdecimal() and len(n) < 10 for n in self.numbers.values()):
            raise AvsegError(f"{numbers} holds an n that is no number: remove the folder and mine again.")
        self.tried: set[str] = set()
        self.broken: set[str] = set()
        self.written: Counter[str] = Counter()
        self.failures: list[tuple[str, str]] = []
        self.notes: list[tuple[str, str]] = []

    def fill(self, queues: Mapping[str, Sequence[SoundVideo]], count: int | None) -> list[SoundVideo]:
        """Make frames of ``count`` videos, of other ones where some are broken, as far as there are any."""
        while True:
            whole = [[video for video in queue if video.key not in self.broken] for queue in queues.values()]
            chosen = _take_turns(whole, count)
            todo = [video for video in chosen if video.key not in self.tried]
            if not todo:
                return chosen
            self._make(todo)

    def _make(self, videos: Sequence[SoundVideo]) -> None:
        self._number(videos)
        jobs = [
            Job((Frame(self.data, self.numbers[v.key]),), v.path, self.side, self.flow_method, self.front_end)
            for v in videos
        ]
        before, progress = len(self.tried), self.progress

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(before + done, before + total)

        outcomes = run_jobs(jobs, self.data.folder, self.workers, tell)
        for video, job, outcome in zip(videos, jobs, outcomes, strict=True):
            self.tried.add(video.key)
            self.notes += [(video.key, note) for note in outcome.notes]
            if outcome.failures:
                self.broken.add(video.key)
                self.failures.append((video.key, outcome.failures[0]))
                for path in job.files:
                    path.unlink(missing_ok=True)
            else:
                self.written.update(outcome.written)

    def _number(self, videos: Sequence[SoundVideo]) -> None:
        """A number for each video that has none. It stays the video's, so that no file is taken for another's."""
        new = [video.key for video in videos if video.key not in self.numbers]
        if new:
            last = max(map(int, self.numbers.values()), default=0)
            self.numbers.update({key: str(last + i) for i, key in enumerate(new, 1)})
            rows = [(n, key) for key, n in self.numbers.items()]
            write_rows(self.data.folder / NUMBERS, ("n", "video"), rows)


def _queues(videos: Iterable[SoundVideo], seed: int) -> dict[str, list[SoundVideo]]:
    """The videos of each category, all in an order that depends on the seed and not on what else there is."""

    def lot(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    queues: dict[str, list[SoundVideo]] = {}
    for video in sorted(videos, key=lambda video: (lot(video.category), lot(video.key))):
        queues.setdefault(video.category, []).append(video)
    return queues


def _take_turns(queues: Iterable[Sequence[SoundVideo]], count: int | None) -> list[SoundVideo]:
    turns = chain.from_iterable(zip_longest(*queues))
    return list(islice((video for video in turns if video is not None), count))


def _generated(root: Path) -> set[str]:
    """Categories of the generated benchmark, where ``root`` holds one."""
    path = root / "benchmark.json"
    if not path.is_file():
        return set()
    try:
        parts = read_json(path, "remove it").values()
        return {str(category) for part in parts for category in part["categories"]}
    except (AvsegError, AttributeError, KeyError, TypeError):
        raise AvsegError(f"{path} is damaged: run `avseg data synth` again, or remove the file.") from None


def _check_folder(data: DataSet, side: int) -> None:
    images = data.folder_of("image")
    if not (data.folder / NUMBERS).is_file() and (data.index.is_file() or images.is_dir()):
        raise AvsegError(
            f"{data.folder} holds distant frames that `avseg data mine` did not make: name another --out, or move "
            "that folder away."
        )
    stored = first_size(sorted(images.glob("[!.]*.png"))[:1])
    if stored is not None and stored != (side, side):
        raise AvsegError(
            f"{images} holds frames of {stored[0]}×{stored[1]} pixels, not {side}×{side} as the data set has: name "
            "another --out, or remove that folder."
        )


def _write_lists(data: DataSet, frames: Sequence[Mined], source: Path) -> None:
    """What was chosen, for people, and the list that training reads, which comes last: where it is, all is."""
    rows = [(f.n, f.video.video, f.video.start, f.video.label, f.video.category) for f in frames]
    write_rows(data.folder / "mined.csv", ("n", "id", "start", "label", "category"), rows)
    root = data.folder.parent.resolve()
    listed = []
    for frame in frames:
        path = frame.video.path.resolve()
        # A list names nothing outside its folder. A source elsewhere counts as lying in VGGSound/: a link mends it.
        inside = path.relative_to(root) if path.is_relative_to(root) else None
        listed_as = inside or Path("VGGSound", frame.video.path.relative_to(source))
        listed.append(Frame(data, frame.n, source=listed_as.as_posix()))
    write_index(data, listed)
