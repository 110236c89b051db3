"""Published models by name, against real servers on this machine: one like the hub, one like a drive, one plain."""

import hashlib
import io
import json
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from fixtures.reference import Reference
from requests.adapters import HTTPAdapter

from avseg.cli import main
from avseg.errors import AvsegError
from avseg.models import catalogue, download
from avseg.models.catalogue import CATALOGUE, Published, folder_of, models_in, named, resolve
from avseg.models.download import describe, missing
from avseg.models.weights import read_state


class Server(BaseHTTPRequestHandler):
    """Answers as the Hugging Face hub, as a drive with its page of confirmation, or with plain files and ranges."""

    files: ClassVar[dict[str, bytes]] = {}
    breaks: ClassVar[list[int]] = []  # after how many bytes the next answers break off
    seen: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        # A proxy is given whole addresses.
        parts = urllib.parse.urlsplit(urllib.parse.unquote(self.path))
        query = urllib.parse.parse_qs(parts.query)
        self.seen.append(f"{self.path} {self.headers.get('Range', '')}".strip())
        if parts.path.startswith("/api/models/"):
            self._repository(parts.path.removeprefix("/api/models/"))
        elif parts.path == "/uc":
            self._drive(query["id"][0], "confirm" in query)
        elif parts.path == "/download":
            self._drive(query["id"][0], True)
        else:
            name = parts.path.rpartition("/resolve/")[2].partition("/")[2] if "/resolve/" in parts.path else parts.path
            self._file(name.strip("/"), {"X-Repo-Commit": "c" * 40})

    def _repository(self, path: str) -> None:
        names = [{"rfilename": name} for name in self.files]
        self._send(json.dumps({"id": "o/n", "sha": "c" * 40, "siblings": names}).encode(), "application/json")

    def _drive(self, number: str, confirmed: bool) -> None:
        if number not in self.files:
            self._send(b"<html>no such file</html>", "text/html", status=404)
        elif confirmed:
            self._file(number, {"Content-Disposition": f'attachment; filename="{number}"'})
        else:
            fields = f'<input type="hidden" name="id" value="{number}"><input type="hidden" name="confirm" value="t">'
            action = "https://drive.google.com/download"
            form = f'<html><form id="download-form" action="{action}" method="get">{fields}</form></html>'
            self._send(form.encode(), "text/html")

    def _file(self, name: str, headers: dict[str, str]) -> None:
        data = self.files.get(name)
        if data is None:
            self._send(b"not found", "text/plain", status=404)
            return
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        part = data[begin:]
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._send(part, "application/octet-stream", headers, 206 if "Range" in self.headers else 200)

    def _send(self, body: bytes, kind: str, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.breaks and kind == "application/octet-stream":
            self.wfile.write(body[: self.breaks.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Server.files, Server.breaks, Server.seen = {}, [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    for name in ("huggingface_hub.constants.ENDPOINT", "huggingface_hub.hf_api.ENDPOINT"):
        monkeypatch.setattr(name, url, raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield url
    server.shutdown()
    server.server_close()


def saved(state: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def resnet() -> bytes:
    """An encoder's checkpoint that `convert` takes: small ones of other kinds there are none."""
    from avseg.models.motion import FlowEncoder

    state = FlowEncoder(stages=4).state_dict()
    state["conv1.weight"] = state["conv1.weight"][:, :1].repeat(1, 3, 1, 1)
    return saved({name: tensor for name, tensor in state.items() if tensor.ndim})


def entry(source: str, **values: Any) -> Published:
    return Published("thing", "a thing", values.pop("kind", "encoder"), source, "Apache-2.0", **values)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def add(one: Published) -> Published:
        monkeypatch.setitem(catalogue._BY_NAME, one.name, one)
        return one

    return add


def test_a_plain_file_comes_whole_is_converted_and_taken_by_name(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth", sha256=hashlib.sha256(resnet).hexdigest()[:8]))
    Server.files = {"weights.pth": resnet}
    told: list[tuple[int, int]] = []
    assert folder_of("thing") is None
    with pytest.raises(AvsegError, match="`avseg models download thing` fetches it"):
        resolve("thing")
    assert download.download(one, lambda name: lambda done, total: told.append((done, total))) == ["thing"]
    assert told[-1] == (len(resnet), len(resnet))
    folder = folder_of("thing")
    assert folder is not None
    assert resolve("thing") == folder
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "source.json"]
    origin = json.loads((folder / "source.json").read_text())
    assert origin["sha256"] == {"weights.pth": hashlib.sha256(resnet).hexdigest()}
    assert read_state(folder / "model.safetensors")["bn1.weight"].shape == (64,)
    assert not (catalogue.home() / "partial" / "thing").exists()
    assert missing(["thing"]) == []


def test_a_broken_connection_goes_on_where_it_stopped(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth"))
    Server.files, Server.breaks = {"weights.pth": resnet}, [1_000_000]
    with pytest.raises(AvsegError, match=r"thing cannot be had from .* goes on where it stopped"):
        download.download(one)
    assert folder_of("thing") is None
    assert download.download(one) == ["thing"]
    assert Server.seen[-1] == "/weights.pth bytes=983040-"  # whole pieces of what came


def test_something_else_than_was_published_is_refused(address: str, resnet: bytes, listed: Any) -> None:
    one = listed(entry(f"{address}/weights.pth", sha256="0" * 8))
    Server.files = {"weights.pth": resnet}
    with pytest.raises(AvsegError, match=r"is not what was published \(its SHA-256 differs\)"):
        download.download(one)
    assert not (catalogue.home() / "models" / "thing").exists()


def test_the_first_hash_is_kept_and_another_refused_later(address: str, resnet: bytes, listed: Any) -> None:
    import shutil

    one = listed(entry(f"{address}/weights.pth"))
    Server.files = {"weights.pth": resnet}
    download.download(one)
    shutil.rmtree(catalogue.home() / "models" / "thing")
    state = torch.load(io.BytesIO(resnet))
    state["bn1.bias"] += 1
    Server.files = {"weights.pth": saved(state)}
    with pytest.raises(AvsegError, match=r"weights\.pth at .* is not what came the first time"):
        download.download(one)
    assert folder_of("thing") is None
    Server.files = {"weights.pth": resnet}
    assert download.download(one) == ["thing"]


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>quota</html>", b"\x80\x02nonsense", b""])
def test_what_is_not_what_it_says_leaves_nothing(address: str, listed: Any, content: bytes) -> None:
    one = listed(entry(f"{address}/weights.pth"))
    Server.files = {"weights.pth": content}
    with pytest.raises(AvsegError, match=r"thing: what came is not what it says"):
        download.download(one)
    assert not (catalogue.home() / "models" / "thing").exists()


def test_a_revoked_file_and_no_connection_are_sentences(address: str, listed: Any, capsys: Any) -> None:
    listed(entry(f"{address}/weights.pth"))
    assert main(["models", "download", "thing"]) == 1
    assert "404" in (said := capsys.readouterr().err)
    assert said.count("\n") <= 2
    listed(entry("http://127.0.0.1:9/weights.pth"))
    assert main(["models", "download", "thing"]) == 1
    assert "check the connection and try again" in capsys.readouterr().err


def test_the_hub_gives_one_commits_files_and_a_folder_of_transformers(address: str, listed: Any) -> None:
    one = listed(entry("hub:o/n", kind="transformers", files=("config.json", "*.safetensors")))
    Server.files = {"config.json": b"{}", "model.safetensors": b"x" * 1000, "README.md": b"no", "evil.py": b"no"}
    assert download.download(one) == ["thing"]
    folder = folder_of("thing")
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "source.json"]
    assert all("c" * 40 in line for line in Server.seen if "/resolve/" in line)
    assert not any("evil" in line or "README" in line for line in Server.seen)


def test_a_repository_of_checkpoints_becomes_a_model_each(address: str, listed: Any, resnet: bytes) -> None:
    one = listed(entry("hub:o/n", files=("*.pth",)))
    Server.files = {"first one.pth": resnet, "other.pth": resnet, "broken.pth": b"nothing"}
    assert download.download(one) == ["thing/first_one", "thing/other"]
    assert folder_of("thing/other") is not None
    with pytest.raises(AvsegError, match="thing is several models: give one of thing/first_one, thing/other"):
        resolve("thing")
    assert missing(["thing"]) == []


def test_an_empty_repository_is_a_sentence(address: str, listed: Any) -> None:
    with pytest.raises(AvsegError, match=r"the repository holds none of \*\.pth"):
        download.download(listed(entry("hub:o/n", files=("*.pth",))))


@pytest.fixture
def drive(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to Google's drive reach this machine's server instead."""
    send = HTTPAdapter.send

    def redirected(adapter: HTTPAdapter, request: Any, **more: Any) -> Any:
        request.url = request.url.replace("https://drive.google.com", address)
        return send(adapter, request, **more)

    monkeypatch.setattr(HTTPAdapter, "send", redirected)


@pytest.mark.usefixtures("drive")
def test_a_drives_page_of_confirmation_is_passed(listed: Any, resnet: bytes) -> None:
    Server.files = {"ID": resnet}
    assert download.download(listed(entry("drive:ID"))) == ["thing"]
    assert any("/download?id=ID" in line for line in Server.seen)


@pytest.mark.usefixtures("drive")
def test_a_file_that_the_drive_does_not_have_is_a_sentence(listed: Any) -> None:
    with pytest.raises(AvsegError, match=r"thing cannot be had from https://drive\.google\.com/file/d/ID"):
        download.download(listed(entry("drive:ID")))


def test_no_room_is_told_before_anything_is_fetched(address: str, listed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 5_000_000))
    with pytest.raises(AvsegError, match="has room for 5 MB and thing needs 200"):
        download.download(listed(entry(f"{address}/weights.pth", megabytes=100)))
    assert Server.seen == []


def test_a_licence_that_nobody_states_is_asked_about(address: str, listed: Any, resnet: bytes, capsys: Any) -> None:
    one = listed(replace(entry(f"{address}/weights.pth"), licence=catalogue.NOT_STATED))
    Server.files = {"weights.pth": resnet}
    assert main(["models", "download", "thing"]) == 1  # nobody is there to answer
    assert Server.seen == []
    assert "state no licence" in describe([one])
    assert main(["models", "download", "thing", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "thing"
    assert main(["models", "download", "thing"]) == 0


def test_the_catalogue_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path))
    names = [one.name for one in CATALOGUE]
    assert len(names) == len(set(names))
    for one in CATALOGUE:
        assert one.source.startswith(("drive:", "hub:", "https://"))
        assert one.address.startswith("https://")
        assert one.licence
        assert one.files or not one.source.startswith("hub:")
    assert [one.name for one in named("open-vocabulary")] == ["ast", "clipseg", "rf-detr-seg-nano"]
    assert [one.name for one in missing(["ecmvae"])] == ["vggish", "ecmvae"]
    assert list(models_in("ast")) == []
    with pytest.raises(AvsegError, match="There is no published model 'nothing'"):
        named("nothing")
    assert resolve("owner/name") == "owner/name"
    (tmp_path / "ast").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("ast") == "ast"  # a path that exists comes first


def test_a_published_avs_model_is_downloaded_and_loaded(address: str, listed: Any) -> None:
    """AVSegFormer's checkpoint with few of its layers' numbers would not convert: one whole one does."""
    reference = Reference("avsegformer_resnet50_n2")
    Server.files = {"model.pth": saved(reference.state())}
    one = listed(entry(f"{address}/model.pth", kind="avs"))
    assert download.download(one) == ["thing"]
    from avseg.models import load

    assert load("thing").config.base == "avsegformer"
