"""A sum of weighted cells, such as a gain or a difference of gains, with its interval."""

from collections.abc import Mapping, Sequence

from avseg.errors import AvsegError
from avseg.evaluation.compare import Difference, paired_difference
from avseg.reproduce.records import Record


def contrast(
    records_by_cell: Mapping[str, Sequence[Record]],
    weights: Mapping[str, float],
    metric: str = "miou",
    samples: int = 10_000,
) -> Difference | None:
    """Σ weight · score over cells, with a 95 % interval from the hierarchical bootstrap over seeds and videos.

    Cells are paired by seed and by video: only seeds that every cell has count. A gain is ``{"nf": 1, "none": -1}``, a
    difference of gains has four cells.

    Args:
        records_by_cell: Results by cell, one for each seed, of the same test videos.
        weights: By cell.
        metric: ``miou`` or ``f_score``.
        samples: Bootstrap samples.

    Returns:
        The contrast in [-Σ|weight|, Σ|weight|]; None where no seed is in all cells.

    Raises:
        AvsegError: results of different videos.
    """
    cells = {name: {one.seed: one.per_video(metric) for one in records_by_cell.get(name, ())} for name in weights}
    seeds = shared_seeds(*cells.values())
    if not seeds:
        return None
    first = next(iter(cells))
    for name, by_seed in cells.items():
        for seed in seeds:
            if by_seed[seed].keys() != cells[first][seeds[0]].keys():
                raise AvsegError(
                    f"The results of {first} and {name} (seed {seed}) are of different test videos: run one again."
                )
    plus = {name: weight for name, weight in weights.items() if weight > 0}
    minus = {name: -weight for name, weight in weights.items() if weight <= 0}
    videos = list(cells[first][seeds[0]])

    # Rounded, so that equal sums differ by 0 in whatever order they were added: a p-value counts what lies beside it.
    def side(part: Mapping[str, float]) -> list[dict[str, float]]:
        return [
            {
                video: round(sum(weight * cells[name][seed][video] for name, weight in part.items()), 9)
                for video in videos
            }
            for seed in seeds
        ]

    return paired_difference(side(minus), side(plus), samples)


def shared_seeds(*cells: Mapping[int, object] | Sequence[Record]) -> list[int]:
    """The seeds that all cells have, in order."""
    found = [set(cell) if isinstance(cell, Mapping) else {one.seed for one in cell} for cell in cells]
    return sorted(set.intersection(*found)) if found else []
