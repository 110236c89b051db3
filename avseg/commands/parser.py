"""The argument parser of every command: short usage, help with an example, errors in one sentence."""

import argparse
import difflib
import os
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, OpenUnitInterval, PositiveFloat, PositiveInt

from avseg.config import find_config
from avseg.errors import AvsegError
from avseg.reading import parsing, read_sections

USAGE_ERROR = 2

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a name or text",
    type(None): "null",
    PositiveFloat: "a number above 0",
    NonNegativeFloat: "a number of 0 or more",
    PositiveInt: "a whole number of 1 or more",
    NonNegativeInt: "a whole number of 0 or more",
    OpenUnitInterval: "a number between 0 and 1",
}


class _Formatter(DefaultHelpFormatter):
    """Help with defaults but without Python's types."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=26)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help
        if not text or text == argparse.SUPPRESS or not action.option_strings:
            return text or ""
        default = getattr(action, "default", None)
        if default in (None, "", argparse.SUPPRESS) or action.nargs == 0:
            return text
        if isinstance(default, bool):
            default = str(default).lower()
        elif isinstance(default, (tuple, list)):
            default = "[" + ",".join(str(item) for item in default) + "]"
        return f"{text} (default: {default})"

    def _split_lines(self, text: str, width: int) -> list[str]:
        plain = " ".join(text.replace("``", "").split())
        return textwrap.wrap(plain, width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(ArgumentParser):
    """An argument parser that speaks to people.

    Args:
        command: The command's full name, such as ``avseg data check``.
        usage: What follows it.
        description: What the command does.
        example: Lines that work as they stand.
    """

    def __init__(self, command: str = "", usage: str = "", description: str = "", example: str = "", **more: Any):
        lines = "\n".join(f"  {line}" for line in example.strip().splitlines())
        super().__init__(
            prog=command,
            usage=f"{command} {usage}",
            description=description,
            formatter_class=_Formatter,
            allow_abbrev=False,  # a shortened name would change its meaning when an option is added
            **more,
        )
        self.command = command
        self.example = f"\nexample:\n{lines}\n" if lines else ""
        self.arguments: list[str] = []

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> Any:  # type: ignore[override]
        """As `ArgumentParser.parse_args`; the arguments are kept, so that an error can name where it comes from."""
        self.arguments = _with_bundled_configs(list(sys.argv[1:] if args is None else args))
        try:
            for file in _config_files(self, self.arguments):
                read_sections(file)
            with parsing(self.arguments):
                return super().parse_args(self.arguments, *rest, **more)
        except AvsegError as error:
            self._leave(str(error))

    def format_help(self, *args: Any) -> str:
        """Help in plain text (docstrings mark code with double backticks), the example last and not rewrapped."""
        width = shutil.get_terminal_size().columns
        lines = []
        for line in super().format_help(*args).replace("``", "").splitlines():
            # argparse does not wrap the titles of groups.
            title = not line.startswith((" ", "usage:")) and len(line) > width
            lines += textwrap.wrap(line, width) if title else [line]
        return "\n".join(lines) + "\n" + self.example

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one sentence about what was asked wrongly and leave with exit code 2."""
        known = _options(self)
        sentence = _sentence(message, known, self, self.arguments)
        config = _value_of("--config", self.arguments)
        typed = [text.split("=")[0] for text in self.arguments if text.startswith("--") and text != "--config"]
        if config and config not in sentence and not any(text in sentence for text in typed):
            sentence = f"{config}: {sentence.replace('--', '')}"
        self._leave(sentence)

    def _leave(self, sentence: str) -> NoReturn:
        sys.stderr.write(f"avseg: error: {sentence}\nSee: {self.command} --help\n")
        sys.exit(USAGE_ERROR)


def add_engine(parser: Parser) -> None:
    """The options that say on which machines work is done; see `avseg.data.cluster.cluster_of`."""
    parser.add_argument(
        "--engine",
        type=Literal["local", "ray"],
        default="local",
        help="local: processes of this machine; ray: a Ray cluster, whose machines share the files (avseg[ray])",
    )
    parser.add_argument(
        "--address",
        type=str | None,
        help="of the Ray cluster: auto, HOST:6379 or ray://HOST:10001; one is started on this machine if not given",
    )


def _options(parser: ArgumentParser) -> dict[str, argparse.Action]:
    return {text: action for action in parser._actions for text in action.option_strings}


def _config_files(parser: ArgumentParser, arguments: list[str]) -> list[str]:
    """YAML files that the arguments name: of a whole configuration, or of a section."""
    kinds = ("ActionConfigFile", "_ActionConfigLoad")
    names = [text for text, action in _options(parser).items() if type(action).__name__ in kinds]
    pairs = zip(arguments, [*arguments[1:], ""], strict=False)
    given = [after if text in names else text.partition("=")[2] for text, after in pairs if text.split("=")[0] in names]
    return [file for file in given if os.path.isfile(file)]


def _with_bundled_configs(arguments: list[str]) -> list[str]:
    """The arguments, with the path of a configuration that comes with avseg in place of its name."""
    found = list(arguments)
    for i, text in enumerate(arguments):
        if text.startswith("--config="):
            found[i] = f"--config={find_config(text.removeprefix('--config='))}"
        elif i and arguments[i - 1] == "--config":
            found[i] = str(find_config(text))
    return found


def _value_of(option: str, arguments: list[str]) -> str | None:
    for index, text in enumerate(arguments):
        if text == option and index + 1 < len(arguments):
            return arguments[index + 1]
        if text.startswith(f"{option}="):
            return text[len(option) + 1 :]
    return None


