import base64
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from avseg.errors import AvsegError
from avseg.evaluation.compare import Comparison, Difference
from avseg.evaluation.curves import curve_panels, forest
from avseg.evaluation.diagnostics import Second, diagnose
from avseg.evaluation.report import Arm, Report, compare_arms, verdict, write_report
from avseg.evaluation.scores import Evaluation, Scores, VideoScore
from avseg.render import GridRow, qualitative_grid


def evaluation(gain: float, videos: int = 12, silent: bool = False) -> Evaluation:
    rng = np.random.default_rng(0)
    found = []
    for i in range(videos):
        frames = tuple(float(value) for value in np.clip(rng.uniform(0.2, 0.8, 5) + gain, 0, 1))
        quiet = (silent,) + (False,) * 4
        found.append(
            VideoScore(f"v{i}", ("dog", "cat_meowing")[i % 2], float(np.mean(frames)), frames[0], frames, quiet)
        )
    scores = {name: Scores(name, tuple(found)) for name in ("T=5", "T=1")}
    scenes = {f"v{i}": (Second(i % 3 == 0, i % 2 == 0, False, False),) * 5 for i in range(videos)}
    return Evaluation("m", "r", "s4", "test", "0", scores, {name: diagnose(scores[name], scenes) for name in scores})


def curve(factor: float) -> list[dict[str, float]]:
    rows = [{"step": float(i), "loss/sup": factor / i} for i in range(1, 101)]
    for row in rows[9::10]:
        row["val/miou"] = 0.3 + row["step"] / 1000
    return rows


@pytest.fixture(scope="module")
def report() -> Report:
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    mask = frame[..., 0] > 100
    grid = qualitative_grid(
        [GridRow({"frame": frame, "truth": mask, "UFE": mask}, "dog", 0.9375)], ("frame", "truth", "UFE")
    )
    return Report(
        title="A <small> trial & its numbers",
        arms=(
            Arm("baseline", (evaluation(0.0),), curve(1.0)),
            Arm("UFE", (evaluation(0.05),), curve(0.9)),
        ),
        pictures=[("Two masks", grid)],
        video="overlay.mp4",
        video_caption="An unseen video.",
        facts={"Benchmark": {"version": "1.0", "hash": "abc123", "counts": {"train": 120, "test": 12}}, "Empty": {}},
        commands=["avseg demo --seed 0", "echo 'a' && echo <b>"],
        limits=["Images are small."],
        generated=True,
    )


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    path = write_report(tmp_path_factory.mktemp("report") / "report.html", report)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_numbers_shown_are_the_numbers_given(report: Report, page: tuple[str, Page]) -> None:
    for arm in report.arms:
        scores = arm.evaluations[0].scores
        numbers = [f"{100 * value:.2f}" for s in scores.values() for value in (s.miou, s.f_score)]
        assert [arm.name, *numbers] in page[1].rows
    for row in compare_arms(report.arms)["UFE"]:
        gain = row.difference
        label = f"{ {'miou': 'mIoU', 'f_score': 'F-score'}[row.metric] }, {row.protocol}"
        interval = f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}"
        assert [label, f"{100 * gain.mean:+.2f}", interval, f"{gain.p:.4f}"] in page[1].rows
    means = [arm.evaluations[0].scores["T=5"].categories["cat_meowing"].miou for arm in report.arms]
    assert ["cat meowing", "6", *(f"{100 * mean:.1f}" for mean in means)] in page[1].rows


def test_breakdown_is_that_of_the_diagnostics(report: Report, page: tuple[str, Page]) -> None:
    cells = []
    for arm in report.arms:
        found = arm.evaluations[0].diagnostics["T=5"]["strata"]["still source"]
        cells += [f"{100 * found['selection']:.1f}", f"{100 * found['quality']:.1f}"]
    assert ["still source", "40", *cells] in page[1].rows


def test_facts_commands_and_limits_are_there(page: tuple[str, Page]) -> None:
    assert ["hash", "abc123"] in page[1].rows
    assert ["counts", "train 120, test 12"] in page[1].rows
    for text in ("A <small> trial & its numbers", "echo 'a' && echo <b>", "Images are small.", "trained once",
                 "The test set has 12 videos", "videos are generated"):  # fmt: skip
        assert text in page[1].text
    assert "Empty" not in page[1].text


