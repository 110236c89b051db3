"""One pure function over many inputs, on every core; and one run at a time in a folder."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, TypeVar

import cv2

from avseg.data.cluster import Cluster, run_on
from avseg.errors import AvsegError
from avseg.files import clear
from avseg.progress import Progress

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

J = TypeVar("J")
R = TypeVar("R")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    function: Callable[[J], R],
    jobs: Sequence[J],
    workers: int | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
    lost: Callable[[J], R] | None = None,
) -> list[R]:
    """``[function(job) for job in jobs]``, shared out over processes of one thread each.

    Args:
        function: Of a module's top level.
        jobs: What it is called with; picklable, as are its results.
        workers: Processes; None: one a core; 1: none, all happens here.
        progress: See `Progress`.
        cluster: Share out over the machines of a cluster; None: over processes of this machine.
        lost: See `avseg.data.cluster.run_on`; without a cluster a lost process ends the work.

    Raises:
        AvsegError: a process was ended from outside, or the cluster can't be reached.
        Exception: whatever ``function`` raises; jobs that haven't begun are dropped.
    """
    if cluster is not None and jobs:
        return run_on(cluster, function, jobs, workers, progress, lost)
    workers = min(cores() if workers is None else workers, len(jobs))
    if progress is not None:
        progress(0, len(jobs))
    if workers <= 1:
        results = []
        for job in jobs:
            results.append(function(job))
            if progress is not None:
                progress(len(results), len(jobs))
        return results
    # A fork of a process with running threads can hang: workers start clean, from a server where there is one.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([function.__module__])
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    ended = AvsegError(
        "A worker process was ended from outside (perhaps for want of memory): run again, with fewer --workers."
    )
    try:
        with _one_thread_each():
            try:
                futures = {executor.submit(function, job): place for place, job in enumerate(jobs)}
            except OSError:  # a first worker ended while the next one was started
                raise BrokenProcessPool from None
        found: dict[int, R] = {}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            if progress is not None:
                progress(len(found), len(jobs))
    except BrokenProcessPool:
        executor.shutdown(wait=False, cancel_futures=True)
        raise ended from None
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise
    executor.shutdown()
    return [found[place] for place in range(len(jobs))]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    # Numerical libraries read these when a process loads them, which is before any of our code runs in it.
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker() -> None:
    # Ctrl-C reaches the whole group: the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker whose parent was killed would wait for its next job for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


_HELD: set[IO[str]] = set()


def _let_go() -> None:
    """In a process that was forked: a marker is its parent's alone, and must be free as soon as that one is gone."""
    for file in _HELD:
        file.close()


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def working_in(marker: Path, folders: Iterable[Path], wait: bool = False, held: str | None = None) -> Iterator[None]:
    """Hold ``marker`` while working; where an earlier run was killed, first remove its temporary files.

    A killed run leaves its marker full and, in ``folders``, files under the temporary names of `avseg.files`.

    Args:
        marker: A file.
        folders: What is cleared of temporary files.
        wait: Wait for another process that holds the marker.
        held: What to say where another process holds it and ``wait`` is False.

    Raises:
        AvsegError: another process holds the marker and ``wait`` is False, or it can't be written.
    """
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        file = marker.open("a+")
    except OSError as error:
        raise AvsegError(f"{marker.parent} cannot be written to ({error.strerror}): change its permissions.") from None
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AvsegError(held or f"{marker} is held by another run: wait for it to end.") from None
            except OSError:
                pass  # a file system without locks
        _HELD.add(file)
        try:
            file.seek(0)
            if file.read():
                for folder in folders:
                    clear(folder, deep=True, every=True)
            file.truncate(0)
            file.write("unfinished\n")
            file.flush()
            yield
            file.truncate(0)
        finally:
            _HELD.discard(file)
