"""The command line as a person meets it: help, wrong use, and the whole job from raw videos to a segmented one."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from helpers import make_avsbench
from small_run import TINY
from toy_models import save_tiny

from avseg.cli import COMMANDS, main
from avseg.commands.models import AUDIO_ENCODERS, IMAGE_ENCODERS
from avseg.commands.parser import Parser
from avseg.config import Config, ModelConfig, load_config

REPOSITORY = Path(__file__).parents[1]
TWO_EPOCHS = TINY.replace("epochs: 1", "epochs: 2")


def avseg(*arguments: object, code: int = 0) -> None:
    assert main([str(argument) for argument in arguments]) == code


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def command_parser(name: str) -> Parser:
    module, function, _ = COMMANDS[name]
    parser: Parser = getattr(import_module(f"avseg.commands.{module}"), f"{function}_parser")()
    return parser


# ---- Help ----


def test_help_imports_nothing_heavy() -> None:
    script = f"""
import sys
from avseg.cli import COMMANDS, main
for command in ("", "data", *{list(COMMANDS)}):
    assert main([*command.split(), "--help"]) == 0
assert main(["--version"]) == 0
assert main(["train", "--config", "configs/s4_tpavi_resnet50_ufe.yaml", "--print_config"]) == 0
assert main(["segment"]) == 2
heavy = {{"torch", "lightning", "transformers", "av", "cv2", "matplotlib", "numpy"}}
sys.exit(f"imported: {{heavy & set(sys.modules)}}" if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_avseg_makes_idle_threads_sleep() -> None:
    names = ("OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    script = f"import avseg, os, sys; print(*(os.environ[name] for name in {names}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["PASSIVE", "10", "False"]


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "avseg", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "avseg 0.1.0\n")


def test_overview_lists_every_command(narrow: None, capsys: pytest.CaptureFixture) -> None:
    avseg("--help")
    text = capsys.readouterr().out
    assert re.findall(r"^  ((?:(?:data|models) )?\w+)  +\S", text, re.M) == list(COMMANDS)
    assert max(map(len, text.splitlines())) <= 80
    avseg(code=2)
    assert capsys.readouterr().err == text
    avseg("data", "--help")
    assert "data prepare" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_page_has_an_example_that_parses(
    name: str, narrow: None, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    avseg(*name.split(), "--help")
    text, example = capsys.readouterr().out.split("\nexample:\n")
    assert text.startswith(f"usage: avseg {name} ")
    assert "``" not in text
    assert max(map(len, text.splitlines())) <= 80
    monkeypatch.chdir(REPOSITORY)
    commands = [shlex.split(line)[1:] for line in example.replace("\\\n", " ").strip().splitlines()]
    assert any(" ".join(words).startswith(name) for words in commands)
    for words in commands:
        known = max((known for known in COMMANDS if " ".join(words).startswith(known)), key=len)
        options = words[len(known.split()) :]
        if "--print_config" not in options:
            command_parser(known).parse_args(options)


def test_print_config_shows_what_training_would_use(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    avseg("train", "--model.width", 64, "--ufe.distant_frames", "true", "--print_config")
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    expected = Config(model=ModelConfig(width=64))
    expected.ufe.distant_frames = True
    assert load_config(tmp_path / "printed.yaml") == expected


def test_models_lists_what_can_be_named(capsys: pytest.CaptureFixture) -> None:
    from avseg.models.audio import build_audio_encoder
    from avseg.models.encoders import _NAMED

    avseg("models")
    text = capsys.readouterr().out
    assert "tpavi" in text
    assert {name for name in IMAGE_ENCODERS if not name.startswith("<")} == {*_NAMED, "efficientnet_lite0"}
    for name in AUDIO_ENCODERS:
        assert name in text
        build_audio_encoder(ModelConfig(audio_encoder=name), None)  # type: ignore[arg-type]


# ---- Wrong use ----

WRONG = {
    "fly": "'fly' is not a command: there are ",
    "trian": "'trian' is not a command: did you mean 'avseg train'?",
    "data prepar x": "'data prepar' is not a command: did you mean 'avseg data prepare'?",
    "--frob": "'--frob' is not an option",
    "segment": "PATH is missing: add it.",
    "convert v w --out o": "'w' is one argument too many: leave it out, or quote names",
    "segment v --checkpont c --out o": "--checkpont is not an option here: did you mean --checkpoint?",
    "segment v --checkpoint c --out o --fps -1": "--fps takes a number above 0 or all, not -1.",
    "segment v --checkpoint c --out o --threshold 2": "--threshold takes a number between 0 and 1 or null, not 2.",
    "segment v --checkpoint c --out": "--out needs a value: a name or text.",
    "data synth r --videos many": "--videos takes a whole number of 1 or more, not many.",
    "data synth r --subset s5": "--subset takes s4 or ms3, not s5.",
    "app --max-seconds 0": "--max-seconds takes a number above 0, not 0.",
    "compare a.json": "B.json is missing: add it.",
    "evaluate c": "--data.root is missing: add it.",
    "train --model.widht 3": "--model.widht is not an option here: did you mean --model.width?",
    "train --optim.epoch 3": "--optim.epoch is not an option here: did you mean --optim.epochs?",
    "reproduce table7": "TABLE takes beyond or controls or controls10 or long or table1 or ",
    "reproduce table5 --scale big": "--scale takes paper or small, not big.",
    "reproduce table5 --pla": "--pla is not an option here: did you mean --plan?",
    "train --model.width abc": "--model.width takes a whole number, not abc.",
    "train --model.width 3.5": "--model.width takes a whole number, not 3.5.",
    "train --ufe.distant_frames maybe": "--ufe.distant_frames takes true or false, not maybe.",
    "train --ufe.teacher none": "--ufe.teacher takes shared or ema, not none.",
    "train --run.devices x": "--run.devices takes a whole number or auto, not x.",
    "train --perturb.scale [0.5]": "--perturb.scale takes a list such as [0.5,2.0], not [0.5].",
    "train --config none.yaml": "none.yaml does not exist: check the path.",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_use_is_told_in_one_sentence(line: str, capsys: pytest.CaptureFixture) -> None:
    avseg(*line.split(), code=2)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"avseg: error: {WRONG[line]}")
    assert second.startswith("See: avseg ")
    assert second.endswith(" --help")


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("model: {width: abc}", "model.width takes a whole number, not abc."),
        ("model: {widht: 12}", "widht is not an option here: did you mean model.width?"),
        ("modle: {width: 12}", "modle.width is not an option here: did you mean model.width?"),
        ("model: [width: 12", "the file is not YAML that can be read (line 1): correct it."),
        ("data: {subset: s5}", "data.subset takes s4 or ms3 or both, not s5."),
    ],
)
def test_a_wrong_configuration_file_is_named(
    yaml: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml)
    avseg("train", "--config", file, code=2)
    assert capsys.readouterr().err.splitlines()[0] == f"avseg: error: {file}: {sentence}"


def test_a_file_whose_name_begins_with_a_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-clip.mp4").touch()
    avseg("segment", "-clip.mp4", code=2)
    said = capsys.readouterr().err.splitlines()[0]
    assert said == "avseg: error: -clip.mp4 looks like an option: write ./-clip.mp4 for the file of that name."


# ---- Failures on the way ----


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "avseg: interrupted\n"),
        (OSError(28, "No space left on device"), 1, "avseg: error: No space left on device.\n"),
        (PermissionError(13, "Permission denied", "out/x"), 1, "avseg: error: out/x: Permission denied.\n"),
    ],
)
def test_failures_are_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr("avseg.commands.models.models", fail)
    avseg("models", code=code)
    assert capsys.readouterr().err == said


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("avseg.commands.models.models", fail)
    with pytest.raises(ZeroDivisionError):
        main(["models"])


