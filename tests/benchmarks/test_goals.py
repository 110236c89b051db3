"""Goals are judged by the worst of their sizes, and by the best option where any may be used."""

from typing import Any

import pytest

from benchmarks.goals import GOALS, Goal, field, memory, memory_times, verdict, verdicts


def goal(rows: dict[str, Any], target: float, least: bool = True) -> Goal:
    return Goal("a goal", rows, field("ratio"), target, least)


def row(ratio: float | None, **more: Any) -> dict[str, Any]:
    return {"group": "forward", "name": f"{more}", "model": "m", "ratio": ratio, **more}


def test_the_worst_size_decides() -> None:
    rows = [row(3.0, batch=1), row(2.0, batch=4), row(1.0, batch=24)]
    found = verdict(goal({"group": "forward", "batch": (1, 4)}, 1.8), rows)
    assert (found.value, found.word, found.option) == (2.0, "reached", "")
    assert verdict(goal({"group": "forward"}, 1.8), rows).word == "missed"
    small = verdict(goal({"group": "forward"}, 2.5, least=False), rows)
    assert (small.value, small.word) == (3.0, "missed")


def test_the_best_option_of_each_size_counts_where_any_may_be_used() -> None:
    rows = [row(1.5, batch=1, option="eager"), row(2.5, batch=1, option="bf16"), row(3.0, batch=4, option="eager")]
    free = verdict(goal({"group": "forward"}, 2.0), rows)
    assert (free.value, free.option, free.word) == (2.5, "bf16", "reached")
    eager = verdict(goal({"group": "forward", "option": "eager"}, 2.0), rows)
    assert (eager.value, eager.option, eager.word) == (1.5, "", "missed")


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    for rows in ([], [row(None)], [row(9.0, batch=1) | {"group": "step"}]):
        found = verdict(goal({"group": "forward"}, 2.0), rows)
        assert (found.value, found.reached, found.word) == (None, None, "not measured")


def test_memory_as_a_share_and_as_how_many_times_less() -> None:
    assert memory({"memory_ours": 30.0, "memory_reference": 60.0}) == 0.5
    assert memory_times({"memory_ours": 2.0, "memory_reference": 60.0}) == 30
    assert memory_times({"memory_ours": 0.0, "memory_reference": 60.0}) == 6000
    for function in (memory, memory_times):
        assert function({"memory_ours": None, "memory_reference": 1.0}) is None
        assert function({}) is None


@pytest.mark.parametrize("item", GOALS, ids=lambda item: item.name)
def test_every_goal_is_about_rows_that_are_measured(item: Goal) -> None:
    """Whatever a group calls its rows' fields, each goal finds some."""
    from benchmarks import attention, forward, segment, startup, step
    from benchmarks.timing import Settings

    settings = Settings(device=item.device, options=("eager", "bf16"))
    rows: list[dict[str, Any]] = []
    for module in (attention, forward, step):
        for case in module.cases(settings):
            options = case.spec.get("options", [""])
            rows += [{"group": module.GROUP, "name": case.name, "option": each, **case.tags} for each in options]
    rows += [{"group": "startup", "name": name} for name in startup._LINES]
    rows += [segment._row(video, "whole, every frame", 1, [1.0]) for video in segment.VIDEOS]
    rows += [{"group": "loader", "name": "loader, 0 workers"}]
    values = {"ratio": 9.0, "against_supervised": 9.0, "ours": 9.0, "memory_ours": 1.0, "memory_reference": 9.0}
    assert verdict(item, [{**row, **values} for row in rows]).value is not None


def test_a_device_has_its_own_goals() -> None:
    names = [item.goal.name for item in verdicts([], "cuda:1")]
    assert names == ["UFE step on a GPU, ResNet-50, best"]
    assert len(verdicts([], "cpu")) == len(GOALS) - 1
