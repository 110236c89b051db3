import io
from dataclasses import replace

import pytest
from made_up import TABLES, record, records_of
from rich.console import Console, RenderableType

from avseg.reproduce.definition import experiment_names, read_experiment
from avseg.reproduce.document import answers_to_terminal, to_terminal
from avseg.reproduce.hypotheses import answer_hypotheses
from avseg.reproduce.records import Record
from avseg.reproduce.summary import summarise

ENCODER = "efficientnet_lite0"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [one for name in experiment_names() for one in records_of(read_experiment(name))]


def printed(table: RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def shown(name: str, records: list[Record]) -> str:
    return printed(to_terminal(summarise(read_experiment(name), records, ENCODER, samples=50)), 200)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("much", [True, False])
def test_every_table_fits_and_is_whole(name: str, much: bool, records: list[Record]) -> None:
    # A minus, two digits before the point and a wide interval are the widest that a gain can be.
    wide = [replace(one, miou=one.miou / 5, videos=_far(one)) for one in records]
    found = summarise(read_experiment(name), wide if much else [], ENCODER, samples=50)
    text = printed(to_terminal(found))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = " ".join(text.split())
    for cells in found.experiment.paper.values():
        for numbers in cells.values():
            assert f"{numbers.miou} {numbers.f_score}".strip() in words
    for cell in found.cells:
        assert all(word in words for word in cell.cell.row.label.split())
        if much and cell.miou:
            assert f"{100 * cell.miou.mean:.2f} ± {100 * (cell.miou.sd or 0):.2f}" in text
    for _, gain in found.gains:
        assert f"{100 * gain.miou.mean:+.2f} [" in text


def _far(one: Record) -> dict[str, tuple[float, float]]:
    sign = -0.3 if "ufe" in one.cell or "nf" in one.cell else 0.3
    return {name: (0.5 + sign + (0.1 if n % 2 else -0.1), b) for n, (name, (_, b)) in enumerate(one.videos.items())}


def test_what_it_is_of_is_said(records: list[Record]) -> None:
    text = shown("table5", records)
    assert "Table 5. Neighbouring frames (NF) and distant frames (DF)" in text
    ours = "generated benchmark small 1.0 (hash 845e43c2-s4), EfficientNet-Lite0, 96 px, 592 steps, T = 1, 3 seeds"
    assert ours in text
    assert "AVSBench, ResNet-50, PVT-v2. Other data, other encoders" in text
    assert "S4 845e43c2-s4, MS3 845e43c2-ms3" in shown("table1", records)


def test_a_folder_in_avsbench_layout_is_comparable_only_if_it_is_avsbench() -> None:
    data = {"kind": "AVSBench's layout", "hash": "abc"}
    text = shown("table5", [record("table5:none", 0, data=data)])
    assert "AVSBench's layout (hash abc)" in text
    assert "Other data, other encoders" in text  # the encoder is a small one
    found = summarise(
        read_experiment("table5"), [record("table5:none", 0, data=data, encoder="resnet50")], "resnet50", samples=50
    )
    assert "Comparable with ours where our data are AVSBench itself" in printed(to_terminal(found), 200)


def test_a_row_has_ours_gain_and_papers(records: list[Record]) -> None:
    lines = [line.split() for line in shown("table5", records).splitlines()]
    row = next(line for line in lines if line[:3] == ["NF", "+", "DF"])
    assert row[3:] == [
        "44.60",
        "±",
        "1.00",
        ".510".replace("510", "546"),
        "±",
        ".010",
        "3",
        "78.15",
        ".887",
        "82.49",
        ".912",
    ]
    gain = lines[lines.index(row) + 1]
    assert gain[:5] == ["over", "neither", "+3.60", "[+3.60,", "+3.60]"]
    assert gain[-2:] == ["+5.35", "+4.60"]


def test_what_was_not_run_is_a_dash() -> None:
    text = shown("table5", [record("table5:none", 0)])
    nf = next(line for line in text.splitlines() if line.startswith("NF "))
    assert nf.split() == ["NF", "–", "–", "76.17", ".869", "81.01", ".903"]
    assert next(line for line in text.splitlines() if line.startswith("neither")).split()[1] == "50.00"
    assert "nothing has been run yet" in shown("table5", [])


def test_answers_fit_and_say_which_was_better(records: list[Record]) -> None:
    text = printed(answers_to_terminal(answer_hypotheses(records, ENCODER, samples=50)))
    assert max(map(len, text.splitlines())) <= 80
    assert "NF + DF − the better one" in text
    assert "table5:df" in text
    few = [one for one in records if one.experiment == "table5"]
    assert "no answer without results of" in printed(answers_to_terminal(answer_hypotheses(few, ENCODER, samples=50)))
