"""`avseg segment` where names, places and results are other than expected: a sentence, and the others go on."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import write_mp4
from toy_models import save_tiny

from avseg.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def segment(model: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in the test's folder in a process of its own; gives exit code, output and what was said."""

    def run(*arguments: object, checkpoint: object = model, **more: object) -> tuple[int, str, str]:
        words = [*map(os.fsencode, map(str, arguments)), "--checkpoint", str(checkpoint), "--device", "cpu"]
        done = subprocess.run(
            [sys.executable, "-m", "avseg", "segment", *words, *([] if "--fps" in arguments else ["--fps", "2"])],
            cwd=tmp_path,
            capture_output=True,
            timeout=120,
            **more,  # type: ignore[call-overload]
        )
        out, said = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert "Traceback" not in said
        return done.returncode, out, said

    return run


@pytest.fixture
def here(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """The same in this process, which is quicker."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, checkpoint: object = model) -> tuple[int, str, str]:
        capsys.readouterr()
        words = [*map(str, arguments), "--checkpoint", str(checkpoint), "--device", "cpu"]
        code = main(["segment", *words, *([] if "--fps" in words else ["--fps", "2"])])
        return code, *capsys.readouterr()

    return run


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("avseg: error: ")]


def test_names_may_be_anything(segment: Callable, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.mp4")
    names = [odd, "a [red]b [x].mp4", "c:smile:[bold].mp4", "line\nbreak.mp4", "zoo.mp4"]
    for number, name in enumerate(names):
        write_mp4(tmp_path / "plain.mp4", seconds=1, number=number)
        (tmp_path / "d").mkdir(exist_ok=True)
        os.replace(tmp_path / "plain.mp4", tmp_path / "d" / name)
    (tmp_path / "d" / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "d" / "gone.mp4").symlink_to("nowhere.mp4")
    code, table, said = segment("d", "--out", "out", "--save", "video,masks,coco,npz,strip")
    assert code == 1
    assert [line.split("/")[1][:8] for line in errors(said)] == ["gone.mp4", "loop.mp4"]
    assert all("is a link to a file that isn't there, or to itself" in line for line in errors(said))
    assert table.count("done") == len(names)
    for shown in (r"caf\udce9.mp4", "a [red]b [x].mp4", "c:smile:[bold].mp4", "zoo.mp4"):
        assert shown in table
    for name in names:
        summary = json.loads((tmp_path / "out" / Path(name).stem / "moments.json").read_bytes().decode("utf-8"))
        assert summary["video"] == name
        assert (tmp_path / "out" / name).is_file()
    code, table, said = segment("d", "--out", "out")
    assert table.count("kept") == len(names)
    assert segment(f"d/{odd}", "--out", os.fsdecode(b"\xff"))[0] == 0


def test_what_can_be_read_once_is_refused(segment: Callable, tmp_path: Path) -> None:
    write_mp4(tmp_path / "fine.mp4", seconds=1)
    os.mkfifo(tmp_path / "pipe.mp4")
    given = ["pipe.mp4", "/dev/stdin", "/dev/zero", "/dev/null", "-", "http://example.org/a.mp4", "s3://b/a.mp4"]
    code, table, said = segment(*given, "fine.mp4", "--out", "out", stdin=subprocess.PIPE)
    assert (code, table.count("failed"), table.count("done")) == (1, len(given), 1)
    pipes = [line for line in errors(said) if "can't be read twice: save " in line]
    addresses = [line for line in errors(said) if "only files are read: download it first" in line]
    assert (len(pipes), len(addresses)) == (5, 2)
    assert "avseg: error: s3://b/a.mp4 is an address" in said
    with (tmp_path / "fine.mp4").open("rb") as file:
        assert segment("/dev/stdin", "--out", "again", stdin=file)[0] == 0


def test_files_of_one_name_and_size_are_told_apart(here: Callable, tmp_path: Path) -> None:
    write_mp4(tmp_path / "one" / "clip.mp4", seconds=1)
    data = bytearray((tmp_path / "one" / "clip.mp4").read_bytes())
    data[data.index(b"x264 - core")] = ord("y")  # a byte of a comment
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "clip.mp4").write_bytes(data)
    shutil.copystat(tmp_path / "one" / "clip.mp4", tmp_path / "two" / "clip.mp4")
    assert here("one/clip.mp4", "--out", "out")[0] == 0
    before = (tmp_path / "out" / "clip.mp4").read_bytes()
    code, _, said = here("two/clip.mp4", "--out", "out")
    assert code == 1
    assert "out/clip holds the results of another clip.mp4: choose another folder (--out)" in said
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == before
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    os.utime(tmp_path / "copy" / "clip.mp4", (1, 1))
    code, table, _ = here("copy/clip.mp4", "--out", "out")
    assert (code, "kept" in table) == (0, True)
    # An earlier version's results say nothing of the content, and heard another stretch of sound.
    summary = tmp_path / "out" / "clip" / "moments.json"
    values = {key: value for key, value in json.loads(summary.read_text()).items() if key not in ("content", "weights")}
    summary.write_text(json.dumps(values))
    code, table, said = here("one/clip.mp4", "--out", "out")
    assert (code, "kept" in table, "--overwrite (by an earlier version of avseg)" in said) == (0, True, True)
    code, _, said = here("one/clip.mp4", "--out", "out", "--save", "coco")
    assert (code, "--overwrite (by an earlier version of avseg)" in said) == (1, True)


def test_other_options_are_noted_where_all_is_there(here: Callable, model: Path, tmp_path: Path) -> None:
    write_mp4(tmp_path / "clip.mp4", seconds=1)
    changing = tmp_path / "changing"
    shutil.copytree(model, changing)
    assert here("clip.mp4", "--out", "out", checkpoint=changing)[0] == 0
    shutil.copytree(model, tmp_path / "copy")
    for options, checkpoint in ((("--threshold", 0.5), changing), ((), changing), ((), tmp_path / "copy")):
        code, table, said = here("clip.mp4", "--out", "out", *options, checkpoint=checkpoint)
        assert (code, "kept" in table, "other options" in said) == (0, True, False), said
    for options, words in (
        (("--threshold", 0.7), "threshold 0.5"),
        (("--smoothing", 0.3), "smoothing 0.0"),
        (("--fps", "4"), "fps 2.0"),
        (("--hysteresis", 0.1, "--end", 0.5), "end None, hysteresis 0.0"),
    ):
        code, table, said = here("clip.mp4", "--out", "out", *options, checkpoint=changing)
        sentence = f"out/clip was made with other options and was kept: replace it with --overwrite ({words})"
        assert (code, sentence in said) == (0, True), said
    data = bytearray((changing / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (changing / "model.safetensors").write_bytes(data)
    code, _, said = here("clip.mp4", "--out", "out", checkpoint=changing)
    assert "replace it with --overwrite (other weights)" in said
    code, _, said = here("clip.mp4", "--out", "out", "--save", "coco", checkpoint=changing)
    assert (code, "was made with other options" in said) == (1, True)
    # Replaced as a whole: nothing of the other run stays under the new one's name.
    assert here("clip.mp4", "--out", "out", "--save", "coco", "--overwrite", "--fps", 4, checkpoint=changing)[0] == 0
    rows = json.loads((tmp_path / "out" / "clip" / "moments.json").read_text())["moments"]
    masks = sorted(path.name for path in (tmp_path / "out" / "clip" / "masks").iterdir())
    assert [row["mask"] for row in rows] == [f"masks/{name}" for name in masks]
    assert "other options" not in here("clip.mp4", "--out", "out", "--fps", 4, checkpoint=changing)[2]


def test_where_nothing_can_be_written(segment: Callable, tmp_path: Path) -> None:
    for name in "ab":
        write_mp4(tmp_path / f"{name}.mp4", seconds=1)
    (tmp_path / "file").write_text("mine")
    code, _, said = segment("a.mp4", "b.mp4", "--out", "file")
    assert (code, len(errors(said))) == (1, 2)
    code, _, said = segment("a.mp4", "--out", "/dev/full")
    assert (code, len(errors(said))) == (1, 1)
    # Files may not grow beyond a few kilobytes, as on a disk that is full.
    code, _, said = segment(
        "a.mp4", "b.mp4", "--out", "out", "--save", "npz",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )  # fmt: skip
    assert code == 1
    assert errors(said) == ["avseg: error: out: File too large: make room there, or write elsewhere."] * 2
    assert not (tmp_path / "out").exists()
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "avseg", "models"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "avseg: error: No space left on device.\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_results_are_told_before_the_work(segment: Callable, tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", seconds=1)
    (tmp_path / "out").mkdir(mode=0o555)
    for out in ("out", "out/below"):
        code, _, said = segment("a.mp4", "--out", out, checkpoint="not/there")
        assert code == 1
        assert "is read-only: name a folder elsewhere" in said
