"""What the page's server lets in, asked over plain HTTP as a program of someone else's would."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from helpers import write_mp4
from served import Served, served, write_bars

from avseg.app.gate import Visitors, own_file
from avseg.errors import AvsegError

FILE = {"_type": "gradio.FileData"}


class Client:
    """Speaks HTTP with the page, as any program can."""

    def __init__(self, page: Served) -> None:
        self.host = urlsplit(page.address).netloc
        self.session = uuid.uuid4().hex
        self.config = json.loads(self.ask("GET", "/config")[1])
        self.functions = {entry["id"]: entry for entry in self.config["dependencies"]}

    def ask(self, method: str, path: str, body: Any = None, limit: float = 60, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=limit)
        if isinstance(body, dict | list):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def upload(self, data: bytes, name: str = "bars.mp4", **headers: str) -> tuple[int, bytes]:
        form = (
            f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: video/mp4\r\n\r\n'
        ).encode()
        more = {"Content-Type": "multipart/form-data; boundary=x", **headers}
        return self.ask("POST", "/gradio_api/upload", form + data + b"\r\n--x--\r\n", **more)

    def run_index(self) -> int:
        """The function behind the large button."""
        (go,) = (part["id"] for part in self.config["components"] if part["props"].get("elem_id") == "go")
        return next(id for id, entry in self.functions.items() if [go, "click"] in map(list, entry["targets"]))

    def join(self, video: Any, *values: Any, **headers: str) -> tuple[int, bytes]:
        model, fps, start, end = (*values, *("runs/light", 5, 0, None)[len(values) :])
        data = [video, model, fps, start, end, None]
        body = {"fn_index": self.run_index(), "session_hash": self.session, "data": data, "trigger_id": None}
        return self.ask("POST", "/gradio_api/queue/join", body, **headers)

    def answers(self) -> list[dict[str, Any]]:
        """What the queue sends until the function is done."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={self.session}")
        stream, found = connection.getresponse(), []
        while line := stream.readline():
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
                if found[-1]["msg"] in ("process_completed", "close_stream"):
                    break
        connection.close()
        return found

    def done(self, video: Any, *values: Any) -> str:
        """What a run sends, as text; empty where it isn't let in."""
        status, _ = self.join(video, *values)
        return json.dumps(self.answers()) if status == 200 else ""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    write_bars(folder / "bars.mp4")
    with served(folder, "--max-megabytes", "1", "--max-seconds", "20") as found:
        yield found


@pytest.fixture
def client(page: Served) -> Client:
    return Client(page)


def named(path: Any, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "meta": FILE, **more}


def alive(client: Client) -> bool:
    return client.ask("GET", "/", limit=10)[0] == 200


@pytest.mark.heavy
def test_an_upload_is_marked_and_what_others_hold_is_not_served(client: Client, page: Served) -> None:
    status, answer = client.upload((page.folder / "bars.mp4").read_bytes())
    assert status == 200
    (uploaded,) = json.loads(answer)
    sent = client.done(named(uploaded, url=f"http://{client.host}/gradio_api/file={uploaded}"))
    assert "bars-marked.mp4" in sent
    found = [word for word in sent.split('"') if word.endswith("bars-marked.mp4") and word.startswith("/")]
    assert client.ask("GET", f"/gradio_api/file={found[0]}")[0] == 200
    below = Path(uploaded).parent.parent
    for path in (below, below / "results", Path(uploaded).parent, below / "results" / "guessed" / "bars-marked.mp4"):
        assert client.ask("GET", f"/gradio_api/file={path}")[0] == 404


