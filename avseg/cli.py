"""The command ``avseg``: finds the command that was asked for, runs it, and turns failures into one sentence."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from avseg import __version__
from avseg.commands.console import told
from avseg.errors import AvsegError
from avseg.files import tidy_again

# Name -> module in avseg.commands, function there (whose parser is FUNCTION_parser), one line of help.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("learning", "demo", "see the whole job run on a small generated benchmark"),
    "data synth": ("data", "synth", "write the generated benchmark"),
    "data stamps": ("data", "stamps", "fetch images and sounds for the generated benchmark"),
    "data prepare": ("data", "prepare", "turn raw videos into frames, sound and flow"),
    "data check": ("data", "check", "list what is missing or broken in prepared data"),
    "data mine": ("selection", "mine", "pick distant frames for MS3 from a folder like VGGSound's"),
    "data annotate": ("annotate", "annotate", "make labels of your own videos by machine"),
    "data labels": ("selection", "labels", "write nested subsets of the labels"),
    "train": ("learning", "train", "train a model, with or without unlabelled frames"),
    "evaluate": ("learning", "evaluate", "score a model on a split"),
    "compare": ("learning", "compare", "is one model better than another?"),
    "reproduce": ("reproduce", "reproduce", "run the paper's tables and print ours beside the paper's"),
    "segment": ("segment", "segment", "mark what sounds in videos"),
    "app": ("app", "app", "do the same in the browser"),
    "convert": ("models", "convert", "make a published checkpoint a model of avseg's"),
    "bench": ("bench", "bench", "measure speed and memory against a plain reference"),
    "models": ("models", "models", "list models that are here, and published ones"),
    "models download": ("models", "download", "fetch published models by name"),
    "doctor": ("doctor", "doctor", "tell what is installed here and what is missing"),
}

FAILED = 1
USAGE_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows ``avseg``; None takes the process's own.

    Returns:
        The exit code: 0, 1 after a failure, 2 after a wrong use, 130 after Ctrl-C, 143 after SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    tidy_again()
    with _ending_well() as ended:
        code = _outcome(arguments)
    return TERMINATED if ended else code


def _outcome(arguments: list[str]) -> int:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be anything
    try:
        with _notes_only():
            return _run(arguments)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, KeyboardInterrupt):  # Lightning leaves by itself
            return _interrupted()
        return leaving.code if isinstance(leaving.code, int) else FAILED if leaving.code else 0
    except AvsegError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _interrupted()
    except OSError as error:
        _let_go_of_output()
        if isinstance(error, BrokenPipeError):  # whoever read the output has left, as `head` does
            return FAILED
        if error.strerror is None:
            raise
        return _fail(told(error))


def _run(arguments: list[str]) -> int:
    if not arguments:
        sys.stderr.write(_overview())
        return USAGE_ERROR
    if arguments[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"avseg {__version__}\n")
        return 0
    for length in (2, 1):
        name = " ".join(arguments[:length])
        if name in COMMANDS:
            module_name, function, _ = COMMANDS[name]
            module = import_module(f"avseg.commands.{module_name}")
            parser = getattr(module, f"{function}_parser")()
            code: int = getattr(module, function)(parser.parse_args(arguments[length:]))
            sys.stdout.flush()
            return code
    return _unknown(arguments)


def _unknown(arguments: list[str]) -> int:
    """A group of commands (``avseg data``), or something that is no command."""
    import difflib

    group = arguments[0]
    members = [name for name in COMMANDS if name.startswith(f"{group} ")]
    if members and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        (sys.stdout if len(arguments) > 1 else sys.stderr).write(_overview(group))
        return 0 if len(arguments) > 1 else USAGE_ERROR
    asked = " ".join(arguments[:2]) if members else group
    near = difflib.get_close_matches(asked, members or [*COMMANDS, "data"], 1)
    mend = f"did you mean 'avseg {near[0]}'?" if near else f"there are {', '.join(members or COMMANDS)}."
    what = "an option" if asked.startswith("-") else "a command"
    sys.stderr.write(f"avseg: error: '{asked}' is not {what}: {mend}\nSee: avseg --help\n")
    return USAGE_ERROR


def _overview(group: str = "") -> str:
    """Help for ``avseg``, or for a group of commands."""
    if group:
        head = f"usage: avseg {group} COMMAND ...\n\nWrite, fetch, prepare, check and choose data.\n"
        example = "avseg data synth bench --videos 200\n  avseg data prepare bench"
    else:
        head = (
            "usage: avseg COMMAND ...\n\nAudio-visual segmentation: mark, in every frame of a video, the pixels of the "
            "\nobjects that make the sound.\n"
        )
        example = "avseg demo\n  avseg segment concert.mp4"
    lines = [f"  {name:<17}{line}" for name, (_, _, line) in COMMANDS.items() if name.startswith(group)]
    tail = "options:\n  -h, --help       show this help; COMMAND --help shows a command's\n"
    if not group:
        tail += "  --version        show the version\n"
    return f"{head}\ncommands:\n" + "\n".join(lines) + f"\n\n{tail}\nexample:\n  {example}\n"


def _interrupted() -> int:
    # A terminal shows ^C where the cursor stands.
    sys.stderr.write(f"{os.linesep if sys.stderr.isatty() else ''}avseg: interrupted\n")
    return INTERRUPTED


def _let_go_of_output() -> None:
    """Where output can't be written, keep Python from complaining of it once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(sentence: str) -> int:
    sys.stderr.write(f"avseg: error: {sentence.removesuffix('.')}.\n")
    return FAILED


@contextmanager
def _ending_well() -> Iterator[list[int]]:
    """Let SIGTERM unwind as Ctrl-C does, so that temporary files go; a second one kills. Yields what has come."""
    came: list[int] = []
    owner = os.getpid()

    def end(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:  # a worker that was forked from here
            os.kill(os.getpid(), number)
        came.append(number)
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _notes_only() -> Iterator[None]:
    """Show avseg's own warnings as notes. Those of libraries are for developers: they need ``python -W``."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
            if category.__module__.startswith("avseg"):
                sys.stderr.write(f"avseg: note: {message}\n")
            elif sys.warnoptions:
                before(message, category, *where, **more)

        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
