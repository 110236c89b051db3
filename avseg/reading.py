"""Reading JSON and YAML that anybody may have written: bounded in size and depth, and one sentence where it fails."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError

JSON_BYTES = 32 * 2**20  # what Python makes of the worst of them takes some 30 times that
CONFIG_BYTES = 2 * 2**20  # of a model
YAML_BYTES = 128 * 2**10
DEEPEST = 64  # lists and mappings within each other


def read_json(path: str | Path, mend: str, most: int = JSON_BYTES) -> Any:
    """The value in a JSON file.

    Args:
        path: The file, in UTF-8.
        mend: What to do where it can't be read; ends the message.
        most: Its largest size in bytes.

    Raises:
        AvsegError: no regular file, too large, not UTF-8, not JSON, a name that a mapping has twice, or more than 64
            levels.
    """
    try:
        return parse_json(_text(Path(path), most))
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({_reason(error)}): {mend}.") from None
    except ValueError as error:
        raise AvsegError(f"{path} is not readable JSON ({_reason(error)}): {mend}.") from None


def read_json_lines(path: str | Path, mend: str, most: int = 4 * JSON_BYTES) -> list[tuple[int, Any]]:
    """The number and the value of every line that isn't empty, in a file of one JSON value a line; see `read_json`."""
    found = []
    number = 0
    try:
        for number, line in enumerate(_text(Path(path), most).splitlines(), start=1):
            if line.strip():
                found.append((number, parse_json(line)))
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({_reason(error)}): {mend}.") from None
    except ValueError as error:
        where = f", line {number}," if number else ""
        raise AvsegError(f"{path}{where} is not readable JSON ({_reason(error)}): {mend}.") from None
    return found


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: with the reason in words: not JSON, a name that a mapping has twice, or more than 64 levels.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [item for outer in level for item in _inside(outer) if isinstance(item, (list, dict))]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def read_yaml(path: str | Path, mend: str = "correct it", most: int = YAML_BYTES) -> Any:
    """The value in a YAML file. Aliases are refused: a few lines of them stand for more than fits in memory.

    Args:
        path: The file, in UTF-8.
        mend: What to do where it can't be read; ends the message.
        most: Its largest size in bytes.

    Raises:
        AvsegError: no regular file, too large, not UTF-8, not YAML, an alias, a name that a mapping has twice, or more
            than 64 levels.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = _text(Path(path), most)
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"line {event.start_mark.line + 1} has the alias *{event.anchor}; write the value out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError("it is nested too deeply")
        _names_once(yaml.compose(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "context_mark", None) or getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise AvsegError(f"{path}: the file is not YAML that can be read{where}: {mend}.") from None
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({_reason(error)}): {mend}.") from None
    except (ValueError, OverflowError) as error:
        raise AvsegError(f"{path}: the file is not YAML that can be read ({_reason(error)}): {mend}.") from None


def read_sections(path: str | Path) -> None:
    """Read a configuration's file as far as to know that a parser can: sections of names with values.

    Raises:
        AvsegError: see `read_yaml`; or something else than named values.
    """
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise AvsegError(f"{path} is no configuration: it should hold sections such as `model:`, as configs/ do.")


@contextmanager
def parsing(arguments: Sequence[str]) -> Iterator[None]:
    """Turn what a parser of arguments and YAML did not expect, such as numbers of hundreds of digits, into a sentence.

    Raises:
        AvsegError: in the place of such an error.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        suspect = next((text for text in arguments if re.search(r"\d{20}", text)), "a value")
        raise AvsegError(f"{suspect:.60} can't be read ({error!s:.100}): see avseg train --help.") from error


def _text(path: Path, most: int) -> str:
    if path.exists() and not path.is_file():  # a pipe or a device may never end
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most / 2**20:g} MiB")
    return data.decode("utf-8-sig")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it isn't text in UTF-8"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _inside(outer: Any) -> Iterator[Any]:
    if isinstance(outer, dict):
        return iter(outer.values())
    return iter(outer if isinstance(outer, list) else ())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r:.60} twice")
    return values


def _names_once(node: Any) -> None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise ValueError(f"line {key.start_mark.line + 1} has {key.value!r:.60} a second time")
            names.add(key.value if isinstance(key, yaml.ScalarNode) else "")
            _names_once(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _names_once(item)
