"""``avseg bench``: a table for people, JSON for others, wrong use told before anything is measured."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from avseg.cli import main
from benchmarks import suite
from benchmarks.result import read_result

REPOSITORY = Path(__file__).parents[2]


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "avseg", "bench", "--device", "cpu", "--quick", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_run_prints_a_table_and_writes_its_numbers_with_the_machine(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "startup", "--repeats", "1", "--threads", "1", "--json", "out/bench.json")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "startup: avseg --help" in done.stderr
    result = read_result(tmp_path / "out" / "bench.json")
    assert {"machine", "revision", "torch", "numpy", "opencv", "threads", "date", "memory", "load"} <= set(
        result["machine"]
    )
    assert os.uname().nodename not in json.dumps(result["machine"])
    assert result["settings"] | {"seconds": 0} == {
        "device": "cpu",
        "threads": 1,
        "repeats": 1,
        "quick": True,
        "options": ["eager"],
        "groups": ["startup"],
        "seconds": 0,
    }
    rows = {row["name"]: row["ours"] for row in result["rows"]}
    assert set(rows) == {"avseg --help", "import avseg", "python alone"}
    assert min(rows.values()) > 0
    verdicts = {goal["name"]: goal["verdict"] for goal in result["goals"]}
    assert verdicts["import avseg"] in ("reached", "missed")
    assert verdicts["flow branch without encoder"] == "not measured"


@pytest.mark.heavy
def test_attention_is_compared_with_its_plain_form(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "startup,attention", "--json", "bench.json", "--plot", "bench.png")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = read_result(tmp_path / "bench.json")["rows"]
    compared = [row for row in rows if row["group"] == "attention"]
    assert len(compared) >= 7
    for row in compared:
        assert row["ours"] > 0
        assert row["reference"] > 0
        assert row["ratio"] == pytest.approx(row["reference"] / row["ours"], rel=1e-3)
    alone = next(row for row in compared if (row["part"], row["frames"]) == ("attention", 5))
    # 15,680² numbers, twice: before and after the division by N.
    assert alone["memory_reference"] > 1800
    assert alone["memory_ours"] < 100
    assert (tmp_path / "bench.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--only", "startup,speed"],
            "--only: 'speed' is no group of benchmarks: there are startup, attention, forward",
        ),
        (["--options", "fast"], "--options: 'fast' is none: there are eager,"),
        (["--device", "tpu9"], "device 'tpu9' is not available here"),
        (["--plot", "speed.txt"], "speed.txt is no image"),
    ],
)
def test_wrong_use_is_told_before_anything_is_measured(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "run", lambda *rest: pytest.fail("it was measured"))
    assert main(["bench", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"avseg: error: {message}")
    assert captured.err.count("\n") == 1


def test_a_run_that_is_stopped_keeps_the_groups_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import attention, startup
    from benchmarks.timing import Settings

    def stop(settings: Settings) -> list[dict[str, object]]:
        raise KeyboardInterrupt

    row = {"group": "startup", "name": "import avseg", "unit": "ms", "ours": 1.0, "reference": None, "ratio": None}
    monkeypatch.setattr(startup, "measure", lambda settings: [row])
    monkeypatch.setattr(attention, "measure", stop)
    kept: list[dict[str, object]] = []
    with pytest.raises(KeyboardInterrupt):
        suite.run(Settings(), ["attention", "startup"], kept.append)
    (result,) = kept
    assert result["rows"] == [row]


def test_groups_of_others_are_taken_in() -> None:
    given = {"name": "loader, 2 workers", "value": 900.0, "unit": "clips/s", "reference": 45.0, "ratio": 20.0}
    row = suite._row("loader", given)
    assert row == {
        "group": "loader",
        "name": given["name"],
        "ours": 900.0,
        "unit": "clips/s",
        "reference": 45.0,
        "ratio": 20.0,
    }
    assert suite.chosen([]) == tuple(group for group in suite.GROUPS if group in suite.chosen([]))
    assert suite.chosen(["step", "attention"]) == ("attention", "step")


def test_an_installation_without_the_repository_says_where_the_benchmarks_are(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "avseg", tmp_path / "avseg", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "avseg", "bench", "--quick"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the benchmarks come with a checkout of avseg's repository" in done.stderr
    assert done.stderr.count("\n") == 1
