"""Reading what `avseg bench --json` has written."""

from pathlib import Path
from typing import Any

from avseg.errors import AvsegError
from avseg.reading import read_json

FORMAT_VERSION = 1
GROUPS = ("startup", "attention", "forward", "step", "flops", "loader", "prepare", "segment")


def read_result(path: str | Path) -> dict[str, Any]:
    """A result with ``machine``, ``settings``, ``rows`` and ``goals``.

    Raises:
        AvsegError: no such file, or something else.
    """
    result = read_json(path, "give a file that `avseg bench --json` wrote")
    if not isinstance(result, dict) or result.get("format_version") != FORMAT_VERSION:
        raise AvsegError(
            f"{path} is not a result of this version's benchmark: write it again with `avseg bench --json`."
        )
    return result
