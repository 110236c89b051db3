"""What the page's server lets in: requests of its own page alone, for what the page needs, about its own files.

gradio is made to be driven by programs of others, too: it fetches addresses, copies files that a request names, and has
doors for its own tools. None of that is the page's, so it is stopped here, before gradio sees it.
"""

import ipaddress
import json
import math
import os
import re
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from avseg.app.session import Limits
from avseg.errors import AvsegError

LOCAL = ("127.0.0.1", "localhost", "::1")
_MESSAGE = 2**20  # bytes of a message, which holds numbers and names
_DEPTH = 20
_GRACE = 10.0  # seconds without a connection after which a visitor has left
_API = "/gradio_api/"
_FILE = f"{_API}file="
_POSTS = re.compile(rf"{_API}(upload|queue/join|run/predict|cancel|reset)/?")
_GETS = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)|/(assets|static|svelte)/.*"
    rf"|{_API}(info|startup-events|theme\.css|queue/data|upload_progress|heartbeat/[^/]*|file=.*)",
    re.DOTALL,
)


class Refused(Exception):
    """A request that is answered here: a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Visitors:
    """Who is looking: a page that is closed, or whose line is cut, ends its work."""

    def __init__(self) -> None:
        self._lines: Counter[str] = Counter()
        self._seen: dict[str, float] = {}
        self._closing = False

    def come(self, session: str) -> None:
        """A connection of a page opens, or something begins on its behalf."""
        now = time.monotonic()
        for old in [known for known, then in list(self._seen.items()) if now - then > _GRACE]:
            self._seen.pop(old, None)
        self._seen[session] = now

    def connect(self, session: str, lines: int) -> None:
        """A lasting connection opens (1) or closes (-1)."""
        self.come(session)
        self._lines[session] += lines
        if not self._lines[session]:
            del self._lines[session]

    def here(self, session: str) -> bool:
        """Whether somebody still waits for what this page asked for."""
        if self._closing:
            return False
        return self._lines[session] > 0 or time.monotonic() - self._seen.get(session, -_GRACE) < _GRACE

    def close(self) -> None:
        """Everybody has to go: the server ends."""
        self._closing = True


def own_file(path: Any, folder: Path) -> Path:
    """A regular file in the page's own folder, links followed.

    Raises:
        AvsegError: anything else, whether it exists or not.
    """
    if isinstance(path, str | os.PathLike) and "\0" not in os.fspath(path):
        real = Path(os.path.realpath(path))
        if real.is_relative_to(os.path.realpath(folder)) and real.is_file():
            return real
    raise AvsegError("That file was not given to this page, or it is deleted already (after an hour): give it again.")


def threshold_of(value: Any) -> float:
    """A threshold from the page. Errors are those of `number`."""
    found = number("Threshold", value, 0.01, 0.99, 0.5)
    assert found is not None
    return found


def number(what: str, value: Any, least: float, most: float, default: float | None) -> float | None:
    """A number from the page, where programs may have written anything; ``default`` where there is none.

    Raises:
        AvsegError: it is out of range, or no number.
    """
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or value == math.inf:
        span = f"from {least:g} to {most:g}" if most < math.inf else f"of {least:g} or more"
        raise AvsegError(f"{what} is no number {span}: give one.")
    return float(value)


class Gate:
    """ASGI middleware that lets in what the page needs.

    Args:
        app: What is behind it.
        host: The address that the server listens on.
        folder: The only files that requests may speak of.
        limits: Of uploads.
        visitors: Told of connections.
    """

    def __init__(self, app: Any, host: str, folder: Path, limits: Limits, visitors: Visitors) -> None:
        self.app, self.folder, self.visitors = app, folder, visitors
        self.local = host in LOCAL
        self.names = {"localhost", host.lower()}
        if not self.local:
            self.names |= {name.lower() for name in (socket.gethostname(), socket.getfqdn())}
        self.most = round(limits.megabytes * 2**20) + 2**16  # and what a form adds to a file

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        more, path = True, scope.get("path", "")

        async def heard() -> Any:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        async def told(message: Any) -> None:
            # What gradio has no answer for comes of requests that its own page doesn't make.
            if message.get("status", 0) >= 500:
                raise Refused(400, "That is no request of this page.")
            await send(message)

        try:
            if scope["type"] != "http":
                raise Refused(403, "Only http is spoken here.")
            await self._admit(scope, heard, told)
        except Refused as refused:
            if refused.status == 400 and refused.__context__ and not refused.__suppress_context__:
                sys.stderr.write(f"avseg: note: {path!r:.80} was asked for, but {refused.__context__!r:.300}\n")
            left = max(2 * self.most, 2**25)
            while more and left > 0:  # most programs read no answer before they have sent all
                left -= len((await heard()).get("body", b""))
            await _answer(send, refused)

    async def _admit(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, reads = scope["path"], scope["method"] in ("GET", "HEAD")
        self._check_sender(headers, path == "/" and reads)
        if not (_GETS if reads else _POSTS).fullmatch(path) or scope["method"] not in ("GET", "HEAD", "POST"):
            raise Refused(404, "There is no such thing on this page.")
        if path.startswith(_FILE):
            try:
                own_file(path.removeprefix(_FILE), self.folder)
            except (AvsegError, OSError, ValueError):
                raise Refused(404, "There is no such file on this page.") from None
        if reads:
            await self._connected(scope, receive, send)
        elif path.rstrip("/").endswith("upload"):
            await self._bounded(scope, receive, send, headers)
        else:
            message = self._checked(await _whole(receive, headers))
            kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
            scope = {**scope, "headers": [*kept, (b"content-length", str(len(message)).encode())]}
            await self.app(scope, _replay(message, receive), send)

    def _check_sender(self, headers: dict[str, str], entrance: bool) -> None:
        """Another site's page, which the browser of a visitor may show as well, gets nothing and sends nothing."""
        host = headers.get("host", "").lower()
        if not self._known(host):
            raise Refused(400, "This page is served under another name: use the address that avseg app printed.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin.lower()).netloc != host:
            raise Refused(403, "Another site's page may not use this one.")
        if not entrance and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Refused(403, "Another site's page may not use this one.")

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name.rstrip(".") in self.names:
                return True
            # A name can be made to lead here by whoever owns it; an address can't.
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.local

    async def _connected(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        asked = parse_qs(scope["query_string"].decode("latin-1")) if path.endswith("queue/data") else {}
        session = path.rpartition("/")[2] if "/heartbeat/" in path else asked.get("session_hash", [""])[0]
        if not session:
            await self.app(scope, receive, send)
            return
        self.visitors.connect(session, 1)
        try:
            await self.app(scope, receive, send)
        finally:
            self.visitors.connect(session, -1)

    async def _bounded(self, scope: Any, receive: Any, send: Any, headers: dict[str, str]) -> None:
        """An upload, cut short where it is larger than the page takes, whatever it says of its length."""
        large = Refused(413, f"The file is larger than the {self.most // 2**20} MB that this page takes.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self.most:
            raise large
        got, begun = 0, False

        async def counted() -> Any:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.most:
                return {"type": "http.disconnect"}
            return message

        async def told(message: Any) -> None:
            nonlocal begun
            if got <= self.most or begun:
                begun = True
                await send(message)

        try:
            await self.app(scope, counted, told)
        except Exception:
            if got <= self.most:
                raise
        if got > self.most and not begun:
            raise large

    def _checked(self, body: bytes) -> bytes:
        """A message with nothing in it but values and files of the page."""
        try:
            return json.dumps(self._value(json.loads(body, parse_constant=_no_number), _DEPTH)).encode("ascii")
        except (ValueError, RecursionError):
            raise Refused(400, "That is no message of this page.") from None
        except (AvsegError, OSError) as error:
            raise Refused(400, str(error)) from None

    def _value(self, value: Any, depth: int) -> Any:
        if not depth:
            raise ValueError
        if isinstance(value, list):
            return [self._value(inner, depth - 1) for inner in value]
        if not isinstance(value, dict):
            return value
        if not {"path", "url", "meta"} & value.keys():
            return {key: self._value(inner, depth - 1) for key, inner in value.items()}
        # A file: only which one it is goes on, not what else gradio might do with it.
        file = own_file(value.get("path"), self.folder)
        return {"path": str(file), "orig_name": file.name, "meta": {"_type": "gradio.FileData"}}


def _no_number(text: str) -> None:
    raise ValueError(text)


async def _whole(receive: Any, headers: dict[str, str]) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "The message ended early.")
        body += message.get("body", b"")
        if len(body) > _MESSAGE:
            raise Refused(413, "That is no message of this page.")
        if not message.get("more_body"):
            return body


def _replay(body: bytes, receive: Any) -> Any:
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return left.pop() if left else await receive()

    return again


async def _answer(send: Any, refused: Refused) -> None:
    body = json.dumps({"detail": refused.sentence}).encode("ascii")  # which gradio's own page shows
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