@pytest.mark.heavy
def test_no_file_of_the_machine_is_read(client: Client, page: Served, tmp_path: Path) -> None:
    own = page.folder / "bars.mp4"
    (uploaded,) = json.loads(client.upload(own.read_bytes())[1])
    (tmp_path / "link.mp4").symlink_to(own)
    os.mkfifo(tmp_path / "pipe.mp4")
    below = os.path.dirname(uploaded)
    paths: list[Any] = [own, tmp_path / "link.mp4", tmp_path / "pipe.mp4", "/dev/zero", "/dev/stdin", "/etc/passwd"]
    paths += [f"{below}/../../../..{own}", f"/proc/self/root{own}", f"/proc/self/cwd/{own.name}", uploaded + "\0"]
    paths += [f"{below}/../../..//etc/passwd", below, "", "bars.mp4", uploaded.upper(), f"file://{own}", "x" * 5000]
    paths += ["http://127.0.0.1:1/x.mp4", "/proc/self/environ", "~/.bashrc"]
    for path in paths:
        for given in (
            named(path),
            named(path, url=f"http://{client.host}/gradio_api/file={path}", is_stream=True),
            named(uploaded + "x", url=str(path)),
            [named(path)],
        ):
            status, answer = client.join(given)
            assert status == 400, (given, answer)
        assert client.ask("GET", f"/gradio_api/file={quote(str(path))}")[0] in (400, 404), path
    for bare in (str(own), "/etc/passwd", 5, True, [], ["a"], {}, {"a": 1}):
        assert "marked.mp4" not in client.done(bare)
    assert alive(client)
    # Not in any other place of any message either, for any function that there is.
    for index, function in client.functions.items():
        data = [named(own)] * len(function["inputs"])
        body = {"fn_index": index, "session_hash": client.session, "data": data, "event_data": named("/etc/passwd")}
        for door in ("queue/join", "run/predict"):
            assert client.ask("POST", f"/gradio_api/{door}", body)[0] == 400
    everything = b"".join(path.read_bytes() for path in Path(below).parent.rglob("*") if path.is_file())
    assert b"root:" not in everything
    assert page.strangers() == ""


@pytest.mark.heavy
def test_gradio_s_other_doors_are_shut(client: Client) -> None:
    for door in (
        "proxy=http://127.0.0.1:1/",
        "proxy=https://example.org/x",
        "file=http://example.org/x",
        "file/etc/passwd",
    ):
        assert client.ask("GET", f"/gradio_api/{door}")[0] == 404
    for door in ("call/predict", "call/v2/run", "call/run", "api/predict", "run/run", "component_server", "stream/1"):
        assert client.ask("POST", f"/gradio_api/{door}", {"data": []})[0] == 404
    for door in ("process_recording", "vibe-edit", "run-history/connect", "profiling/clear"):
        assert client.ask("POST", f"/gradio_api/{door}", {"data": []})[0] == 404
    for door in ("/gradio_api/openapi.json", "/monitoring", "/docs", "/gradio_api/vibe-code", "/login", "//etc/passwd"):
        assert client.ask("GET", door)[0] == 404
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert client.ask(method, "/gradio_api/queue/join", {"data": []})[0] in (403, 404, 405)


@pytest.mark.heavy
def test_values_are_checked_where_they_arrive(client: Client, page: Served) -> None:
    (uploaded,) = json.loads(client.upload((page.folder / "bars.mp4").read_bytes())[1])
    video = named(uploaded)
    for values in (
        ("runs/none",), ("/etc",), ("a\0b",), ("x" * 100_000,), ("~nobody-is-called-so/x",), (5,), ([],), ({"a": 1},),
        ("runs/light", 1e9), ("runs/light", -1), ("runs/light", "5"), ("runs/light", True), ("runs/light", 10**400),
        ("runs/light", 1e-300), ("runs/light", 5, -1), ("runs/light", 5, "0"), ("runs/light", 5, 1e300),
        ("runs/light", 5, 2, 1), ("runs/light", 5, 0, [1]),
    ):  # fmt: skip
        sent = client.done(video, *values)
        assert "marked.mp4" not in sent, values
        assert "no sentence for" not in sent, values
    for body in (b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"data": [NaN], "fn_index": 0}', b""):
        assert client.ask("POST", "/gradio_api/queue/join", body, Content_Type="application/json")[0] in (400, 422)
    large = json.dumps({"data": ["x" * 10_000_000]}).encode()
    assert client.ask("POST", "/gradio_api/queue/join", large, Content_Type="application/json")[0] == 413
    for index, function in client.functions.items():
        for value in (None, 1e9, -5, "x", [1], {"a": [2]}, True):
            body = {"fn_index": index, "session_hash": client.session, "data": [value] * len(function["inputs"])}
            body["event_data"] = {"index": value}
            client.ask("POST", "/gradio_api/run/predict", body)
    assert "marked.mp4" in client.done(video)
    said = (page.folder / "errors.txt").read_text()
    assert "avseg/app" not in said.replace("avseg/app/server.py", "").replace("avseg/app/gate.py", ""), said