def _sentence(message: str, known: dict[str, argparse.Action], parser: ArgumentParser, arguments: list[str]) -> str:
    """jsonargparse's message about a mistake as one sentence that names the option and the mend."""
    flat = " ".join(message.split())
    if match := re.search(r"unrecognized arguments: (\S+)", flat, re.IGNORECASE):
        return _unknown(match[1], known)
    if match := re.search(r"(?:does not accept option|Option) '([^']+)'(?: is not accepted)?", flat):
        return _unknown(f"--{match[1]}", known)
    if match := re.search(r"following arguments are required: (.+)|Key \"([^\"]+)\" is required", flat):
        return _missing(match[1] or match[2], parser)
    if match := re.search(r"argument (\S+): invalid choice: '([^']*)'", flat, re.IGNORECASE):
        action = known.get(match[1]) or next((a for a in parser._actions if a.metavar == match[1]), None)
        return f"{match[1]} takes {describe(action)}, not {match[2]}."
    if match := re.search(r"argument (--\S+): expected one argument", flat):
        return f"{match[1]} needs a value: {describe(known.get(match[1]))}."
    if match := re.search(r"File does not exist: '([^']*)'", flat):
        typed = _value_of("--config", arguments)
        return f"{typed if typed and match[1].endswith(typed) else match[1]} does not exist: check the path."
    if match := re.search(r"Problems parsing config: (.*)", flat):
        where = re.search(r"line (\d+)", match[1])
        return f"the file is not YAML that can be read{f' (line {where[1]})' if where else ''}: correct it."
    if match := re.search(r'Parser key "([^"]+)":', flat):
        option = f"--{match[1]}" if f"--{match[1]}" in known else _name(match[1], parser)
        given = re.search(r"(?:Got value|Given value): (.*)$|Unable to load config ['\"](.*?)['\"]", flat)
        action = known.get(option) or next((a for a in parser._actions if a.dest == match[1]), None)
        text = next(text for text in given.groups() if text is not None) if given else _value_of(option, arguments)
        value = "" if text is None else f", not {text:.80}"
        return f"{option} takes {describe(action)}{value}."
    return flat[0].upper() + flat[1:] + ("" if flat.endswith(".") else ".")


def _unknown(option: str, known: dict[str, argparse.Action]) -> str:
    if option.startswith("-") and Path(option).exists():
        return f"{option} looks like an option: write ./{option} for the file of that name."
    option = option.split("=")[0]
    if not option.startswith("-"):
        return f"'{option}' is one argument too many: leave it out, or quote names that hold spaces."
    names = [text for text in known if text.startswith("--")]
    section, _, last = option.rpartition(".")
    for text in names:  # a value that was taken for a field
        if text.startswith(f"{section}.") and last in get_args(getattr(known[text], "_typehint", None)):
            return f"{option} is not an option here: did you mean {text} {last}?"
    near = _near(option, names)
    if near:
        return f"{option} is not an option here: did you mean {near}?"
    others = [text.rpartition(".")[2] for text in known if section and text.rpartition(".")[0] == section]
    return f"{option} is not an option here" + (f": {section} has {', '.join(others)}." if others else ".")


def _near(option: str, names: list[str]) -> str:
    """The one of ``names`` that was meant; empty where none is like it. Of dotted names the last parts decide."""
    section, _, last = option.rpartition(".")
    sections = difflib.get_close_matches(section, {name.rpartition(".")[0] for name in names}, 1) if section else []
    # Of a nested field in a file, the message may give the last part alone.
    for among in ([name for name in names if name.rpartition(".")[0] in sections], names):
        parts = {name.rpartition(".")[2].lstrip("-"): name for name in reversed(among)}
        found = difflib.get_close_matches(last.lstrip("-"), parts, 1, 0.7)
        if found:
            return parts[found[0]]
    return ""


def _name(dest: str, parser: ArgumentParser) -> str:
    """What a person types for the argument that is stored as ``dest``: an option, or a place in the usage."""
    action = next((a for a in parser._actions if a.dest == dest), None)
    if action is not None and action.option_strings:
        return action.option_strings[-1]
    return action.metavar if action is not None and isinstance(action.metavar, str) else dest.upper()


def _missing(names: str, parser: ArgumentParser) -> str:
    words = []
    for name in names.replace(",", " ").split():
        action = next((a for a in parser._actions if a.dest == name), None)
        words.append(f"--{name}" if action is None or action.option_strings else _name(name, parser))
    return f"{words[0]} is missing: add it." if len(words) == 1 else f"{' and '.join(words)} are missing: add them."


def describe(action: argparse.Action | None) -> str:
    """What values an option takes, in words."""
    if action is None:
        return "another value"
    if "Config" in type(action).__name__:
        return "the name of a YAML file"
    if action.choices:
        return " or ".join(str(choice) for choice in action.choices)
    hint = getattr(action, "_typehint", None) or action.type
    return _describe_type(hint, action.default)


def _describe_type(hint: Any, default: Any) -> str:
    origin = get_origin(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is Literal:
        return " or ".join(str(item) for item in get_args(hint))
    if origin in (Union, types.UnionType):
        return " or ".join(_describe_type(item, default) for item in get_args(hint))
    if origin in (tuple, list):
        some = default if isinstance(default, (tuple, list)) else (1, 2)
        return "a list such as [" + ",".join(str(item) for item in some) + "]"
    return "another value"
