from dataclasses import replace

import numpy as np
import pytest
from made_up import record, records_of

from avseg.errors import AvsegError
from avseg.evaluation.compare import holm
from avseg.reproduce.definition import Published, read_experiment
from avseg.reproduce.records import Record, choose, contrast
from avseg.reproduce.summary import Gain, Summary, summarise

ENCODER = "efficientnet_lite0"
TABLE5 = read_experiment("table5")
LEVELS = {"none": 0.40, "nf": 0.42, "df": 0.45, "nf+df": 0.47}


def table5(seeds: int = 3, **given: object) -> list[Record]:
    return [record(f"table5:{key}", seed, level, **given) for key, level in LEVELS.items() for seed in range(seeds)]


def summary(records: list[Record], **given: object) -> Summary:
    return summarise(TABLE5, records, ENCODER, samples=500, **given)  # type: ignore[arg-type]


def gain(found: Summary, key: str) -> Gain:
    return next(cell.gains[0] for cell in found.cells if cell.cell.key == key)


def test_mean_and_sample_deviation_over_seeds() -> None:
    first = summary(table5()).cells[0]
    assert first.miou is not None
    assert first.miou.mean == pytest.approx(0.41)
    assert first.miou.sd == pytest.approx(np.std([0.40, 0.41, 0.42], ddof=1))
    assert first.f_score is not None
    assert first.f_score.mean == pytest.approx(0.51)
    alone = summary(table5(1)).cells[0].miou
    assert alone is not None
    assert alone.sd is None


def test_a_constant_gain_is_found_without_spread() -> None:
    found = summary(table5())
    assert [cell.cell.key for cell in found.cells] == list(LEVELS)
    assert found.cells[0].gains == ()
    for key in ("nf", "df", "nf+df"):
        one = gain(found, key)
        assert (one.over, one.label) == (("table5", "none"), "neither")
        for difference in (one.miou, one.f_score):
            assert difference.mean == pytest.approx(LEVELS[key] - 0.40)
            assert difference.high - difference.low < 1e-9
            assert (difference.seeds, difference.videos) == (3, 40)


def test_p_values_are_corrected_over_the_table() -> None:
    rng = np.random.default_rng(0)
    noisy = []
    for one in table5():
        videos = {name: (a + rng.normal(0, 0.08), b) for name, (a, b) in one.videos.items()}
        noisy.append(replace(one, videos=videos))
    gains = [one for _, one in summary(noisy).gains]
    raw = {str(number): one.miou.p for number, one in enumerate(gains)}
    assert len(set(raw.values())) > 1
    assert [one.p for one in gains] == list(holm(raw).values())
    assert any(one.p > one.miou.p for one in gains)


def test_only_seeds_of_both_cells_are_paired() -> None:
    records = [one for one in table5() if (one.cell, one.seed) != ("nf", 1)]
    # Were seeds paired by position, seed 2 of NF would meet seed 1 of the baseline: 0.025 instead of 0.02.
    found = summary(records)
    one = gain(found, "nf")
    assert one.miou.seeds == 2
    assert one.miou.mean == pytest.approx(0.02)
    assert gain(found, "df").miou.seeds == 3
    assert any("nf over none: 2 of 3 seeds" in note for note in found.notes)


def test_data_are_never_mixed() -> None:
    other = {"kind": "generated", "hash": "another"}
    records = [*table5(), *[replace(one, data=other, run=one.run + "b", miou=0.9) for one in table5(2)]]
    found = summary(records)
    assert {one.data["hash"] for one in found.records} == {"845e43c2-s4"}
    assert len(found.cells[0].records) == 3
    assert any("another (8)" in note for note in found.notes)
    asked = summary(records, data=["another"])
    assert {one.data["hash"] for one in asked.records} == {"another"}
    assert asked.cells[0].miou is not None
    assert asked.cells[0].miou.mean == pytest.approx(0.9)
    with pytest.raises(AvsegError, match="hash missing: choose 845e43c2-s4 or another"):
        summary(records, data=["missing"])


