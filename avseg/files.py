"""Writing files so that what exists under a real name is whole, and reading ones that anybody may have written."""

import codecs
import errno
import json
import os
import shutil
import stat
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


def read_bytes(path: str | Path, most: int, cut: bool = False) -> bytes:
    """The bytes of a regular file: a pipe or a device, which may never end, is refused.

    Args:
        path: The file.
        most: Bytes that it may have.
        cut: Read no more than ``most`` bytes of a longer one rather than to refuse it.

    Raises:
        OSError: no such file, no regular one, or a longer one; ``strerror`` says which.
    """
    # Opening a pipe would wait for whoever writes to it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        data = file.read(most + 1)
    if len(data) > most and not cut:
        raise OSError(errno.EFBIG, f"it is larger than {most / 2**20:,.0f} MB", str(path))
    return data[:most]


def read_text(path: str | Path, most: int = 2**26) -> str:
    """The text of a regular file in UTF-8, with or without its mark, or in UTF-16 with its mark.

    Raises:
        OSError: as `read_bytes`.
        ValueError: another encoding, or NUL characters; the message begins with the line.
    """
    data = read_bytes(path, most)
    marked = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not text in {'UTF-16' if marked else 'UTF-8'}") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"line {line} holds a NUL character and so is not text in UTF-8")
    return text


def read_json(path: str | Path) -> Any:
    """The value in a regular file of JSON.

    Raises:
        OSError: as `read_bytes`.
        ValueError: no JSON in UTF-8, or JSON that is nested too deep.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


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
