"""Open vocabulary by name: the terminal, evaluation, the page's list, and what is taken where nothing was named."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import make_avsbench, write_mp4

from avseg.app.choices import choices
from avseg.cli import main
from avseg.evaluation.scores import read_evaluation
from avseg.inference import shipped_model
from avseg.openvocab import pretrained
from avseg.openvocab.choose import Choice
from avseg.openvocab.pretrained import Pretrained, choose_default, load_segmenter
from avseg.openvocab.score import evaluate_open_vocabulary
from avseg.openvocab.segmenter import OpenVocabulary

sys.path.insert(0, str(Path(__file__).parent))
from tiny import BrightEyes, LoudTagger, write_ast, write_clipseg, write_rf_detr


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the three models, tiny."""
    home = tmp_path_factory.mktemp("home")
    for name, write in (("ast", write_ast), ("clipseg", write_clipseg), ("rf-detr-seg-nano", write_rf_detr)):
        write(home / "models" / name)
        (home / "models" / name / "source.json").write_text(json.dumps({"name": name}))
    return home


@pytest.fixture
def downloaded(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVSEG_HOME", str(here))
    return here


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path / "empty"))
    return tmp_path / "empty"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_mp4(tmp_path / "disc.mp4", seconds=1)
    return tmp_path / "disc.mp4"


def options_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "disc" / "moments.json").read_text())["options"]
    return found


@pytest.mark.usefixtures("downloaded")
def test_it_is_segmented_with_by_name_and_where_nothing_is_named(video: Path, tmp_path: Path, capsys: Any) -> None:
    for words, out in ((["--checkpoint", "open-vocabulary"], "named"), ([], "default")):
        assert main(["segment", str(video), "--fps", "1", "--out", str(tmp_path / out), *words]) == 0
        assert options_of(tmp_path / out)["model"] == "open-vocabulary"
        assert "knows generated scenes" not in capsys.readouterr().err
    # What was made is known again without a model being loaded.
    known = Pretrained("open-vocabulary").known
    assert {key: known[key] for key in ("model", "threshold")} == {"model": "open-vocabulary", "threshold": 0.5}
    assert main(["segment", str(video), "--fps", "1", "--out", str(tmp_path / "named")]) == 0
    assert "were there already and were kept" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing")
def test_without_it_the_models_names_are_told_and_the_shipped_one_warns(
    video: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["segment", str(video), "--checkpoint", "open-vocabulary"]) == 1
    assert "`avseg models download open-vocabulary` fetches what is missing" in capsys.readouterr().err
    assert main(["segment", str(video), "--fps", "1", "--out", str(tmp_path / "out")]) == 0
    assert options_of(tmp_path / "out")["model"] == "shipped"
    assert "avseg models download open-vocabulary" in capsys.readouterr().err


def test_a_person_is_asked_once_and_nothing_is_fetched_unasked(nothing: Path) -> None:
    questions: list[str] = []
    fetched: list[bool] = []

    def no(question: str) -> bool:
        questions.append(question)
        return False

    assert choose_default(None, lambda: fetched.append(True)) is None
    assert not nothing.exists()
    assert choose_default(no, lambda: fetched.append(True)) is None
    assert choose_default(no, lambda: fetched.append(True)) is None
    assert len(questions) == 1
    assert "about 1084 MB" in questions[0]
    assert "BSD-3-Clause" in questions[0]
    assert fetched == []


@pytest.mark.usefixtures("nothing")
def test_a_yes_fetches_it() -> None:
    fetched: list[bool] = []
    assert choose_default(lambda _: True, lambda: fetched.append(True)) == "open-vocabulary"
    assert fetched == [True]


def test_the_page_offers_it_first_where_it_is(downloaded: Path, tmp_path: Path, monkeypatch: Any) -> None:
    offered = choices(tmp_path)
    assert [str(choice.path) for choice in offered] == ["open-vocabulary", str(shipped_model())]
    assert isinstance(load_segmenter(offered[0].path, "cpu"), OpenVocabulary)
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path))
    assert [choice.path for choice in choices(tmp_path)] == [shipped_model()]


def test_the_page_fetches_it_for_its_own_machine_alone(nothing: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from avseg.app import page
    from avseg.app.session import Limits

    fetched: list[str] = []
    monkeypatch.setattr(page, "download", lambda entry, progress: fetched.append(entry.name))
    for typed, expected in ((False, []), (True, ["ast", "clipseg", "rf-detr-seg-nano"])):
        site = page.Site(choices(tmp_path), load_segmenter, tmp_path, Limits(10, 10), typed)
        page._fetcher(site)(lambda *_, **__: None)
        assert fetched == expected
        assert (str(site.offered[0].path) == "open-vocabulary") == typed


def test_a_folder_of_that_name_comes_first(downloaded: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert pretrained.is_open_vocabulary("open-vocabulary")
    (tmp_path / "open-vocabulary").mkdir()
    assert not pretrained.is_open_vocabulary("open-vocabulary")


# ---- Evaluation ----


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    make_avsbench(root, "s4", {"train": 1, "val": 1, "test": 3}, prepared=True)
    return root


def test_it_is_scored_as_any_model(bench: Path, tmp_path: Path) -> None:
    segmenter = OpenVocabulary(LoudTagger(), BrightEyes(), "cpu", how=Choice(size=64))
    found = evaluate_open_vocabulary(segmenter, bench, "s4", out=tmp_path / "scores.json", progress=False)
    assert found.scores["T=1"].miou > 0.7  # bright pixels are the disc
    assert found.scores["T=1"].videos == found.scores["T=5"].videos
    assert len(found.scores["T=1"].videos) == 3
    assert read_evaluation(tmp_path / "scores.json").scores["T=1"].miou == pytest.approx(found.scores["T=1"].miou)


def test_it_needs_sound_itself(bench: Path, tmp_path: Path, capsys: Any, downloaded: Path) -> None:
    import shutil

    root = tmp_path / "bench"
    shutil.copytree(bench, root)
    words = ["evaluate", "open-vocabulary", "--data.root", str(root), "--data.workers", "1"]
    assert main([*words, "--json", str(tmp_path / "a.json")]) == 0
    for raw in root.rglob("*.mp4"):
        raw.unlink()
    assert main([*words, "--json", str(tmp_path / "b.json")]) == 0  # the prepared WAV files
    for wav in root.rglob("*.wav"):
        wav.unlink()
    assert main(words) == 1
    assert "has neither a raw video nor a WAV file" in capsys.readouterr().err
    assert main([*words, "--size", "model"]) == 1
    assert "leave out --size and --data.flow" in capsys.readouterr().err