@pytest.mark.heavy
def test_another_site_s_page_gets_nothing(client: Client, page: Served) -> None:
    data = (page.folder / "bars.mp4").read_bytes()
    (uploaded,) = json.loads(client.upload(data, Origin=f"http://{client.host}", Sec_Fetch_Site="same-origin")[1])
    port = client.host.rpartition(":")[2]
    origins = ("http://example.org", "null", f"http://localhost:{port}", f"http://{client.host}0", "http://127.0.0.1")
    for origin in origins:
        assert client.upload(data, Origin=origin)[0] == 403
        assert client.join(named(uploaded), Origin=origin)[0] == 403
        assert client.ask("GET", f"/gradio_api/queue/data?session_hash={client.session}", Origin=origin)[0] == 403
    for site in ("cross-site", "same-site"):
        assert client.upload(data, Sec_Fetch_Site=site)[0] == 403
        assert client.ask("GET", f"/gradio_api/queue/data?session_hash={client.session}", Sec_Fetch_Site=site)[0] == 403
        assert client.ask("GET", f"/gradio_api/file={uploaded}", Sec_Fetch_Site=site)[0] == 403
    assert client.ask("GET", "/", Sec_Fetch_Site="cross-site")[0] == 200  # a link that leads here
    for host in (
        "example.org",
        f"example.org:{port}",
        "127.0.0.1.example.org",
        "10.0.0.1",
        "",
        "127.0.0.1@example.org",
    ):
        assert client.ask("GET", "/", Host=host)[0] == 400, host
        assert client.upload(data, Host=host)[0] == 400
    for host in (f"localhost:{port}", f"LOCALHOST:{port}", "[::1]:80", "127.0.0.1"):
        assert client.ask("GET", "/", Host=host)[0] == 200, host


