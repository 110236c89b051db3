"""Clips a second that the loader gives alone: from the memory-mapped store, and by decoding PNG files for each clip.

A clip is one frame of 224×224 with its flow, its log-mel example and its mask, collated to batches of 8; the system has
all files in memory. The plain loader reads a clip as AVSBench's own code reads its files: PIL for frame and mask,
OpenCV for 16-bit flow, pickle for the log-mel. Both go through the same clips in the same order, by turns, and a turn
begins with starting the workers: threads with the store, processes with the plain loader.

    python benchmarks/loader.py [--quick] [--json FILE]
"""

import argparse
import json
import pickle
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from avseg.config import Config, DataConfig, ModelConfig, OptimConfig
from avseg.data.cache import open_cache
from avseg.data.frames import Frame
from avseg.data.loader import TrainingData, training_data
from avseg.data.prepare import prepare
from avseg.synthetic import write_benchmark

SIDE, BATCH = 224, 8


class PlainDataset(Dataset):
    """Frames decoded from their files, one by one."""

    def __init__(self, frames: list[Frame]):
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        row = self.frames[i]
        frame = np.array(Image.open(row.image).convert("RGB"))
        flow = np.asarray(cv2.imread(str(row.flow()), cv2.IMREAD_UNCHANGED))
        mask = np.array(Image.open(row.mask).convert("1"))
        with row.log_mel.open("rb") as file:
            log_mel = pickle.load(file)  # written by ourselves a moment ago
        return {
            "frame": torch.from_numpy(frame).permute(2, 0, 1),
            "flow": torch.from_numpy((flow[..., :0:-1].astype(np.float32) - 2**15) / 64).permute(2, 0, 1),
            "mask": torch.from_numpy(mask)[None],
            "log_mel": log_mel[row.k - 1],
        }


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """Clips a second by workers, and how fast the store is built.

    Returns:
        Rows of ``name``, ``value``, ``unit``, ``reference`` (the plain loader's value) and ``ratio``.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = _data(Path(folder), videos=4 if quick else 16)
        data = training_data(config)
        started = time.perf_counter()
        store = open_cache(data.frames, config.model.inputs, data.flow, workers=1)
        built = len(data.frames) / (time.perf_counter() - started)
        data = data.with_cache(store)
        return [
            _row("loader, 0 workers", 0, data, quick),
            _row("loader, 2 workers", 2, data, quick),
            {
                "name": "building the store, 1 thread",
                "value": round(built, 1),
                "unit": "frames/s",
                "reference": None,
                "ratio": None,
            },
        ]


def _row(name: str, workers: int, data: TrainingData, quick: bool) -> dict[str, Any]:
    data.config.data.workers = workers
    few, many = (64, 640) if quick else (320, 3200)
    ours = data.loader(0, many // BATCH)
    order = [data.labelled[i][0] for step in range(few // BATCH) for i in data.labelled_indices(step)]
    plain = DataLoader(PlainDataset(order), BATCH, num_workers=workers)
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(3 if quick else 8):
        for loader, clips, found in ((ours, many, rates[0]), (plain, few, rates[1])):
            started = time.perf_counter()
            for _ in loader:
                pass
            if turn:  # the first warms up
                found.append(clips / (time.perf_counter() - started))
    value, reference = (round(statistics.median(found), 1) for found in rates)
    return {
        "name": name,
        "value": value,
        "unit": "clips/s",
        "reference": reference,
        "ratio": round(value / reference, 2),
    }


def _data(root: Path, videos: int) -> Config:
    """A prepared MS3, of which every frame has a mask."""
    write_benchmark(root, "ms3", videos=videos + 2, val=1, test=1, size=SIDE)
    report = prepare(root, "ms3", size=SIDE)
    assert not report.failures, report.failures
    return Config(
        data=DataConfig(root=str(root), subset="ms3"),
        model=ModelConfig(neighbouring_frames=True),
        optim=OptimConfig(batch_size=BATCH, epochs=1000),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer clips and repeats")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args()
    rows = measure(options.quick)
    for row in rows:
        against = f", plain {row['reference']:.0f}, {row['ratio']:.1f} times" if row["ratio"] else ""
        print(f"{row['name']}: {row['value']:.0f} {row['unit']}{against}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
