"""``avseg bench``: how fast avseg is here, against a plain reference."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt

import avseg
from avseg.commands.console import note
from avseg.commands.parser import Parser
from avseg.errors import AvsegError


def bench_parser() -> Parser:
    parser = Parser(
        "avseg bench",
        "[options]",
        "Measure speed and memory of models, training steps, data and video, against a plain reference with the same "
        "weights in the same run. Close other programs: with a busy machine, numbers say little.",
        "avseg bench --quick\navseg bench --only attention,forward --threads 2 --json bench.json",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument(
        "--only",
        type=str | None,
        metavar="GROUP,...",
        help="some of startup, attention, forward, step, flops, loader, prepare, segment; all if not given",
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases and fewer samples")
    parser.add_argument(
        "--threads", type=PositiveInt | None, help="threads of PyTorch and OpenCV; as usual if not given"
    )
    parser.add_argument(
        "--repeats", type=PositiveInt | None, help="samples of each function; 7 if not given, 3 if quick"
    )
    parser.add_argument(
        "--options",
        type=str,
        metavar="OPTION,...",
        default="eager",
        help="ways to run a model, compared: eager, channels_last, bf16, compile, or sums such as bf16+compile",
    )
    parser.add_argument("--json", type=str | None, metavar="FILE", help="also write all numbers there")
    parser.add_argument("--plot", type=str | None, metavar="FILE", help="also draw them, to a .png or .svg")
    return parser


def _find_benchmarks() -> None:
    """Make the package `benchmarks` importable, which comes with a checkout of the repository only.

    Raises:
        AvsegError: avseg was installed without one.
    """
    root = Path(avseg.__file__).parents[1]
    if not (root / "benchmarks" / "suite.py").is_file():
        raise AvsegError(
            "the benchmarks come with a checkout of avseg's repository, not with this installation: clone it and "
            "install it with `pip install --editable .`."
        )
    if str(root) not in sys.path:
        sys.path.append(str(root))


def bench(options: Any) -> int:
    _find_benchmarks()
    from avseg.files import check_file, write_json
    from avseg.inference import choose_device
    from benchmarks.options import check
    from benchmarks.plot import check_format, plot
    from benchmarks.suite import chosen, run
    from benchmarks.table import report
    from benchmarks.timing import Settings

    only = [] if options.only is None else options.only.split(",")
    ways = tuple(dict.fromkeys(["eager", *options.options.split(",")]))
    chosen(only)
    check(ways)
    if options.plot is not None:
        check_format(Path(options.plot))
    for file in (options.json, options.plot):
        if file is not None:
            check_file(file)
    device = str(choose_device(options.device))
    keep = None if options.json is None else partial(write_json, Path(options.json))
    result = run(Settings.of(device, options.threads, options.repeats, options.quick, ways, note), only, keep)
    print(report(result))
    if options.plot is not None:
        plot(result, Path(options.plot))
    return 0
