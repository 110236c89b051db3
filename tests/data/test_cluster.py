"""A real Ray cluster on this machine, with workers that are killed at their work."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import make_avsbench

from avseg.cli import main
from avseg.data.cluster import RETRIES, Cluster, cluster_of, run_on
from avseg.data.log_mel import load_log_mel
from avseg.data.parallel import run_all
from avseg.data.prepare import prepare
from avseg.errors import AvsegError

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers, shared by the tests of this file."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)  # workers can't import a test
    yield Cluster()
    ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


def files(root: Path) -> dict[str, bytes]:
    """Every prepared file's bytes; of a pickle its tensor's, since a pickle also holds an address."""
    found = {}
    for path in sorted((root / "Single-source" / "s4_data").rglob("*.*")):
        data = load_log_mel(path).numpy().tobytes() if path.suffix == ".pkl" else path.read_bytes()
        found[str(path.relative_to(root))] = data
    return found


def test_results_are_in_order_and_errors_arrive(cluster: Cluster) -> None:
    seen: list[tuple[int, int]] = []
    assert run_on(cluster, abs, [-3, 1, -2], progress=lambda done, total: seen.append((done, total))) == [3, 1, 2]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    with pytest.raises(FileNotFoundError):
        run_all(os.stat, ["/", "/nowhere/at/all"], cluster=cluster)


def test_work_is_done_by_other_processes_of_one_thread(cluster: Cluster) -> None:
    assert os.getpid() not in run_on(cluster, _process, range(4), workers=2)
    assert run_on(cluster, os.getenv, ["OMP_NUM_THREADS"]) == ["1"]


def test_a_worker_that_is_lost_once_is_no_loss(cluster: Cluster, tmp_path: Path) -> None:
    jobs = [tmp_path / str(n) for n in range(3)]
    assert run_on(cluster, _ends_the_first_time, jobs) == [2, 2, 2]


def test_an_input_that_ends_every_worker_is_named_and_the_others_are_done(cluster: Cluster, tmp_path: Path) -> None:
    jobs = [tmp_path / "good", tmp_path / "bad", tmp_path / "fine"]
    assert run_on(cluster, _ends_for_bad, jobs, lost=lambda job: f"lost {job.name}") == ["good", "lost bad", "fine"]
    assert len((tmp_path / "bad").read_text()) == RETRIES + 1
    with pytest.raises(AvsegError, match="was lost 4 times over one input"):
        run_on(cluster, _ends_for_bad, jobs)


@pytest.mark.heavy
def test_prepare_with_a_worker_killed_in_the_middle_makes_the_same(cluster: Cluster, tmp_path: Path) -> None:
    make_avsbench(tmp_path / "one", "s4", {"train": 8, "val": 2, "test": 2})
    shutil.copytree(tmp_path / "one", tmp_path / "ray")
    prepare(tmp_path / "one", "s4", workers=1)
    killed: list[int] = []
    thread = threading.Thread(target=_kill_a_worker, args=(tmp_path / "ray", killed))
    thread.start()
    report = prepare(tmp_path / "ray", "s4", cluster=cluster)
    thread.join()
    assert killed
    assert not report.failures
    assert files(tmp_path / "ray") == files(tmp_path / "one")


@pytest.mark.heavy
def test_the_command_starts_a_cluster_and_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ray.shutdown()
    make_avsbench(tmp_path, "s4", {"train": 1, "val": 1, "test": 1})
    assert main(["data", "prepare", str(tmp_path), "--engine", "ray", "--workers", "1"]) == 0
    assert "3 videos; made: frames 15" in capsys.readouterr().out
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("engine", "address", "said"),
    [
        ("local", "auto", "--address is of a Ray cluster: add --engine ray."),
        ("ray", "127.0.0.1:1", "The Ray cluster 127.0.0.1:1 cannot be reached"),
        ("ray", "ray://127.0.0.1:1", "The Ray cluster ray://127.0.0.1:1 cannot be reached"),
        ("ray", "here:now", "give HOST:PORT of its head"),
    ],
)
def test_what_cannot_be_is_a_sentence(engine: str, address: str, said: str, tmp_path: Path) -> None:
    make_avsbench(tmp_path, "s4", {"train": 1, "val": 1, "test": 1})
    with pytest.raises(AvsegError, match=said):
        prepare(tmp_path, "s4", cluster=cluster_of(engine, address))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ConnectionError("none is running"), SystemExit(15)])
def test_a_cluster_that_ray_does_not_find_is_a_sentence(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*words: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests' clusters may run on this machine
    monkeypatch.setattr(ray, "init", init)
    make_avsbench(tmp_path, "s4", {"train": 1, "val": 1, "test": 1})
    with pytest.raises(AvsegError, match="The Ray cluster auto cannot be reached"):
        prepare(tmp_path, "s4", cluster=cluster_of("ray", "auto"))


def test_without_ray_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AvsegError, match=r"pip install 'avseg\[ray\]'"):
        cluster_of("ray", None)


def _process(_: int) -> int:
    return os.getpid()


def _ends_the_first_time(marker: Path) -> int:
    with marker.open("a") as file:
        file.write("x")
    if len(marker.read_text()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(marker.read_text())


def _ends_for_bad(path: Path) -> str:
    with path.open("a") as file:
        file.write("x")
    if path.name == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def _kill_a_worker(root: Path, killed: list[int]) -> None:
    """Once the first video's sound is there, and so in the middle of the work, kill a process that is busy with it."""
    deadline = time.monotonic() + 60
    while not killed and time.monotonic() < deadline:
        if any(root.rglob("*.wav")):
            for process in Path("/proc").iterdir():
                try:
                    words = (process / "cmdline").read_bytes()
                    if words.startswith(b"ray::_one_thread"):
                        os.kill(int(process.name), signal.SIGKILL)
                        killed.append(int(process.name))
                        return
                except (OSError, ValueError):
                    continue
        time.sleep(0.005)
