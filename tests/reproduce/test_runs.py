"""A table from the request to its results: real data, real training, real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from avseg.errors import AvsegError
from avseg.evaluation.scores import Evaluation, Scores, VideoScore, write_evaluation
from avseg.reproduce.definition import read_scale
from avseg.reproduce.records import Record, read_records, write_records
from avseg.reproduce.table import Request, agreement, carry_out, collect, list_plan, make_plan, records_of, run_table

TINY = (
    "--model.width=16",
    "--model.dilations=[1,3]",
    "--model.inputs.image_size=64",
    "--weights.image=none",
    "--optim.batch_size=4",
    "--optim.epochs=3",
    "--ufe.burn_in=1",
    "--run.validate_every=1",
    "--run.progress=false",
)


def request(avsbench: Path, out: Path, **more: object) -> Request:
    return Request("table5", root=avsbench, seeds=1, out=out, overrides=TINY, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(avsbench: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record], list[str]]:
    out = tmp_path_factory.mktemp("reproduce")
    said: list[str] = []
    return out, run_table(request(avsbench, out), said.append), said


def test_a_table_leaves_one_line_a_run_with_what_its_number_rests_on(
    finished: tuple[Path, list[Record], list[str]],
) -> None:
    out, records, said = finished
    assert [record.cell for record in records] == ["none", "nf", "df", "nf+df"]
    assert [line.split(":")[0] for line in said] == [f"run {k} of 4" for k in range(1, 5)]
    lines = (out / "results" / "table5.jsonl").read_text().splitlines()
    assert {json.loads(line)["cell"] for line in lines} == {"none", "nf", "df", "nf+df"}
    assert sorted(read_records(out / "results"), key=lambda r: r.run) == sorted(records, key=lambda r: r.run)
    for record in records:
        test = json.loads((out / "runs" / record.run / "test.json").read_text())["protocols"]["T=1"]
        assert (record.miou, record.f_score) == (test["miou"], test["f_score"])
        assert set(record.per_video()) == {f"{v['category']}/{v['name']}" for v in test["videos"]}
        assert record.per_video("f_score").keys() == record.per_video().keys()
        assert set(record.protocols) == {"T=1", "T=5"}
        assert record.data["kind"] == "AVSBench's layout"
        assert record.data["counts"] == {"train": 8, "val": 2, "test": 3}
        assert record.config["model"]["neighbouring_frames"] == ("nf" in record.cell)
        assert (record.steps, record.scale, record.base, record.subset) == (6, "small", "tpavi", "s4")
        assert len(record.validation) == 3
        assert record.seconds > 0
        assert {"revision", "torch", "machine", "date"} <= set(record.origin)
        assert str(out) not in json.dumps(record.config)


def test_runs_are_tested_as_they_end_on_the_test_split_with_the_flow_they_learnt(
    avsbench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def evaluate(checkpoint: Path, root: Path, subset: str, split: str, out: Path, **options: object) -> None:
        asked.append((checkpoint, root, subset, split, out, options["flow"]))

    monkeypatch.setattr("avseg.reproduce.table.train", lambda config, callbacks: None)
    monkeypatch.setattr("avseg.reproduce.table.evaluate_checkpoint", evaluate)
    plan = make_plan(replace(request(avsbench, tmp_path), table="controls", only=("nf-shuffled",)), lambda line: None)
    (run,) = plan.runs
    carry_out([run], plan.scale, lambda line: None)
    assert run.config.data.flow == "shuffled"
    assert asked == [(run.folder, avsbench, "s4", "test", run.test_file, "shuffled")]


def test_a_record_is_of_the_protocol_that_tables_show(avsbench: Path, tmp_path: Path) -> None:
    plan = make_plan(request(avsbench, tmp_path), lambda line: None)
    place = plan.places[0]

    def scores(protocol: str, level: float) -> Scores:
        rows = [(f"v{i}", level + 0.01 * i, level + 0.5 + 0.01 * i) for i in range(3)]
        return Scores(protocol, tuple(VideoScore(n, "dog", miou, f, (miou,) * 5, (False,) * 5) for n, miou, f in rows))

    found = {"T=5": scores("T=5", 0.3), "T=1": scores("T=1", 0.2)}
    diagnostics = {"T=5": {"sounding": {"iou": 0.5}}, "T=1": {"sounding": {"iou": 0.61234567}}}
    evaluation = Evaluation(str(place.run.folder), "data", "s4", "test", "0.1.0", found, diagnostics, size="truth")
    write_evaluation(place.run.test_file, evaluation)
    origin = {"steps": 4, "seconds": 1.5, "parameters": 7, "seed": 0, "validation": {}, "date": "2026-11-24"}
    (place.run.folder / "run.json").write_text(json.dumps(origin))
    rows = "step,epoch,loss,val/miou,val/f_score\n0,0,9,,\n2,0,,0.25,0.5\n4,1,,0.31236,0.6\n"
    (place.run.folder / "metrics.csv").write_text(rows)
    (record,) = records_of([place], plan.scale)
    assert (record.protocol, record.miou, record.f_score) == ("T=1", pytest.approx(0.21), pytest.approx(0.71))
    assert record.protocols["T=5"] == pytest.approx({"miou": 0.31, "f_score": 0.81})
    assert record.per_video() == pytest.approx({"dog/v0": 0.2, "dog/v1": 0.21, "dog/v2": 0.22})
    assert record.per_video("f_score") == pytest.approx({"dog/v0": 0.7, "dog/v1": 0.71, "dog/v2": 0.72})
    assert record.diagnostics == {"sounding": {"iou": 0.6123}}
    assert record.validation == [(2, 0.25), (4, 0.3124)]
    assert (record.steps, record.seconds, record.parameters, record.origin) == (4, 1.5, 7, {"date": "2026-11-24"})


def test_what_is_done_is_kept(finished: tuple[Path, list[Record], list[str]], avsbench: Path) -> None:
    out, records, _ = finished
    before = {file: file.stat().st_mtime_ns for file in (out / "runs").rglob("*") if file.suffix != ".lock"}
    said: list[str] = []
    assert run_table(request(avsbench, out), said.append) == records
    assert all(line.endswith("is done already") for line in said)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_plan_tells_what_is_done_and_generates_nothing(
    finished: tuple[Path, list[Record], list[str]], avsbench: Path, tmp_path: Path
) -> None:
    out, records, _ = finished
    asked = replace(request(avsbench, out), seeds=2)
    lines = list_plan(asked)
    assert [line.split()[-1] for line in lines if line.startswith("done")] == [record.run for record in records]
    assert len([line for line in lines if line.startswith("to do")]) == 4
    nothing = replace(asked, root=None, out=tmp_path, table="controls")
    lines = list_plan(nothing)
    assert lines[0] == "to do  table5 none, seed 0"
    assert len(lines) == 2 * (4 + 5)
    assert not list(tmp_path.iterdir())


def test_cells_of_one_subset_need_no_data_of_the_other(avsbench: Path, tmp_path: Path) -> None:
    root = tmp_path / "single"
    root.mkdir()
    (root / "Single-source").symlink_to(avsbench / "Single-source")
    lines = list_plan(replace(request(root, tmp_path / "out"), table="table2", only=("tpavi/s4", "tpavi+ufe/s4")))
    assert [line.split()[2][:2] for line in lines] == ["s4", "s4"]


def test_what_a_scale_has_no_recipe_for_is_not_run_and_named(avsbench: Path, tmp_path: Path) -> None:
    table2 = replace(request(avsbench, tmp_path), table="table2", overrides=())
    left_out = [line for line in list_plan(table2) if line.startswith("not run")]
    assert left_out[0] == (
        "not run: table2 sama-avs/s4, as the scale small has no configuration of sama with efficientnet_lite0"
    )
    assert [line.split()[3].rstrip(",") for line in left_out] == [
        f"sama-avs{ufe}/{subset}" for ufe in ("", "+ufe") for subset in ("s4", "ms3")
    ]
    said: list[str] = []
    assert not any("sama" in place.run.name for place in make_plan(table2, said.append).places)
    assert said == left_out
    large = make_plan(replace(table2, scale="paper", encoder="sam_vit_h"), said.append)
    assert [place.cell.key for place in large.places] == [
        "sama-avs/s4",
        "sama-avs/ms3",
        "sama-avs+ufe/s4",
        "sama-avs+ufe/ms3",
    ]
    assert [run.config.model.neighbouring_frames for run in large.runs] == [False, False, True, True]
    for only, encoder in ((("sama-avs",), None), ((), "nothing")):
        with pytest.raises(AvsegError, match=r"no configuration of sama with|no encoder 'nothing'"):
            make_plan(replace(table2, only=only, encoder=encoder), said.append)


def test_one_cell_again_gives_its_number_again(
    finished: tuple[Path, list[Record], list[str]], avsbench: Path, tmp_path: Path
) -> None:
    _, records, _ = finished
    (again,) = run_table(request(avsbench, tmp_path, only=("nf+df",)), lambda line: None)
    known = next(record for record in records if record.cell == "nf+df")
    assert (again.miou, again.f_score, again.videos) == (known.miou, known.f_score, known.videos)
    assert "the same" in agreement(again, records)
    assert "another number" in agreement(replace(again, miou=again.miou + 0.01), records)
    assert agreement(replace(again, data={"hash": "else"}), records) == ""
    assert agreement(replace(again, seed=1), records) == ""
    assert agreement(replace(again, size="model"), records) == ""
    test = tmp_path / "runs" / again.run / "test.json"  # as it was before masks were scored at their own size
    test.write_text(json.dumps({key: value for key, value in json.loads(test.read_text()).items() if key != "size"}))
    assert list_plan(request(avsbench, tmp_path, only=("nf+df",)))[0].startswith("to do")
    (scored,) = run_table(request(avsbench, tmp_path, only=("nf+df",)), lambda line: None)
    assert (scored.size, scored.miou) == ("truth", again.miou)


def test_a_killed_table_goes_on_where_it_was(
    finished: tuple[Path, list[Record], list[str]], avsbench: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "from pathlib import Path\n"
        "from test_runs import request; from avseg.reproduce.table import run_table\n"
        "run_table(request(Path(sys.argv[1]), Path(sys.argv[2])), print)\n"
    )
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", script, str(avsbench), str(tmp_path), str(here), str(here.parent)]
    environment = {**os.environ, "PYTHONPATH": str(here.parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = tmp_path / "runs"
    while process.poll() is None and not list(runs.glob("*-nf-seed0-*/checkpoints/last.ckpt")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the table ended before it could be killed"
    first = next(runs.glob("*-baseline-seed0-*/run.json")).stat().st_mtime_ns
    records = run_table(request(avsbench, tmp_path), lambda line: None)
    assert next(runs.glob("*-baseline-seed0-*/run.json")).stat().st_mtime_ns == first
    _, known, _ = finished
    assert [(r.cell, r.miou, r.videos, r.validation) for r in records] == [
        (r.cell, r.miou, r.videos, r.validation) for r in known
    ]


def test_parts_together_make_the_table(
    finished: tuple[Path, list[Record], list[str]], avsbench: Path, tmp_path: Path
) -> None:
    _, known, _ = finished
    first = run_table(request(avsbench, tmp_path, part="1/2"), lambda line: None)
    assert [record.cell for record in first] == ["none", "df"]
    both = run_table(request(avsbench, tmp_path, part="2/2"), lambda line: None)
    assert [(r.cell, r.miou) for r in both] == [(r.cell, r.miou) for r in known]
    assert len(read_records(tmp_path / "results" / "table5.jsonl")) == 4


def test_collecting_keeps_other_seeds_and_data(
    finished: tuple[Path, list[Record], list[str]], avsbench: Path, tmp_path: Path
) -> None:
    out, records, _ = finished
    file = out / "results" / "table5.jsonl"
    others = [replace(records[0], seed=7), replace(records[0], data={"hash": "else"})]
    write_records(file, [*records, *others])
    collect(make_plan(request(avsbench, out), lambda line: None))
    found = read_records(file)
    assert len(found) == 6
    assert all(other in found for other in others)
    write_records(file, records)


@pytest.mark.heavy
def test_a_table_on_a_benchmark_generated_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given: videos are written and prepared, and pseudo masks are held against their hidden truth."""
    scale = replace(
        read_scale("small"), data={"s4": {"edition": "small", "videos": 12, "val": 2, "test": 3, "seed": 0}}
    )
    monkeypatch.setattr("avseg.reproduce.table.read_scale", lambda name: scale)
    monkeypatch.setattr("avseg.synthetic.stamps.stamps_if_any", lambda folder, say: None)
    asked = Request("table5", seeds=1, only=("none", "df"), out=tmp_path, overrides=TINY)
    records = run_table(asked, lambda line: None)
    assert [record.data["kind"] for record in records] == ["generated benchmark"] * 2
    assert {record.data["objects"] for record in records} == {"procedural"}
    assert (tmp_path / "data" / "small_s4" / "benchmark.json").is_file()
    for record in records:
        assert [row["epoch"] for row in record.pseudo] == [0, 1, 2]
        assert all(0 < row["truth"] < 1 for row in record.pseudo)
        assert set(record.diagnostics["strata"]) >= {"moving source"}
