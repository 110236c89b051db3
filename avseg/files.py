"""Writing files so that what exists under a real name is whole."""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError

_UMASK = threading.Lock()


def check_file(path: str | Path) -> None:
    """Find out before long work whether its result can have the name ``path``; nothing is written.

    Raises:
        AvsegError: it names a folder, lies below a file, or where nothing may be written.
    """
    path = Path(path)
    if path.is_dir():
        raise AvsegError(f"{path} is a folder, and a file is to be written: name a file.")
    above = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise AvsegError(f"{path} would lie below {above}, which is a file: name a file in a folder.")
    if above is not None and not os.access(above, os.W_OK):
        raise AvsegError(f"{path} can't be written, since {above} is read-only: name a file elsewhere.")


def check_folder(path: str | Path) -> None:
    """The same for a folder of results, which may be there already.

    Raises:
        AvsegError: it is a file, lies below one, or is where nothing may be written.
    """
    above = next((place for place in (Path(path), *Path(path).absolute().parents) if place.exists()), None)
    if above is not None and not above.is_dir():
        raise AvsegError(f"{above} is a file, and a folder is needed there: name another.")
    if above is not None and not os.access(above, os.W_OK):
        raise AvsegError(f"{path} can't be written, since {above} is read-only: name a folder elsewhere.")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name once the block has ended well.

    The temporary name keeps the suffix, which libraries use to choose a format. When the block raises,
    the temporary file is removed and whatever stood at ``path`` before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """The same for a folder: what stood at ``path`` is replaced only once the new one is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=path.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=path.parent))
            os.replace(path, old / "was")
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _umask() -> int:
    # It can only be read by setting it, and it is the whole process's.
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask
