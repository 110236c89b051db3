"""Damaged files end in one sentence or a result, within limits; and the harness that says so tells what doesn't."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz import READERS
from benchmarks.fuzz_mutate import mutate

REPOSITORY = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


def replay(folder: Path, *arguments: str) -> Counter[str]:
    """Run the harness; give how many cases each reader had."""
    done = python("-m", "benchmarks.fuzz", "--json", str(folder / "cases.json"), *arguments)
    assert done.returncode == 0, done.stderr
    cases = json.loads((folder / "cases.json").read_text())
    assert {case["outcome"] for case in cases} <= {"clean", "result"}
    return Counter(case["reader"] for case in cases)


def test_a_few_damaged_files_of_every_kind(tmp_path: Path) -> None:
    assert replay(tmp_path, "--count", "18") == dict.fromkeys(READERS, 2)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [0, 1])
def test_hundreds_of_damaged_files(tmp_path: Path, seed: int) -> None:
    assert replay(tmp_path, "--seed", str(seed), "--count", "540") == dict.fromkeys(READERS, 60)


FAULTS = """
import os, sys, time
from pathlib import Path
from benchmarks import fuzz, fuzz_readers
from benchmarks.fuzz_readers import Seed

def hang():
    while True: pass
def memory():
    held = [bytearray(b"x" * 2**26) for _ in range(8)]
    time.sleep(60)
def crash(): os.kill(os.getpid(), 11)
def missing(): raise KeyError("no sentence")
def long(): raise fuzz_readers.AvsegError("x" * 5000)

def fails(fault):
    return lambda root: 1 if (root / "file").read_bytes() == b"whole" else fault()

def prepare(folder):
    folder.mkdir()
    (folder / "file").write_bytes(b"whole")
    faults = {"mp4": hang, "wav": memory, "png": crash, "csv": missing, "json": long}
    return {reader: [Seed(Path("file"), "bytes", fails(fault))] for reader, fault in faults.items()}

fuzz.SECONDS, fuzz.BYTES, fuzz.prepare = 1, 2**28, prepare
fuzz_readers.segmenter = lambda: None
sys.argv = ["fuzz", "--only", "mp4,wav,png,csv,json", "--count", "5"]
sys.exit(fuzz.main())
"""


def test_the_harness_tells_what_goes_wrong() -> None:
    done = python("-c", FAULTS)
    assert done.returncode == 1, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert rows[0][:7] == ["mp4", "1", "0", "0", "0", "1", "0"]
    assert rows[1][:7] == ["wav", "1", "0", "0", "0", "0", "1"]
    assert rows[2][:7] == ["png", "1", "0", "0", "1", "0", "0"]
    assert rows[3][:7] == ["csv", "1", "0", "0", "1", "0", "0"]
    assert rows[4][:7] == ["json", "1", "0", "0", "1", "0", "0"]
    assert rows[5][:7] == ["all", "5", "0", "0", "3", "1", "1"]


def test_mutations_follow_from_their_seed() -> None:
    data = b'{"a": [1, 2, {"b": "c"}]}\n'
    for kind in ("bytes", "json", "yaml", "csv"):
        same = [[mutate(data, kind, np.random.default_rng([seed, 1])) for seed in range(20)] for _ in range(2)]
        assert same[0] == same[1]
        assert len(set(same[0])) > 10
