"""What commands show: notes, errors, tables."""

import errno
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


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


def agreed(question: str) -> bool:
    """Put a question to whoever sits at the terminal; no where nobody does, or for any answer but yes."""
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question}\nDownload? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show(table: "RenderableType") -> None:
    """Print a table, or what else rich can, at least 80 columns wide."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    console.width = max(80, console.width)
    console.print(table)
    sys.stdout.flush()
