"""Peak memory is that of the function alone, and what is too large is told instead of killing the machine."""

from pathlib import Path

import pytest
import torch

from avseg.models import Prediction
from benchmarks.case import Case, compare
from benchmarks.memory import MIB, OutOfMemory, bounded, peak, size
from benchmarks.timing import Settings

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


@linux
def test_a_process_of_its_own_measures_what_a_call_holds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up.py").write_text(
        "import torch\n"
        "def make(device, mib):\n"
        "    def twice():\n"
        "        kept = torch.ones(mib * 2**18)\n"
        "        return kept + 1\n"
        "    def failing():\n"
        "        raise RuntimeError('no')\n"
        "    return {'twice': lambda: twice, 'failing': lambda: failing}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    found = peak("made_up", {"mib": 64}, "twice", Settings())
    assert found is not None
    assert found.above == pytest.approx(128, abs=8)
    assert found.between == pytest.approx(64, abs=8)
    assert found.result == 64
    assert found.total > found.above
    assert peak("made_up", {"mib": 1}, "failing", Settings()) is None


@linux
def test_what_does_not_fit_is_refused_and_the_limit_is_lifted() -> None:
    with pytest.raises(OutOfMemory), bounded():
        torch.empty(2**50, dtype=torch.uint8)
    torch.empty(2**20).fill_(1.0)
    with pytest.raises(RuntimeError, match="shapes"), bounded():
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_a_reference_that_does_not_fit_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def reference() -> None:
        raise MemoryError

    case = Case("made.up", {}, "a case", {"frames": 10})
    monkeypatch.setattr(Case, "make", lambda self, settings: {"ours": lambda: None, "reference": reference})
    told: list[str] = []
    row = compare("attention", case, Settings(repeats=1, tell=told.append))
    assert row["note"] == "the reference does not fit into memory"
    assert (row["reference"], row["ratio"], row["frames"]) == (None, None, 10)
    assert row["ours"] > 0
    assert told == ["attention: a case"]


def test_an_option_that_fails_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.case import sampled

    def fails() -> None:
        raise ValueError("no\ncompiler")

    told: list[str] = []
    functions = {"reference": lambda: None, "ours": lambda: None, "compile": fails}
    samples, note = sampled(functions, Settings(repeats=1, tell=told.append))
    assert set(samples) == {"reference", "ours"}
    assert note == ""
    assert told == ["compile is left out: no compiler (ValueError)"]


def test_sizes_count_every_tensor_of_a_result() -> None:
    prediction = Prediction(torch.zeros(2**18), {"maps": [torch.zeros(2**18), torch.zeros(2**18)]})
    assert size(prediction) == 3 * MIB
    assert size((torch.zeros(2**18), None)) == MIB
