"""Stages of work side by side: an iterator that runs ahead of whoever walks through it, in a thread of its own."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from threading import Condition, Thread
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], waiting: int = 2) -> Iterator[T]:
    """Walk through ``items`` in a thread, in order, with at most ``waiting`` of them made and not yet taken.

    Chained, such iterators are stages of a pipeline in bounded memory: decoding, models and encoding let go of
    Python's lock while they work. What an iterator raises is raised where its items are taken. When this generator is
    closed (its consumer fails, is interrupted, or leaves early), the thread stops after the item it is at, closes
    ``items`` if that is a generator, and is waited for, so that nothing goes on behind the caller's back.

    Args:
        items: Made in the other thread, which alone walks through and closes it.
        waiting: At least 1.
    """
    lane: _Lane[T] = _Lane(max(1, waiting))
    thread = Thread(target=copy_context().run, args=(_fill, items, lane), daemon=True, name="avseg-prefetch")
    thread.start()
    try:
        yield from lane
    finally:
        lane.close()
        thread.join()


class _Lane(Generic[T]):
    """A queue of bounded length that can be closed from either end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: deque[T] = deque()
        self._change = Condition()
        self._closed = False
        self._ended = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room and add an item; False once nobody wants any more."""
        with self._change:
            self._change.wait_for(lambda: self._closed or len(self._items) < self._most)
            if self._closed:
                return False
            self._items.append(item)
            self._change.notify_all()
            return True

    def end(self, error: BaseException | None) -> None:
        """Say that nothing more comes, and why."""
        with self._change:
            self._ended, self._error = True, error
            self._change.notify_all()

    def close(self) -> None:
        """Want nothing more."""
        with self._change:
            self._closed = True
            self._items.clear()
            self._change.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._change.notify_all()
            yield item
            del item  # the consumer may let go of it while the next one is waited for


def _fill(items: Iterable[T], lane: _Lane[T]) -> None:
    error: BaseException | None = None
    walked: Any = iter(items)
    try:
        for item in walked:
            if not lane.put(item):
                break
            del item
    except BaseException as raised:
        error = raised
    try:
        # A generator holds files open; only the thread that runs it may close it.
        if hasattr(walked, "close"):
            walked.close()
    except BaseException as raised:
        error = error or raised
    lane.end(error)
