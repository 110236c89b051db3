"""The progress of long tasks: a bar with the time that remains on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""

_QUIET = 10.0  # seconds between two lines of progress where there is no terminal


class ProgressBar:
    """A bar on standard error that can be moved from any thread.

    Args:
        title: What is being done.
        unit: What is counted, in the plural.
        show: False shows nothing.
    """

    def __init__(self, title: str, unit: str = "", show: bool = True):
        self.title, self.unit, self.show = title, unit, show
        self._bar: Any = None
        self._began = self._last = time.monotonic()
        self._ended = False

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Say how many are done, and of how many, and a ``note`` beside it."""
        if not self.show:
            return
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar, self._task = _start(self.title, self.unit)
            self._bar.update(self._task, completed=done, total=total, note=note)
            return
        now = time.monotonic()
        ends = done >= total and total > 0 and not self._ended
        if ends or now - self._last >= _QUIET:
            self._last, self._ended = now, self._ended or ends
            left = f", about {(now - self._began) * (total / done - 1):.0f} s left" if 0 < done < total else ""
            words = " ".join(filter(None, (f"{self.title}: {done} of {total}", self.unit)))
            sys.stderr.write(f"{words}{left}{note and f', {note}'}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def progress(title: str, unit: str = "", show: bool = True) -> Iterator[ProgressBar]:
    """A `ProgressBar` that is closed at the end, after an error too."""
    bar = ProgressBar(title, unit, show)
    try:
        yield bar
    finally:
        bar.close()


def _start(title: str, unit: str) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True, markup=False, emoji=False, highlight=False),
    )
    task = bar.add_task(title, total=None, note="")
    bar.start()
    return bar, task
