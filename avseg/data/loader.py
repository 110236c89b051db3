"""Loaders that run ahead of whoever takes their batches, and whose errors are sentences."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from avseg.errors import AvsegError

AHEAD = 2
"""Batches that each worker makes before they are asked for."""


class Batches(Protocol):
    """What loaders are: batches in order, any number of times, and how many."""

    def __iter__(self) -> Iterator[Any]:
        """Begin anew."""

    def __len__(self) -> int:
        """How many batches there are."""


def ordered_loader(dataset: Dataset, order: range, workers: int, threads: bool = False) -> Batches:
    """A loader of ``dataset[i]`` for every i of ``order``, in that order, as it is: no further collating.

    An `AvsegError` in a worker process arrives as that one sentence, where PyTorch alone would wrap it in a traceback.
    Tensors come in page-locked memory where there is a GPU to copy them to.

    Args:
        dataset: What is loaded.
        order: Indices.
        workers: Processes. 0: a thread of this process, to which batches need not travel.
        threads: ``workers`` are threads as well: for what is copied rather than decoded.
    """
    if threads or not workers:
        return _ThreadLoader(dataset, order, max(1, workers))
    return _SentenceLoader(
        _Guarded(dataset),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


class _ThreadLoader:
    """Makes the next batches in threads while the last one is in use: copying lets go of Python's lock."""

    def __init__(self, dataset: Dataset, order: range, workers: int):
        self.dataset, self.order, self.workers = dataset, order, workers

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(self.workers, "avseg-loader") as threads:
            try:
                for i in self.order:
                    waiting.append(threads.submit(self._load, i))
                    if len(waiting) > AHEAD * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _load(self, i: int) -> Any:
        batch: Any = self.dataset[i]
        return batch.pin_memory() if torch.cuda.is_available() else batch


class _Failure:
    """A user's mistake on its way out of a worker process, which would otherwise arrive wrapped in a traceback."""

    def __init__(self, message: str):
        self.message = message


class _Guarded(Dataset):
    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, i: int) -> object:
        try:
            return self.dataset[i]
        except AvsegError as error:
            return _Failure(str(error))


class _SentenceLoader(DataLoader):
    """A DataLoader that raises an `AvsegError` of its workers as one."""

    def __iter__(self) -> Iterator:  # type: ignore[override]
        # Workers share out the cores. OpenCV's threads must be gone before the fork: a forked pool of them hangs.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            batches = super().__iter__()
        finally:
            cv2.setNumThreads(threads)
        for batch in batches:
            if isinstance(batch, _Failure):
                raise AvsegError(batch.message)
            yield batch
