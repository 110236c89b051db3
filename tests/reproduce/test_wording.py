"""Numbers as they are printed, and that each stands in its own column."""

from dataclasses import replace

import pytest
from made_up import record

from avseg.evaluation.compare import Difference
from avseg.reproduce import wording
from avseg.reproduce.definition import read_experiment
from avseg.reproduce.figures import _mean_by
from avseg.reproduce.hypotheses import answer_hypotheses
from avseg.reproduce.records import Record
from avseg.reproduce.sheets import answers_sheet, diagnostics_sheets, gains_sheet, result_sheet
from avseg.reproduce.summary import Spread, Summary, summarise

LEVELS = {"none": 0.40, "nf": 0.405, "df": 0.41, "nf+df": 0.5}


def uneven(place: str, seed: int, level: float) -> Record:
    """F gains another amount than mIoU, and no number of the diagnostics is another's."""
    one = record(place, seed, level)
    videos = {
        name: (miou + 0.02 * level * (-1) ** i, f + level * (1 + 0.5 * (-1) ** i))
        for i, (name, (miou, f)) in enumerate(one.videos.items())
    }
    part = {"frames": 100, "iou": 0.3 + 0.01 * seed, "selection": 0.4 + 0.01 * seed, "quality": 0.8 + 0.01 * seed}
    silent = {"frames": 9, "background": 0.9 + 0.01 * seed}
    strata = {"moving source": {**part, "iou": 0.1, "selection": 0.2, "quality": None if seed else 0.7}}
    return replace(one, videos=videos, diagnostics={"sounding": part, "silent": silent, "strata": strata})


@pytest.fixture(scope="module")
def summary() -> Summary:
    found = [uneven(f"table5:{key}", seed, level) for key, level in LEVELS.items() for seed in range(3)]
    return summarise(read_experiment("table5"), found, "efficientnet_lite0", samples=500)


def test_numbers_as_the_papers_print_them() -> None:
    gain = Difference(0.011, 0.0042, 0.0178, 0.01234, 40, 3)
    assert wording.miou_gain(gain) == "+1.10 [+0.42, +1.78]"
    assert wording.f_score_gain(gain) == "+.011 [+.004, +.018]"
    loss = Difference(-0.011, -0.0178, 0.0042, 0.5, 40, 3)
    assert wording.miou_gain(loss) == "-1.10 [-1.78, +0.42]"
    assert wording.f_score_gain(loss) == "-.011 [-.018, +.004]"
    assert (wording.p_value(0.01234), wording.p_value(None)) == ("0.0123", "–")
    assert wording.miou(Spread(0.7815, 0.0042)) == "78.15 ± 0.42"
    assert wording.f_score(Spread(0.887, 0.004)) == ".887 ± .004"
    assert (wording.miou(Spread(0.7815, None)), wording.f_score(None)) == ("78.15", "–")
    assert (wording.fraction(1.0), wording.fraction(0.05)) == ("1.000", ".050")


def test_every_gain_stands_under_its_metric_with_its_corrected_p(summary: Summary) -> None:
    gains = [gain for _, gain in summary.gains]
    assert any(gain.p != gain.miou.p for gain in gains)
    for row, gain in zip(gains_sheet(summary).rows, gains, strict=True):
        assert gain.f_score.mean != pytest.approx(gain.miou.mean, rel=0.1)
        assert row[1:] == [
            wording.miou_gain(gain.miou),
            wording.f_score_gain(gain.f_score),
            wording.p_value(gain.p),
            "3",
            "40",
        ]


def test_the_table_itself_gives_the_corrected_p(summary: Summary) -> None:
    (block,) = wording.blocks(summary)
    rows = result_sheet(summary, block).rows
    for cell, row in zip(block.cells, rows, strict=True):
        for gain in cell.gains:
            assert wording.p_value(gain.p) in row
            assert any(wording.miou_gain(gain.miou) in text for text in row)


def test_answers_give_their_corrected_p() -> None:
    levels = {f"table5:{key}": level for key, level in LEVELS.items()}
    found = [uneven(place, seed, level) for place, level in levels.items() for seed in range(3)]
    outcomes = answer_hypotheses(found, "efficientnet_lite0", samples=500)
    known = [one for one in outcomes.outcomes if one.difference]
    assert any(one.p != one.difference.p for one in known if one.difference)
    rows = answers_sheet(outcomes).rows
    assert [row[3] for row in rows] == [wording.p_value(one.p) for one in outcomes.outcomes]
    assert [row[2] for row in rows if row[2] != "–"] == [wording.miou_gain(one.difference) for one in known]  # type: ignore[arg-type]


def test_diagnostics_are_means_over_seeds_each_in_its_table(summary: Summary) -> None:
    rows = {sheet.title: sheet.rows for sheet in diagnostics_sheets(summary)}
    assert [row[1:] for row in rows["Right object, % of frames"][:2]] == [["100", "100"], ["41.0", "20.0"]]
    assert rows["IoU where the object is right, %"][1][1:] == ["81.0", "70.0"], "of the seeds that know it"
    assert rows["IoU, %"][1][1:] == ["31.0", "10.0"]
    assert rows["Silent seconds"][0][1:] == ["91.0"]


def test_curves_are_means_over_seeds() -> None:
    points = [(2, 0.1), (1, 0.5), (2, 0.3), (1, 0.7), (2, 0.8)]
    assert _mean_by(points) == [(1, pytest.approx(60)), (2, pytest.approx(40))]
