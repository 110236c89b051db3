"""Knowing that a long job was killed, and clearing up after it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from avseg.errors import AvsegError
from avseg.files import clear

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def working_in(marker: Path, folders: Iterable[Path], wait: bool = False) -> Iterator[None]:
    """Hold ``marker`` while working; where an earlier run was killed, first remove its temporary files.

    A killed run leaves its marker full and, in ``folders``, files under the temporary names of `avseg.files`.

    Args:
        marker: A file.
        folders: What is cleared of temporary files.
        wait: Wait for another process that holds the marker.

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
                raise AvsegError(f"{marker} is held by another run: wait for it to end.") from None
            except OSError:
                pass  # a file system without locks
        file.seek(0)
        if file.read():
            for folder in folders:
                clear(folder, deep=True, every=True)
        file.truncate(0)
        file.write("unfinished\n")
        file.flush()
        yield
        file.truncate(0)