# ---- The whole job ----


def test_from_raw_videos_to_a_segmented_one(
    tmp_path: Path, capsys: pytest.CaptureFixture, narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run = tmp_path / "data", tmp_path / "run"
    make_avsbench(root, "s4")
    (tmp_path / "tiny.yaml").write_text(TWO_EPOCHS)

    avseg("data", "check", root, "--workers", 1, code=1)
    assert re.search(r"s4: \d+ problems\n", capsys.readouterr().out)
    avseg("data", "prepare", root, "--workers", 1)
    told = capsys.readouterr()
    assert "s4: 8 videos; made: frames 40, flow 40, wav 8, log_mel 8" in told.out
    assert told.err == "Preparing s4: 8 of 8 videos\n"
    avseg("data", "prepare", root)
    assert "nothing was missing; 96 files were there already" in capsys.readouterr().out
    avseg("data", "check", root, "--subset", "s4", "--workers", 1)
    assert "s4: no problems" in capsys.readouterr().out

    avseg("train", "--config", tmp_path / "tiny.yaml", "--data.root", root, "--run.out", run, "--optim.epochs", 1)
    told = capsys.readouterr()
    assert f"{run}: 2 steps" in told.out
    assert "GPU available" not in told.err + told.out
    assert "litlogger" not in told.err + told.out
    avseg("train", "--config", tmp_path / "tiny.yaml", "--data.root", root, "--run.out", run, code=1)
    assert "holds a run already: give --run.resume true" in capsys.readouterr().err

    scores = [tmp_path / "folder.json", tmp_path / "checkpoint.json"]
    for checkpoint, file in zip((run, run / "checkpoints" / "last.ckpt"), scores, strict=True):
        avseg("evaluate", checkpoint, "--data.root", root, "--data.workers", 0, "--json", file, "--device", "cpu")
        assert "all videos" in capsys.readouterr().out
    protocols = [json.loads(file.read_text())["protocols"] for file in scores]
    assert protocols[0] == protocols[1]
    avseg("compare", *scores)
    table = capsys.readouterr().out
    assert table.count("+0.00") >= 4
    assert max(map(len, table.splitlines())) <= 80

    video = next(root.glob("**/raw_videos/test/*/*.mp4"))
    arguments = ("segment", video, "--checkpoint", run, "--out", tmp_path / "out", "--fps", 2, "--device", "cpu")
    avseg(*arguments)
    table = capsys.readouterr().out
    assert re.search(rf"^{re.escape(video.name)} +5\.0 +10 +\d+ % +[\d.]+  done *$", table, re.M)
    assert f"  {tmp_path / 'out' / video.name}\n" in table
    assert (tmp_path / "out" / video.name).is_file()
    assert len(list((tmp_path / "out" / video.stem / "masks").iterdir())) == 10
    avseg(*arguments)
    assert "the results were there already and were kept: --overwrite" in capsys.readouterr().err
    avseg(*arguments, "--overwrite", "--fps", "all", "--start", 1, "--end", 2)
    assert re.search(r" 1\.0 +8 ", capsys.readouterr().out)


def test_the_generated_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "bench"
    size = ("--edition", "small", "--videos", 4, "--val", 1, "--test", 1, "--workers", 1, "--objects", "procedural")
    avseg("data", "synth", root, "--subset", "ms3", "--seed", 3, *size)
    assert "videos: train 2, val 1, test 1" in capsys.readouterr().out
    assert len(list(root.glob("**/*.mp4"))) == 4
    avseg("data", "synth", root, "--subset", "ms3", "--seed", 4, *size, code=1)
    assert capsys.readouterr().err.startswith("avseg: error: ")


def test_demo_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from inspect import signature

    from avseg import demo

    calls: list[dict] = []
    known = signature(demo.run_demo).parameters
    monkeypatch.setattr(demo, "run_demo", lambda **options: calls.append(options))
    avseg("demo", "--out", "elsewhere", "--videos", 12)
    assert calls[0].pop("out") == "elsewhere"
    assert calls[0].pop("videos") == 12
    assert calls[0] == {name: known[name].default for name in calls[0]}
    avseg("demo")
    assert calls[1]["out"] == known["out"].default
    avseg("demo", "--model", "avsegformer")
    assert (calls[2]["base"], calls[2]["out"]) == ("avsegformer", "runs/demo_avsegformer")


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    make_avsbench(tmp_path, "s4", {"train": 1, "test": 1})
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "avseg", "data", "prepare", str(tmp_path), "--workers", "1"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert re.search(r"Preparing s4.*━.*2/2.*videos", shown, re.S)