@pytest.mark.heavy
def test_uploads_are_bounded_whatever_they_say_of_themselves(client: Client, page: Served) -> None:
    (uploaded,) = json.loads(client.upload((page.folder / "bars.mp4").read_bytes())[1])
    folder = Path(uploaded).parent.parent

    def largest() -> int:
        return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert client.upload(b"x" * (3 * 2**20))[0] == 413
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    for part in (form, b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n'):
        pieces = iter([part, *[b"x" * 2**16] * 64, b"\r\n--x--\r\n"])
        try:
            status, _ = client.ask("POST", "/gradio_api/upload", pieces, Content_Type="multipart/form-data; boundary=x")
        except (BrokenPipeError, ConnectionResetError):
            status = 413  # the answer came before all was sent
        assert status == 413
    assert largest() <= 2**20
    before = (page.folder / "errors.txt").read_text()
    nameless = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc\r\n--x--\r\n'
    for body, boundary in ((nameless, "x"), (b"--" + b"x" * 5000, "x" * 5000)):  # gradio fails on these
        form_of = f"multipart/form-data; boundary={boundary}"
        assert client.ask("POST", "/gradio_api/upload", body, Content_Type=form_of)[0] == 400
    for door in ("/static/", "/svelte/", "/assets/", "/gradio_api/file="):
        assert client.ask("GET", door + "a" * 5000)[0] in (400, 404)
    assert "Traceback" not in (page.folder / "errors.txt").read_text().removeprefix(before)
    small = iter([form, b"abc", b"\r\n--x--\r\n"])
    assert client.ask("POST", "/gradio_api/upload", small, Content_Type="multipart/form-data; boundary=x")[0] == 200
    assert alive(client)


def begin_long_run(page: Served) -> Client:
    """A run that would take many minutes has begun."""
    client = Client(page)
    if not (page.folder / "long.mp4").exists():
        write_mp4(page.folder / "long.mp4", seconds=60, size=(640, 480), fps=30)
    (uploaded,) = json.loads(client.upload((page.folder / "long.mp4").read_bytes(), "long.mp4")[1])
    assert client.join(named(uploaded), "runs/light", 60)[0] == 200
    return client


@pytest.mark.heavy
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_server_ends_while_a_run_is_under_way(tmp_path: Path, how: signal.Signals) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    left = temporary / "avseg-app-tmp-abcdefgh"  # of a killed server
    left.mkdir()
    # PyTorch's compiler makes a cache among temporary files when a model first runs, which is to stay.
    environment = {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiler")}
    with served(tmp_path, environment=environment) as page:
        assert not left.exists()
        client = begin_long_run(page)
        connection = http.client.HTTPConnection(client.host, timeout=60)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={client.session}")
        stream = connection.getresponse()
        while b"Listening" not in stream.readline():
            pass
        page.process.send_signal(how)
        assert page.process.wait(timeout=60) == (0 if how == signal.SIGINT else 143)
        assert list(temporary.iterdir()) == []


@pytest.mark.heavy
def test_a_visitor_who_leaves_stops_the_work(tmp_path: Path) -> None:
    with served(tmp_path) as page:
        gone = begin_long_run(page)
        connection = http.client.HTTPConnection(gone.host, timeout=60)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={gone.session}")
        stream = connection.getresponse()
        while b"Listening" not in stream.readline():
            pass
        stream.close()
        connection.close()
        # One run goes on at a time: the next visitor's, short as it is, would wait for the long one's end.
        write_bars(tmp_path / "bars.mp4")
        client = Client(page)
        (uploaded,) = json.loads(client.upload((tmp_path / "bars.mp4").read_bytes())[1])
        assert "bars-marked.mp4" in client.done(named(uploaded))


def test_whoever_has_a_line_or_had_one_just_now_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    visitors = Visitors()
    assert not visitors.here("a")
    visitors.come("a")
    assert visitors.here("a")
    visitors.connect("a", 1)
    now[0] += 1000
    assert visitors.here("a")
    visitors.connect("a", -1)
    now[0] += 5
    assert visitors.here("a")
    now[0] += 6
    assert not visitors.here("a")
    visitors.connect("b", 1)
    visitors.close()
    assert not visitors.here("b")


def test_own_files_are_regular_files_in_the_folder(tmp_path: Path) -> None:
    folder, other = tmp_path / "own", tmp_path / "own2"
    for place in (folder, other):
        place.mkdir()
        (place / "a").write_text("a")
    assert own_file(str(folder / "a"), folder) == folder / "a"
    (folder / "link").symlink_to(other / "a")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    wrong = [other / "a", folder / "link", folder / "loop", folder / "pipe", folder, folder / "b", "a", "", None, 5, {}]
    for path in [*wrong, f"{folder}/../own2/a", f"{folder}/a\0", "/dev/zero"]:
        with pytest.raises(AvsegError, match="not given to this page"):
            own_file(path, folder)


def test_names_of_this_machine_are_known_where_others_are_let_in(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from avseg.app.gate import Gate, Visitors; from avseg.app.session import Limits\n"
        "import socket; gate = Gate(None, '0.0.0.0', Path('.'), Limits(), Visitors())\n"
        "names = ['192.168.1.5:80', 'localhost', socket.gethostname(), 'example.org', 'a.0.0.0.0', '']\n"
        "print([gate._known(name) for name in names])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True, True, False, False, False]"
