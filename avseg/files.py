"""Writing files so that what exists under a real name is whole, and so that what a killed process left is cleared.

Temporary files and folders carry a name of avseg's own and are locked while they are needed. Whoever writes into the
same folder next removes those that nobody holds any more; what a living process holds, and every other file, stays.
"""

import json
import os
import re
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError

try:
    import fcntl
except ImportError:  # not on Windows: there nothing that a killed process left is told from what is needed
    fcntl = None  # type: ignore[assignment]

_UMASK = threading.Lock()
_OURS = re.compile(r"\.(tmp|old|new)-avseg-[a-z0-9_]{8}(\..*)?")
_SCRATCH = re.compile(r"avseg-[a-z]+-tmp-[a-z0-9_]{8}")
_TIDIED: set[str] = set()


def check_file(path: str | Path) -> None:
    """Find out before long work whether its result can have the name ``path``; nothing is written.

    Raises:
        AvsegError: it names a folder, lies below a file, or where nothing may be written.
    """
    path = Path(path)
    if path.is_dir():
        raise AvsegError(f"{path} is a folder, and a file is to be written: name a file.")
    if path.exists() and not path.is_file():
        raise AvsegError(f"{path} is a device or a pipe, and a file is to be written: name a file.")
    _check_place(path, "a file in a folder", "a file")


def check_folder(path: str | Path) -> None:
    """The same for a folder of results.

    Raises:
        AvsegError: it is a file or lies below one, or nothing may be written there, or the disk is full.
    """
    path = Path(path)
    if os.path.lexists(path) and not path.is_dir():
        raise AvsegError(f"{path} is a file, and a folder is needed there: name another.")
    _check_place(path, "a folder", "a folder")


def _check_place(path: Path, below: str, elsewhere: str) -> None:
    above = next((folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists()), None)
    if above is None or above.is_file():
        above = path.absolute().parent
    if not above.is_dir():
        raise AvsegError(f"{path} would lie below {above}, which is a file: name {below}.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise AvsegError(f"{path} can't be written, since {above} is read-only: name {elsewhere} elsewhere.")
    if hasattr(os, "statvfs") and os.statvfs(above).f_bavail == 0 < os.statvfs(above).f_blocks:
        raise AvsegError(f"{path} can't be written, since the disk is full: make room, or name {elsewhere} elsewhere.")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name once the block has ended well.

    The temporary name keeps the suffix, which libraries use to choose a format. When the block raises,
    the temporary file is removed and whatever stood at ``path`` before is untouched.
    """
    path = Path(path)
    with _temporary(path.parent, ".tmp-avseg-", path.suffix) as temporary:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """The same for a folder: what stood at ``path`` is replaced only once the new one is complete."""
    path = Path(path)
    with _temporary(path.parent, ".tmp-avseg-") as temporary:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        _take_name(temporary, path)


@contextmanager
def whole_set(folder: str | Path) -> Iterator[Path]:
    """Yield a hidden folder in ``folder`` whose files move there together once the block has ended well.

    A file takes its name in ``folder``; what a folder holds takes its name in the folder of that name, which is made
    where there is none. Killed on the way, the move is completed by the next `clear` of ``folder``.
    """
    folder = Path(folder)
    with _temporary(folder, ".tmp-avseg-") as temporary:
        yield temporary
        complete = temporary.with_name(temporary.name.replace(".tmp-", ".new-", 1))
        with _undisturbed():
            os.replace(temporary, complete)
            try:
                _settle(complete)
            finally:
                shutil.rmtree(complete, ignore_errors=True)


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """Yield a new folder among the system's temporary ones, which is deleted at the end.

    Folders that killed processes left there are deleted too.

    Args:
        kind: What it is for, a word of small letters: it becomes part of the name.
    """
    with _temporary(Path(tempfile.gettempdir()), f"avseg-{kind}-tmp-") as temporary:
        yield temporary


def clear(folder: str | Path, deep: bool = False, every: bool = False) -> None:
    """Remove the temporary files that no living process needs, and finish what was begun with them.

    Args:
        folder: Where; it need not exist.
        deep: Also in folders below.
        every: Also what other versions and libraries left under names that begin with ``.tmp-``.
    """
    names = re.compile(r"\.tmp-.*") if every else _SCRATCH if Path(folder) == Path(tempfile.gettempdir()) else _OURS
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)  # .new- before .old-
    except OSError:
        return
    for entry in found:
        if names.fullmatch(entry.name) or _OURS.fullmatch(entry.name):
            _remove_if_left(Path(entry.path))
        elif deep and entry.is_dir(follow_symlinks=False):
            clear(entry.path, deep, every)


def tidy_again() -> None:
    """Let whatever is written next look again for what was left in its folder, as a new process does."""
    _TIDIED.clear()


@contextmanager
def _temporary(folder: Path, prefix: str, suffix: str | None = None) -> Iterator[Path]:
    """A temporary file, or a folder where there is no suffix, locked while the block runs and then removed."""
    folder.mkdir(parents=True, exist_ok=True)
    # Once: some folders hold hundreds of thousands of files, each of which is written in this way.
    if str(folder.absolute()) not in _TIDIED:
        _TIDIED.add(str(folder.absolute()))
        clear(folder)
    made: list[tuple[Path, int | None]] = []
    try:
        with _undisturbed():
            made.append(_create(folder, prefix, suffix))
        yield made[0][0]
    finally:
        with _undisturbed():
            for path, handle in made:
                _discard(path)
                if handle is not None:
                    os.close(handle)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM until what must not be left half done is done."""
    came: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        known = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in known.items() if handler is not None}  # Python's own
        for number in before:
            signal.signal(number, lambda got, _: came.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _create(folder: Path, prefix: str, suffix: str | None) -> tuple[Path, int | None]:
    while True:
        if suffix is None:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
            try:
                handle = None if fcntl is None else os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # somebody cleared up before it could be locked
                continue
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=folder)
            path = Path(name)
        if handle is None or fcntl is None:
            if handle is not None:
                os.close(handle)
            return path, None
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.lexists(path):
            return path, handle
        os.close(handle)  # somebody cleared up between the first step and the second


def _remove_if_left(path: Path) -> None:
    if fcntl is None:
        return
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(handle)
            if found.st_uid == os.geteuid() and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an OSError where somebody holds it
                _discard(path)
        finally:
            os.close(handle)


def _discard(path: Path) -> None:
    """Remove a temporary file or folder; what is complete moves on, and what was to be replaced comes back."""
    if path.is_dir():
        if path.name.startswith(".new-"):
            _settle(path)
        elif path.name.startswith(".old-"):
            for was in path.iterdir():
                if not os.path.lexists(path.parent / was.name):
                    os.replace(was, path.parent / was.name)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _settle(complete: Path) -> None:
    for item in sorted(complete.iterdir()):
        place = complete.parent / item.name
        if item.is_dir():
            place.mkdir(exist_ok=True)
            for inner in sorted(item.iterdir()):
                _take_name(inner, place / inner.name)
            clear(place)
        else:
            _take_name(item, place)


def _take_name(fresh: Path, place: Path) -> None:
    if place.is_dir():
        with _undisturbed(), _temporary(place.parent, ".old-avseg-") as old:
            os.replace(place, old / place.name)
            os.replace(fresh, place)
    else:
        os.replace(fresh, place)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(json_bytes(value, indent=2))


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """``value`` as a line of UTF-8 JSON, or as indented lines.

    What isn't UTF-8 in the name of a file becomes an escape such as ``\\udce9``, which Python reads as the same name.
    """
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _umask() -> int:
    # It can only be read by setting it, and it is the whole process's.
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask
