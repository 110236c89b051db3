"""Import rules: imports point down, files stay short, light modules stay light, no machine's paths."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import avseg

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "avseg"

# From the ground up. A module may import from its own level and from those before it.
LEVELS: tuple[tuple[str, ...], ...] = (
    (
        "avseg.prefetch",
        "avseg.errors",
        "avseg.files",
        "avseg.progress",
        "avseg.provenance",
        "avseg.reading",
        "avseg.settings",
    ),
    ("avseg.config",),
    ("avseg.media",),
    ("avseg.data",),
    ("avseg.synthetic",),
    ("avseg.models",),
    ("avseg.render",),
    ("avseg.evaluation",),
    ("avseg.training",),
    ("avseg.inference",),
    ("avseg.openvocab",),
    ("avseg.app", "avseg.demo", "avseg.doctor", "avseg.reproduce"),
    ("avseg.commands",),
    ("avseg.cli",),
    ("avseg", "avseg.__main__"),  # the front door: names for those outside
)
LONGEST = 450  # lines of a file
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
BENCHMARKS = sorted((REPOSITORY / "benchmarks").glob("*.py"))


def level(module: str) -> int:
    """Where a module stands in `LEVELS`: by its own name, else by that of the package it is in."""
    for number, names in enumerate(LEVELS):
        for name in names:
            if module == name or (name != "avseg" and module.startswith(f"{name}.")):
                return number
    raise AssertionError(f"{module} has no level: add it to LEVELS, and to docs/architecture.md")


def imported(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every module of avseg that ``module`` imports, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.startswith("avseg."))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}, line {node.lineno}: name modules in full"
            for alias in node.names:
                if node.module == "avseg":
                    name = f"avseg.{alias.name}"
                    # A name that the front door lends counts as the module where it lives.
                    target = name if name in MODULES else avseg._HOMES.get(alias.name)
                    if target:
                        yield node.lineno, target
                elif (node.module or "").startswith("avseg."):
                    name = f"{node.module}.{alias.name}"
                    yield node.lineno, name if name in MODULES else str(node.module)


def test_every_level_is_inhabited() -> None:
    for names in LEVELS:
        assert set(names) <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own = level(module)
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    wrong = [f"line {line}: {name}" for line, name in imported(module, tree) if level(name) > own]
    assert not wrong, f"{module} imports what stands above it: {', '.join(wrong)}"


def test_an_import_that_points_up_would_be_found() -> None:
    tree = ast.parse(
        "def f():\n    from avseg.training.run import train\n    from avseg import segment_video, __version__\n"
    )
    assert list(imported("avseg.data.clip", tree)) == [(2, "avseg.training.run"), (3, "avseg.inference.video")]
    assert level("avseg.training.run") > level("avseg.data.clip") > level("avseg.errors")


def test_files_stay_short() -> None:
    files = {path.relative_to(REPOSITORY): path for path in (*MODULES.values(), *BENCHMARKS)}
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST}
    assert not long, f"split what has more than {LONGEST} lines: {long}"


def test_nothing_in_the_repository_is_a_link() -> None:
    """A checkout on Windows has none."""
    assert not [path for path in (REPOSITORY / "avseg").rglob("*") if path.is_symlink()]


def test_every_module_says_what_it_is() -> None:
    silent = [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert not silent


@pytest.mark.parametrize("module", ["avseg", "avseg.cli", "avseg.config", "avseg.errors", "avseg.files"])
def test_light_modules_stay_light(module: str) -> None:
    heavy = ["torch", "lightning", "transformers", "av", "cv2", "matplotlib", "numpy", "jsonargparse"]
    script = f"import sys, {module}; print(*sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_models_and_training_choose_no_device() -> None:
    """Where tensors live is decided outside: no ``.cuda()`` anywhere."""
    wrong = [name for name, path in MODULES.items() if ".cuda(" in path.read_text(encoding="utf-8")]
    assert not wrong


def test_names_are_printed_as_they_are() -> None:
    """rich takes ``[brackets]`` and ``:words:`` of a file's name for its own marks unless it is told not to."""
    plain = {"Console": {"markup", "emoji", "highlight"}, "TextColumn": {"markup"}}
    wrong = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in plain:
                fixed = node.args and isinstance(node.args[0], ast.Constant) and "description" not in node.args[0].value
                if not fixed and not plain[node.func.id] <= {word.arg for word in node.keywords}:
                    wrong.append(f"{name}:{node.lineno}")
    assert not wrong


# Roots of one machine's file system, and drive letters. /proc and /usr are every Linux's; URLs are not paths.
MACHINE_PATH = re.compile(r"(?<![\w.:/*}])(?:/(?:home|work|root|mnt|scratch|Users|data\d?|tmp)/[\w.]|[A-Za-z]:\\\\?\w)")


def ours() -> list[Path]:
    """Text files of the repository that people wrote."""
    kinds = (".py", ".md", ".yaml", ".yml", ".toml", ".cff", ".txt", ".svg", ".csv", ".css", ".js", "")
    places = ["avseg", "benchmarks", "docs", "tests", ".ci", ".github"]
    files = [path for place in places for path in (REPOSITORY / place).rglob("*")] + [*REPOSITORY.glob("*")]
    # In a worktree .git is a file, and it holds a path.
    others = {"__pycache__", ".git"}
    return [path for path in files if path.is_file() and path.suffix in kinds and not others & set(path.parts)]


def test_no_path_of_one_machine() -> None:
    wrong = []
    for path in ours():
        if path != Path(__file__):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            wrong += [f"{path}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    assert not wrong


@pytest.mark.parametrize("line", ["root: /home/someone/AVSBench", "open('/tmp/x')", "C:\\\\data", "(/mnt/d1)"])
def test_a_path_of_one_machine_would_be_found(line: str) -> None:
    assert MACHINE_PATH.search(line)
    assert not MACHINE_PATH.search("https://example.org/data/x, ROOT/data/x, runs/demo/data/test, $HOME/tmp/x")
