"""What a result becomes: a table that fits a terminal, a document, an image."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from avseg.errors import AvsegError
from benchmarks.document import BEGIN, END, command, fill, markdown
from benchmarks.plot import plot
from benchmarks.result import FORMAT_VERSION, GROUPS, read_result
from benchmarks.table import number, report

ROWS: list[dict[str, Any]] = [
    {
        "group": "attention",
        "name": f"TPAVI attention, T = {frames}",
        "part": "attention",
        "frames": frames,
        "training": False,
        "unit": "ms",
        "ours": 0.1234 * frames,
        "reference": 123.4 * frames**2,
        "ratio": 1000.0 * frames,
        "memory_ours": 1.5,
        "memory_reference": 1876.54,
    }
    for frames in (1, 5, 10)
] + [
    {
        "group": "forward",
        "name": "AVSegFormer PVT-v2-b5 with a long name, T = 10, bf16+channels_last+compile",
        "unit": "ms",
        "ours": 123456.7,
        "reference": None,
        "ratio": None,
        "option": "bf16",
        "difference": {"largest": 0.0123, "mean": 0.001, "flipped": 0.00456},
        "note": "the reference does not fit into memory",
    },
    {"group": "loader", "name": "loader", "unit": "clips/s", "ours": 9000.0, "reference": 450.0, "ratio": 20.0},
    {"group": "startup", "name": "avseg --help", "unit": "ms", "ours": 80.0, "reference": None, "ratio": None},
]
RESULT: dict[str, Any] = {
    "format_version": FORMAT_VERSION,
    "machine": {
        "machine": "A processor of many words at 2.00GHz, 2 cores",
        "avseg": "0.1.0",
        "revision": "0123456789ab",
        "torch": "2.9",
        "date": "2026-01-02",
        "memory": "24 GiB",
    },
    "settings": {
        "device": "cpu",
        "threads": 2,
        "repeats": 7,
        "quick": False,
        "options": ["eager", "bf16"],
        "groups": ["attention"],
        "seconds": 1800.0,
    },
    "rows": ROWS,
    "goals": [
        {
            "name": "one",
            "value": 61.26,
            "target": 50,
            "least": True,
            "unit": "×",
            "option": "bf16",
            "verdict": "reached",
        },
        {"name": "two", "value": 0.7, "target": 0.6, "least": False, "unit": "×", "option": "", "verdict": "missed"},
        {
            "name": "six",
            "value": None,
            "target": 1,
            "least": True,
            "unit": "×",
            "option": "",
            "verdict": "not measured",
        },
    ],
}


def test_the_table_fits_a_terminal_and_holds_every_row() -> None:
    text = report(RESULT)
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "TPAVI attention, T = 5 0.617 3,085 ms 5,000× 0.0008" in flat
    assert "(the reference does not fit into memory)" in flat
    assert "0.46 % of pixels change sides" in flat
    assert "loader 9,000 450 clips/s 20.0×" in flat
    assert "one 61.3 ≥ 50 × reached (with bf16)" in flat
    assert "two 0.7 ≤ 0.6 × missed" in flat
    assert "six" not in flat


def test_numbers_have_three_digits_that_count() -> None:
    assert [number(value) for value in (None, 0.01234, 1.234, 12.34, 123.4, 12345.6)] == [
        "–",
        "0.0123",
        "1.23",
        "12.3",
        "123",
        "12,346",
    ]


def test_a_document_is_filled_between_its_marks_alone(tmp_path: Path) -> None:
    document = tmp_path / "speed.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    fill(document, [RESULT])
    first = document.read_text()
    fill(document, [RESULT])
    assert document.read_text() == first
    assert first.startswith(f"before\n{BEGIN}\n### A processor")
    assert first.endswith(f"{END}\nafter\n")
    assert "old" not in first
    assert "`avseg bench --device cpu --threads 2 --repeats 7 --only attention --options eager,bf16` on" in first
    assert "--only" not in command({**RESULT["settings"], "groups": list(GROUPS)})
    assert "| one | ≥ 50× | 61.3× with bf16 | reached |" in first
    assert "| TPAVI attention, T = 5 | 0.617 ms | 3,085 ms | 5,000× | 1.50 / 1,877 | 0.0008 |" in first
    assert "| 0.46 % |" in first


@pytest.mark.parametrize("text", ["nothing", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}"])
def test_a_document_without_a_place_is_left_alone(text: str, tmp_path: Path) -> None:
    document = tmp_path / "speed.md"
    document.write_text(text)
    with pytest.raises(AvsegError, match=r"speed\.md has no place for results"):
        fill(document, [RESULT])
    assert document.read_text() == text
    with pytest.raises(AvsegError, match="does not exist"):
        fill(tmp_path / "other.md", [RESULT])


def test_our_own_document_has_the_place() -> None:
    text = (Path(__file__).parents[2] / "docs" / "speed.md").read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.split(BEGIN)[1].split(END)[0].strip()


def test_columns_without_content_are_left_out() -> None:
    alone = markdown({**RESULT, "rows": [ROWS[-1]], "goals": []})
    assert "|  | ours |\n| --- | ---: |\n| avseg --help | 80.0 ms |" in alone
    assert "goal" not in alone


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_picture_shows_ratios_and_growth(suffix: str, tmp_path: Path) -> None:
    path = plot(RESULT, tmp_path / f"speed{suffix}")
    if suffix == ".png":
        with Image.open(path) as picture:
            assert picture.width > 1000
    else:
        assert path.read_text().count("<path") > 20


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=r"speed\.docx is no image: give a name that ends in \.png"):
        plot(RESULT, tmp_path / "speed.docx")
    with pytest.raises(AvsegError, match="nothing to draw"):
        plot({**RESULT, "rows": [ROWS[-1]]}, tmp_path / "speed.png")
    assert not list(tmp_path.iterdir())


def test_results_are_read_back_and_other_files_refused(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(RESULT))
    assert read_result(file) == RESULT
    for text, message in (
        ("{", "is not readable JSON"),
        ("[]", "is not a result"),
        ('{"format_version": 0}', "is not a result"),
    ):
        file.write_text(text)
        with pytest.raises(AvsegError, match=message):
            read_result(file)
    with pytest.raises(AvsegError, match="cannot be read"):
        read_result(tmp_path / "none.json")
