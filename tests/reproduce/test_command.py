"""What ``avseg reproduce`` takes together, and what it refuses in one sentence instead of leaving it out silently."""

from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import records_of

from avseg.cli import main
from avseg.reproduce.definition import experiment_names, read_experiment
from avseg.reproduce.records import write_records

Run = Callable[[str], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command that should fail, and gives the one sentence that it says."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        assert main(["reproduce", *line.split()]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert not list(tmp_path.iterdir())
        (said,) = told.err.splitlines()
        assert said.startswith("avseg: error: ")
        assert said.endswith(".")
        return said.removeprefix("avseg: error: ")

    return run


@pytest.fixture
def shown(capsys: pytest.CaptureFixture) -> Run:
    """Runs a command and gives what it prints."""

    def run(line: str) -> str:
        assert main(["reproduce", *line.split()]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("option", ["--plan", "--only nf", "--shard 1/2", "--set optim.epochs=1", "--data.root data"])
@pytest.mark.parametrize("show", ["", " --show"])
@pytest.mark.parametrize("name", ["hypotheses", "overview"])
def test_a_protocol_refuses_what_is_for_runs(name: str, show: str, option: str, refused: Run) -> None:
    said = refused(f"{name} {option}{show}")
    tables = {"hypotheses": "table3 and table5", "overview": "long, table1 and table3"}[name]
    assert said.startswith(f"{name} answers questions from the results of {tables} and runs nothing, so ")
    assert f"so {option.split()[0]} has no say in it: give it to `avseg reproduce` with one of these tables" in said


def test_a_protocol_without_results_says_what_to_run(refused: Run) -> None:
    said = refused("overview")
    assert said.startswith("runs/reproduce/results has no results of long, table1 and table3 with efficientnet_lite0")
    assert said.endswith("or give --show for the results that come with avseg.")


def test_a_protocol_takes_as_many_seeds_as_are_asked_for(tmp_path: Path, shown: Run) -> None:
    records = [one for name in experiment_names() for one in records_of(read_experiment(name), seeds=4)]
    write_records(tmp_path / "results" / "all.jsonl", records)
    for seeds, counted in (("", "4"), (" --seeds 2", "2")):
        lines = shown(f"hypotheses --out {tmp_path}{seeds}").splitlines()
        assert next(line for line in lines if line.startswith("NF − neither")).split()[-1] == counted


@pytest.mark.parametrize("option", ["--plan", "--shard 1/2", "--set optim.epochs=1", "--data.root data", "--out other"])
def test_what_comes_with_avseg_is_not_changed_by_options_for_runs(option: str, refused: Run) -> None:
    name = option.split()[0]
    said = refused(f"table5 --show {option}")
    assert said == (
        "--show prints the results that come with avseg and runs nothing, so "
        f"{name} has no say in it: leave out --show or {name}."
    )


def test_cells_and_seeds_of_what_comes_with_avseg(shown: Run) -> None:
    lines = shown("table5 --show --only nf,none, --seeds 2").splitlines()
    rows = {line[:24].strip(): line.split() for line in lines if line[:1] not in (" ", "")}
    assert rows["NF"][7] == rows["neither"][7] == "2"
    assert rows["DF"][1] == rows["NF + DF"][3] == "–"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("table5 --show --encoder x", "--encoder: the scale small has no encoder 'x': choose efficientnet_lite0."),
        ("table5 --plan --scale paper --encoder x", "--encoder: the scale paper has no encoder 'x': choose resnet50"),
        ("table5 --plan --shard 9/3", "--shard takes k/n with k from 1 to n, such as 3/8, not 9/3."),
        ("table5 --plan --shard 2/3", "Which runs are part 2/3 is known once runs/reproduce/data holds the data"),
        ("table5 --plan --only ,", "--only names no cell: leave it out"),
        ("table5 --show --only x", "--only: table5 has no cell 'x': it has none, nf, df, nf+df."),
        ("table5 --plan --set optim.epochs", "--set takes FIELD=VALUE, such as run.accelerator=gpu, not optim.epochs."),
        ("table5 --plan --set optim.epoch=1", "--optim.epoch=1 names no field of a configuration"),
        ("table5 --plan --set optim.epochs=x", "--optim.epochs=x has a value of the wrong kind: see avseg train"),
        ("table5 --plan --set data.subset=ms3", "--set can't change data.subset: rows and columns name the subset."),
        ("table5 --set run.seed=5", "--set can't change run.seed: --seeds says how many there are."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_done(line: str, said: str, refused: Run) -> None:
    assert refused(line).startswith(said)


def test_an_encoder_that_a_scale_does_not_have_is_never_taken_for_its_own(avsbench: Path, refused: Run) -> None:
    said = refused(f"table5 --plan --data.root {avsbench} --encoder resnet50")
    assert said == "--encoder: the scale small has no encoder 'resnet50': choose efficientnet_lite0."
