"""The script of docs/cluster.md as a cluster runs it, and where curves go."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import make_avsbench
from small_run import TINY, small_config

from avseg.cli import main
from avseg.config import OptimConfig, UFEConfig
from avseg.errors import AvsegError
from avseg.models import load
from avseg.training.checkpoints import read_checkpoint
from avseg.training.logs import check_logger, further_loggers, read_metrics
from avseg.training.run import train

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "docs" / "train.sbatch"

# What srun does of what matters here: it starts the processes, tells each its number, and ends all when one fails.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for rank in 0 1; do
    SLURM_NTASKS=2 SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 "$@" &
done
wait -n && wait -n && exit 0
code=$?; kill $(jobs -p); exit $code
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", {"train": 4, "val": 2}, prepared=True)
    return folder


def submit(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the script as a job of two tasks on one machine."""
    commands = {"srun": SRUN, "avseg": f'#!/bin/bash\nexec "{sys.executable}" -m avseg "$@"\n'}
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in commands.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"JOB_ID": "1", "JOB_NAME": "avseg", "JOB_NUM_NODES": "1", "NNODES": "1", "NTASKS_PER_NODE": "2"}
    environment = {
        **os.environ,
        **{f"SLURM_{name}": value for name, value in job.items()},
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    words = ["bash", SCRIPT, *map(str, options)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.heavy
def test_the_slurm_script_trains_and_goes_on(root: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    options = ("--config", tmp_path / "tiny.yaml", "--data.root", root, "--run.out", tmp_path / "run")
    options += ("--optim.batch_size", 1, "--optim.accumulate", 2, "--model.inputs.image_size", 96)
    done = submit(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "run").config.inputs.image_size == 96
    assert submit(tmp_path, *options, "--optim.epochs", 2).returncode == 0  # queued again, for longer
    said = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert (said["steps"], said["epochs"], said["devices"]) == (4, 2, 2)
    assert said["config"]["run"]["precision"] == "bf16-mixed"
    assert [row["epoch"] for row in read_metrics(tmp_path / "run" / "metrics.csv") if "val/miou" in row] == [0, 1]
    assert not list((tmp_path / "run").glob("*hpc*"))
    # What is wrong ends the job with a sentence, and none of its processes waits for another.
    done = submit(tmp_path, *options)
    assert done.returncode != 0
    assert "trained for 2 epochs, and optim.epochs is 1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_slurm_script_asks_for_a_process_a_device() -> None:
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", SCRIPT.read_text(), re.MULTILINE))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert "cpus-per-task" in asked
    assert '--cpus-per-task="${SLURM_CPUS_PER_TASK' in SCRIPT.read_text()  # or srun gives each process a single core
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_curves_go_where_they_are_asked_to(root: Path, tmp_path: Path) -> None:
    config = small_config(root, tmp_path / "run", UFEConfig(), OptimConfig(batch_size=2, epochs=1), flow=False)
    config.run.logger = "csv"
    folder = train(config).folder
    assert read_metrics(folder / "metrics.csv")
    assert not (folder / "tensorboard").exists()
    assert [type(each).__name__ for each in further_loggers("tensorboard", folder)] == ["TensorBoardLogger"]


def test_a_logger_that_is_not_installed_is_named_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("avseg.training.logs.find_spec", lambda _: None)
    for name in ("wandb", "tensorboard"):
        with pytest.raises(AvsegError, match=f"run.logger is {name}, which is not installed: `pip install {name}`"):
            check_logger(name)
    check_logger("csv")
    out = tmp_path / "run"
    assert main(["train", "--data.root", "nowhere", "--run.out", str(out), "--run.logger", "wandb"]) == 1
    assert "run.logger is wandb" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_weights_and_biases_are_told(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = small_config(root, tmp_path / "run", UFEConfig(), OptimConfig(batch_size=2, epochs=1), flow=False)
    config.run.logger = "wandb"
    train(config)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_a_logger_that_is_taken_for_a_field_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--run.wandb", "true"]) == 2
    assert "--run.wandb is not an option here: did you mean --run.logger wandb?" in capsys.readouterr().err
