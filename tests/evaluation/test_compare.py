import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from avseg.errors import AvsegError
from avseg.evaluation.compare import compare, compare_files, comparison_table, holm, paired_difference
from avseg.evaluation.scores import Evaluation, Scores, VideoScore, write_evaluation


def scores(values: np.ndarray) -> dict[str, float]:
    return {f"v{i}": float(value) for i, value in enumerate(values)}


def evaluation(values: np.ndarray, split: str = "test", protocol: str = "T=5") -> Evaluation:
    videos = tuple(VideoScore(f"v{i}", "", float(v), float(v) / 2, (float(v),), (False,)) for i, v in enumerate(values))
    return Evaluation("m", "r", "s4", split, "0.1.0", {protocol: Scores(protocol, videos)}, {})


def test_pairing_removes_what_videos_share() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, 200)
    gain = rng.normal(0.1, 0.05, 200)
    found = paired_difference(scores(hard), scores(hard + gain))
    assert found.mean == pytest.approx(gain.mean())
    assert found.low < found.mean < found.high
    # The interval of a paired mean: 1.96 standard errors of the gains, far narrower than that of the scores.
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * gain.std() / np.sqrt(200), rel=0.1)
    assert found.p < 0.001
    assert (found.videos, found.seeds) == (200, 1)


def test_interval_widens_with_what_seeds_differ_by() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0, 1, (6, 100))
    of_seed = rng.normal(0, 0.3, (6, 1))
    steady = paired_difference([scores(row) for row in base], [scores(row + 0.1) for row in base])
    shaky = paired_difference([scores(row) for row in base], [scores(row) for row in base + 0.1 + of_seed])
    assert steady.high - steady.low < 1e-9
    assert (shaky.high - shaky.low) / 2 == pytest.approx(1.96 * of_seed.std() / np.sqrt(6), rel=0.15)
    assert shaky.seeds == 6


def test_all_seeds_see_the_same_videos() -> None:
    """What videos differ by is not averaged away by more seeds that score them."""
    gain = np.random.default_rng(6).normal(0.1, 1, 80)
    one = paired_difference([scores(np.zeros(80))], [scores(gain)])
    four = paired_difference([scores(np.zeros(80))] * 4, [scores(gain)] * 4)
    assert four.high - four.low == pytest.approx(one.high - one.low, rel=0.05)
    assert four.mean == pytest.approx(one.mean)


@pytest.mark.parametrize("samples", [500, 1_700, 10_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_p_is_two_sided(samples: int, sign: int) -> None:
    gain = np.random.default_rng(7).normal(0, 1, 400)
    gain = (gain - gain.mean()) / gain.std()
    # A mean of one standard error: 31.7 % of means are as far from 0 on either side.
    found = paired_difference(scores(np.zeros(400)), scores(sign * (gain + 1 / 20)), samples)
    assert found.p == pytest.approx(0.317, abs=0.05)
    far = paired_difference(scores(np.zeros(400)), scores(sign * (gain + 5)), samples)
    assert far.p == pytest.approx(2 / (samples + 1)), "as small as so many samples can tell, and not 0"


def test_no_difference_is_no_finding() -> None:
    values = scores(np.random.default_rng(2).normal(0, 1, 50))
    found = paired_difference(values, values)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_coverage_of_the_interval() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        gain = rng.normal(0.2, 1, 60)
        found = paired_difference(scores(np.zeros(60)), scores(gain), samples=500)
        hits += found.low <= 0.2 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_same_seed_same_numbers_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    first, second = scores(rng.normal(0, 1, 30)), scores(rng.normal(0, 1, 30))
    turned = dict(reversed(second.items()))
    assert paired_difference(first, second) == paired_difference(first, turned)
    assert paired_difference(first, second) != paired_difference(first, second, seed=1)
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there.mean == pytest.approx(-back.mean)


def test_unlike_sides_are_refused() -> None:
    one = scores(np.zeros(3))
    with pytest.raises(AvsegError, match="different videos: 1 are on one side only, such as v3"):
        paired_difference(one, scores(np.zeros(4)))
    with pytest.raises(AvsegError, match="2 seeds and the candidate 1"):
        paired_difference([one, one], [one])
    with pytest.raises(AvsegError, match="no videos"):
        paired_difference({}, {})
    with pytest.raises(AvsegError, match="0 samples"):
        paired_difference(one, one, samples=0)
    with pytest.raises(AvsegError, match="s4 test, s4 val"):
        compare([evaluation(np.ones(3))], [evaluation(np.ones(3), split="val")])
    with pytest.raises(AvsegError, match="share no protocol"):
        compare([evaluation(np.ones(3))], [evaluation(np.ones(3), protocol="T=1")])


def test_holm() -> None:
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(corrected) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_files_of_several_seeds(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    names: dict[str, list[Path]] = {"baseline": [], "ufe": []}
    for arm, gain in (("baseline", 0.0), ("ufe", 0.25)):
        for seed in range(3):
            file = tmp_path / f"{arm}{seed}.json"
            write_evaluation(file, evaluation(rng.uniform(0.3, 0.5, 40) + gain))
            names[arm].append(file)
    found = compare_files(names["baseline"], names["ufe"])
    assert [(row.protocol, row.metric) for row in found] == [("T=5", "miou"), ("T=5", "f_score")]
    assert found[0].difference.mean == pytest.approx(0.25, abs=0.03)
    assert found[0].candidate - found[0].baseline == pytest.approx(found[0].difference.mean)
    assert found[0].difference.seeds == 3
    assert found[1].difference.mean == pytest.approx(found[0].difference.mean / 2), "F of these videos is half of mIoU"
    assert (found[1].baseline, found[1].candidate) == pytest.approx((found[0].baseline / 2, found[0].candidate / 2))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(comparison_table(found, ("baseline", "ufe")))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert f"{100 * found[0].difference.mean:+.2f}" in text
    assert "40 videos, 3 seeds" in text
    assert compare_files(names["baseline"][0], str(names["ufe"][0]))[0].difference.seeds == 1
