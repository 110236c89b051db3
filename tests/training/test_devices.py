"""Several devices are one run: whatever one of them holds, the others hold, bit for bit and after every step."""

import json
import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from helpers import make_avsbench
from small_run import small_config

from avseg.config import OptimConfig, UFEConfig
from avseg.data.loader import evaluation_clips
from avseg.errors import AvsegError
from avseg.evaluation.evaluate import evaluate
from avseg.models import load
from avseg.training.logs import read_metrics
from avseg.training.run import train

HERE = Path(__file__).parent
RUNS = list(
    product(
        ["tpavi", "avsegformer", "ecmvae", "catr", "autr", "sama"], ["shared", "ema"], ["separate", "joint"], [1, 2]
    )
)
QUICK = [
    ("tpavi", "shared", "separate", 1),
    ("ecmvae", "shared", "separate", 1),
    ("avsegformer", "ema", "joint", 2),
    ("catr", "ema", "separate", 2),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 6, "val": 3}, prepared=True)  # three videos for two devices
    return folder


def train_on_two(root: Path, out: Path, runs: list[tuple[str, str, str, int]], *wrong: str) -> list[str]:
    """Real processes that talk over gloo, started as a cluster starts them; what each says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    command = [sys.executable, HERE / "two_ranks.py", root, out, json.dumps(runs), *wrong]
    variables = {**os.environ, **common, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(command, env={**variables, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=280)[1] for process in processes]
    assert [process.returncode for process in processes] == [len(wrong), len(wrong)], said
    return said


def check(root: Path, out: Path, run: tuple[str, str, str, int]) -> None:
    """Two diaries of one run, and what it left."""
    name = "-".join(map(str, run))
    ours, theirs = ([json.loads(line) for line in (out / f"{name}.{rank}").read_text().splitlines()] for rank in (0, 1))
    assert len(ours) == len(theirs) == 6
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one["seen"] != other["seen"], "each sees clips of its own"
        assert one["draw"] != other["draw"], "and draws for itself"
        wrong = [name for name, value in one["state"].items() if other["state"][name] != value]
        assert not wrong, (run, step, wrong)
    changed = {name for name, value in ours[0]["state"].items() if value != ours[-1]["state"][name]}
    statistics = {name for name in changed if name.endswith("running_mean")}
    assert "optimizer" in changed
    assert any(name.startswith("model.") for name in statistics)
    assert any(name.startswith("teacher_average.") for name in statistics) == (run[1] == "ema")
    assert ours[2]["state"]["gradients"] == ours[5]["state"]["gradients"] == "none", "nothing waits between epochs"

    # What validation says is what evaluation says of the model that was saved: every video counts, and once.
    rows = [row for row in read_metrics(out / name / "metrics.csv") if "val/miou" in row]
    best = max(rows, key=lambda row: row["val/miou"])
    for folder, row in ((out / name, rows[-1]), (out / name / "best", best)):
        model = load(folder)
        scores = evaluate(model, evaluation_clips(root, "s4", "val", model.config.inputs), "cpu", 1)
        assert (scores.miou, scores.f_score) == pytest.approx((row["val/miou"], row["val/f_score"]), abs=1e-5)


def test_devices_agree_after_every_step(root: Path, tmp_path: Path) -> None:
    train_on_two(root, tmp_path, QUICK)
    for run in QUICK:
        check(root, tmp_path, run)


@pytest.mark.heavy
def test_devices_agree_in_every_variant(root: Path, tmp_path: Path) -> None:
    rest = [run for run in RUNS if run not in QUICK]
    train_on_two(root, tmp_path, rest)
    for run in rest:
        check(root, tmp_path, run)


@pytest.mark.heavy
@pytest.mark.parametrize("wrong", [0, 1])
def test_where_one_stops_the_other_says_so(root: Path, tmp_path: Path, wrong: int) -> None:
    said = train_on_two(root, tmp_path, QUICK[:1], str(wrong))
    assert "a file is missing" in said[wrong]
    assert "Another process of this run has ended" in said[1 - wrong]
    assert "Traceback" not in "".join(said)


def test_more_devices_than_validation_videos_are_refused(root: Path, tmp_path: Path) -> None:
    config = small_config(root, tmp_path / "run", UFEConfig(), OptimConfig(batch_size=1, epochs=1))
    config.run.devices = 4
    with pytest.raises(AvsegError, match=r"3 validation video\(s\) for 4 devices.*--run\.devices"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_started_other_processes_than_asked_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NTASKS", "NTASKS_PER_NODE"):
        monkeypatch.setenv(f"SLURM_{name}", "3")
    for name in ("PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    config = small_config(root, tmp_path / "run", UFEConfig(), OptimConfig(batch_size=1, epochs=1))
    config.run.devices = 2
    with pytest.raises(AvsegError, match=r"run\.devices 2 is not available.*--ntasks-per-node=3"):
        train(config)
    assert not torch.distributed.is_initialized()
