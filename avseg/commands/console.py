"""What commands show: progress, notes, tables."""

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

_SILENCE = 10.0  # seconds between two lines of progress where there is no terminal


@contextmanager
def progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far a long task is: a bar with the time that remains on a terminal, now and then a line elsewhere.

    Args:
        title: What is being done.
        unit: What is counted, in the plural.

    Yields:
        A function to call with how many are done, and of how many.
    """
    if not sys.stderr.isatty():
        yield _lines(title, unit)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, markup=False, emoji=False, highlight=False)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(title: str, unit: str) -> Callable[[int, int], None]:
    began = last = time.monotonic()
    finished = False

    def tell(done: int, total: int) -> None:
        nonlocal last, finished
        now = time.monotonic()
        ends = done >= total and total > 0 and not finished
        if ends or now - last >= _SILENCE:
            last, finished = now, finished or ends
            left = f", about {(now - began) * (total / done - 1):.0f} s left" if 0 < done < total else ""
            sys.stderr.write(f"{title}: {done} of {total} {unit}{left}\n")
            sys.stderr.flush()

    return tell


def told(error: OSError) -> str:
    """What the system reported, as a sentence."""
    # A hidden temporary name, or PyAV's way of naming files, means nothing to a person.
    name = re.sub(r"^file:|/\.(tmp|new|old)-avseg-.*", "", os.fsdecode(error.filename or ""), flags=re.DOTALL)
    if isinstance(error, FileExistsError | NotADirectoryError) and os.path.isfile(name):
        return f"{name} is a file, and a folder is needed there: name another."
    mend = ": make room there, or write elsewhere" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
    return f"{name}: {error.strerror}{mend}." if name else f"{error.strerror}."


def complain(error: Exception) -> None:
    """Tell a failure that doesn't end the command, as `avseg.cli` tells the one that does."""
    sentence = told(error) if isinstance(error, OSError) and error.strerror else str(error)
    sys.stderr.write(f"avseg: error: {sentence.removesuffix('.')}.\n")
    sys.stderr.flush()


def note(text: str) -> None:
    """Tell a person something that is no error."""
    sys.stderr.write(f"avseg: note: {text}\n")


def show(table: "RenderableType") -> None:
    """Print a table, or what else rich can, at least 80 columns wide."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(80, console.width)
    console.print(table)
    sys.stdout.flush()
