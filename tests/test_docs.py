"""What the documents mention is there: commands, options, fields, files, Python names, links."""

import ast
import builtins
import importlib
import inspect
import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

from avseg.cli import COMMANDS, main
from avseg.config import Config, InputConfig, ModelConfig, WeightsConfig, load_config
from avseg.models import base

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("**/*.md"))]
}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
LINK = re.compile(r"(?<!\\)\[(?:[^\]\\]|\\.)*\]\(([^)\s]+)\)")
SECTIONS = {section.name for section in fields(Config)}
OTHER_COMMANDS = {"git", "cd", "make", "pip", "apt-get", ".venv/bin/pip", ".venv/bin/avseg"}
TOOLS = {".venv/bin/pytest", ".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/pre-commit", ".venv/bin/python"}


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Document and text of every fenced block in one of ``languages``."""
    return [
        (name, body)
        for name, text in DOCUMENTS.items()
        for _, language, body in FENCE.findall(text)
        if language in languages
    ]


def inline() -> list[tuple[str, str]]:
    """Document and content of every `span` outside the blocks, each once."""
    spans = []
    for name, text in DOCUMENTS.items():
        found = re.findall(r"`([^`]+)`", FENCE.sub("", text))
        spans += [(name, " ".join(span.split())) for span in dict.fromkeys(found)]
    return spans


def shell_lines() -> list[tuple[str, str]]:
    """Document and command line, with continued lines joined and remarks left out."""
    return [
        (name, line.strip())
        for name, body in blocks("sh", "bash", "shell", "console")
        for line in re.sub(r"\s#.*", "", body.replace("\\\n", " ")).splitlines()
        if line.strip()
    ]


def command_of(words: list[str]) -> str | None:
    """Which of `COMMANDS` a command line after ``avseg`` calls."""
    return next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)


def parser_of(command: str) -> Any:
    module, function, _ = COMMANDS[command]
    return getattr(importlib.import_module(f"avseg.commands.{module}"), f"{function}_parser")()


def options_of(command: str) -> set[str]:
    return {option for action in parser_of(command)._actions for option in action.option_strings}


def resolve(dotted: str) -> Any:
    """The object that ``avseg.…`` names.

    Raises:
        AttributeError: there is none.
    """
    parts = dotted.split(".")
    found: Any = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            found = getattr(found, part)
    return found


def is_field(dotted: str) -> bool:
    """Whether ``model.inputs.resize`` and the like is a field of a configuration."""
    parts = dotted.split(".")
    if parts[:2] == ["model", "options"]:
        kinds = [base.base_class(name).options_class for name in base.base_models()]
        known = {item.name for kind in kinds if kind is not None for item in fields(kind)}
        return len(parts) == 2 or (len(parts) == 3 and parts[2] in known)
    value: Any = Config()
    for part in parts:
        if not is_dataclass(value) or part not in {item.name for item in fields(value)}:
            return False
        value = getattr(value, part)
    return True


def test_there_is_something_to_check() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/avsbench.md"} <= set(
        DOCUMENTS
    )
    assert len([line for name, line in shell_lines() if name == "README.md" and line.startswith("avseg ")]) >= 5
    assert {name for name, _ in blocks("python")} >= {"README.md", "CONTRIBUTING.md"}


# ---- Commands ----


@pytest.mark.parametrize(("document", "line"), shell_lines())
def test_command_lines_work_as_they_stand(
    document: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
        assert set(words[1:]) <= set(targets)
        return
    if words[0] != "avseg":
        assert words[0] in OTHER_COMMANDS | TOOLS, f"{document}: what is {words[0]}?"
        for word in words[1:]:
            assert "/" not in word or Path(word).exists(), f"{document}: {word} does not exist"
        return
    command = command_of(words[1:])
    assert command, f"{document}: avseg has no command '{' '.join(words[1:3])}'"
    arguments = words[1 + len(command.split()) :]
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    for word in arguments:
        if word.startswith("--") and not word.startswith("--print_config"):
            assert word.split("=")[0] in options_of(command)
            assert word.split("=")[0] in shown
    parser_of(command).parse_args(arguments)


def test_commands_in_sentences_exist() -> None:
    spans = [(name, span) for name, span in inline() if span.startswith("avseg ")]
    assert len(spans) > 10
    for name, span in spans:
        words = span.split()[1:]
        command = command_of(words)
        assert command or words[0] in ("COMMAND", "data"), f"{name}: `{span}` is no command"
        for word in words:
            if command and word.startswith("--") and word != "--print_config":
                assert word.split("=")[0] in options_of(command), f"{name}: `{span}` has no {word}"


def test_make_targets_in_sentences_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
    for name, span in inline():
        if span.startswith("make "):
            assert span.split()[1] in targets, f"{name}: `{span}`"


def test_options_in_sentences_exist() -> None:
    known = set().union(*(options_of(command) for command in COMMANDS)) | {"--help", "--version"}
    for name, span in inline():
        for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span):
            assert option in known, f"{name}: `{span}`"


# ---- Configurations ----


def test_fields_in_sentences_exist() -> None:
    files = (".json", ".yaml", ".py", ".csv", ".mp4", ".html", ".safetensors")
    pattern = re.compile(r"[a-z_]+(\.[a-z_]+)+(: \S+)?")
    spans = [(name, span) for name, span in inline() if pattern.fullmatch(span) and not span.endswith(files)]
    found = [(name, span) for name, span in spans if span.split(".")[0] in SECTIONS]
    assert len(found) > 20
    for name, span in found:
        field, _, value = span.partition(": ")
        assert is_field(field), f"{name}: `{span}` is no field"
        if value and not field.startswith("model.options."):
            load_config(REPOSITORY / "avseg" / "configs" / "demo.yaml", f"--{field}={value}")
    assert not is_field("model.with")
    assert not is_field("model.options.matchin")


def test_configurations_are_called_by_their_names() -> None:
    files = {path.stem for path in (REPOSITORY / "avseg" / "configs").glob("*.yaml")}
    texts = {
        str(path.relative_to(REPOSITORY)): path.read_text()
        for path in (REPOSITORY / "avseg" / "configs").glob("*.yaml")
    }
    texts |= {str(p.relative_to(REPOSITORY)): p.read_text() for p in (REPOSITORY / "avseg").rglob("*.py")}
    mentioned = set()
    for name, text in {**DOCUMENTS, **texts}.items():
        for stem in re.findall(r"configs/(\w+)\.yaml|\b((?:s4|ms3)_\w+_(?:baseline|ufe))\b", text):
            mentioned.add("".join(stem))
            assert "".join(stem) in files, f"{name}: there is no configs/{''.join(stem)}.yaml"
    assert "s4_tpavi_resnet50_ufe" in mentioned


def test_the_configurations_are_those_that_the_readme_counts() -> None:
    rows = {
        f"{subset}_{model}_{encoder}_{arm}"
        for subset in ("s4", "ms3")
        for model in ("tpavi", "avsegformer", "ecmvae", "catr", "autr")
        for encoder in ("resnet50", "pvt_v2_b5")
        for arm in ("baseline", "ufe")
    }
    assert rows <= {path.stem for path in (REPOSITORY / "avseg" / "configs").glob("*.yaml")}
    assert "{s4, ms3} × {tpavi, avsegformer, ecmvae, catr, autr} × {resnet50, pvt_v2_b5} × {baseline, ufe}" in " ".join(
        DOCUMENTS["README.md"].split()
    )


# ---- Files and links ----


def test_files_in_sentences_exist() -> None:
    pattern = re.compile(r"(?:avseg|tests|configs|docs|benchmarks)/[\w./*<>-]*|[\w/]+\.(?:py|toml|cff)|\w+/\w+\.py")
    found = [(name, span) for name, span in inline() if pattern.fullmatch(span)]
    assert len(found) > 20
    planned = ("evaluation/experiments.py",)  # named as what is not there
    for name, span in found:
        if span in planned:
            assert not (REPOSITORY / "avseg" / span).exists(), f"{name}: {span} is there now: say so"
        elif "<" not in span:
            places = (REPOSITORY, REPOSITORY / "avseg")
            assert any(next(place.glob(span.rstrip("/")), None) for place in places), f"{name}: `{span}` does not exist"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in LINK.findall(FENCE.sub("", DOCUMENTS[document])):
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "mailto:")), target
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / document).parent / path if path else REPOSITORY / document
        assert file.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{document}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_speak_of_no_machine_by_its_paths(document: str) -> None:
    found = re.findall(r"(?<![\w.:/~<>}*-])/(?:[a-z]+/)[\w./-]*|\b[A-Z]:\\\w+", DOCUMENTS[document])
    assert not found


# ---- Python ----


def value_of(node: ast.expr, known: dict[str, str]) -> Any:
    """What an expression of a block is: an object, or, of a call or a field, its type; None where that isn't known.

    Raises:
        AttributeError, TypeError: a name that doesn't exist, or arguments that its function doesn't take.
    """
    if isinstance(node, ast.Name):
        return resolve(known[node.id]) if node.id in known else None
    if isinstance(node, ast.Attribute):
        owner = value_of(node.value, known)
        if owner is None:
            return None
        if inspect.ismodule(owner):
            return resolve(f"{owner.__name__}.{node.attr}")
        hints = get_type_hints(owner) if is_dataclass(owner) else {}
        return hints[node.attr] if node.attr in hints else getattr(owner, node.attr)
    if isinstance(node, ast.Call):
        function = value_of(node.func, known)
        if function is None or not getattr(function, "__module__", "").startswith("avseg"):
            return None
        places = list(node.args)
        if inspect.isfunction(function) and "." in function.__qualname__:
            places.insert(0, node.func)  # self
        inspect.signature(function).bind_partial(*places, **{word.arg: None for word in node.keywords if word.arg})
        return function if inspect.isclass(function) else get_type_hints(function).get("return")
    return None


@pytest.mark.parametrize(("document", "block"), blocks("python"))
def test_python_names_in_blocks_exist(document: str, block: str) -> None:
    tree = ast.parse(block)
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
                name = alias.name.split(".")[0]
                known[alias.asname or name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom):
            known |= {(alias.asname or alias.name): f"{node.module}.{alias.name}" for alias in node.names}
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for expression in ast.walk(tree):
        if isinstance(expression, ast.Name):
            name = expression.id
            assert name in known or name in bound or hasattr(builtins, name), f"{document}: {name}"
        if isinstance(expression, (ast.Attribute, ast.Call)):
            value_of(expression, known)


def test_attributes_of_moments_in_the_readme_exist() -> None:
    from avseg.inference import Moment

    block = next(body for name, body in blocks("python") if name == "README.md")
    used = set(re.findall(r"moment\.(\w+)", block))
    assert used
    assert used <= {item.name for item in fields(Moment)} | set(vars(Moment))


def test_python_names_in_sentences_exist() -> None:
    found = [(n, s) for n, s in inline() if re.fullmatch(r"avseg(\.\w+)+", s)]
    assert len(found) > 10
    for name, span in found:
        try:
            resolve(span)
        except AttributeError:
            raise AssertionError(f"{name}: `{span}` does not exist") from None


def test_the_sketch_of_a_base_model_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_BASES", dict(base._BASES))
    before = set(base._BASES)
    sketch = next(body for name, body in blocks("python") if name == "CONTRIBUTING.md" and "@register" in body)
    exec(compile(sketch, "CONTRIBUTING.md", "exec"), {"__name__": "sketch"})
    (name,) = set(base._BASES) - before
    config = ModelConfig(
        base=name,
        width=8,
        dilations=(1,),
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        neighbouring_frames=True,
        inputs=InputConfig(image_size=64),
    )
    model = base.build(config, WeightsConfig("none", "none", "none"), seed=0)
    frames, flow = torch.rand(2, 3, 3, 64, 64), torch.randn(2, 3, 2, 64, 64)
    prediction = model(frames, model.embed_audio(torch.randn(2, 3, 1, 96, 64)), flow)
    masks = torch.rand(2, 3, 1, 64, 64)
    assert prediction.logits.shape == masks.shape
    loss = torch.stack(list(model.loss(prediction, masks, masks > -1).values())).sum()
    loss.backward()
    silent = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not silent


# ---- What the README promises to hold ----


def test_the_readme_is_short_and_has_a_place_for_the_demo() -> None:
    text = DOCUMENTS["README.md"]
    assert len(text.splitlines()) < 200
    for marker in ("<!-- demo:begin -->", "<!-- demo:end -->"):
        assert text.count(marker) == 1
    between = text.split("<!-- demo:begin -->")[1].split("<!-- demo:end -->")[0]
    assert between.strip()
    for heading in ("## Command line", "## Python", "## AVSBench", "## What is not there yet"):
        assert heading in text
