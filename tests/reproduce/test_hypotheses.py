import pytest
from made_up import record

from avseg.evaluation.compare import holm
from avseg.reproduce.definition import experiment_names, protocol_names, read_experiment
from avseg.reproduce.hypotheses import Outcome, answer_hypotheses, read_hypotheses
from avseg.reproduce.records import Record

LEVELS = {
    "table5:none": 0.40,
    "table5:nf": 0.43,
    "table5:df": 0.42,
    "table5:nf+df": 0.45,
    "table3:tpavi/10%": 0.20,
    "table3:tpavi+ufe/10%": 0.29,
    "table3:tpavi/100%": 0.40,
    "table3:tpavi+ufe/100%": 0.45,
}


def records(levels: dict[str, float] = LEVELS) -> list[Record]:
    return [record(place, seed, level) for place, level in levels.items() for seed in range(3)]


def answers(found: list[Record]) -> dict[str, Outcome]:
    outcomes = answer_hypotheses(found, "efficientnet_lite0", samples=500).outcomes
    return {one.hypothesis.name: one for one in outcomes}


def test_what_was_written_down() -> None:
    protocol = read_hypotheses()
    assert [test.name for test in protocol.tests] == ["nf", "df", "both", "labels"]
    assert {(test.subset, protocol.protocol, protocol.metric) for test in protocol.tests} == {("s4", "T=1", "miou")}
    assert protocol_names() == ["hypotheses", "overview", "systems"]


@pytest.mark.parametrize("name", protocol_names())
def test_questions_are_about_cells_that_exist(name: str) -> None:
    assert name not in experiment_names()
    for test in read_hypotheses(name).tests:
        assert sum(test.weights.values()) == 0
        for place in test.cells:
            table, _, cell = place.partition(":")
            assert read_experiment(table).cell(cell).change.set["data.subset"] == test.subset


@pytest.mark.parametrize("name", ["overview", "systems"])
def test_ufe_is_held_against_what_differs_in_nothing_else(name: str) -> None:
    for test in read_hypotheses(name).tests:
        changes = {}
        for place, weight in test.weights.items():
            table, _, cell = place.partition(":")
            changes[weight] = read_experiment(table).cell(cell).change
        switches = ("model.neighbouring_frames", "ufe.distant_frames")
        assert [[changes[weight].set[switch] for switch in switches] for weight in (1, -1)] == [[True] * 2, [False] * 2]
        epochs = {weight: change.times.get("optim.epochs") for weight, change in changes.items()}
        labels = {weight: change.labels for weight, change in changes.items()}
        assert epochs[1] == epochs[-1]
        assert labels[1] == labels[-1]
        assert changes[1].base == changes[-1].base


def test_the_overview_answers_for_both_subsets() -> None:
    gains = {"s4": 0.05, "ms3": 0.02}
    found = [
        record(f"table1:{row}/{subset}", seed, level, data={"hash": subset, "counts": {"test": 40}})
        for subset, gain in gains.items()
        for row, level in (("tpavi", 0.4), ("tpavi+ufe", 0.4 + gain))
        for seed in range(3)
    ]
    outcomes = answer_hypotheses(found, "efficientnet_lite0", protocol=read_hypotheses("overview"), samples=50)
    means = {one.hypothesis.name: one.difference.mean for one in outcomes.outcomes if one.difference}
    assert means == pytest.approx(gains)
    assert set(outcomes.data) == {"s4", "ms3"}


def test_known_differences_are_found() -> None:
    found = answers(records())
    means = {name: one.difference.mean for name, one in found.items() if one.difference}
    assert means == pytest.approx({"nf": 0.03, "df": 0.02, "both": 0.02, "labels": 0.09 - 0.05})
    assert found["both"].better == "table5:nf"
    assert answers(records({**LEVELS, "table5:df": 0.44}))["both"].better == "table5:df"


def test_correction_is_over_all_four_even_where_results_are_missing() -> None:
    found = answers([one for one in records() if one.experiment == "table5"])
    assert found["labels"].difference is None
    assert found["labels"].p is None
    assert set(found["labels"].missing) == {place for place in LEVELS if place.startswith("table3")}
    raw = {name: one.difference.p if one.difference else 1.0 for name, one in found.items()}
    assert found["nf"].p == holm(raw)["nf"] == pytest.approx(4 * raw["nf"])


def test_other_protocols_and_subsets_answer_nothing() -> None:
    unlike = [record(place, seed, level, protocol="T=5") for place, level in LEVELS.items() for seed in range(3)]
    assert all(one.difference is None for one in answers(unlike).values())
    ms3 = [record(place, seed, level, subset="ms3") for place, level in LEVELS.items() for seed in range(3)]
    assert all(one.difference is None for one in answers(ms3).values())
