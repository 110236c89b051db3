"""Killed processes leave nothing that the next run does not mend; those that are ended leave nothing at all."""

import shutil
import signal
from pathlib import Path

import pytest
from helpers import write_mp4
from killed import contents, run_all
from toy_models import save_tiny

SEGMENT = ["avseg.commands.segment", "avseg.inference.video", "avseg.inference.inputs"]
SYNTH = ["avseg.commands.data", "avseg.data.synthetic.write"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def segment(model: Path, tmp_path: Path) -> list[str]:
    write_mp4(tmp_path / "clip.mp4", seconds=2)
    options = ["--checkpoint", str(model), "--device", "cpu", "--fps", "2", "--start", "0.5"]
    return ["segment", "clip.mp4", *options, "--save", "video,masks,coco,npz", "--out"]


def points(last: int, most: int = 10) -> list[int]:
    """Numbers from 1 to ``last``, the last ones densely: there files take their names."""
    dense = range(max(1, last - most), last + 1)
    return sorted({*dense, *range(1, last + 1, max(1, last // most))})


def test_a_killed_segment_is_as_if_it_had_not_been(segment: list[str], tmp_path: Path) -> None:
    """Killed at any change of the file system, then run again: nothing is left over, and all is as undisturbed."""
    ((_, changes),) = run_all(tmp_path, SEGMENT, [{"command": [*segment, "whole"]}])
    expected = contents(tmp_path / "whole")
    assert changes > 10
    numbers = points(changes)
    killed = [{"command": [*segment, f"out{n}"], "at": n, "signal": signal.SIGKILL} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SEGMENT, killed)} == {-signal.SIGKILL}
    left = list(tmp_path.rglob("*avseg-*"))
    assert len(left) > 10
    again = [{"command": [*segment, f"out{n}"]} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SEGMENT, again)} == {0}
    for n in numbers:
        assert contents(tmp_path / f"out{n}") == expected, n
    assert list((tmp_path / "temporary").iterdir()) == []


def test_results_are_those_of_before_or_the_new_ones(segment: list[str], tmp_path: Path) -> None:
    """Killed while it overwrites, then asked again for what was there first: one or the other, whole, never both."""
    new = [*segment, "whole", "--threshold", "0.3", "--overwrite"]
    rows = run_all(tmp_path, SEGMENT, [{"command": [*segment, "before"]}])
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    rows = run_all(tmp_path, SEGMENT, [{"command": new}])
    before, after = contents(tmp_path / "before"), contents(tmp_path / "whole")
    assert before != after
    numbers = points(rows[0][1], 14)
    for n in numbers:
        shutil.copytree(tmp_path / "before", tmp_path / f"out{n}")
    killed = [
        {"command": [*segment, f"out{n}", "--threshold", "0.3", "--overwrite"], "at": n, "signal": signal.SIGKILL}
        for n in numbers
    ]
    assert {code for code, _ in run_all(tmp_path, SEGMENT, killed)} == {-signal.SIGKILL}
    again = [{"command": [*segment, f"out{n}"]} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SEGMENT, again)} == {0}
    found = [contents(tmp_path / f"out{n}") for n in numbers]
    assert all(one in (before, after) for one in found)
    assert before in found
    assert after in found


def test_sigterm_leaves_nothing_at_once(segment: list[str], tmp_path: Path) -> None:
    ((_, changes),) = run_all(tmp_path, SEGMENT, [{"command": [*segment, "whole"]}])
    expected = contents(tmp_path / "whole")
    numbers = points(changes, 6)
    ended = [{"command": [*segment, f"out{n}"], "at": n, "signal": signal.SIGTERM} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SEGMENT, ended)} == {143}
    for n in numbers:
        out = tmp_path / f"out{n}"
        assert not out.exists() or contents(out) == expected, n
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_killed_benchmark_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    synth = ["--videos", "3", "--size", "32", "--workers", "1"]
    ((code, changes),) = run_all(tmp_path, SYNTH, [{"command": ["data", "synth", "whole", *synth]}])
    assert (code, changes > 50) == (0, True)
    expected = contents(tmp_path / "whole")
    numbers = points(changes, 5)
    killed = [{"command": ["data", "synth", f"out{n}", *synth], "at": n, "signal": signal.SIGKILL} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SYNTH, killed)} == {-signal.SIGKILL}
    again = [{"command": ["data", "synth", f"out{n}", *synth]} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SYNTH, again)} == {0}
    for n in numbers:
        assert contents(tmp_path / f"out{n}") == expected, n
