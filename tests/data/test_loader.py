"""Batches that are made ahead in threads: in order, bounded, and without hiding what goes wrong."""

import threading
import time

import pytest
from torch.utils.data import Dataset

from avseg.data.loader import AHEAD, OrderedLoader
from avseg.errors import AvsegError


class Numbers(Dataset):
    """Gives i, notes which were asked for, and fails at one of them."""

    def __init__(self, faulty: int | None = None):
        self.asked: list[int] = []
        self.threads: set[int] = set()
        self.faulty = faulty

    def __getitem__(self, i: int) -> int:
        self.asked.append(i)
        self.threads.add(threading.get_ident())
        if i == self.faulty:
            raise AvsegError(f"{i} is faulty.")
        time.sleep(0.001 * (i % 3))
        return i


@pytest.mark.parametrize("workers", [0, 3])
def test_order_is_kept_and_a_loader_can_be_walked_again(workers: int) -> None:
    loader = OrderedLoader(Numbers(), range(4, 40, 3), workers)
    assert len(loader) == 12
    assert list(loader) == list(loader) == list(range(4, 40, 3))


def test_it_runs_ahead_but_not_away() -> None:
    numbers = Numbers()
    batches = iter(OrderedLoader(numbers, range(100), 0))
    assert next(batches) == 0
    deadline = time.monotonic() + 10
    while len(numbers.asked) < AHEAD + 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert numbers.asked == list(range(AHEAD + 1)), "the next are made while the first is in use"
    time.sleep(0.02)
    assert len(numbers.asked) == AHEAD + 1
    assert threading.get_ident() not in numbers.threads
    batches.close()  # type: ignore[attr-defined]
    assert len(numbers.asked) <= AHEAD + 1, "nothing goes on once nobody wants it"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_in_its_place(workers: int) -> None:
    batches = iter(OrderedLoader(Numbers(faulty=3), range(10), workers))
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(AvsegError, match=r"^3 is faulty\.$"):
        next(batches)
