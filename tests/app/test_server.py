"""How the page is served: on this machine alone, with sentences for what can go wrong, and tidied up."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers import hears_ctrl_c
from served import served
from toy_models import toy

from avseg.app.server import Models, Options, _listening, remove_old
from avseg.errors import AvsegError


def run(*arguments: str, before: str = "") -> subprocess.CompletedProcess:
    script = f"import sys\n{before}\nfrom avseg.cli import main\nsys.exit(main(['app', '--no-browser', *sys.argv[1:]]))"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,  # a page that is served after all would never end
    )


def test_without_gradio_one_sentence_says_how_to_get_it() -> None:
    done = run(before="sys.modules['gradio'] = None")
    assert done.returncode == 1
    assert done.stderr.startswith("avseg: error: avseg app needs gradio, which is not installed: run pip install ")
    assert done.stderr.count("\n") == 1


def test_a_model_that_is_not_there_is_told() -> None:
    done = run("--port", "0", "--checkpoint", "no/such")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("no/such does not exist: give the folder of a trained model with --checkpoint.\n")
    assert "Traceback" not in done.stderr


def test_a_model_that_was_not_downloaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path))
    for name in ("avsegformer-s4-pvt", "open-vocabulary"):
        done = run("--port", "0", "--checkpoint", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"`avseg models download {name}`" in done.stderr


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("256.0.0.1", 0, "256.0.0.1 is no address of this machine: give another with --host"),
        ("127.0.0.1", 70000, "port 70000 is not a port: give one from 1 to 65535"),
    ],
)
def test_wrong_addresses_are_told(host: str, port: int, words: str) -> None:
    with pytest.raises(AvsegError, match=words), _listening(host, port):
        pass


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = rf"port {port} of 127.0.0.1 can't be had .*--port"
        with pytest.raises(AvsegError, match=words), _listening("127.0.0.1", port):
            pass


@pytest.mark.heavy
def test_only_this_machine_is_served_and_told_to_ask_nobody(tmp_path: Path) -> None:
    with served(tmp_path) as page:
        assert page.address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(page.address) as answer:
            policy = answer.headers["content-security-policy"]
            text = answer.read().decode()
        assert "default-src 'self'" in policy
        assert "http" not in policy  # no other host is named
        assert "fonts.googleapis" not in text
        assert "avseg" in text
        # a page of another name that leads here gets nothing
        stranger = urllib.request.Request(page.address, headers={"Host": "example.org"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(stranger)
        assert page.strangers() == ""


@pytest.mark.heavy
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_page_ends_well_and_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "avseg", "app", "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=hears_ctrl_c,
    )
    assert process.stdout is not None
    assert "http://127.0.0.1:" in process.stdout.readline()
    assert list(tmp_path.glob("avseg-app-*"))
    process.send_signal(how)
    _, errors = process.communicate()
    assert "Traceback" not in errors
    assert process.returncode == (0 if how == signal.SIGINT else 143)
    assert not list(tmp_path.glob("avseg-app-*"))


def test_models_are_loaded_once_and_again_when_they_change(tmp_path: Path) -> None:
    toy("light").save_pretrained(tmp_path / "a")
    models = Models("cpu")
    first = models(tmp_path / "a")
    assert models(tmp_path / "a") is first
    os.utime(tmp_path / "a" / "model.safetensors", (1, 1))
    assert models(tmp_path / "a") is not first
    with pytest.raises(AvsegError):
        models(tmp_path / "nothing")


def test_what_is_old_is_deleted(tmp_path: Path) -> None:
    for name in ("old/upload.mp4", "mixed/old.png", "mixed/new.png", "new/video.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        if "old" in path.name or "old" in path.parent.name:
            os.utime(path, (1, 1))
    os.utime(tmp_path / "old", (1, 1))
    remove_old(tmp_path, 3600)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {
        "mixed/new.png",
        "new/video.mp4",
    }
    remove_old(tmp_path, -10)
    assert list(tmp_path.iterdir()) == []


def test_gradio_deletes_after_an_hour_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    from avseg.app.page import Site, page
    from avseg.app.session import Limits

    blocks = page(Site([], Models("cpu"), tmp_path, Limits(), typed=True))
    assert blocks.delete_cache == (600, 3600)
    assert not blocks.analytics_enabled
    assert Options().host == "127.0.0.1"
