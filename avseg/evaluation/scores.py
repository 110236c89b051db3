"""What an evaluation found: a score for every video, their means, and the JSON file that holds both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from avseg.errors import AvsegError
from avseg.files import write_json
from avseg.reading import read_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class VideoScore:
    """One video's scores.

    Attributes:
        name: The video's name.
        category: What sounds; empty where unknown.
        miou: M_J of the video, in [0, 1].
        f_score: M_F of the video, in [0, 1].
        frames: The Jaccard index of each frame; NaN where a frame has no label.
        silent: Whether each frame's true mask is empty. Its ``frames`` entry is then the share of background.
    """

    name: str
    category: str
    miou: float
    f_score: float
    frames: tuple[float, ...]
    silent: tuple[bool, ...]

    @property
    def key(self) -> str:
        """What tells the video from all others of its split."""
        return f"{self.category}/{self.name}" if self.category else self.name


@dataclass(frozen=True)
class Means:
    """Means over some videos: ``miou`` and ``f_score`` in [0, 1], and how many ``videos``."""

    miou: float
    f_score: float
    videos: int

    @classmethod
    def of(cls, videos: Sequence[VideoScore]) -> "Means":
        """The means of at least one video."""
        return cls(fmean(video.miou for video in videos), fmean(video.f_score for video in videos), len(videos))


@dataclass(frozen=True)
class Scores:
    """The scores of one model on one split under one protocol.

    Attributes:
        protocol: ``T=5``: a clip's five frames enter the model together; ``T=1``: each enters alone.
        videos: At least one, in the order of the split.
    """

    protocol: str
    videos: tuple[VideoScore, ...]

    @property
    def miou(self) -> float:
        """M_J: the mean over videos."""
        return fmean(video.miou for video in self.videos)

    @property
    def f_score(self) -> float:
        """M_F: the mean over videos."""
        return fmean(video.f_score for video in self.videos)

    @property
    def categories(self) -> dict[str, Means]:
        """The means of each category, by name; empty where no category is known."""
        groups: dict[str, list[VideoScore]] = {}
        for video in self.videos:
            groups.setdefault(video.category, []).append(video)
        return {name: Means.of(groups[name]) for name in sorted(groups) if name}

    def per_video(self, metric: str = "miou") -> dict[str, float]:
        """``miou`` or ``f_score`` of every video by its key."""
        return {video.key: getattr(video, metric) for video in self.videos}


@dataclass(frozen=True)
class Evaluation:
    """A model's scores on one split under one or more protocols, and what was evaluated.

    Attributes:
        model: The folder or checkpoint.
        root: The dataset's folder.
        subset: ``s4`` or ``ms3``.
        split: ``train``, ``val`` or ``test``.
        version: The version of avseg that measured.
        scores: By protocol.
        diagnostics: Further findings by protocol (`avseg.evaluation.diagnostics`).
        flow: The motion that the model was given: ``computed``, ``published`` or ``shuffled``, or ``none`` to a model
            that takes none. Empty where scores were written before this was.
        flow_method: How it was computed: ``farneback`` or ``dis``; empty for ``published`` and ``none``.
        size: At which size scores were taken: the ``truth``'s own, that ``seen``, or the ``model``'s, as all were
            before this was written down.
        frames_per_clip: T that the model was trained with; None where it wasn't written down.
    """

    model: str
    root: str
    subset: str
    split: str
    version: str
    scores: dict[str, Scores]
    diagnostics: dict[str, Any]
    flow: str = ""
    flow_method: str = ""
    size: str = "model"
    frames_per_clip: int | None = None

    @property
    def other_protocols(self) -> list[str]:
        """Protocols under which the model saw clips of another length than in training."""
        own = f"T={self.frames_per_clip}"
        return [name for name in self.scores if self.frames_per_clip is not None and name != own]

    @property
    def remark(self) -> str:
        """What to say beside scores under a T that isn't the model's own; empty where there are none."""
        if not self.other_protocols:
            return ""
        return (
            f"* The model was trained at T={self.frames_per_clip}: under {' and '.join(self.other_protocols)} it is "
            "used otherwise than it learnt, and such scores can be far lower (24 points on MS3 in one case)."
        )


def write_evaluation(path: str | Path, evaluation: Evaluation) -> None:
    """Write ``evaluation`` as JSON: means, means per category, and every video's scores, by protocol."""
    protocols = {}
    for name, scores in evaluation.scores.items():
        protocols[name] = {
            "miou": scores.miou,
            "f_score": scores.f_score,
            "categories": {key: vars(means) for key, means in scores.categories.items()},
            "diagnostics": evaluation.diagnostics.get(name, {}),
            "videos": [
                {**vars(video), "frames": [None if math.isnan(score) else score for score in video.frames]}
                for video in scores.videos
            ],
        }
    named = ("model", "root", "subset", "split", "flow", "flow_method", "size", "frames_per_clip")
    head = {key: getattr(evaluation, key) for key in named}
    head |= {"remark": evaluation.remark} if evaluation.remark else {}
    write_json(path, {"format_version": FORMAT_VERSION, "avseg": evaluation.version, **head, "protocols": protocols})


def read_evaluation(path: str | Path) -> Evaluation:
    """Read what `write_evaluation` wrote.

    Raises:
        AvsegError: no such file, or not the scores of an evaluation.
    """
    try:
        values = read_json(path, "give a file that `avseg evaluate --json` wrote")
        if values["format_version"] != FORMAT_VERSION:
            raise AvsegError(f"{path} has format version {str(values['format_version'])[:20]}, not {FORMAT_VERSION}: "
                             "evaluate again.")  # fmt: skip
        if values["subset"] not in ("s4", "ms3") or values["split"] not in ("train", "val", "test"):
            raise ValueError("No data set of ours.")
        return Evaluation(
            **{key: str(values[key]) for key in ("model", "root", "subset", "split")},
            **{key: str(values.get(key, "")) for key in ("flow", "flow_method")},
            size=str(values.get("size", "model")),
            frames_per_clip=None if values.get("frames_per_clip") is None else int(values["frames_per_clip"]),
            version=str(values["avseg"]),
            scores={name: Scores(name, _videos(found["videos"])) for name, found in values["protocols"].items()},
            diagnostics={name: dict(found["diagnostics"]) for name, found in values["protocols"].items()},
        )
    except (OverflowError, RecursionError, ValueError, KeyError, TypeError, AttributeError):
        raise AvsegError(f"{path} does not hold scores: give a file that `avseg evaluate --json` wrote.") from None


def _videos(rows: list[dict[str, Any]]) -> tuple[VideoScore, ...]:
    if not rows:
        raise ValueError("No videos.")
    return tuple(
        VideoScore(
            name=str(row["name"]),
            category=str(row["category"]),
            miou=_share(row["miou"]),
            f_score=_share(row["f_score"]),
            frames=tuple(math.nan if score is None else _share(score) for score in row["frames"]),
            silent=tuple(bool(silent) for silent in row["silent"]),
        )
        for row in rows
    )


def _share(value: Any) -> float:
    if not 0 <= float(value) <= 1:
        raise ValueError("A score lies between 0 and 1.")
    return float(value)
