import io
import re
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from made_up import TABLES, record, records_of
from PIL import Image

from avseg.reproduce.definition import experiment_names, read_experiment
from avseg.reproduce.document import answers_to_markdown, to_html, to_markdown, write_answers, write_documents
from avseg.reproduce.figures import arms_figure, gains_figure, pseudo_figure, save_picture, validation_figure
from avseg.reproduce.hypotheses import answer_hypotheses
from avseg.reproduce.records import Record
from avseg.reproduce.sheets import settings_sheet
from avseg.reproduce.summary import Summary, summarise

ENCODER = "efficientnet_lite0"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [one for name in experiment_names() for one in records_of(read_experiment(name))]


def summary(name: str, records: list[Record]) -> Summary:
    return summarise(read_experiment(name), records, ENCODER, samples=50)


def test_markdown_has_ours_beside_the_papers(records: list[Record]) -> None:
    text = to_markdown(summary("table5", records))
    assert text.startswith("### Table 5. ")
    row = "| NF | 42.20 ± 1.00 | .522 ± .010 | 3 | +1.20 [+1.20, +1.20] | 0.1176 | 76.17 (+3.37) | .869 "
    assert re.sub(
        r"0\.\d{4} \| 76", "0.1176 | 76", next(x for x in text.splitlines() if x.startswith("| NF |"))
    ).startswith(row)
    for words in ("845e43c2-s4", "EfficientNet-Lite0", "96 px", "592 steps", "T = 1", "Other data, other encoders"):
        assert words in text


def test_both_values_of_the_papers_baseline_are_kept(records: list[Record]) -> None:
    tables = [summary(name, records) for name in ("table1", "table5")]
    for document in (to_markdown, to_html):
        assert re.search(r"78\.74[^.]", document(tables[0]))
        assert re.search(r"77\.89[^.]", document(tables[1]))
        # Each also says what the other one has.
        assert "77.89" in document(tables[0])
        assert "78.74" in document(tables[1])


@pytest.mark.parametrize("name", TABLES)
def test_every_table_of_markdown_is_rectangular(name: str, records: list[Record]) -> None:
    for found in (records, []):
        text = to_markdown(summary(name, found), details=True)
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({line.count("|") for line in block.splitlines()}) == 1
        for cells in read_experiment(name).paper.values():
            for numbers in cells.values():
                assert numbers.miou in text
                assert numbers.f_score in text


def test_page_stands_alone_and_has_the_numbers(records: list[Record]) -> None:
    outcomes = answer_hypotheses(records, ENCODER, samples=50)
    text = to_html(summary("table5", records), outcomes, ["avseg reproduce table5"])
    page = Page(text)
    assert page.addresses
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert not re.search(r"https?:|url\(|@import|<script|<link", text)
    row = next(row for row in page.rows if row[0] == "NF + DF" and "44.60 ± 1.00" in row)
    assert row[6:] == ["78.15 (+5.35)", ".887", "82.49 (+4.60)", ".912"]
    assert any("Do neighbouring frames help?" in row for row in page.rows)
    assert ["machine", "a CPU"] in page.rows
    selection = next(row for row in page.rows if row[0] == "neither" and row[1] == "41.0")
    assert len(selection) == 7


def test_what_cells_differ_in(records: list[Record]) -> None:
    sheet = settings_sheet(summary("table5", records))
    assert sheet.head == ["", "model.neighbouring_frames", "steps", "parameters", "minutes"]
    assert ["NF + DF", "true", "592", "5.00", "10.0"] in sheet.rows
    text = to_html(summary("table5", records))
    assert "runs/none" not in text
    assert "run.seed" not in text


def test_a_table_without_results_is_still_a_page() -> None:
    page = Page(to_html(summary("table5", [])))
    assert any(row[:4] == ["neither", "–", "–", "–"] for row in page.rows)


