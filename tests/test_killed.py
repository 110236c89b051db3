"""Killed processes leave nothing that the next run does not mend; those that are ended leave nothing at all."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import make_avsbench, write_mp4
from killed import contents, run_all
from small_run import TINY
from toy_models import save_tiny

from avseg.files import clear

SEGMENT = ["avseg.commands.segment", "avseg.inference.video", "avseg.inference.inputs"]
SYNTH = ["avseg.commands.data", "avseg.synthetic.write"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def segment(model: Path, tmp_path: Path) -> list[str]:
    write_mp4(tmp_path / "clip.mp4", seconds=2)
    options = ["--checkpoint", str(model), "--device", "cpu", "--fps", "2", "--start", "0.5"]
    return ["segment", "clip.mp4", *options, "--save", "video,masks,coco,npz", "--out"]


def points(last: int, dense: int, others: int) -> list[int]:
    """Numbers from 1 to ``last``, the last ones densely: there files take their names."""
    return sorted({*range(max(1, last - dense), last + 1), *range(1, last + 1, max(1, last // others))})


def test_a_killed_segment_is_as_if_it_had_not_been(segment: list[str], tmp_path: Path) -> None:
    """Killed at any change of the file system, then run again: nothing is left over, and all is as undisturbed."""
    ((_, changes),) = run_all(tmp_path, SEGMENT, [{"command": [*segment, "whole"]}])
    expected = contents(tmp_path / "whole")
    assert changes > 10
    numbers = points(changes, 6, 5)
    killed = [{"command": [*segment, f"out{n}"], "at": n, "signal": signal.SIGKILL} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SEGMENT, killed)} == {-signal.SIGKILL}
    left = list(tmp_path.rglob("*avseg-*"))
    assert left
    again = [{"command": [*segment, f"out{n}"]} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SEGMENT, again)} == {0}
    for n in numbers:
        assert contents(tmp_path / f"out{n}") == expected, n
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.heavy
def test_results_are_those_of_before_or_the_new_ones(segment: list[str], tmp_path: Path) -> None:
    """Killed while it overwrites, then asked again for what was there first: one or the other, whole, never both."""
    new = [*segment, "whole", "--threshold", "0.3", "--overwrite"]
    rows = run_all(tmp_path, SEGMENT, [{"command": [*segment, "before"]}])
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    rows = run_all(tmp_path, SEGMENT, [{"command": new}])
    before, after = contents(tmp_path / "before"), contents(tmp_path / "whole")
    assert before != after
    numbers = points(rows[0][1], 14, 5)
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
    numbers = points(changes, 5, 4)
    ended = [{"command": [*segment, f"out{n}"], "at": n, "signal": signal.SIGTERM} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SEGMENT, ended)} == {143}
    for n in numbers:
        out = tmp_path / f"out{n}"
        assert not out.exists() or contents(out) == expected, n
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_a_living_process_needs_stays(tmp_path: Path) -> None:
    """Two processes write into one folder, which a third one clears: only what is left of a dead one goes."""
    script = "import sys; from avseg.files import whole_file, whole_folder, whole_set\n" + (
        "with whole_file('a.txt') as a, whole_folder('b') as b, whole_set('.') as several:\n"
        "    a.write_text('a'); (b / 'b').write_text('b'); (several / 'c').write_text('c'); print('on', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
    for name in (".tmp-avseg-notes", ".tmp-mine.txt", "avseg-app-tmp-abcdefgh"):
        (tmp_path / name).write_text("mine")
    assert len(list(tmp_path.iterdir())) == 12
    processes[2].kill()
    processes[2].wait()
    clear(tmp_path)
    assert len(list(tmp_path.iterdir())) == 9
    for process in processes[:2]:
        process.communicate(b"\n")
        assert process.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".tmp-avseg-notes", ".tmp-mine.txt", "a.txt", "avseg-app-tmp-abcdefgh", "b", "c"
    ]  # fmt: skip


def test_training_leaves_nothing_when_it_is_ended(tmp_path: Path) -> None:
    """SIGTERM ends it well; killed, what it left goes with the next checkpoint."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    s4 = tmp_path / "s4"
    make_avsbench(s4, "s4", {"train": 3, "val": 1, "test": 1}, prepared=True)
    words = ["train", "--config", "tiny.yaml", "--data.root", str(s4), "--run.out"]
    modules = ["avseg.commands.learning", "avseg.training.run"]
    # The first run stores frames beside the data, too.
    (first, _), (code, changes) = run_all(tmp_path, modules, [{"command": [*words, out]} for out in ("a", "b")])
    assert (first, code) == (0, 0)
    numbers = [changes // 2, changes - 3]
    ended = [{"command": [*words, f"out{n}"], "at": n, "signal": signal.SIGTERM} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, modules, ended)} == {143}
    assert not list(tmp_path.rglob("*tmp-*"))
    killed = [{"command": [*words, f"last{n}"], "at": n, "signal": signal.SIGKILL} for n in numbers]
    run_all(tmp_path, modules, killed)
    again = [{"command": [*words, f"last{n}", "--run.resume", "true"]} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, modules, again)} == {0}
    assert not list(tmp_path.rglob("*tmp-*"))


@pytest.mark.heavy
def test_a_killed_benchmark_is_as_if_it_had_not_been(tmp_path: Path) -> None:
    synth = ["--videos", "3", "--size", "32", "--workers", "1"]
    ((code, changes),) = run_all(tmp_path, SYNTH, [{"command": ["data", "synth", "whole", *synth]}])
    assert (code, changes > 50) == (0, True)
    expected = contents(tmp_path / "whole")
    numbers = points(changes, 2, 5)
    killed = [{"command": ["data", "synth", f"out{n}", *synth], "at": n, "signal": signal.SIGKILL} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SYNTH, killed)} == {-signal.SIGKILL}
    again = [{"command": ["data", "synth", f"out{n}", *synth]} for n in numbers]
    assert {code for code, _ in run_all(tmp_path, SYNTH, again)} == {0}
    for n in numbers:
        assert contents(tmp_path / f"out{n}") == expected, n
