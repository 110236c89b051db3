"""Is one model better than another? Paired differences with intervals from a bootstrap over seeds and videos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from avseg.errors import AvsegError
from avseg.evaluation.scores import Evaluation, read_evaluation

PerVideo = Mapping[str, float]
METRICS = {"miou": "mIoU", "f_score": "F-score"}
CHUNK = 1000


@dataclass(frozen=True)
class Difference:
    """How far a candidate is from a baseline: candidate − baseline, in the unit of the scores.

    Attributes:
        mean: Over all seeds and videos.
        low: Lower end of the percentile interval.
        high: Upper end.
        p: Two-sided bootstrap p-value of no difference; at least ``2 / (samples + 1)``.
        videos: How many videos were paired.
        seeds: How many seeds. With one, the interval says nothing about another training run.
        confidence: Of the interval.
    """

    mean: float
    low: float
    high: float
    p: float
    videos: int
    seeds: int
    confidence: float = 0.95


@dataclass(frozen=True)
class Comparison:
    """One metric under one protocol, of a baseline and a candidate.

    Attributes:
        protocol: ``T=5`` or ``T=1``.
        metric: ``miou`` or ``f_score``.
        baseline, candidate: Means over seeds and videos, in [0, 1].
        difference: Candidate − baseline.
    """

    protocol: str
    metric: str
    baseline: float
    candidate: float
    difference: Difference


def paired_difference(
    baseline: PerVideo | Sequence[PerVideo],
    candidate: PerVideo | Sequence[PerVideo],
    samples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """The mean of candidate − baseline over videos, with an interval from a paired, hierarchical bootstrap.

    Every sample draws seeds with replacement and, because all seeds score the same videos, one set of videos with
    replacement for all of them. A few seeds understate how much seeds vary: with S of them the bootstrap's variance
    between seeds is (S − 1) / S of the true one on average.

    Args:
        baseline: A score for each video by its name, or one such mapping per seed.
        candidate: The same videos and as many seeds; seeds are paired by position.
        samples: Bootstrap samples.
        seed: Of the bootstrap's own random numbers.
        confidence: Of the interval, in (0, 1).

    Raises:
        AvsegError: other videos or another number of seeds on either side, no videos, or no samples.
    """
    if samples < 1 or not 0 < confidence < 1:
        raise AvsegError(
            f"The bootstrap has {samples} samples and confidence {confidence}: give 1 or more, and 0 to 1."
        )
    first, second = _rows(baseline), _rows(candidate)
    if len(first) != len(second):
        raise AvsegError(f"The baseline has {len(first)} seeds and the candidate {len(second)}: give the same number.")
    names = sorted(first[0]) if first else []
    if not names:
        raise AvsegError("There are no videos to compare.")
    for row in (*first, *second):
        _check_names(names, row)
    gains = np.array([[b[name] - a[name] for name in names] for a, b in zip(first, second, strict=True)])
    means = _bootstrap(gains, samples, np.random.default_rng(seed))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    extreme = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (extreme + 1) / (samples + 1))
    return Difference(float(gains.mean()), float(low), float(high), p, len(names), len(gains), confidence)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction: p-values that may be read together, by the same names and in the same order."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def compare(
    baseline: Sequence[Evaluation], candidate: Sequence[Evaluation], samples: int = 10_000, seed: int = 0
) -> list[Comparison]:
    """Compare two arms under every protocol that all their evaluations share, by mIoU and F-score.

    Args:
        baseline: One evaluation per seed.
        candidate: As many, paired by position.
        samples: Bootstrap samples.
        seed: Of the bootstrap's own random numbers.

    Raises:
        AvsegError: another subset, split, size or set of videos, other numbers of seeds, or no shared protocol.
    """
    everything = [*baseline, *candidate]
    if not baseline or not candidate:
        raise AvsegError("There is nothing to compare: give scores of both models.")
    where = {f"{found.subset} {found.split}" for found in everything}
    if len(where) > 1:
        raise AvsegError(f"The scores are of different data ({', '.join(sorted(where))}): compare like with like.")
    sizes = {found.size for found in everything}
    if len(sizes) > 1:
        raise AvsegError(
            "Some scores were taken at the truth's own size and others at the model's (as all were before files had "
            "the key size): evaluate the latter again, or all with --size model."
        )
    protocols = [name for name in everything[0].scores if all(name in found.scores for found in everything)]
    if not protocols:
        raise AvsegError("The scores share no protocol (T=5, T=1): evaluate both models the same way.")
    found = []
    for protocol in protocols:
        for metric in METRICS:
            rows = [[one.scores[protocol].per_video(metric) for one in arm] for arm in (baseline, candidate)]
            difference = paired_difference(rows[0], rows[1], samples, seed)
            means = [float(np.mean([list(row.values()) for row in arm])) for arm in rows]
            found.append(Comparison(protocol, metric, means[0], means[1], difference))
    return found


def compare_files(
    baseline: str | Path | Sequence[str | Path],
    candidate: str | Path | Sequence[str | Path],
    samples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """`compare` on files that ``avseg evaluate`` wrote, one per seed."""
    first, second = (
        [read_evaluation(file) for file in ([given] if isinstance(given, str | Path) else given)]
        for given in (baseline, candidate)
    )
    return compare(first, second, samples, seed)


def comparison_table(comparisons: Sequence[Comparison], names: tuple[str, str] = ("baseline", "candidate")) -> Table:
    """Means and differences in percentage points, with 95 % intervals; fits 80 columns."""
    size = comparisons[0].difference
    table = Table(
        title=f"{names[1]} − {names[0]}: {size.videos} videos, {size.seeds} seed{'s' * (size.seeds > 1)}",
        title_justify="left",
    )
    table.add_column("metric")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("difference", justify="right")
    table.add_column(f"{100 * size.confidence:g} % interval", justify="right")
    table.add_column("p", justify="right")
    for row in comparisons:
        gain = row.difference
        table.add_row(
            f"{METRICS.get(row.metric, row.metric)} {row.protocol}",
            f"{100 * row.baseline:.2f}",
            f"{100 * row.candidate:.2f}",
            f"{100 * gain.mean:+.2f}",
            f"{100 * gain.low:+.2f} … {100 * gain.high:+.2f}",
            f"{gain.p:.4f}",
        )
    return table


def _rows(given: PerVideo | Sequence[PerVideo]) -> list[PerVideo]:
    return [given] if isinstance(given, Mapping) else list(given)


def _check_names(names: list[str], row: PerVideo) -> None:
    other = sorted(set(names) ^ set(row))
    if other:
        raise AvsegError(
            f"The scores are of different videos: {len(other)} are on one side only, such as {other[0][:80]}; "
            "evaluate both models on the same split."
        )


def _bootstrap(gains: npt.NDArray[np.float64], samples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Means ``(samples,)`` of ``gains (seeds, videos)`` under redrawn seeds and videos."""
    seeds, videos = gains.shape
    means = []
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        chosen = rng.multinomial(videos, np.full(videos, 1 / videos), size=count)
        repeated = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
        means.append(((chosen @ gains.T) * repeated).sum(1) / (videos * seeds))
    return np.concatenate(means)