def test_page_stands_alone(page: tuple[str, Page]) -> None:
    outside = {address for address in page[1].addresses if not address.startswith("data:")}
    assert outside == {"overlay.mp4"}
    assert not re.search(r"(https?:)?//[a-z]|@import|url\(|<script|<link", page[0].split("<main>")[0])
    assert "://" not in re.sub(r"data:[^\"]*", "", page[0])


def test_every_picture_decodes(page: tuple[str, Page]) -> None:
    kinds = []
    for address in page[1].addresses:
        if address.startswith("data:"):
            kind, data = address.removeprefix("data:").split(";base64,")
            kinds.append(kind)
            if kind == "image/png":
                assert np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L")).std() > 5
            else:
                assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    # one grid; differences, loss and validation mIoU for light and for dark pages
    assert sorted(kinds) == ["image/png"] + ["image/svg+xml"] * 6


def test_same_report_same_bytes(report: Report, tmp_path: Path) -> None:
    plain = replace(report, pictures=(), arms=tuple(replace(arm, curves=arm.curves[:20]) for arm in report.arms))
    one, two = (write_report(tmp_path / name, plain).read_bytes() for name in ("1.html", "2.html"))
    assert one == two


def test_least_report(tmp_path: Path) -> None:
    text = write_report(
        tmp_path / "report.html", Report("Alone", (Arm("baseline", (evaluation(0, silent=True),)),))
    ).read_text()
    assert "<img" not in text
    assert "background kept" in Page(text).text
    with pytest.raises(AvsegError, match="no model"):
        write_report(tmp_path / "none.html", Report("None", ()))
    assert not (tmp_path / "none.html").exists()


def test_several_arms_and_seeds(tmp_path: Path) -> None:
    arms = tuple(
        Arm(name, (evaluation(g), evaluation(g + 0.02))) for name, g in (("base", 0.0), ("NF", 0.1), ("DF", 0.0))
    )
    page = Page(write_report(tmp_path / "report.html", Report("Three", arms)).read_text())
    assert "NF is better than base by" in page.text
    assert "No difference between DF and base can be told" in page.text
    assert "2 training runs of each" in page.text
    mean = np.mean([found.scores["T=5"].miou for found in arms[1].evaluations])
    assert next(row for row in page.rows if row and row[0] == "NF")[1] == f"{100 * mean:.2f}"


@pytest.mark.parametrize(
    ("mean", "low", "high", "expected"),
    [
        (0.032, 0.01, 0.054, "UFE is better than baseline by 3.2 mIoU points at T=1 (95 % interval +1.0 to +5.4), "
         "measured on a small generated test set (60 videos, one training run of each)."),
        (-0.032, -0.054, -0.01, "UFE is worse than baseline by 3.2 mIoU points at T=1 (95 % interval -5.4 to -1.0), "
         "measured on a small generated test set (60 videos, one training run of each)."),
        (0.004, -0.01, 0.018, "No difference between UFE and baseline can be told: +0.4 mIoU points at T=1, and the "
         "95 % interval -1.0 to +1.8 includes 0, measured on a small generated test set (60 videos, one training run "
         "of each)."),
    ],
)  # fmt: skip
def test_verdict_follows_the_interval(mean: float, low: float, high: float, expected: str) -> None:
    found = Comparison("T=1", "miou", 0.4, 0.4 + mean, Difference(mean, low, high, 0.1, 60, 1))
    assert verdict("UFE", "baseline", found, generated=True) == expected
    large = replace(found, difference=replace(found.difference, videos=740, seeds=5))
    assert verdict("UFE", "baseline", large).endswith("measured on a test set (740 videos, 5 training runs of each).")


def test_curves_show_what_was_measured() -> None:
    (loss, light, _), (validation, figure, _) = curve_panels({"baseline": curve(1.0), "UFE": curve(0.9), "none": []})
    assert (loss, validation) == ("Supervised loss", "Validation mIoU")
    lines = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["baseline", "UFE"]
    assert lines[0].get_xdata().tolist() == list(range(10, 101, 10))
    assert lines[0].get_ydata()[-1] == pytest.approx(40)
    assert len(light.axes[0].lines) == 4  # as measured and smoothed, of two arms
    assert light.axes[0].lines[0].get_ydata()[1] == pytest.approx(0.5)
    assert curve_panels({"baseline": []}) == []


def test_forest_draws_mean_and_interval() -> None:
    axes = forest([("a", 1.0, -0.5, 2.5), ("b", 3.0, 2.0, 4.0)], "points").axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines[:4]] == [[-0.5, 2.5], [1.0], [2.0, 4.0], [3.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
