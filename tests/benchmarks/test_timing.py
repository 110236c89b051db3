"""Functions take turns, are warm before they count, and ratios say how many times better ours is."""

import pytest

from benchmarks import timing
from benchmarks.timing import Settings, interleaved, ratio, timed_row


class Clock:
    """A clock that moves only when a function says that it took time."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_functions_take_turns_and_the_first_calls_do_not_count(clock: Clock) -> None:
    calls: list[str] = []

    def function(name: str, first: float, later: float) -> timing.Function:
        def run() -> None:
            clock.now += later if name in calls else first
            calls.append(name)

        return run

    functions = {"reference": function("reference", 9.0, 1.0), "ours": function("ours", 0.9, 0.1)}
    samples = interleaved(functions, Settings(repeats=3))
    assert samples["reference"] == pytest.approx([1.0] * 3)
    assert samples["ours"] == pytest.approx([0.1] * 3)
    # What is slow is warm after one call, what is quick after two.
    assert calls == ["reference", "ours", "ours"] + ["reference", "ours"] * 3


def test_what_is_quick_is_called_several_times_for_one_sample(clock: Clock) -> None:
    calls: list[float] = []

    def quick() -> None:
        clock.now += 0.002
        calls.append(clock.now)

    samples = interleaved({"ours": quick}, Settings(repeats=2))
    assert samples["ours"] == pytest.approx([0.002, 0.002])
    assert len(calls) == 2 + 2 * 10


@pytest.mark.parametrize(("quick", "samples"), [(False, 3), (True, 1)])
def test_a_slow_case_ends_with_the_least_number_of_samples(clock: Clock, quick: bool, samples: int) -> None:
    def slow() -> None:
        clock.now += 100.0

    assert len(interleaved({"ours": slow}, Settings(repeats=7, quick=quick))["ours"]) == samples


def test_ratios_are_better_where_they_are_larger() -> None:
    assert ratio(10.0, 50.0, "ms") == 5
    assert ratio(50.0, 10.0, "clips/s") == 5
    assert ratio(2.0, 8.0, "GFLOP") == 4
    assert ratio(10.0, None, "ms") is None
    assert ratio(0.0, 5.0, "ms") is None


def test_a_row_holds_medians_in_milliseconds_and_their_spread() -> None:
    samples = {"reference": [0.004, 0.010, 0.006], "fast": [0.003, 0.001, 0.002]}
    row = timed_row("forward", "a model", samples, ours="fast", model="m")
    assert row == {
        "group": "forward",
        "name": "a model",
        "unit": "ms",
        "model": "m",
        "ours": 2.0,
        "reference": 6.0,
        "spread_ours": [1.0, 3.0],
        "spread_reference": [4.0, 10.0],
        "samples": 3,
        "ratio": 3.0,
    }
    assert timed_row("forward", "alone", {"ours": [0.001]})["reference"] is None
