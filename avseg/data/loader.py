"""A DataLoader whose errors are sentences."""

from collections.abc import Iterator

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from avseg.errors import AvsegError


def ordered_loader(dataset: Dataset, order: range, workers: int) -> DataLoader:
    """A loader of ``dataset[i]`` for every i of ``order``, in that order, as it is: no further collating.

    An `AvsegError` in a worker process arrives as that one sentence, where PyTorch alone would wrap it in a traceback.
    Tensors come in page-locked memory where there is a GPU to copy them to.

    Args:
        dataset: What is loaded.
        order: Indices.
        workers: Processes; 0 loads in this one.
    """
    return _SentenceLoader(
        _Guarded(dataset),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        worker_init_fn=_one_thread,
        pin_memory=torch.cuda.is_available(),
    )


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
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise AvsegError(batch.message)
            yield batch


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
