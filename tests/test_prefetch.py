"""Stages side by side: order, bounds, failures, and nothing that goes on behind the caller's back."""

import gc
import threading
from collections.abc import Iterator

import pytest

from avseg.prefetch import prefetch


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "avseg-prefetch"]


def test_items_come_in_order_from_another_thread() -> None:
    places = set()

    def items() -> Iterator[int]:
        for k in range(100):
            places.add(threading.current_thread().name)
            yield k

    assert list(prefetch(k + 1 for k in prefetch(items(), 3))) == list(range(1, 101))
    assert places == {"avseg-prefetch"}
    assert not running()


@pytest.mark.parametrize("waiting", [1, 4])
def test_no_more_than_a_few_are_made_and_not_taken(waiting: int) -> None:
    made: list[int] = []
    full = threading.Event()

    def items() -> Iterator[int]:
        for k in range(50):
            made.append(k)
            if len(made) >= waiting + 2:
                full.set()
            yield k

    stage = prefetch(items(), waiting)
    for taken, k in enumerate(stage, 1):
        if taken == 1:
            full.wait(10)
        # Those taken, those that wait, and the one that is being put.
        assert len(made) <= taken + waiting + 1
        assert k == taken - 1


def test_what_is_raised_is_raised_where_items_are_taken() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("of the stage")

    stage = prefetch(prefetch(items()))
    assert next(stage) == 1
    with pytest.raises(ZeroDivisionError, match="of the stage"):
        next(stage)
    assert not running()


@pytest.mark.parametrize("leave", ["close", "forget", "raise"])
def test_leaving_early_closes_the_stages_in_their_own_threads(leave: str) -> None:
    closed: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    stage = prefetch(prefetch(items()))
    assert next(stage) == 0
    if leave == "close":
        stage.close()  # type: ignore[attr-defined]
    elif leave == "raise":
        with pytest.raises(KeyboardInterrupt):
            stage.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    else:
        del stage
        gc.collect()
    assert closed == ["avseg-prefetch"]
    assert not running()


def test_lists_are_walked_through_too() -> None:
    assert list(prefetch([3, 1, 2])) == [3, 1, 2]
    assert list(prefetch([])) == []