@pytest.mark.parametrize("field", ["scale", "protocol", "encoder"])
def test_only_like_is_compared_with_like(field: str) -> None:
    unlike = [replace(one, run=one.run + "b", **{field: "other"}) for one in table5(2)]
    found = summary([*unlike, *table5()])
    assert {getattr(one, field) for one in found.records} == {getattr(table5()[0], field)}
    assert len(found.records) == 12


def test_each_subset_has_its_own_data() -> None:
    experiment = read_experiment("table1")
    found = summarise(experiment, records_of(experiment), ENCODER, samples=100)
    assert {subset: data["hash"] for subset, data in found.data.items()} == {
        "s4": "845e43c2-s4",
        "ms3": "845e43c2-ms3",
    }
    assert len(found.gains) == 4


def test_a_run_counts_once() -> None:
    again = [replace(one, origin={"date": "2026-12-01"}, miou=0.7) for one in table5()]
    found = summary([*again, *table5()])  # in whatever order: the newer one counts
    assert len(found.records) == 12
    assert [one.miou for one in found.cells[0].records] == [0.7] * 3
    shared = [*table5(2), replace(table5(1)[0], seed=5)]
    assert [one.seed for one in summary(shared).cells[0].records] == [0, 1]


def test_scores_at_two_sizes_are_not_compared() -> None:
    found = summary([*table5(), *[replace(one, size="truth", run=f"{one.run}!") for one in table5(2)]])
    assert {one.size for one in found.records} == {"model"}
    assert any("test scores at the size of the truth (8)" in note for note in found.notes)


def test_gains_over_another_table() -> None:
    experiment = read_experiment("controls")
    records = [*table5(), *[record("controls:nf-shuffled", seed, 0.41) for seed in range(3)]]
    found = summarise(experiment, records, ENCODER, samples=100)
    gains = {one.over: one.miou.mean for _, one in found.gains}
    assert gains == {("table5", "none"): pytest.approx(0.01), ("table5", "nf"): pytest.approx(-0.01)}


def test_published_numbers_and_their_gains_as_printed() -> None:
    cells = {cell.cell.key: cell for cell in summary([]).cells}
    assert cells["none"].published["pvt_v2_b5"] == Published("77.89", ".880")
    assert cells["none"].miou is None
    gains = cells["nf+df"].published_gains["table5", "none"]
    assert gains == {"resnet50": Published("+5.35", "+.039"), "pvt_v2_b5": Published("+4.60", "+.032")}


def test_contrast_is_a_sum_of_weighted_cells() -> None:
    levels = {"a": 0.30, "b": 0.42, "c": 0.50, "d": 0.57}
    cells = {name: [record(f"table5:{name}", seed, level) for seed in (0, 1)] for name, level in levels.items()}
    found = contrast(cells, {"b": 1, "a": -1, "d": -1, "c": 1}, samples=100)
    assert found is not None
    assert found.mean == pytest.approx((0.42 - 0.30) - (0.57 - 0.50))
    assert found.high - found.low < 1e-9
    level = contrast(cells, {"c": 0.5, "d": 0.5}, samples=100)
    assert level is not None
    assert level.mean == pytest.approx(0.535 + 0.005)
    assert contrast({**cells, "a": []}, {"b": 1, "a": -1}) is None
    with pytest.raises(AvsegError, match="different test videos"):
        contrast({**cells, "a": [record("table5:a", 0, videos=7)]}, {"b": 1, "a": -1})


def test_equal_sums_differ_by_nothing() -> None:
    cells = {name: [record(f"table5:{name}", 0, level)] for name, level in (("a", 0.1), ("b", 0.2), ("c", 0.3))}
    found = contrast(cells, {"a": 1, "c": 1, "b": -2}, samples=100)
    assert found is not None
    assert (found.mean, found.p) == (0, 1)


def test_nothing_to_choose_from() -> None:
    found = choose([], [("table5", "none")], ENCODER)
    assert (found.records, found.data, found.scale) == ({}, {}, "")
