"""The loader's benchmark compares two loaders of the same clips, and says how many a second each gives."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import make_avsbench

from avseg.config import Config, DataConfig, InputConfig, ModelConfig, OptimConfig
from avseg.data.cache import open_cache
from avseg.data.loader import training_data

KEYS = {"name", "value", "unit", "reference", "ratio"}


def benchmark(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_of_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plain_loader_reads_the_same_clips(tmp_path: Path) -> None:
    make_avsbench(tmp_path, "ms3", {"train": 3, "val": 1}, prepared=True)
    config = Config(
        data=DataConfig(root=str(tmp_path), subset="ms3"),
        model=ModelConfig(neighbouring_frames=True, inputs=InputConfig(image_size=64)),
        optim=OptimConfig(batch_size=8, epochs=1000),
    )
    data = training_data(config)
    data = data.with_cache(open_cache(data.frames, config.model.inputs, data.flow))
    loader = benchmark("loader")
    batch = next(iter(data.loader())).labelled
    plain = loader.PlainDataset([data.labelled[i][0] for i in data.labelled_indices(0)])
    for row in range(8):
        clip = plain[row]
        assert torch.equal(clip["frame"], batch.frames[row, 0])
        assert torch.equal(clip["flow"].half(), batch.flow[row, 0])
        assert torch.equal(clip["mask"], batch.masks[row, 0])
        assert torch.equal(clip["log_mel"], batch.log_mel[row, 0])
    row = loader._row("some", 0, data, quick=True)
    assert row.keys() == KEYS
    assert row["ratio"] == pytest.approx(row["value"] / row["reference"], rel=0.01)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["loader", "prepare"])
def test_measuring(name: str) -> None:
    rows = benchmark(name).measure(quick=True)
    assert rows
    assert all(row.keys() == KEYS and row["value"] > 0 for row in rows)
