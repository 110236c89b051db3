"""One pure function over many inputs, on the machines of a Ray cluster.

Ray is optional (``pip install 'avseg[ray]'``) and imported when it is asked for. Workers import avseg from their own
environment, and read and write the same paths: data, results and weights lie on storage that all machines share.
"""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from avseg.errors import AvsegError
from avseg.progress import Progress

J = TypeVar("J")
R = TypeVar("R")

Engine = Literal["local", "ray"]
RETRIES = 3
"""How often an input is tried again whose worker process or machine was lost."""


@dataclass(frozen=True)
class Cluster:
    """Where work is done.

    Attributes:
        address: Of a Ray cluster: ``auto`` for the one that this machine belongs to, ``HOST:6379``, or
            ``ray://HOST:10001`` from outside; None starts one on this machine, which ends with the work.
        gpus: GPUs that each worker gets; 0 or more, also fractions.
    """

    address: str | None = None
    gpus: float = 0.0


def cluster_of(engine: Engine, address: str | None, gpus: float = 0.0) -> Cluster | None:
    """What ``--engine`` and ``--address`` ask for; None is this process and its own workers.

    Raises:
        AvsegError: an address without the engine that it belongs to, or Ray is not installed.
    """
    if engine == "local":
        if address is not None:
            raise AvsegError("--address is of a Ray cluster: add --engine ray.")
        return None
    try:
        import ray  # noqa: F401
    except ImportError:
        raise AvsegError("--engine ray needs Ray: pip install 'avseg[ray]', on every machine of the cluster.") from None
    return Cluster(address, gpus)


def run_on(
    cluster: Cluster,
    function: Callable[[J], R],
    jobs: Sequence[J],
    workers: int | None = None,
    progress: Progress | None = None,
    lost: Callable[[J], R] | None = None,
) -> list[R]:
    """``[function(job) for job in jobs]``, shared out over a Ray cluster, a core for each.

    Args:
        cluster: Which.
        function: Of a module's top level, and one that may be called again for the same input: it is where a worker
            or its machine was lost.
        jobs: What it is called with; picklable, as are its results.
        workers: How many run at once; None: as many as the cluster has room for.
        progress: See `Progress`.
        lost: The result for an input whose worker was lost `RETRIES` times more after the first; None raises.

    Raises:
        AvsegError: the cluster can't be reached, or a worker was lost too often and ``lost`` is None.
        Exception: whatever ``function`` raises; jobs that haven't begun are dropped.
    """
    found: dict[int, R] = {}
    if progress is not None:
        progress(0, len(jobs))
    with _connected(cluster, workers) as ray:
        task = ray.remote(num_cpus=1, num_gpus=cluster.gpus, max_retries=RETRIES)(_one_thread).remote
        room = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1) * 2  # a queue, so that nobody waits
        todo = iter(enumerate(jobs))
        running: dict[Any, int] = {}
        while len(found) < len(jobs):
            while len(running) < room and (following := next(todo, None)) is not None:
                place, job = following
                running[task(function, job)] = place
            for reference in ray.wait(list(running))[0]:
                place = running.pop(reference)
                found[place] = _result(ray, reference, jobs[place], lost)
                if progress is not None:
                    progress(len(found), len(jobs))
    return [found[place] for place in range(len(jobs))]


def _one_thread(function: Callable[[J], R], job: J) -> R:
    """Runs in a worker; Ray has set the number of threads of numerical libraries to one a core."""
    import cv2

    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    return function(job)


def _result(ray: Any, reference: Any, job: J, lost: Callable[[J], R] | None) -> R:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # what the function raised
        raise error.cause if isinstance(error.cause, BaseException) else error from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
        if lost is None:
            raise AvsegError(
                f"A worker of the cluster was lost {RETRIES + 1} times over one input ({type(error).__name__}): look "
                "at its memory, then run again."
            ) from None
        return lost(job)


def _check_reachable(address: str | None) -> None:
    """Ray itself waits two minutes for a cluster that is not there, and then ends the process."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host:
        return  # none, or `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise AvsegError(
            f"The Ray cluster {address} cannot be reached ({error}): give HOST:PORT of its head."
        ) from None


@contextmanager
def _connected(cluster: Cluster, workers: int | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent unasked
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    _check_reachable(cluster.address)
    mine = not ray.is_initialized()
    if mine:
        own: dict[str, Any] = {} if cluster.address else {"num_cpus": workers, "include_dashboard": False}
        try:
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, SystemExit) as error:  # Ray gives up by exit
            reason = " ".join(str(error).split())[:200]
            raise AvsegError(f"The Ray cluster {cluster.address or 'here'} cannot be reached ({reason}).") from None
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()
