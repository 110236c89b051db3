"""A server on this machine that stands for the hub, a drive and plain addresses, and what it publishes."""

import hashlib
import io
import json
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import torch
from safetensors.torch import save

from avseg.models.catalogue import Published

GONE = "d" * 40  # a commit that the repository doesn't have any more


class Server(BaseHTTPRequestHandler):
    """Answers as the Hugging Face hub, as a drive with its page of confirmation, or with plain files and ranges."""

    files: ClassVar[dict[str, bytes]] = {}
    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}  # by OWNER/NAME; all others are `files`
    breaks: ClassVar[list[int]] = []  # after how many bytes the next answers break off
    seen: ClassVar[list[str]] = []
    large: ClassVar[set[str]] = set()  # of a repository: files whose SHA-256 the hub states
    digest: ClassVar[str] = ""  # what it states instead of the true one
    commit: ClassVar[str] = "c" * 40
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
            repository, resolve, name = parts.path.partition("/resolve/")
            name = name.partition("/")[2] if resolve else parts.path
            self._file(name.strip("/"), {}, self.repositories.get(repository.strip("/")))

    def _repository(self, path: str) -> None:
        if path.rpartition("/revision/")[2] == GONE:
            headers = {"X-Error-Code": "RevisionNotFound"}
            self._send(b"{}", "application/json", headers, status=404)
            return
        siblings = [
            {"rfilename": name, "size": len(data), "lfs": self._stored(data) if name in self.large else None}
            for name, data in self.repositories.get(path.partition("/revision/")[0], self.files).items()
        ]
        self._send(json.dumps({"id": "o/n", "sha": self.commit, "siblings": siblings}).encode(), "application/json")

    def _stored(self, data: bytes) -> dict[str, Any]:
        digest = self.digest or hashlib.sha256(data).hexdigest()
        return {"size": len(data), "sha256": digest, "pointerSize": 134}

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

    def _file(self, name: str, headers: dict[str, str], files: dict[str, bytes] | None = None) -> None:
        data = (files or self.files).get(name)
        if data is None:
            self._send(b"not found", "text/plain", status=404)
            return
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if begin >= len(data) > 0:
            self._send(b"", "text/plain", {"Content-Range": f"bytes */{len(data)}"}, status=416)
            return
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


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news, and standard error is what tests read."""


def saved(state: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def entry(source: str, **values: Any) -> Published:
    return Published("thing", "a thing", values.pop("kind", "encoder"), source, "Apache-2.0", **values)


CONFIG = b'{"model_type": "some"}'


def tensors(**values: torch.Tensor) -> bytes:
    return save(values or {"weight": torch.arange(250_000.0)})


def transformers(**more: Any) -> Published:
    return entry("hub:o/n", kind="transformers", files=("vocab.json",), holds="some", **more)
