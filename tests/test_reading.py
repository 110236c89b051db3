"""JSON and YAML that anybody may have written: a value or one sentence, in little time and memory."""

import json
import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from avseg.cli import main
from avseg.config import Config, load_config
from avseg.errors import AvsegError
from avseg.models.trained import find_models
from avseg.reading import _SECTIONS, read_json, read_json_lines, read_yaml

REPOSITORY = Path(__file__).parents[1]
LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'lol'}]\n" for i in range(30))
MERGED = "x0: &x0 {k: v}\n" + "".join(
    f"x{i}: &x{i} {{<<: [{', '.join([f'*x{i - 1}'] * 9)}], k{i}: v}}\n" for i in range(1, 30)
)
WORDS = "s0: &s0 " + "x" * 1000 + "\n" + "".join(f"s{i}: &s{i} [*s{i - 1}, *s{i - 1}]\n" for i in range(1, 60))

YAML: dict[str, tuple[str | bytes, str]] = {
    "lists": (LAUGHS, r"has the alias \*a0; write the value out"),
    "merged": (MERGED, r"has the alias \*x0"),
    "words": (WORDS, r"has the alias \*s0"),
    "deep": ("model: " + "[" * 100_000 + "]" * 100_000, "128|MiB|deeply"),
    "deep blocks": ("".join(" " * i + f"a{i}:\n" for i in range(300)), "nested too deeply"),
    "twice": ("optim: {epochs: 3, epochs: 4}", "line 1 has 'epochs' a second time"),
    "latin": ("run: {out: \xe9}".encode("latin-1"), "is not text in UTF-8"),
    "long": ("x: " + "y" * 200_000, "it has more than 0.125 MiB"),
    "code": ("x: !!python/object/apply:os.system [ls]", "not YAML"),
    "digits": ("optim: {epochs: " + "9" * 5000 + "}", "digits"),
    "day": ("x: 2001-99-99", "not YAML"),
}
JSON: dict[str, tuple[str | bytes, str]] = {
    "deep": ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "less deep": ("[" * 100 + "]" * 100, "nested too deeply"),
    "twice": ('{"a": 1, "a": 2}', "it has 'a' twice"),
    "latin": ('{"a": "\xe9"}'.encode("latin-1"), "is not text in UTF-8"),
    "digits": ("9" * 5000, "digits"),
    "cut": ('{"a": ', "Expecting value"),
    "empty": ("", "Expecting value"),
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """End a hang."""

    def late(*_: Any) -> None:
        pytest.fail(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("case", YAML)
def test_yaml_that_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content, sentence = YAML[case]
    file = write(tmp_path / "x.yaml", content)
    with within(20):
        with pytest.raises(AvsegError, match=sentence):
            read_yaml(file)
        with pytest.raises(AvsegError, match=sentence):
            load_config(file)
        for option in ("--config", "--optim"):
            assert main(["train", option, str(file)]) == 2
            assert str(file) in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("value", [LAUGHS.replace("\n", ", ").join("{}"), "&a [*a]", "{a: &a {b: *a}}", "[" * 5000])
def test_values_of_options_are_looked_at_first(value: str, capsys: pytest.CaptureFixture) -> None:
    with within(20):
        for words in (["--model.options", value], [f"--model.dilations={value}"], ["--config", value]):
            assert main(["train", *words]) == 2
            assert len(capsys.readouterr().err.splitlines()[0]) < 200
        for name in ("*a.mp4", "&a.mp4", "a: b", os.fsdecode(b"bad\xff.mp4")):  # may be those of files
            assert main(["segment", name]) == 1
            assert "can't be read" not in capsys.readouterr().err
        with pytest.raises(AvsegError, match=r"has the alias \*|nested too deeply"):
            load_config(next(REPOSITORY.glob("avseg/configs/*.yaml")), f"--model.options={value}")


@pytest.mark.parametrize("line", ["config: {}", "model: {}", "model: {{inputs: {}}}", "optim: {}"])
def test_files_named_within_files_are_not_followed(line: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bomb = write(tmp_path / "bomb.yaml", LAUGHS)
    file = write(tmp_path / "x.yaml", line.format(bomb))
    with within(20):
        with pytest.raises(AvsegError, match=r"has a text as \w+, which is a section: write its fields there"):
            load_config(file)
        assert main(["train", "--config", str(file)]) == 2
        assert "write its fields there" in capsys.readouterr().err


def test_sections_are_those_of_the_configuration() -> None:
    assert {"config", *Config().to_dict(), "inputs"} == set(_SECTIONS)


@pytest.mark.parametrize("case", JSON)
def test_json_that_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content, sentence = JSON[case]
    file = write(tmp_path / "x.json", content)
    with within(20):
        with pytest.raises(AvsegError, match=rf"x\.json is not readable JSON \(.*{sentence}.*\): mend it\.$"):
            read_json(file, "mend it")
        if case != "empty":
            with pytest.raises(AvsegError, match=rf"x\.json(, line 1,)? is not readable JSON \(.*{sentence}"):
                read_json_lines(file, "mend it")
        assert main(["compare", str(file), str(file)]) == 1
        assert capsys.readouterr().err.startswith(f"avseg: error: {file} ")


def test_files_of_no_end_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with within(20):
        for path in (tmp_path / "pipe", Path(os.devnull), Path("/dev/zero")):
            with pytest.raises(AvsegError, match="no regular file"):
                read_json(path, "mend it")
            with pytest.raises(AvsegError, match="no regular file"):
                read_yaml(path)
        os.truncate(write(tmp_path / "sparse", ""), 10**12)
        with pytest.raises(AvsegError, match="more than 32 MiB"):
            read_json(tmp_path / "sparse", "mend it")


def test_our_own_files_are_read() -> None:
    for file in [*REPOSITORY.glob("avseg/configs/*.yaml"), *REPOSITORY.glob("avseg/experiments/**/*.yaml")]:
        assert read_yaml(file)
    for file in REPOSITORY.glob("avseg/experiments/results/*.jsonl"):
        assert read_json_lines(file, "mend it")


def mutants(text: str, seed: int, count: int) -> Iterator[bytes]:
    rng, data = random.Random(seed), text.encode()
    lines = text.splitlines()
    strange = (
        "9" * 400,
        ".nan",
        "-.inf",
        "null",
        "[[[]]]",
        "{a: {b: 1}}",
        "1e999",
        "? x",
        "!!binary x",
        "'",
        "- 1",
        "&a *a",
    )
    for _ in range(count):
        kind = rng.randrange(4)
        if kind == 0:
            changed = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            yield bytes(changed)
        elif kind == 1:
            yield data[: rng.randrange(len(data))]
        else:
            other = list(lines)
            at = rng.randrange(len(other))
            key = other[at].split(":")[0]
            other[at] = f"{key}: {rng.choice(strange)}" if kind == 2 else other[rng.randrange(len(other))]
            yield "\n".join(other).encode()


def test_damaged_configurations_are_told_in_a_sentence(tmp_path: Path) -> None:
    text = (REPOSITORY / "avseg" / "configs" / "demo.yaml").read_text()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in mutants(text, 1, 120):
        file = write(tmp_path / "x.yaml", content)
        with within(20):
            try:
                load_config(file)
            except AvsegError as error:
                said = str(error)
                assert len(said) < 1000, content
                assert "\n" not in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20


def scores() -> dict[str, Any]:
    row = {"name": "a", "category": "", "miou": 0.5, "f_score": 0.5, "frames": [0.5, None], "silent": [False, True]}
    means = {"miou": 0.5, "f_score": 0.5, "categories": {}, "diagnostics": {}, "videos": [row]}
    head = {"model": "m", "root": "r", "subset": "s4", "split": "test", "flow": "", "flow_method": ""}
    return {"format_version": 1, "avseg": "0", **head, "protocols": {"T=5": means}}


def test_damaged_files_of_scores_and_models_are_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole = write(tmp_path / "whole.json", json.dumps(scores()))
    assert main(["compare", str(whole), str(whole)]) == 0
    folder = tmp_path / "models" / "one"
    folder.mkdir(parents=True)
    write(folder / "model.safetensors", b"")
    for content in mutants(json.dumps(scores(), indent=0), 2, 60):
        damaged = write(tmp_path / "damaged.json", content)
        for name in ("config.json", "run.json", "config.yaml"):
            write(folder / name, content)
        capsys.readouterr()
        with within(20):
            code = main(["compare", str(whole), str(damaged)])
            find_models(tmp_path / "models")
        assert code in (0, 1)
        assert len(capsys.readouterr().err.splitlines()) <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --run.wandb true", "--run.wandb is not an option here: did you mean --run.logger wandb?"),
        ("train --run.node 2", "--run.node is not an option here: did you mean --run.nodes?"),
        (
            "train --ufe.learning_rate 1",
            "--ufe.learning_rate is not an option here: did you mean --optim.learning_rate?",
        ),
        ("segment x --zebra 1", "--zebra is not an option here."),
        ("train --data.workers " + "9" * 400, "--data.workers takes "),
        ("train --optim.learning_rate " + "9" * 400, "9999"),
    ],
)
def test_only_what_is_alike_is_suggested(
    arguments: str, said: str, capsys: pytest.CaptureFixture, request: pytest.FixtureRequest
) -> None:
    main(arguments.split())
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(f"avseg: error: {said}") or "data.workers is" in first
    assert len(first) < 400
