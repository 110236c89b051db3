"""Which results may stand beside each other: those of one recipe, one encoder, one protocol and the same data."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avseg.errors import AvsegError
from avseg.reproduce.records import Record

Place = tuple[str, str]
"""An experiment's name and the key of one of its cells."""


@dataclass(frozen=True)
class Choice:
    """Results that may be compared.

    Attributes:
        scale, encoder, protocol: What all of them share; scale and protocol are empty where there are none.
        data: What they were trained and tested on, by subset: all results of a subset share it.
        records: By place, one for each seed, in the order of seeds; places without results are left out.
        notes: What was left out, in sentences.
    """

    scale: str
    encoder: str
    protocol: str
    data: Mapping[str, Mapping[str, Any]]
    records: Mapping[Place, tuple[Record, ...]]
    notes: tuple[str, ...] = ()


def choose(
    records: Iterable[Record],
    places: Collection[Place],
    encoder: str,
    scale: str | None = None,
    data: Collection[str] = (),
    protocol: str | None = None,
) -> Choice:
    """Choose the results of some places that may be compared.

    Where results differ in scale, protocol, the size that masks were scored at or data, those of the most runs are
    chosen and a note names the others. Data are chosen for each subset apart. A place's seed and a run count once; of
    two results for one seed the newer one counts.

    Args:
        records: Results; those of other places don't matter.
        places: Which places to look at.
        encoder: The image encoder.
        scale: The recipe; None takes that of the most runs.
        data: Hashes of the data to take; a subset that has none of them takes those of the most runs.
        protocol: Such as ``T=1``; None takes that of the most runs.

    Raises:
        AvsegError: a hash of ``data`` that no result has.
    """
    wanted = set(places)
    found = [
        one
        for one in records
        if one.encoder == encoder
        and (one.experiment, one.cell) in wanted
        and scale in (None, one.scale)
        and protocol in (None, one.protocol)
    ]
    known = sorted({_hash(one) for one in found})
    for name in data:
        if name not in known:
            raise AvsegError(
                f"No result with {encoder} is of data with the hash {name}: choose {' or '.join(known) or 'none'}."
            )
    found, left_scales = _agree(found, "scale", lambda one: one.scale)
    found, left_protocols = _agree(found, "protocol", lambda one: one.protocol)
    found, left_sizes = _agree(found, "test scores at the size of the", lambda one: one.size)
    chosen: list[Record] = []
    notes = [*left_scales, *left_protocols, *left_sizes]
    scale, protocol = (found[0].scale, found[0].protocol) if found else (scale or "", protocol or "")
    used = {}
    for subset in sorted({one.subset for one in found}, reverse=True):
        of_subset = [one for one in found if one.subset == subset]
        kept, left = _agree(of_subset, f"{subset.upper()} data with the hash", _hash, data)
        used[subset] = kept[0].data
        chosen += kept
        notes += left
    places_of: dict[Place, list[Record]] = defaultdict(list)
    for one in chosen:
        places_of[one.experiment, one.cell].append(one)
    counted = {place: _each_once(found) for place, found in places_of.items()}
    return Choice(scale, encoder, protocol, used, counted, tuple(notes))


def _agree(
    records: list[Record], what: str, key: Callable[[Record], str], asked: Collection[str] = ()
) -> tuple[list[Record], list[str]]:
    """The records of one ``key``: one of those asked for, or else that of the most runs; and notes on the others."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        groups[key(one)].append(one)
    if not groups:
        return [], []

    def weight(name: str) -> tuple[bool, int, str, str]:
        runs = {one.run for one in groups[name]}
        return name in asked, len(runs), max(str(one.origin.get("date", "")) for one in groups[name]), name

    best = max(groups, key=weight)
    notes = [
        f"Left out, as only like is compared with like: runs of the {what} {name} ({len({one.run for one in group})})."
        for name, group in sorted(groups.items())
        if name != best
    ]
    return groups[best], notes


def _each_once(records: Sequence[Record]) -> tuple[Record, ...]:
    """One record for each seed, no run twice, in the order of seeds."""
    by_seed = {one.seed: one for one in sorted(records, key=lambda one: str(one.origin.get("date", "")))}
    by_run: dict[str, Record] = {}
    for seed in sorted(by_seed):
        by_run.setdefault(by_seed[seed].run, by_seed[seed])
    return tuple(by_run.values())


def _hash(record: Record) -> str:
    return str(record.data.get("hash", "unknown"))
