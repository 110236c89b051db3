"""Published models on this machine's own server, for the tests of downloads."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from requests.adapters import HTTPAdapter
from served_models import Quiet, Server, saved

from avseg.models import catalogue
from avseg.models.catalogue import Published


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Server.files, Server.breaks, Server.seen, Server.large = {}, [], [], set()
    Server.digest, Server.commit, Server.repositories = "", "c" * 40, {}
    server = Quiet(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AVSEG_HOME", str(tmp_path / "home"))
    # What HF_ENDPOINT sets where it is there before the library is imported, as a test below has it.
    for name in ("huggingface_hub.constants.ENDPOINT", "huggingface_hub.hf_api.ENDPOINT"):
        monkeypatch.setattr(name, url, raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield url
    server.shutdown()
    server.server_close()


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def add(one: Published) -> Published:
        monkeypatch.setitem(catalogue._BY_NAME, one.name, one)
        return one

    return add


@pytest.fixture
def drive(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to Google's drive reach this machine's server instead."""
    send = HTTPAdapter.send

    def redirected(adapter: HTTPAdapter, request: Any, **more: Any) -> Any:
        request.url = request.url.replace("https://drive.google.com", address)
        return send(adapter, request, **more)

    monkeypatch.setattr(HTTPAdapter, "send", redirected)


@pytest.fixture(scope="module")
def resnet() -> bytes:
    """An encoder's checkpoint that `convert` takes: small ones of other kinds there are none."""
    from avseg.models.motion import FlowEncoder

    state = FlowEncoder(stages=4).state_dict()
    state["conv1.weight"] = state["conv1.weight"][:, :1].repeat(1, 3, 1, 1)
    return saved({name: tensor for name, tensor in state.items() if tensor.ndim})
