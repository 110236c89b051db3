"""Questions that several tables answer together: the files of ``experiments/protocol/``.

``hypotheses`` are the tests that were written down before anything was run; ``overview`` has UFE's gain in every
setting.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from avseg.errors import AvsegError
from avseg.evaluation.compare import Difference, holm
from avseg.reading import read_yaml
from avseg.reproduce.definition import PROTOCOLS
from avseg.reproduce.records import Place, Record, choose, contrast

BETTER = "better"


@dataclass(frozen=True)
class Hypothesis:
    """A test: a sum of weighted cells that is 0 where nothing helps.

    Attributes:
        name: Short.
        label, question: In words.
        subset: Of its cells: ``s4`` or ``ms3``.
        weights: By ``table:cell``; `BETTER` stands for one of ``choose``.
        choose: The cells of which the one with the higher mean over all seeds and videos is taken.
    """

    name: str
    label: str
    question: str
    subset: str
    weights: Mapping[str, float]
    choose: tuple[str, ...] = ()

    @property
    def cells(self) -> list[str]:
        """All cells that it needs."""
        return [*(name for name in self.weights if name != BETTER), *self.choose]


@dataclass(frozen=True)
class Protocol:
    """All tests, and what they are about.

    Attributes:
        title: In words.
        protocol, metric: Of all of them.
        tests: In order; Holm's correction is over all.
    """

    title: str
    protocol: str
    metric: str
    tests: tuple[Hypothesis, ...]


@dataclass(frozen=True)
class Outcome:
    """What a test found.

    Attributes:
        hypothesis: Which test.
        difference: In [-2, 2], with its 95 % interval; None where results are missing.
        p: Corrected after Holm over all tests, a missing one counting as one that found nothing; None where results
            are missing.
        better: The cell that `BETTER` was, and None where there is none.
        missing: Cells without results.
    """

    hypothesis: Hypothesis
    difference: Difference | None
    p: float | None
    better: str | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Outcomes:
    """What all tests found.

    Attributes:
        protocol: The tests.
        encoder, scale: Of the results.
        data: What was trained and tested on, by subset.
        outcomes: One for each test.
        notes: What was left out, in sentences.
    """

    protocol: Protocol
    encoder: str
    scale: str
    data: Mapping[str, Mapping[str, Any]]
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]


def read_hypotheses(name: str = "hypotheses") -> Protocol:
    """Read ``experiments/protocol/NAME.yaml``.

    Raises:
        AvsegError: the file is missing or faulty.
    """
    file = PROTOCOLS / f"{name}.yaml"
    try:
        values = read_yaml(file)
        subset = values.pop("subset")
        tests = tuple(
            Hypothesis(test, **{"subset": subset, **given, "choose": tuple(given.get("choose", ()))})
            for test, given in values.pop("tests").items()
        )
        return Protocol(tests=tests, **values)
    except (TypeError, KeyError, AttributeError) as error:
        raise AvsegError(f"{file} holds no tests ({error}): correct it.") from error


def answer_hypotheses(
    records: Iterable[Record],
    encoder: str,
    scale: str | None = None,
    data: Collection[str] = (),
    protocol: Protocol | None = None,
    samples: int = 10_000,
) -> Outcomes:
    """Answer the questions of a protocol.

    Args:
        records: All results there are.
        encoder: The image encoder whose results are meant.
        scale: The recipe; None takes that of the most runs.
        data: Hashes of the data to take; none takes those of the most runs.
        protocol: The tests; None reads those that were written down beforehand.
        samples: Bootstrap samples for each interval.

    Raises:
        AvsegError: see `read_hypotheses`, `choose` and `contrast`.
    """
    protocol = protocol or read_hypotheses()
    subsets = {_place(name): test.subset for test in protocol.tests for name in test.cells}
    known = [one for one in records if subsets.get((one.experiment, one.cell)) == one.subset]
    choice = choose(known, subsets, encoder, scale, data, protocol.protocol)
    cells = {f"{table}:{cell}": found for (table, cell), found in choice.records.items()}
    outcomes = [_outcome(test, cells, protocol.metric, samples) for test in protocol.tests]
    p = holm({one.hypothesis.name: one.difference.p if one.difference else 1.0 for one in outcomes})
    return Outcomes(
        protocol=protocol,
        encoder=encoder,
        scale=choice.scale,
        data=choice.data,
        outcomes=tuple(
            Outcome(one.hypothesis, one.difference, p[one.hypothesis.name], one.better, one.missing)
            if one.difference
            else one
            for one in outcomes
        ),
        notes=choice.notes,
    )


def _outcome(test: Hypothesis, cells: Mapping[str, tuple[Record, ...]], metric: str, samples: int) -> Outcome:
    missing = tuple(name for name in test.cells if name not in cells)
    if missing:
        return Outcome(test, None, None, None, missing)
    better = max(test.choose, key=lambda name: _mean(cells[name], metric)) if test.choose else None
    weights = {better if name == BETTER and better else name: weight for name, weight in test.weights.items()}
    return Outcome(test, contrast(cells, weights, metric, samples), None, better, ())


def _mean(records: Iterable[Record], metric: str) -> float:
    return fmean(value for one in records for value in one.per_video(metric).values())


def _place(name: str) -> Place:
    table, _, cell = name.partition(":")
    return table, cell
