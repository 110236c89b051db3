"""Calibration without training: what is scored by choosing among the true objects without listening."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from avseg.data.frames import Frame
from avseg.errors import AvsegError
from avseg.media.flow import neighbour_flow
from avseg.media.images import decode
from avseg.media.video import read_pairs
from avseg.synthetic.write import mask_file, read_benchmark, read_scenes, scene_frames, video_file

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Baseline:
    """Mean Jaccard of one way to choose, 0..1, and its standard error over the videos."""

    name: str
    miou: float
    error: float
    videos: int

    def __str__(self) -> str:
        return f"{self.name:15s} {100 * self.miou:5.1f} mIoU ± {100 * self.error:.1f} ({self.videos} videos)"


def baselines(
    root: str | Path, subset: str = "s4", split: str = "test", progress: Callable[[int, int], None] | None = None
) -> list[Baseline]:
    """Score `random_object`, `largest_object` and `motion_alone` on a split of a generated benchmark.

    All three know the true mask of every object that could sound and only choose one; none listens.
    *random_object* is the expectation over a uniform choice in each frame; *largest_object* takes the one with
    most visible pixels; *motion_alone* the one whose Farnebäck flow, less the median flow outside all objects
    (the camera's), is longest on average. None can answer that nothing sounds.

    Args:
        root: the benchmark's folder.
        subset: ``s4`` or ``ms3``.
        split: which split; in S4's ``train`` the hidden truth is read.
        progress: called with (videos done, videos in all).

    Raises:
        AvsegError: the split holds no generated video, or a file of it is missing.
    """
    knobs = read_benchmark(root, subset).knobs
    records = [record for record in read_scenes(root, subset) if record["split"] == split]
    if not records:
        raise AvsegError(f"{root} holds no generated {subset} video of the split '{split}': choose one that it has.")
    times = [k + 15 / 16 for k in range(knobs.seconds)]
    scores: dict[str, list[float]] = {"random_object": [], "largest_object": [], "motion_alone": []}
    for done, record in enumerate(records, 1):
        frames = scene_frames(root, record)
        maps, truths = _truth(frames)
        pairs = read_pairs(video_file(frames[0]), times)
        energies = [
            motion_energy(neighbour_flow(pair), seen, len(record["objects"]))
            for pair, seen in zip(pairs, maps, strict=True)
        ]
        for name, value in _score(maps, truths, energies, len(record["objects"])).items():
            scores[name].append(value)
        if progress:
            progress(done, len(records))
    return [
        Baseline(name, float(np.mean(values)), _standard_error(values), len(values)) for name, values in scores.items()
    ]


def jaccard(prediction: Mask, truth: Mask) -> float:
    """Intersection over union; where the truth is empty the share of pixels predicted as background."""
    if not truth.any():
        return float(1 - prediction.mean())
    return float((prediction & truth).sum() / ((prediction | truth).sum() + 1e-7))


def motion_energy(flow: npt.NDArray, seen: npt.NDArray[np.uint8], objects: int) -> npt.NDArray[np.float64]:
    """Mean length of flow (2, H, W) within each visible object, less the flow outside all of them; (objects,)."""
    outside = seen == 0
    camera = np.median(flow[:, outside], axis=1) if outside.any() else np.zeros(2)
    length = np.hypot(flow[0] - camera[0], flow[1] - camera[1])
    return np.array([length[seen == i + 1].mean() if (seen == i + 1).any() else -1.0 for i in range(objects)])


def _standard_error(values: Sequence[float]) -> float:
    """Of the mean, from the sample standard deviation (n − 1); 0 for one value, which tells nothing of it."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _score(
    maps: npt.NDArray[np.uint8], truths: npt.NDArray[np.bool_], energies: list[npt.NDArray[np.float64]], objects: int
) -> dict[str, float]:
    per_object = np.array(
        [[jaccard(seen == i + 1, truth) for i in range(objects)] for seen, truth in zip(maps, truths, strict=True)]
    )
    pixels = np.array([[(seen == i + 1).sum() for i in range(objects)] for seen in maps])
    frames = np.arange(len(maps))
    return {
        "random_object": float(per_object.mean()),
        "largest_object": float(per_object[frames, pixels.argmax(1)].mean()),
        "motion_alone": float(per_object[frames, np.stack(energies).argmax(1)].mean()),
    }


def _truth(frames: Sequence[Frame]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    maps = np.stack([read_map(frame.path("hidden_object")) for frame in frames])
    masks = np.stack([read_map(mask_file(frame)) for frame in frames])
    return maps, masks > 0


def read_map(path: Path) -> npt.NDArray[np.uint8]:
    """``(H, W)``: a stored map of a frame: the object or, of a mask, what sounds; 0 for none."""
    again = "write the benchmark again into a new folder"
    return np.asarray(decode(path, cv2.IMREAD_GRAYSCALE, again, again), dtype=np.uint8)
