"""Serves the page, to this machine alone unless another host is asked for, and tidies up behind its visitors."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
import webbrowser
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread, Timer
from typing import TYPE_CHECKING, Any

from avseg.app.gate import LOCAL, Gate, Visitors
from avseg.app.samples import SAMPLES, sample_file
from avseg.app.session import Limits
from avseg.errors import AvsegError
from avseg.files import scratch

if TYPE_CHECKING:
    from fastapi import FastAPI

    from avseg.inference import Segmenter

PORT = 7860
_LOADED = 2  # models that are kept in memory
_PATIENCE = 5.0  # seconds until work that doesn't hear that the server ends is cut off

# Whatever the page's own scripts might want: the browser asks nobody but this server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


@dataclass(frozen=True)
class Options:
    """How the page is served.

    Attributes:
        model: The model that is chosen at first; None for the one that comes with avseg.
        host: The address to listen on.
        port: Its port; 0 for any that is free.
        limits: What is taken.
        device: Where models run.
        browser: Whether a browser is opened; None where there is a desktop to open one on.
        runs: The folder whose models are offered.
    """

    model: str | None = None
    host: str = "127.0.0.1"
    port: int = PORT
    limits: Limits = field(default_factory=Limits)
    device: str = "auto"
    browser: bool | None = None
    runs: str = "runs"


def serve(options: Options, started: Callable[[str], None] | None = None) -> None:
    """Serve the page until Ctrl-C.

    Args:
        options: How.
        started: Called with the page's address once it can be opened.

    Raises:
        AvsegError: gradio isn't installed, the address can't be had, or the model or device isn't there.
    """
    if options.model is not None and not Path(options.model).exists():
        from avseg.models.catalogue import is_named
        from avseg.openvocab.pretrained import check_segmenter

        # A repository on the hub could be meant, too, which the page must not ask.
        if not is_named(str(options.model)):
            raise AvsegError(f"{options.model} does not exist: give the folder of a trained model with --checkpoint.")
        check_segmenter(options.model)
    with scratch("app") as folder, _house_rules(folder), _listening(options.host, options.port) as listening:
        from avseg.inference import choose_device

        choose_device(options.device)
        models = Models(options.device)
        if options.model is not None:
            models(Path(options.model))
        import uvicorn

        address = _address(options.host, listening.getsockname()[1])
        visitors = Visitors()
        app = build(options, folder, models, lambda: _opened(address, options.browser, started), visitors)

        class Server(uvicorn.Server):
            """Ends for good, whatever is under way."""

            def handle_exit(self, sig: int, frame: Any) -> None:
                visitors.close()
                late = Timer(_PATIENCE, _cut_off, (folder, sig))
                late.daemon = True
                late.start()
                super().handle_exit(sig, frame)

        server = Server(uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1, ws="none"))
        # uvicorn ends well on Ctrl-C and then lets it through.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def build(
    options: Options,
    folder: Path,
    models: "Models",
    started: Callable[[], None] = lambda: None,
    visitors: Visitors | None = None,
) -> "FastAPI":
    """The page as an ASGI application.

    Args:
        options: How it is served.
        folder: Where uploads and results are written, and the only files that requests may name.
        models: Gives segmenters.
        started: Called once the page can be opened.
        visitors: Who is there.
    """
    import gradio as gr
    from fastapi import FastAPI

    from avseg.app.choices import choices
    from avseg.app.page import HERE, KEPT, Site, page

    there = Visitors() if visitors is None else visitors

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        Thread(target=_prepare_samples, daemon=True).start()
        tidying = asyncio.create_task(_tidy(folder, KEPT))
        asyncio.get_running_loop().call_soon(started)
        try:
            yield
        finally:
            tidying.cancel()
            there.close()

    offered = choices(options.runs, options.model)
    site = Site(offered, models, folder, options.limits, options.host in LOCAL, there)
    blocks = page(site).queue(default_concurrency_limit=4)
    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate, host=options.host, folder=folder, limits=options.limits, visitors=there)
    app.add_middleware(_Headers)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size=round(options.limits.megabytes * 2**20),
        theme=_theme(),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
    )
    return app


class Models:
    """Segmenters by the path of their model; the last few stay in memory."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: OrderedDict[tuple[Path, float], Segmenter] = OrderedDict()
        self._lock = Lock()

    def __call__(self, path: Path) -> "Segmenter":
        """The model at ``path``, loaded again where its files have changed.

        Raises:
            AvsegError: there is no model.
        """
        from avseg.openvocab.pretrained import load_segmenter

        weights = path / "model.safetensors"
        key = path.resolve(), weights.stat().st_mtime if weights.is_file() else 0.0
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_segmenter(path, self._device)
            self._loaded.move_to_end(key)
            while len(self._loaded) > _LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[key]


class _Headers:
    """Adds what browsers are told about privacy to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode("ascii")),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self.app(scope, receive, told)


def _cut_off(folder: Path, how: int) -> None:
    """End a process in which something still runs that can't be told to stop."""
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0 if how == signal.SIGINT else 128 + how)


@contextmanager
def _house_rules(folder: Path) -> Any:
    """gradio, told before it is imported to keep to this machine and to one folder."""
    rules = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in rules}
    os.environ.update(rules)
    try:
        import gradio  # noqa: F401

        yield
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise AvsegError(
            "avseg app needs gradio, which is not installed: run pip install 'gradio>=6.31,<7' in this environment "
            "(or install avseg with its extra 'app')."
        ) from None
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _listening(host: str, port: int) -> Any:
    if not 0 <= port <= 65535:
        raise AvsegError(f"port {port} is not a port: give one from 1 to 65535 with --port.")
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
    except OSError:
        raise AvsegError(f"{host} is no address of this machine: give another with --host.") from None
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(place)
        except OSError as error:
            raise AvsegError(
                f"port {port} of {host} can't be had ({error.strerror}): choose another with --port, or 0 for any "
                "that is free."
            ) from None
        listening.listen()  # whoever is told the address may come at once
        yield listening


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)
    return f"http://{shown}:{port}"


def _opened(address: str, browser: bool | None, started: Callable[[str], None] | None) -> None:
    if started is not None:
        started(address)
    if _desktop() if browser is None else browser:
        Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _desktop() -> bool:
    """Whether there is a screen that a browser would open on, rather than a terminal that it would take over."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


def _prepare_samples() -> None:
    # Whoever asks for a sample waits for it in any case, and is told if it can't be made.
    with suppress(Exception):
        for sample in SAMPLES:
            sample_file(sample)


async def _tidy(folder: Path, age: float) -> None:
    while True:
        await asyncio.sleep(age / 6)
        await asyncio.to_thread(remove_old, folder, age)


def remove_old(folder: Path, age: float) -> None:
    """Delete files that were written more than ``age`` seconds ago, and folders that are empty since then."""
    limit = time.time() - age
    for place, folders, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place) / name
            with suppress(OSError):
                if path.stat().st_mtime < limit:
                    path.unlink()
        for name in folders:
            with suppress(OSError):
                if (Path(place) / name).stat().st_mtime < limit:
                    (Path(place) / name).rmdir()


def _theme() -> Any:
    """Fonts of the system: none is fetched."""
    import gradio as gr

    theme = gr.themes.Default(
        primary_hue="sky",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    # gradio's own grey is too pale to be read with ease.
    return theme.set(body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500")