def test_documents_are_written(records: list[Record], tmp_path: Path) -> None:
    written = write_documents(summary("table5", records), tmp_path, answer_hypotheses(records, ENCODER, samples=50))
    names = ["table5.md", "table5.html", "table5.png", "table5-training.png", "table5-pseudo.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert "written down beforehand" in (tmp_path / "table5.md").read_text(encoding="utf-8")
    for path in written[2:]:
        assert np.asarray(Image.open(path).convert("RGB"))[0, 0].tolist() == [255, 255, 255]
    assert [path.name for path in write_documents(summary("table6", []), tmp_path / "b")] == [
        "table6.md",
        "table6.html",
    ]


def test_answers_as_markdown(records: list[Record]) -> None:
    text = answers_to_markdown(answer_hypotheses(records, ENCODER, samples=50))
    assert "| Do distant frames help? | DF − neither | +2.40 [+2.40, +2.40] |" in text


def test_answers_are_written_with_a_figure_where_there_are_any(records: list[Record], tmp_path: Path) -> None:
    written = write_answers(answer_hypotheses(records, ENCODER, samples=50), "hypotheses", tmp_path)
    assert [path.name for path in written] == ["hypotheses.md", "hypotheses.png"]
    assert "DF − neither" in written[0].read_text(encoding="utf-8")
    assert Image.open(written[1]).width > 500
    nothing = write_answers(answer_hypotheses([], ENCODER), "overview", tmp_path / "b")
    assert [path.name for path in nothing] == ["overview.md"]
    assert "No results" in nothing[0].read_text(encoding="utf-8")


def test_a_dot_for_every_seed_and_the_gain_beside_it(records: list[Record]) -> None:
    axes = arms_figure(summary("table5", records)).axes[0]
    dots = sorted(float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o")
    runs = [one for one in records if one.experiment == "table5"]
    assert dots == pytest.approx(sorted(100 * one.miou for one in runs))
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if text.startswith("+")] == [
        f"+{x}.{y}0 [+{x}.{y}0, +{x}.{y}0]" for x, y in ((1, 2), (2, 4), (3, 6))
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["neither", "NF", "DF", "NF + DF"]


def test_figures_have_a_panel_for_each_column(records: list[Record]) -> None:
    assert len(arms_figure(summary("table3", records)).axes) == 5
    some = [one for one in records if one.cell.endswith("/10%")]
    assert [axes.get_title(loc="left") for axes in arms_figure(summary("table3", some)).axes] == ["10 %"]
    assert len(gains_figure(summary("table3", records)).axes[0].get_yticklabels()) == 10


def test_pseudo_masks_stand_beside_the_truth(records: list[Record]) -> None:
    figure = pseudo_figure(summary("table5", records))
    assert figure is not None
    iou, foreground = figure.axes
    assert [line.get_label() for line in iou.lines] == ["neither", "NF", "DF", "NF + DF"]
    assert iou.lines[0].get_ydata()[0] == pytest.approx(40)
    truth = next(line for line in foreground.lines if line.get_label() == "the truth's")
    assert truth.get_ydata()[0] == pytest.approx(9)
    assert pseudo_figure(summary("table5", [record("table5:none", 0, pseudo=[])])) is None


def test_validation_is_the_mean_and_every_seed(records: list[Record]) -> None:
    one = [record("table5:none", seed, validation=[(10, 0.2 + 0.1 * seed), (20, 0.4)]) for seed in (0, 1)]
    figure = validation_figure(summary("table5", one))
    assert figure is not None
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [
        pytest.approx([20, 40]),
        pytest.approx([30, 40]),
        pytest.approx([25, 40]),
    ]
    assert validation_figure(summary("table5", [])) is None


def test_a_picture_is_on_white_paper(records: list[Record], tmp_path: Path) -> None:
    path = save_picture(arms_figure(summary("table5", records)), tmp_path / "arms.png", dpi=50)
    picture = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGBA"))
    assert picture[0, 0].tolist() == [255] * 4
    assert picture.min() < 60
