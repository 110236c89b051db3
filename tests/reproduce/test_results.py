"""The results that come with avseg: whole, of places that exist, and what the documents quote."""

import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest

from avseg.evaluation.compare import Difference
from avseg.reproduce.definition import RESULTS, protocol_names, read_experiment
from avseg.reproduce.document import to_markdown
from avseg.reproduce.hypotheses import answer_hypotheses, read_hypotheses
from avseg.reproduce.records import read_records
from avseg.reproduce.summary import Summary, summarise
from avseg.reproduce.table import known_records
from avseg.reproduce.wording import miou_gain
from benchmarks.tables import DOCUMENT, tables

REPOSITORY = Path(__file__).parents[2]
ENCODER = "efficientnet_lite0"
RECORDS = known_records()
TABLES = sorted({record.experiment for record in RECORDS})


@cache
def shipped(table: str) -> Summary:
    return summarise(read_experiment(table), RECORDS, ENCODER, "small")


def test_there_are_three_seeds_of_table_5_and_of_ten_percent_of_the_labels() -> None:
    places = {(record.experiment, record.cell, record.seed) for record in RECORDS if record.scale == "small"}
    assert len(places) == len(RECORDS)
    for table, cells in {"table5": ("none", "nf", "df", "nf+df"), "table3": ("tpavi/10%", "tpavi+ufe/10%")}.items():
        assert {(table, cell, seed) for cell in cells for seed in range(3)} <= places


def test_every_mean_is_that_of_its_videos_and_every_place_exists() -> None:
    for record in RECORDS:
        cell = read_experiment(record.experiment).cell(record.cell)
        assert len(record.videos) == record.data["counts"]["test"]
        for metric, value in (("miou", record.miou), ("f_score", record.f_score)):
            assert fmean(record.per_video(metric).values()) == pytest.approx(value, abs=1e-4)
            assert record.protocols[record.protocol][metric] == value
        assert record.config["run"]["seed"] == record.seed
        for field, value in cell.change.set.items():
            section, _, name = field.partition(".")
            found = record.config[section]
            for part in name.split("."):
                found = found[part]
            assert found == value, (record.experiment, record.cell, field)
        assert {"revision", "torch", "machine", "date"} <= set(record.origin)
        assert not record.origin["revision"].endswith("+"), "the source had changes that no revision has"


def test_results_of_one_table_are_of_one_benchmark_and_one_run_has_one_result() -> None:
    assert len({(record.subset, record.data["hash"]) for record in RECORDS}) == len({r.subset for r in RECORDS})
    by_run: dict[str, set[float]] = {}
    for record in RECORDS:
        by_run.setdefault(record.run, set()).add(record.miou)
    assert all(len(values) == 1 for values in by_run.values())


def test_results_name_no_path_of_a_machine() -> None:
    for file in RESULTS.glob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            values = json.loads(line)
            text = json.dumps({key: value for key, value in values.items() if key != "videos"})
            assert not re.search(r'"/\w', text), file.name
    assert read_records(RESULTS) == RECORDS


def test_the_findings_quote_what_was_measured() -> None:
    """Every seed's score, every gain and every answer."""
    text = (REPOSITORY / "docs" / "findings.md").read_text(encoding="utf-8").replace("−", "-")
    for record in RECORDS:
        assert f"{100 * record.miou:.2f}" in text, (record.experiment, record.cell, record.seed)
    for table in TABLES:
        for cell, gain in shipped(table).gains:
            assert miou_ends(gain.miou) in text, (table, cell.cell.key, gain.over)
    for name in protocol_names():
        for outcome in answer_hypotheses(RECORDS, ENCODER, "small", protocol=read_hypotheses(name)).outcomes:
            if outcome.difference:
                assert miou_ends(outcome.difference) in text, outcome.hypothesis.name
            assert name != "hypotheses" or outcome.difference


def miou_ends(found: Difference) -> str:
    """A difference as the findings write it."""
    return f"{100 * found.mean:+.2f}, {100 * found.low:+.2f} … {100 * found.high:+.2f}"


@pytest.mark.parametrize("table", TABLES)
def test_what_comes_with_avseg_can_be_shown(table: str) -> None:
    summary = shipped(table)
    text = to_markdown(summary)
    for _, gain in summary.gains:
        assert miou_gain(gain.miou) in text


def test_the_rendered_tables_are_those_of_the_results() -> None:
    assert DOCUMENT.read_text() == tables(), "python benchmarks/tables.py renders them again"
