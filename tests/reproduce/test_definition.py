import re
from pathlib import Path

import pytest
import yaml
from made_up import TABLES

from avseg.config import Config
from avseg.errors import AvsegError
from avseg.reproduce import definition
from avseg.reproduce.definition import FOLDER, Cell, Change, Published, experiment_names, read_experiment


def all_cells() -> list[Cell]:
    return [cell for name in TABLES for cell in read_experiment(name).cells]


def test_every_table_is_there_and_read() -> None:
    assert experiment_names() == TABLES == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    for name in TABLES:
        found = read_experiment(name)
        assert found.name == name
        assert found.title
        assert found.question.endswith("?")
        keys = [cell.key for cell in found.cells]
        assert len(keys) == len(set(keys)) == len(found.rows) * max(1, len(found.columns))


@pytest.mark.parametrize("name", TABLES)
def test_published_numbers_are_of_cells(name: str) -> None:
    found = read_experiment(name)
    keys = {cell.key for cell in found.cells}
    for cells in found.paper.values():
        assert set(cells) <= keys
        for numbers in cells.values():
            assert re.fullmatch(r"\d\d\.\d\d", numbers.miou)
            assert re.fullmatch(r"(0?\.\d{3})?", numbers.f_score)


@pytest.mark.parametrize("name", TABLES)
def test_gains_are_over_cells_that_exist(name: str) -> None:
    found = read_experiment(name)
    for cell in found.cells:
        for table, key in found.against(cell):
            assert read_experiment(table).cell(key).row.published_only is False
            assert (table, key) != (name, cell.key)


def test_changes_are_of_fields_that_a_configuration_has() -> None:
    for cell in all_cells():
        of_scales = [path for changes in cell.change.scales.values() for path in changes]
        for path in [*cell.change.set, *cell.change.times, *of_scales]:
            section, _, name = path.partition(".")
            part = getattr(Config(), section)
            for step in name.split("."):
                assert hasattr(part, step), f"{cell.table} {cell.key}: {path}"
                part = getattr(part, step, None)


def test_table_5_is_nf_times_df() -> None:
    found = read_experiment("table5")
    switches = {
        cell.key: (cell.change.set["model.neighbouring_frames"], cell.change.set["ufe.distant_frames"])
        for cell in found.cells
    }
    assert switches == {"none": (False, False), "nf": (True, False), "df": (False, True), "nf+df": (True, True)}
    assert {cell.change.set["data.subset"] for cell in found.cells} == {"s4"}
    assert found.against(found.cell("none")) == []
    for key in ("nf", "df", "nf+df"):
        assert found.against(found.cell(key)) == [("table5", "none")]


def test_columns_and_rows_change_a_cell_together() -> None:
    one = read_experiment("table1").cell("avsegformer+ufe/ms3").change
    assert one.base == "avsegformer"
    assert one.set == {"data.subset": "ms3", "model.neighbouring_frames": True, "ufe.distant_frames": True}
    few = read_experiment("table3").cell("tpavi/10%").change
    assert (few.labels, few.base, few.set["ufe.distant_frames"]) == (0.1, "tpavi", False)
    assert read_experiment("table3").cell("tpavi/100%").change.labels is None
    start = read_experiment("table4").cell("tpavi+ufe/from-s4").change
    assert start.start == {"data.subset": "s4"}
    assert start.set["data.subset"] == "ms3"
    assert read_experiment("table4").cell("tpavi/scratch").change.start is None
    assert read_experiment("table6").cell("burn-in-20").change.scales["paper"] == {"ufe.burn_in": 20}
    assert read_experiment("table6").cell("lambda-0.1").change.set["ufe.unsup_weight"] == 0.1
    assert read_experiment("table1").against(read_experiment("table1").cell("tpavi+ufe/ms3")) == [
        ("table1", "tpavi/ms3")
    ]
    assert read_experiment("controls").against(read_experiment("controls").cell("nf-shuffled")) == [
        ("table5", "none"),
        ("table5", "nf"),
    ]


def test_the_later_change_wins() -> None:
    first = Change(set={"a": 1, "b": 1}, labels=0.1, base="tpavi")
    assert first.then(Change(set={"b": 2}, times={"c": 2.0}, base="avsegformer")) == Change(
        set={"a": 1, "b": 2}, times={"c": 2.0}, labels=0.1, base="avsegformer"
    )


@pytest.mark.parametrize(
    ("place", "encoder", "miou", "f_score"),
    [
        ("table1:tpavi/s4", "resnet50", "72.79", ".848"),
        ("table1:tpavi/s4", "pvt_v2_b5", "78.74", ".879"),
        ("table1:tpavi+ufe/ms3", "pvt_v2_b5", "59.49", ".676"),
        ("table1:avsegformer+ufe/s4", "pvt_v2_b5", "83.15", ".904"),
        ("table2:ecmvae/ms3", "pvt_v2_b5", "57.84", ".708"),
        ("table2:catr/s4", "resnet50", "74.80", ".866"),
        ("table2:sama-avs/ms3", "sam_vit_h", "63.14", ".691"),
        ("table3:tpavi+ufe/10%", "resnet50", "66.67", ".820"),
        ("table3:avsegformer/5%", "pvt_v2_b5", "68.35", ".797"),
        ("table4:tpavi+ufe/from-s4", "resnet50", "54.73", ""),
        ("table4:avsegformer+ufe/scratch", "pvt_v2_b5", "61.95", ""),
        ("table5:none", "pvt_v2_b5", "77.89", ".880"),
        ("table5:none", "resnet50", "72.80", ".848"),
        ("table5:nf+df", "resnet50", "78.15", ".887"),
        ("table6:burn-in-5", "resnet50", "77.72", "0.883"),
        ("table6:lambda-1.0", "resnet50", "77.19", "0.881"),
    ],
)
def test_numbers_are_those_that_were_printed(place: str, encoder: str, miou: str, f_score: str) -> None:
    table, _, cell = place.partition(":")
    assert read_experiment(table).paper[encoder][cell] == Published(miou, f_score)


def test_a_table_that_is_not_there_is_named() -> None:
    with pytest.raises(AvsegError, match=r"no experiment 'table7': choose beyond, .*table6"):
        read_experiment("table7")
    with pytest.raises(AvsegError, match=r"table5 has no cell 'ufe': it has none, nf, df, nf\+df"):
        read_experiment("table5").cell("ufe")


@pytest.mark.parametrize("text", ["rows: [", "title: x", "just words", yaml.safe_dump({"rows": {"a": {"lable": "x"}}})])
def test_a_faulty_file_is_told_in_a_sentence(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(definition, "FOLDER", tmp_path)
    with pytest.raises(AvsegError, match=r"mine\.yaml(: the file is not YAML| is no table of experiments)"):
        read_experiment("mine")
