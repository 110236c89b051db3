"""Why a score is what it is: the choice of the object apart from its mask, and both by kind of scene.

Strata need ``scenes.jsonl``, which the generated benchmark leaves beside its hidden truth. Only diagnostics read it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from avseg.errors import AvsegError
from avseg.evaluation.scores import Scores
from avseg.reading import read_json_lines

RIGHT = 0.5
"""From above this Jaccard index a mask is taken to mark the right object."""


@dataclass(frozen=True)
class Second:
    """What one second of a generated scene is like.

    Attributes:
        moving_source: Whether any sounding object moves.
        moving_distractor: Whether any silent object moves.
        unseen_picture: Whether a sounding object's image was held out of training, its category not.
        unseen_object: Whether a sounding object's category was held out of training.
    """

    moving_source: bool
    moving_distractor: bool
    unseen_picture: bool
    unseen_object: bool


Scenes = Mapping[str, tuple[Second, ...]]

STRATA: dict[str, Callable[[Second], bool]] = {
    "moving source": lambda second: second.moving_source,
    "still source": lambda second: not second.moving_source,
    "moving distractor": lambda second: second.moving_distractor,
    "no moving distractor": lambda second: not second.moving_distractor,
    "still source, moving distractor": lambda second: not second.moving_source and second.moving_distractor,
    "seen": lambda second: not second.unseen_picture and not second.unseen_object,
    "unseen picture": lambda second: second.unseen_picture,
    "unseen object": lambda second: second.unseen_object,
}


def diagnose(scores: Scores, scenes: Scenes | None = None) -> dict[str, Any]:
    """Take a score apart.

    Args:
        scores: Of one protocol.
        scenes: The seconds of each video by its name; frame k is second k. None gives no strata.

    Returns:
        ``sounding``: over all frames with a sounding object, how many ``frames``, their mean Jaccard index ``iou``, the
        share in which the right object was marked (``selection``: a Jaccard index above 0.5), and the mean over these
        alone (``quality``; None where there are none). ``silent``: how many frames are silent, and the mean share of
        ``background`` predicted there. ``strata``: as ``sounding`` by kind of scene, of the kinds that occur.
    """
    frames = [
        (video.name, k, score, silent)
        for video in scores.videos
        for k, (score, silent) in enumerate(zip(video.frames, video.silent, strict=True))
        if score == score  # NaN: a frame without a label
    ]
    quiet = [score for _, _, score, silent in frames if silent]
    found: dict[str, Any] = {
        "sounding": _selection([score for _, _, score, silent in frames if not silent]),
        "silent": {"frames": len(quiet), "background": fmean(quiet) if quiet else None},
    }
    if scenes is not None:
        known = [
            (scenes[name][k], score)
            for name, k, score, silent in frames
            if not silent and k < len(scenes.get(name, ()))
        ]
        strata = {name: [score for second, score in known if belongs(second)] for name, belongs in STRATA.items()}
        found["strata"] = {name: _selection(members) for name, members in strata.items() if members}
    return found


def read_scenes(root: str | Path, subset: str, split: str) -> Scenes | None:
    """The seconds of a generated benchmark's videos by name; None where ``root`` has no ``scenes.jsonl``.

    Args:
        root: The folder that holds ``Single-source/`` and ``Multi-sources/``.
        subset: ``s4`` or ``ms3``.
        split: ``train``, ``val`` or ``test``.

    Raises:
        AvsegError: the file is damaged.
    """
    folder = Path(root) / ("Single-source" if subset == "s4" else "Multi-sources")
    file = next((path for path in (folder / "scenes.jsonl", Path(root) / "scenes.jsonl") if path.is_file()), None)
    if file is None:
        return None
    try:
        return {
            str(row["name"]): _seconds(row["objects"])
            for _, row in read_json_lines(file, "write the benchmark again")
            if row["split"] == split and row.get("subset", subset) == subset
        }
    except (AvsegError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise AvsegError(
            f"{file} is damaged ({type(error).__name__}): write the benchmark again, or remove the file to evaluate "
            "without strata."
        ) from error


def _seconds(objects: Sequence[Mapping[str, Any]]) -> tuple[Second, ...]:
    count = len(objects[0]["sounding"]) if objects else 0
    seconds = []
    for k in range(count):
        sounding = [thing for thing in objects if thing["sounding"][k]]
        unseen = any(thing["unseen_object"] for thing in sounding)
        seconds.append(
            Second(
                moving_source=any(thing["moving"][k] for thing in sounding),
                moving_distractor=any(thing["moving"][k] for thing in objects if not thing["sounding"][k]),
                unseen_picture=not unseen and any(thing["unseen_picture"] for thing in sounding),
                unseen_object=unseen,
            )
        )
    return tuple(seconds)


def _selection(scores: Sequence[float]) -> dict[str, Any]:
    right = [score for score in scores if score > RIGHT]
    return {
        "frames": len(scores),
        "iou": fmean(scores) if scores else None,
        "selection": len(right) / len(scores) if scores else None,
        "quality": fmean(right) if right else None,
    }
