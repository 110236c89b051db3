"""Frames a second that `avseg segment` works through with the demo's model, in all and stage by stage.

A small video has the model's own image size, the other one is 720p. Stages are timed one after the other on the same
frames; together they would take the sum of their times, which `segment_video` beats where it lets them overlap.

    python -m benchmarks.segment [--quick]
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from avseg.data.clip import Batch
from avseg.inference import FPS, AVSegmenter, segment_video
from avseg.media.audio import SAMPLE_RATE, log_mel_at
from avseg.media.flow import neighbour_flow
from avseg.media.images import resize
from avseg.media.video import FramePair, iter_pairs
from avseg.media.writer import VideoWriter
from avseg.models import normalise
from avseg.render import overlay
from benchmarks.alone import run_alone
from benchmarks.subjects import subject_model
from benchmarks.timing import Row, Settings

GROUP = "segment"
RATE = 25
TOGETHER = 8  # moments that pass through the model
VIDEOS = {"small": (96, 96), "720p": (1280, 720)}


def measure(settings: Settings) -> list[Row]:
    """Rows of both videos in frames a second."""
    rows: list[Row] = []
    frames = RATE * (1 if settings.quick else 4)
    with TemporaryDirectory() as folder:
        for video, size in VIDEOS.items():
            path = Path(folder) / f"{video}.mp4"
            write_scene(path, size, frames)
            stages = _stages(path, segmenter_for(path, settings.device), Path(folder) / video)
            for stage, function in stages.items():
                settings.tell(f"{GROUP}: {video}, {stage}")
                rows.append(_row(video, stage, frames, _seconds(function, settings)))
    return rows


def segmenter_for(path: Path, device: str) -> AVSegmenter:
    """The demo's model with a threshold at which a tenth of a video's pixels belong to a mask.

    Its weights are random. How long drawing and writing masks take depends on how large they are.
    """
    segmenter = AVSegmenter(subject_model("demo"), device)
    scores = np.stack([moment.score for moment in segmenter.stream(path, 2.0)])
    segmenter.threshold = float(np.clip(np.quantile(scores, 0.9), 0.01, 0.99))
    return segmenter


def write_scene(path: Path, size: tuple[int, int], frames: int) -> None:
    """A video of ``size`` (width, height) in which a textured square moves over a textured ground, with sound."""
    width, height = size
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    ground = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    side = height // 3
    square = cv2.resize(random.integers(0, 255, (8, 8, 3), dtype=np.uint8), (side, side))
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(frames * SAMPLE_RATE // RATE) / SAMPLE_RATE)
    with VideoWriter(path, width, height, RATE, audio=wave.astype(np.float32), sample_rate=SAMPLE_RATE) as writer:
        for index in range(frames):
            frame = ground.copy()
            left = (width - side) * index // frames
            frame[side : 2 * side, left : left + side] = square
            writer.write(frame)


def _stages(path: Path, segmenter: AVSegmenter, out: Path) -> dict[str, Callable[[], object]]:
    pairs = list(iter_pairs(path, RATE))
    spec = segmenter.model.config.inputs
    size = (spec.image_size, spec.image_size)
    small = [_shrunk(pair, size) for pair in pairs]
    wave = np.zeros(len(pairs) * SAMPLE_RATE // RATE, dtype=np.float32)
    times = np.array([pair.time for pair in pairs])
    masks = [moment.mask for moment in segmenter.stream(path, None)]
    turn = count()

    def whole(fps: float | None) -> object:
        return segment_video(path, segmenter, out / str(next(turn)), fps=fps)

    def encode() -> None:
        height, width = pairs[0].frame.shape[:2]
        with VideoWriter(out / "encoded.mp4", width, height, RATE) as writer:
            for pair in pairs:
                writer.write(pair.frame)

    return {
        "whole, every frame": lambda: whole(None),
        f"whole, {FPS:g} moments a second": lambda: whole(FPS),
        "decode": lambda: sum(1 for _ in iter_pairs(path, RATE)),
        "sound": lambda: log_mel_at(wave, times),
        "resize and flow": lambda: [neighbour_flow(_shrunk(pair, size), spec.flow_method) for pair in pairs],
        "model": lambda: _predict(segmenter, small),
        "overlay": lambda: [overlay(pair.frame, mask) for pair, mask in zip(pairs, masks, strict=True)],
        "encode": encode,
    }


def _shrunk(pair: FramePair, size: tuple[int, int]) -> FramePair:
    neighbour = None if pair.neighbour is None else resize(pair.neighbour, size)
    return FramePair(pair.time, resize(pair.frame, size), neighbour, pair.step)


@torch.inference_mode()
def _predict(segmenter: AVSegmenter, pairs: list[FramePair]) -> None:
    for batch in _batches(pairs):
        inputs = normalise(batch, segmenter.model.config, segmenter.device)
        segmenter.model.predict(inputs).logits.sigmoid().cpu()


def _batches(pairs: list[FramePair]) -> Iterator[Batch]:
    for start in range(0, len(pairs), TOGETHER):
        part = pairs[start : start + TOGETHER]
        frames = torch.from_numpy(np.stack([pair.frame.transpose(2, 0, 1) for pair in part])).unsqueeze(1)
        clips, side = len(part), frames.shape[-1]
        yield Batch(
            frames=frames,
            flow=torch.zeros(clips, 1, 2, side, side, dtype=torch.float16),
            log_mel=torch.zeros(clips, 1, 1, 96, 64),
            masks=None,
            inside=torch.ones(clips, 1, 1, side, side, dtype=torch.bool),
            valid=torch.ones(clips, 1, 1, side, side, dtype=torch.bool),
            names=("",) * clips,
            categories=("",) * clips,
            times=torch.zeros(clips, 1, dtype=torch.float64),
        )


def _seconds(function: Callable[[], object], settings: Settings) -> list[float]:
    taken = []
    for repeat in range(1 + (1 if settings.quick else min(5, settings.repeats))):
        began = time.perf_counter()
        function()
        if repeat:  # the first warms up
            taken.append(time.perf_counter() - began)
    return taken


def _row(video: str, stage: str, frames: int, taken: list[float]) -> Row:
    rates = [frames / value for value in taken]
    return {
        "group": GROUP,
        "name": f"{video}, {stage}",
        "unit": "frames/s",
        "ours": round(statistics.median(rates), 2),
        "spread_ours": [round(min(rates), 2), round(max(rates), 2)],
        "samples": len(rates),
        "reference": None,
        "ratio": None,
        "video": video,
        "part": "whole" if stage == "whole, every frame" else stage,
    }


if __name__ == "__main__":
    run_alone(measure)
