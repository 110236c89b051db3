"""Runs `avseg` commands in processes that get a signal just before their n-th change of the file system.

Called as a script with a JSON file: the command of each process and the number of its change. All are forked from one
process, which has imported what they need, so that many of them take little time.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "tempfile.mkstemp", "tempfile.mkdtemp"}


def run_all(folder: Path, modules: Sequence[str], processes: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Exit code and number of changes of each process, one after the other.

    Args:
        folder: Where they run; its ``temporary`` is the system's temporary folder for them.
        modules: Imported beforehand.
        processes: ``command``, and where one is to be ended ``at`` and ``signal``.
    """
    (folder / "temporary").mkdir(exist_ok=True)
    plan = {"modules": list(modules), "processes": list(processes)}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(plan),
        cwd=folder,
        env={
            **os.environ,
            "TMPDIR": str(folder / "temporary"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder.parent / "compiler"),  # of PyTorch, to stay: not what is looked for
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return [tuple(row) for row in json.loads(done.stdout.splitlines()[-1])]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file with its bytes, and every folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _watch(at: int, how: int) -> list[int]:
    seen = [0]
    places = (os.getcwd(), tempfile.gettempdir())

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and os.path.abspath(os.fsdecode(arguments[0] or ".")).startswith(places):
            seen[0] += 1
            if seen[0] == at:
                os.kill(os.getpid(), how)

    sys.addaudithook(hook)
    return seen


def _one(process: Mapping[str, Any], out: int) -> None:
    from avseg.cli import main

    seen = _watch(process.get("at", 0), process.get("signal", 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = main(process["command"])
    os.write(out, str(seen[0]).encode())
    os._exit(code)


if __name__ == "__main__":
    plan = json.load(sys.stdin)
    import torch

    torch.set_num_threads(1)
    for name in plan["modules"]:
        import_module(name)
    rows = []
    for process in plan["processes"]:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _one(process, writer)
        os.close(writer)
        with os.fdopen(reader) as told:
            changes = int(told.read() or 0)
        rows.append((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), changes))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print(json.dumps(rows))
