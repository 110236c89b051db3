"""Reading what `avseg bench --json` has written."""

import json
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError

FORMAT_VERSION = 1
GROUPS = ("startup", "attention", "forward", "step", "flops", "loader", "prepare", "segment")


def read_result(path: str | Path) -> dict[str, Any]:
    """A result with ``machine``, ``settings``, ``rows`` and ``goals``.

    Raises:
        AvsegError: no such file, or something else.
    """
    path = Path(path)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AvsegError(
            f"{path} cannot be read ({error.strerror}): give a file that `avseg bench --json` wrote."
        ) from error
    except ValueError as error:
        raise AvsegError(f"{path} is not JSON ({error}): give a file that `avseg bench --json` wrote.") from error
    if not isinstance(result, dict) or result.get("format_version") != FORMAT_VERSION:
        raise AvsegError(
            f"{path} is not a result of this version's benchmark: write it again with `avseg bench --json`."
        )
    return result
