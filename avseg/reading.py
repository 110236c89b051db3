"""Reading what anybody may have written: bounded in size and depth, and one sentence where it fails."""

import codecs
import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avseg.errors import AvsegError

TEXT_BYTES = 32 * 2**20  # VGGSound's list has 12
JSON_BYTES = 32 * 2**20  # what Python makes of the worst of them takes some 30 times that
CONFIG_BYTES = 2 * 2**20  # of a model
YAML_BYTES = 128 * 2**10
_SECTIONS = ("config", "data", "model", "weights", "perturb", "ufe", "optim", "run", "inputs")
DEEPEST = 64  # lists and mappings within each other


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
        raise OSError(errno.EFBIG, f"it has more than {most / 2**20:g} MiB", str(path))
    return data[:most]


def read_text(path: str | Path, most: int = TEXT_BYTES, utf16: bool = True) -> str:
    """The text of a regular file in UTF-8, with or without its mark, or in UTF-16 with its mark.

    Args:
        path: The file.
        most: Bytes that it may have.
        utf16: Whether UTF-16 will do.

    Raises:
        OSError: as `read_bytes`.
        ValueError: another encoding, or NUL characters; the message begins with the line.
    """
    data = read_bytes(path, most)
    marked = utf16 and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not text in {'UTF-16' if marked else 'UTF-8'}") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"line {line} holds a NUL character and so is not text in UTF-8")
    return text


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
        return parse_json(read_text(path, most))
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({reason(error)}): {mend}.") from None
    except ValueError as error:
        raise AvsegError(f"{path} is not readable JSON ({reason(error)}): {mend}.") from None


def read_json_lines(path: str | Path, mend: str, most: int = 4 * JSON_BYTES) -> list[tuple[int, Any]]:
    """The number and the value of every line that isn't empty, in a file of one JSON value a line; see `read_json`."""
    found = []
    number = 0
    try:
        for number, line in enumerate(read_text(path, most).splitlines(), start=1):
            if line.strip():
                found.append((number, parse_json(line)))
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({reason(error)}): {mend}.") from None
    except ValueError as error:
        where = f", line {number}," if number else ""
        raise AvsegError(f"{path}{where} is not readable JSON ({reason(error)}): {mend}.") from None
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
        text = read_text(path, most, utf16=False)  # what parses options reads the file itself
        _check_events(text)
        _names_once(yaml.compose(text, Loader=loader))
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "context_mark", None) or getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise AvsegError(f"{path}: the file is not YAML that can be read{where}: {mend}.") from None
    except OSError as error:
        raise AvsegError(f"{path} cannot be read ({reason(error)}): {mend}.") from None
    except (ValueError, OverflowError) as error:
        raise AvsegError(f"{path}: the file is not YAML that can be read ({reason(error)}): {mend}.") from None


def _check_events(text: str) -> None:
    """ValueError where YAML has an alias or is nested too deeply; nothing is made of it."""
    import yaml

    depth, anchors = 0, set()
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) and event.anchor in anchors:  # others may be names, and make no YAML
            raise ValueError(f"line {event.start_mark.line + 1} has the alias *{event.anchor:.40}; write the value out")
        anchors.add(getattr(event, "anchor", None))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")


def read_sections(path: str | Path) -> None:
    """Read a configuration's file as far as to know that a parser can: sections of names with values.

    Raises:
        AvsegError: see `read_yaml`; or something else than named values.
    """
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise AvsegError(f"{path} is no configuration: it should hold sections such as `model:`, as configs/ do.")
    for section in (values, *(inner for inner in values.values() if isinstance(inner, dict))):
        named = [name for name in _SECTIONS if isinstance(section.get(name), str)]
        if named:  # a parser would read a file of that name, which nobody has looked at
            raise AvsegError(f"{path} has a text as {named[0]}, which is a section: write its fields there.")


@contextmanager
def parsing(arguments: Sequence[str]) -> Iterator[None]:
    """Turn what a parser of arguments and YAML did not expect, such as numbers of hundreds of digits, into a sentence.

    Arguments that would be YAML with aliases, or nested too deeply, are refused before they are parsed.

    Raises:
        AvsegError: in the place of such an error.
    """
    import yaml

    for text in arguments:
        try:
            _check_events(text.partition("=")[2] if text.startswith("--") else text)
        except (yaml.YAMLError, UnicodeError):
            continue  # no YAML, but a name perhaps
        except ValueError as error:
            raise AvsegError(f"{text:.60} can't be read ({error}).") from None
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        suspect = next((text for text in arguments if re.search(r"\d{20}", text)), "a value")
        raise AvsegError(f"{suspect:.60} can't be read ({error!s:.100}): see avseg train --help.") from error


def reason(error: Exception) -> str:
    """Why a file couldn't be read, in words."""
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
