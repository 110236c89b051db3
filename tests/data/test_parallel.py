import os

import pytest

from avseg.data.parallel import run_all
from avseg.errors import AvsegError


def test_here_and_in_order() -> None:
    seen: list[tuple[int, int]] = []
    results = run_all(lambda x: (x * x, os.getpid()), [3, 1, 2], 1, lambda done, total: seen.append((done, total)))
    assert results == [(n, os.getpid()) for n in (9, 1, 4)]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert run_all(abs, [], None) == []


def test_errors_of_workers_arrive() -> None:
    with pytest.raises(FileNotFoundError):
        run_all(os.stat, ["/", "/nowhere/at/all", "/"], 2)


def test_a_worker_that_is_ended_is_a_sentence() -> None:
    with pytest.raises(AvsegError, match="ended from outside"):
        run_all(os._exit, [1, 1], 2)


def test_workers_have_one_thread_each() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    results = run_all(os.getenv, ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], 2)
    assert results == ["1", "1"]
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_worker_that_ends_while_others_start_is_the_same_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise OSError("handle is closed")

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", closed)
    with pytest.raises(AvsegError, match="ended from outside"):
        run_all(abs, [1, 2], 2)
