"""Knowing that a long job was killed, and clearing up after it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from avseg.errors import AvsegError
from avseg.files import clear

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


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
