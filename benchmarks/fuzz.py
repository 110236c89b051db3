"""Damaged files of every kind through the package's own readers, each in a process with limits of time and memory.

``python -m benchmarks.fuzz`` replays 540 seeded mutations and fails where one ends in a traceback, hangs or takes
too much memory. Needs Linux.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks import fuzz_readers
from benchmarks.fuzz_readers import Seed, damaged, prepare

OUTCOMES = ("clean", "result", "traceback", "hang", "memory")
BAD = OUTCOMES[2:]
READERS = ("mp4", "wav", "png", "csv", "json", "pickle", "safetensors", "config.json", "YAML")
SECONDS = 20  # of computing; the clock may show six times as many on a busy machine
BYTES = 2 * 2**30  # above what the process began with


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        reader: Which kind of file.
        index: Which of its cases; -1 is a whole file.
        outcome: ``clean`` (one sentence), ``result``, ``traceback`` (any other end), ``hang`` or ``memory``.
        told: The sentence, the result or the traceback.
        seconds: Of computing.
        megabytes: The peak above what the process began with.
    """

    reader: str
    index: int
    outcome: str
    told: str
    seconds: float
    megabytes: float


@dataclass
class _Child:
    reader: str
    index: int
    pipe: int
    folder: Path
    began: float
    base: int
    killed: str = ""
    said: bytes = b""


def fuzz(
    seed: int = 0, count: int = 540, only: tuple[str, ...] = READERS, workers: int = 2, one: int | None = None
) -> list[Outcome]:
    """Run ``count`` cases, shared out evenly over the readers, and each reader's whole files before them.

    Args:
        seed: Of the mutations.
        count: Of the cases.
        only: Which readers.
        workers: Processes at a time.
        one: The only case of each reader to run.

    Raises:
        RuntimeError: a whole file was refused, so that damaged ones would tell nothing.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="avseg-fuzz-") as scratch:
        template = Path(scratch) / "whole"
        seeds = prepare(template)
        fuzz_readers.segmenter()
        # The last of each place: some are listed more often, to be damaged more often.
        whole = [
            (r, -1 - number) for r in only for number in {seed.path: i for i, seed in enumerate(seeds[r])}.values()
        ]
        cases = [(only[number % len(only)], number // len(only)) for number in range(count)]
        cases = cases if one is None else [(reader, one) for reader in only]
        for part in (whole, cases):
            found += _all(part, seed, seeds, Path(scratch), workers)
            for outcome in found if part is whole else ():
                if outcome.outcome != "result":
                    raise RuntimeError(f"a whole file failed: {outcome}")
    return [outcome for outcome in found if outcome.index >= 0]


def _all(
    cases: list[tuple[str, int]], seed: int, seeds: dict[str, list[Seed]], scratch: Path, workers: int
) -> list[Outcome]:
    waiting, running = list(reversed(cases)), dict[int, _Child]()
    found: dict[tuple[str, int], Outcome] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            pid, child = _start(*waiting.pop(), seed, seeds, scratch)
            running[pid] = child
        for pid, child in list(running.items()):
            outcome = _look(pid, child)
            if outcome is not None:
                del running[pid]
                shutil.rmtree(child.folder, ignore_errors=True)
                found[child.reader, child.index] = outcome
        time.sleep(0.005)
    return [found[case] for case in cases]


def _start(reader: str, index: int, seed: int, seeds: dict[str, list[Seed]], scratch: Path) -> tuple[int, _Child]:
    """A case in a copy of this process, which has everything imported and can be ended."""
    read, write = os.pipe()
    folder = Path(tempfile.mkdtemp(dir=scratch))
    pid = os.fork()
    if pid:
        os.close(write)
        os.set_blocking(read, False)
        return pid, _Child(reader, index, read, folder, time.monotonic(), _resident(pid))
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        chosen = seeds[reader]
        rng = np.random.default_rng([seed, READERS.index(reader), max(index, 0)])
        one = chosen[-1 - index] if index < 0 else chosen[int(rng.integers(len(chosen)))]
        data = (scratch / "whole" / one.path).read_bytes()
        data = data if index < 0 else damaged(reader, one, data, rng)
        os.write(write, json.dumps(fuzz_readers.run(one, scratch / "whole", folder, data)).encode())
    finally:
        os._exit(0)


def _look(pid: int, child: _Child) -> Outcome | None:
    """End a case that takes too much; tell of one that has ended."""
    if not child.killed:
        if _resident(pid) - child.base > BYTES:
            child.killed = "memory"
        elif time.monotonic() - child.began > 6 * SECONDS:
            child.killed = "hang"
        if child.killed:
            os.kill(pid, signal.SIGKILL)
    try:
        while part := os.read(child.pipe, 2**16):
            child.said += part
    except BlockingIOError:
        pass
    ended, status, usage = os.wait4(pid, os.WNOHANG)
    if not ended:
        return None
    try:
        while part := os.read(child.pipe, 2**16):
            child.said += part
    except BlockingIOError:
        pass
    os.close(child.pipe)
    grown = usage.ru_maxrss * 1024 - child.base
    if child.killed:
        outcome, told = child.killed, ""
    elif os.WIFSIGNALED(status):
        ended_by = os.WTERMSIG(status)
        outcome = "hang" if ended_by == signal.SIGXCPU else "traceback"
        told = f"ended by {signal.Signals(ended_by).name}"
    else:
        outcome, told = json.loads(child.said or b'["traceback", "it said nothing"]')
    if grown > BYTES:
        outcome = "memory"
    seconds = usage.ru_utime + usage.ru_stime
    return Outcome(child.reader, child.index, outcome, told, round(seconds, 2), round(max(0, grown) / 1e6))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def table(found: list[Outcome]) -> str:
    """Outcomes by reader, in Markdown."""
    rows = [f"| reader | cases | {' | '.join(OUTCOMES)} | longest | most memory |", "|---" * (len(OUTCOMES) + 4) + "|"]
    for reader in (*READERS, "all"):
        mine = [one for one in found if reader in (one.reader, "all")]
        if mine:
            counts = Counter(one.outcome for one in mine)
            figures = " | ".join(str(counts[name]) for name in OUTCOMES)
            most = f"{max(one.seconds for one in mine):.1f} s | {max(one.megabytes for one in mine):.0f} MB"
            rows.append(f"| {reader} | {len(mine)} | {figures} | {most} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="other mutations")
    parser.add_argument("--count", type=int, default=540, help="cases in all")
    parser.add_argument("--only", default=",".join(READERS), help="readers, with commas between them")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--json", help="also write every case there")
    parser.add_argument("--case", type=int, help="only this case of each reader")
    options = parser.parse_args()
    found = fuzz(options.seed, options.count, tuple(options.only.split(",")), options.workers, options.case)
    bad = [one for one in found if one.outcome in BAD]
    for one in bad:
        print(f"--- {one.outcome}: {one.reader} case {one.index} of seed {options.seed}\n{one.told}", file=sys.stderr)
    print(table(found))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
