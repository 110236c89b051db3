"""From places to runs: the right configuration for each, one run for what is the same, parts that share nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers import read_videos
from made_up import TABLES

from avseg.errors import AvsegError
from avseg.reproduce.data import given_source
from avseg.reproduce.definition import Change, read_experiment, read_scale, scale_names
from avseg.reproduce.plan import Planner, Run, needed, shard


@pytest.fixture
def planner(avsbench: Path, tmp_path: Path) -> Planner:
    scale = read_scale("small")
    sources = {subset: given_source(avsbench, subset) for subset in ("s4", "ms3")}
    return Planner(scale, scale.encoders[0], sources, tmp_path)


def runs(planner: Planner, table: str, *only: str, seeds: int = 1) -> dict[str, Run]:
    places = planner.places(read_experiment(table), range(seeds), only)
    return {f"{p.cell.table}:{p.cell.key}:{p.seed}": p.run for p in places}


def test_table_5_switches_neighbouring_and_distant_frames_and_nothing_else(planner: Planner) -> None:
    found = runs(planner, "table5", seeds=2)
    assert list(found) == [f"table5:{cell}:{seed}" for seed in (0, 1) for cell in ("none", "nf", "df", "nf+df")]
    switches = {
        key: (run.config.model.neighbouring_frames, run.config.ufe.distant_frames) for key, run in found.items()
    }
    assert switches["table5:none:0"] == (False, False)
    assert switches["table5:nf:0"] == (True, False)
    assert switches["table5:df:1"] == (False, True)
    assert switches["table5:nf+df:1"] == (True, True)
    plain = []
    for run in found.values():
        values = run.config.to_dict()
        values["model"]["neighbouring_frames"] = values["ufe"]["distant_frames"] = values["run"]["out"] = None
        values["run"]["seed"] = None
        plain.append(values)
    assert all(values == plain[0] for values in plain)
    assert [run.config.run.seed for run in found.values()] == [0] * 4 + [1] * 4
    assert len({run.name for run in found.values()}) == 8


def test_places_of_several_tables_are_one_run(planner: Planner) -> None:
    five, one = runs(planner, "table5"), runs(planner, "table1")
    three, six = runs(planner, "table3"), runs(planner, "table6")
    names = {run.name for run in (five["table5:none:0"], one["table1:tpavi/s4:0"], three["table3:tpavi/100%:0"])}
    assert len(names) == 1
    both = {
        five["table5:nf+df:0"].name,
        one["table1:tpavi+ufe/s4:0"].name,
        three["table3:tpavi+ufe/100%:0"].name,
        six["table6:burn-in-10:0"].name,
        six["table6:lambda-0.5:0"].name,
    }
    assert len(both) == 1
    assert len(needed([*five.values(), *one.values()])) == len(five) + len(one) - 2


def test_how_flow_is_fused_decides_where_there_is_flow(planner: Planner) -> None:
    fusions = [{"model.flow_fusion": fusion} for fusion in ("gated", "sum", "normalised")]
    for flow, names in ((True, 3), (False, 1)):
        asked = [Change(set={"model.neighbouring_frames": flow, **fusion}) for fusion in fusions]
        found = [planner.run(change, 0).name for change in (*asked, Change(set={"model.neighbouring_frames": flow}))]
        assert len(set(found)) == names
        assert found[1] == found[-1], "the small recipe of TPAVI keeps the sum"


def test_what_decides_a_result_decides_the_name(planner: Planner, avsbench: Path, tmp_path: Path) -> None:
    change = Change(set={"model.neighbouring_frames": True})
    name = planner.run(change, 0).name
    elsewhere = Planner(planner.scale, planner.encoder, planner.sources, tmp_path / "else", ("--run.accelerator=auto",))
    assert elsewhere.run(change, 0).name == name
    other_data = {subset: replace(source, hash="else") for subset, source in planner.sources.items()}
    others = [
        planner.run(change, 1),
        planner.run(Change(), 0),
        planner.run(change.then(Change(set={"data.subset": "ms3"})), 0),
        planner.run(change.then(Change(labels=0.25)), 0),
        planner.run(change.then(Change(start={})), 0),
        Planner(planner.scale, planner.encoder, planner.sources, tmp_path, ("--optim.epochs=7",)).run(change, 0),
        replace(planner, overrides=("--run.precision=bf16-mixed",)).run(change, 0),
        replace(planner, sources=other_data).run(change, 0),
    ]
    # Words and seed are for people: the digest at the end tells runs apart by itself.
    assert len({found.rpartition("-")[2] for found in (name, *(run.name for run in others))}) == 9


def test_fewer_labels_are_nested_subsets_in_files(planner: Planner, avsbench: Path) -> None:
    found = runs(planner, "table3", "tpavi", seeds=2)
    videos = {video[0].video for video in read_videos(avsbench, "s4") if video[0].split == "train"}

    def labels(column: str, seed: int = 0) -> set[str]:
        file = found[f"table3:tpavi/{column}:{seed}"].config.data.labelled
        assert file is not None
        return set(Path(file).read_text().split())

    assert labels("25%") < labels("50%") < videos
    assert (len(labels("25%")), len(labels("50%"))) == (2, 4)
    assert found["table3:tpavi/100%:0"].config.data.labelled is None
    assert any(labels(column) != labels(column, 1) for column in ("25%", "50%"))


def test_a_run_that_starts_from_another_comes_after_it(planner: Planner) -> None:
    found = runs(planner, "table4", "tpavi")
    run = found["table4:tpavi/from-s4:0"]
    assert run.start is not None
    assert (run.config.data.subset, run.start.config.data.subset) == ("ms3", "s4")
    assert run.config.weights.start == str(run.start.folder)
    assert run.start.name == runs(planner, "table5")["table5:none:0"].name
    order = [each.name for each in needed(list(found.values()))]
    assert order.index(run.start.name) < order.index(run.name)


def test_burn_in_and_lambda_are_those_of_the_row(planner: Planner, avsbench: Path, tmp_path: Path) -> None:
    found = runs(planner, "table6")
    rows = ("5", "10", "20", "30")
    assert [found[f"table6:burn-in-{row}:0"].config.ufe.burn_in for row in rows] == [3, 6, 9, 12]
    assert found["table6:lambda-0.1:0"].config.ufe.unsup_weight == 0.1
    full = Planner(read_scale("paper"), "resnet50", planner.sources, tmp_path)
    found = runs(full, "table6")
    assert [found[f"table6:burn-in-{row}:0"].config.ufe.burn_in for row in rows] == [5, 10, 20, 30]


def test_factors_multiply_what_the_scale_says(planner: Planner) -> None:
    found = runs(planner, "controls")
    epochs = found["table5:none:0"].config.optim.epochs
    assert found["controls:compute:0"].config.optim.epochs == round(2.5 * epochs)
    asked = replace(planner, overrides=("--optim.epochs=7", "--optim.learning_rate=0.5"))
    optim = asked.run(Change(times={"optim.epochs": 1.4, "optim.learning_rate": 0.5}), 0).config.optim
    assert (optim.epochs, optim.learning_rate) == (10, 0.25), "of what the command line says, and to the nearest"
    unchanged = asked.run(Change(times={"optim.epochs": 2}), 0).config.optim
    assert (unchanged.epochs, unchanged.learning_rate) == (14, 0.5)
    # What the scale says of a subset is where a table's own changes begin.
    ms3 = [Change(set={"data.subset": "ms3", **more}) for more in ({}, {"optim.epochs": 9})]
    assert [planner.run(change, 0).config.optim.epochs for change in ms3] == [6, 9]


@pytest.mark.parametrize("table", TABLES)
def test_every_cell_of_every_table_has_a_configuration(planner: Planner, table: str) -> None:
    for run in runs(planner, table).values():
        burn_in, epochs = run.config.ufe.burn_in, run.config.optim.epochs
        assert burn_in < epochs or not run.config.ufe.distant_frames


def test_the_papers_scale_takes_the_papers_configurations(avsbench: Path, tmp_path: Path) -> None:
    assert scale_names() == ["paper", "small"]
    scale = read_scale("paper")
    sources = {subset: given_source(avsbench, subset) for subset in ("s4", "ms3")}
    for encoder in scale.encoders:
        planner = Planner(scale, encoder, sources, tmp_path)
        for key, run in runs(planner, "table1").items():
            assert run.config.model.image_encoder == encoder
            assert run.config.model.inputs.image_size == 224
            assert run.config.ufe.distant_frames == ("ufe" in key)
            assert run.config.data.subset == run.source.subset == key.split("/")[1].split(":")[0]


def test_parts_share_no_run_and_leave_none_out(planner: Planner) -> None:
    everything = needed(list(runs(planner, "table5", seeds=3).values()))
    parts = [shard(everything, f"{k}/5") for k in range(1, 6)]
    assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in everything)
    for wrong in ("0/5", "6/5", "x", "1", "1/0", "-1/2"):
        with pytest.raises(AvsegError, match="3/8"):
            shard(everything, wrong)


def test_the_controls_bring_what_they_are_compared_with(planner: Planner) -> None:
    found = runs(planner, "controls")
    assert {"table5:none:0", "table5:nf:0", "table5:df:0", "table5:nf+df:0"} < set(found)
    assert "table5:none:0" not in runs(planner, "controls", "compute")


def test_a_cell_that_is_not_there_is_named(planner: Planner) -> None:
    with pytest.raises(AvsegError, match=r"'both'.*nf\+df"):
        runs(planner, "table5", "both")
    with pytest.raises(AvsegError, match=r"choose .*table5"):
        read_experiment("table7")
    with pytest.raises(AvsegError, match="paper or small"):
        read_scale("large")
