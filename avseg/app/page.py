"""The page's layout and what happens when a person touches it. What is behind it is in `avseg.app.session`."""

import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from avseg.app import html
from avseg.app.choices import OPEN, Choice, chosen, explained
from avseg.app.gate import Visitors, number, own_file, threshold_of
from avseg.app.samples import SAMPLES, Sample, sample_file
from avseg.app.session import Files, Limits, Session, Stretch, begin, named
from avseg.errors import AvsegError
from avseg.inference import FPS, Segmenter
from avseg.models.catalogue import OPEN_VOCABULARY, Published
from avseg.models.download import download, missing

KEPT = 3600
"""Seconds that uploads and results are kept."""

HERE = Path(__file__).parent

_GONE = "The result is no longer here (results are deleted after an hour): run the video again."
_STRANGE = "avseg failed on this video in a way that it has no sentence for: the terminal that runs the page says more."


@dataclass(frozen=True)
class Site:
    """What all visitors share.

    Attributes:
        offered: Models to choose from.
        load: Gives the segmenter of a model's path, loaded once.
        folder: The server's: what visitors upload lies in it, and sessions write below it.
        limits: What is taken.
        typed: Whether folders may be typed in.
        visitors: Who is still there.
    """

    offered: list[Choice]
    load: Callable[[Path], Segmenter]
    folder: Path
    limits: Limits
    typed: bool
    visitors: Visitors = field(default_factory=Visitors)


class _Halts:
    """Which visitors want no more of the run that is under way, or have left."""

    def __init__(self, visitors: Visitors) -> None:
        self._asked: set[str] = set()
        self._visitors = visitors

    def ask(self, request: gr.Request) -> tuple[Any, Any]:
        """Somebody pressed Stop."""
        self._asked.add(str(request.session_hash))
        return html.note("Stopped."), gr.update(interactive=False)

    def begin(self, request: gr.Request) -> Callable[[], bool]:
        """A run begins; the function says whether it was asked to stop."""
        session = str(request.session_hash)
        self._asked.discard(session)
        self._visitors.come(session)
        return lambda: session in self._asked or not self._visitors.here(session)


class _Stopped(Exception):
    pass


# Answers that come at once need no queue. gradio's queue may also lose an event that is sent just as the one before it
# ends and closes their common stream; only what takes long is worth that.
_AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def page(site: Site) -> gr.Blocks:
    """The page of a site."""
    with gr.Blocks(title="avseg", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)) as blocks:
        state = gr.State(None, time_to_live=KEPT, delete_callback=_forget)
        halts = _Halts(site.visitors)
        gr.HTML(
            "<h1>avseg</h1><p>Which objects in this video make the sound? Everything happens on this machine; "
            "uploads and results are deleted after an hour.</p>",
            elem_classes="avseg-head",
        )
        with gr.Row():
            asked = _Asked.build(site)
            with gr.Column(scale=3, min_width=340):
                video = gr.Video(label="What sounds", interactive=False, elem_id="marked", height=440, buttons=[])
        with gr.Column(visible=False, elem_id="found") as found:
            shown = _Shown.build()
        everything = [state, asked.message, asked.stop, video, found, *shown.all()]
        going = asked.go.click(
            _runner(site, halts),
            [asked.video, asked.model, asked.fps, asked.start, asked.end, state],
            everything,
            show_progress_on=[video],
            concurrency_limit=1,
            concurrency_id="model",
            api_visibility="private",
        )
        asked.stop.click(halts.ask, None, [asked.message, asked.stop], cancels=[going], **_AT_ONCE)
        _look(halts, shown, state, asked.message, video)
    return blocks


@dataclass
class _Asked:
    """The left column: what a person gives."""

    video: Any
    model: Any
    fps: Any
    start: Any
    end: Any
    go: Any
    stop: Any
    message: Any

    @classmethod
    def build(cls, site: Site) -> "_Asked":
        limits = site.limits
        with gr.Column(scale=2, min_width=320):
            video = gr.Video(label="Video", sources=["upload"], elem_id="given", height=260, buttons=[])
            with gr.Row():
                buttons = [gr.Button(sample.title, size="sm", min_width=140) for sample in SAMPLES]
            offered = [(choice.label, str(choice.path)) for choice in site.offered]
            first = offered[0][1] if offered else None
            model = gr.Dropdown(
                offered,
                value=first,
                label="Model",
                info="or the folder of one, typed in" if site.typed else None,
                allow_custom_value=site.typed,
                elem_id="model",
            )
            lacking = missing([OPEN_VOCABULARY])
            fetch = gr.Button(_offer(lacking), size="sm", elem_id="fetch", visible=site.typed and bool(lacking))
            words = explained(first, site.offered)
            about = gr.Markdown(words, visible=bool(words), elem_classes="avseg-quiet", elem_id="about")
            with gr.Accordion("Which part, how closely", open=False):
                fps = gr.Number(FPS, label="Moments per second", minimum=0.1, maximum=60, elem_id="fps")
                with gr.Row():
                    start = gr.Number(0, label="From (s)", minimum=0, min_width=110)
                    end = gr.Number(None, label="To (s)", minimum=0, min_width=110, placeholder="the end")
            with gr.Row():
                go = gr.Button("Mark what sounds", variant="primary", elem_id="go", scale=3)
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=80, interactive=False)
            message = gr.HTML(elem_id="message")
            gr.Markdown(
                f"Up to {limits.seconds:g} s and {limits.megabytes:g} MB at a time; also files that the browser itself "
                "can't play.",
                elem_classes="avseg-quiet",
            )
        for button, sample in zip(buttons, SAMPLES, strict=True):
            button.click(_sampler(sample), None, video, queue=False, api_visibility="private")
        model.change(lambda value: _about(value, site), model, about, **_AT_ONCE)
        fetch.click(_fetcher(site), None, [message, model, fetch], concurrency_limit=1, api_visibility="private")
        return cls(video, model, fps, start, end, go, stop, message)


def _offer(lacking: list[Published]) -> str:
    size = sum(entry.megabytes or 0 for entry in lacking)
    licences = ", ".join(sorted({entry.licence for entry in lacking}))
    return f"Fetch models that know real videos ({size} MB; {licences})"


def _fetcher(site: Site) -> Callable[..., tuple[Any, Any, Any]]:
    """Downloads what open vocabulary needs, for people of this machine alone, and offers it."""

    def fetch(
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (gradio fills it in for each call)
    ) -> tuple[Any, Any, Any]:
        if not site.typed:
            return html.error("Only this machine's own people may download."), gr.skip(), gr.skip()
        try:
            for entry in missing([OPEN_VOCABULARY]):
                progress(0, desc=f"Fetching {entry.name}")
                download(entry, lambda name: lambda done, total: progress((done, total), desc=name, unit="bytes"))
        except AvsegError as error:
            return html.error(str(error)), gr.skip(), gr.skip()
        if OPEN not in site.offered:
            site.offered.insert(0, OPEN)
        offered = [(choice.label, str(choice.path)) for choice in site.offered]
        return html.note("Here."), gr.update(choices=offered, value=str(OPEN.path)), gr.update(visible=False)

    return fetch


@dataclass
class _Shown:
    """What appears once something was found."""

    facts: Any
    strip: Any
    moment: Any
    threshold: Any
    score: Any
    redraw: Any
    files: list[Any]

    @classmethod
    def build(cls) -> "_Shown":
        facts = gr.HTML(elem_id="facts")
        strip = gr.HTML(elem_id="strip", js_on_load=(HERE / "strip.js").read_text(encoding="utf-8"))
        with gr.Row():
            with gr.Column(scale=3, min_width=340):
                moment = gr.HTML(elem_id="moment")
            with gr.Column(scale=2, min_width=320):
                threshold = gr.Slider(
                    0.01,
                    0.99,
                    0.5,
                    step=0.01,
                    label="Threshold",
                    info="least probability of what is marked; the model isn't run again",
                    elem_id="threshold",
                )
                score = gr.Checkbox(label="Show the score as opacity", elem_id="score")
                redraw = gr.Button("Draw video and downloads again", elem_id="redraw", interactive=False)
                files = [
                    gr.DownloadButton(label, elem_id=f"take-{name}", size="md")
                    for name, label in (
                        ("video", "Download the video (mp4)"),
                        ("masks", "Download the masks (zip of PNG)"),
                        ("coco", "Download the masks (COCO json)"),
                    )
                ]
        return cls(facts, strip, moment, threshold, score, redraw, files)

    def all(self) -> list[Any]:
        """Every part, in the order in which `_parts` gives values."""
        return [self.facts, self.strip, self.moment, self.threshold, self.redraw, *self.files]


def _look(halts: _Halts, shown: _Shown, state: Any, message: Any, video: Any) -> None:
    """What happens while a person looks: images follow at once, files on request."""
    # What is asked while an answer is under way is asked once, at its end.
    quick = {**_AT_ONCE, "trigger_mode": "always_last"}
    given = [state, shown.threshold, shown.score]
    shown.strip.select(_choose, given, [shown.moment, message], **quick)
    shown.threshold.input(_moved, given, [shown.moment, shown.redraw, message], **quick)
    shown.threshold.input(_follow, [state, shown.threshold], [shown.facts, shown.strip], **quick)
    shown.score.input(_moved, given, [shown.moment, shown.redraw, message], **quick)
    shown.redraw.click(
        _drawer(halts),
        [state, shown.threshold],
        [video, shown.redraw, message, *shown.files],
        show_progress_on=[video],
        concurrency_limit=2,
        api_visibility="private",
    )


def _runner(site: Site, halts: _Halts) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """What the button does: a generator whose first values show what was found, and whose last bring the files."""

    def run(
        video: str | None,
        model: str | None,
        fps: float | None,
        start: float | None,
        end: float | None,
        before: Session | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (gradio fills it in for each call)
    ) -> Iterator[tuple[Any, ...]]:
        stopped = halts.begin(request)
        _forget(before)

        def tell(title: str) -> Callable[[int, int], None]:
            def told(done: int, total: int) -> None:
                if stopped():
                    raise _Stopped
                progress((done, total), desc=title, unit="moments")

            return told

        yield _nothing("", running=True)
        try:
            if video is None:
                raise AvsegError("No video is given: drop one, or take a sample.")
            # Whatever came before: nothing but what was given to this page is looked at, and nothing that is no number.
            path = own_file(video, site.folder)
            stretch = Stretch(
                number("Moments per second", fps, 0.1, 60, FPS),
                number("From", start, 0, math.inf, 0.0) or 0.0,
                number("To", end, 0, math.inf, None) or None,
            )
            folder = chosen(model, site.offered, site.typed)
            progress(0, desc="Loading the model")
            segmenter = site.load(folder)
            session = begin(
                path, segmenter, site.folder / "results", stretch, site.limits, tell("Listening and looking")
            )
            yield _parts(session)
            with named(path):
                files = session.write(session.drawn, tell("Drawing the video"))
            yield _with_files(session, files)
        except _Stopped:
            yield _nothing(html.note("Stopped."))
        except AvsegError as error:
            yield _nothing(html.error(str(error)))
        except Exception:
            traceback.print_exc()
            yield _nothing(html.error(_STRANGE))

    return run


def _nothing(message: str, running: bool = False) -> tuple[Any, ...]:
    """A value for every output of a run: no result, or none yet."""
    return None, message, gr.update(interactive=running), None, gr.update(visible=False), *[gr.skip()] * 8


def _parts(session: Session) -> tuple[Any, ...]:
    """What was found, before there are files."""
    threshold = session.drawn
    found = (html.facts(session, threshold), html.strip(session, threshold), html.picture(session, threshold, False))
    redraw = gr.update(value="Drawing the video …", interactive=False)
    files = [gr.update(value=None, interactive=False)] * 3
    return session, gr.skip(), gr.skip(), None, gr.update(visible=True), *found, threshold, redraw, *files


def _with_files(session: Session, files: Files) -> tuple[Any, ...]:
    """The files, which come last. The threshold may have been moved meanwhile."""
    stop = gr.update(interactive=False)
    return gr.skip(), gr.skip(), stop, str(files.video), *[gr.skip()] * 5, _redraw(session), *_taken(files)


def _about(value: str | None, site: Site) -> Any:
    words = explained(value, site.offered)
    return gr.update(value=words, visible=bool(words))


def _taken(files: Files) -> list[Any]:
    return [gr.update(value=str(path), interactive=True) for path in (files.video, files.masks, files.coco)]


def _redraw(session: Session) -> Any:
    if round(session.threshold, 2) == round(session.drawn, 2):
        return gr.update(value="Video and downloads show this threshold", interactive=False)
    return gr.update(value=f"Draw video and downloads with {session.threshold:.2f}", interactive=True)


def _choose(session: Session | None, threshold: float, score: bool, event: gr.EventData) -> tuple[Any, Any]:
    """Another moment was chosen, on the timeline or among the thumbnails."""
    try:
        here = _present(session)
        here.show(round(number("The moment", event._data.get("index"), 0, math.inf, 0) or 0))
        return html.picture(here, threshold_of(threshold), score is True), ""
    except AvsegError as error:
        return gr.skip(), html.error(str(error))


def _moved(session: Session | None, threshold: float | None, score: bool) -> tuple[Any, Any, Any]:
    """The threshold moves: the shown moment follows."""
    if threshold is None:  # while a number is typed
        return gr.skip(), gr.skip(), gr.skip()
    try:
        here = _present(session)
        here.threshold = threshold_of(threshold)
        return html.picture(here, here.threshold, score is True), _redraw(here), ""
    except AvsegError as error:
        return gr.skip(), gr.skip(), html.error(str(error))


def _follow(session: Session | None, threshold: float | None) -> tuple[Any, Any]:
    """Timeline and thumbnails under a threshold that moves: more work, so they lag behind the shown moment."""
    if threshold is None or session is None or not session.there():
        return gr.skip(), gr.skip()
    try:
        wanted = threshold_of(threshold)
    except AvsegError:  # the image's answer tells it
        return gr.skip(), gr.skip()
    return html.facts(session, wanted), html.strip(session, wanted)


def _drawer(halts: _Halts) -> Callable[..., tuple[Any, ...]]:
    """What draws video and downloads again, under another threshold."""

    def draw_again(
        session: Session | None,
        threshold: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (gradio fills it in for each call)
    ) -> tuple[Any, ...]:
        stopped = halts.begin(request)

        def told(done: int, total: int) -> None:
            if stopped():
                raise _Stopped
            progress((done, total), desc="Drawing the video", unit="moments")

        try:
            here = _present(session)
            files = here.write(threshold_of(threshold), told)
            return str(files.video), _redraw(here), "", *_taken(files)
        except _Stopped:
            return gr.skip(), gr.skip(), html.note("Stopped."), *[gr.skip()] * 3
        except AvsegError as error:
            return gr.skip(), gr.skip(), html.error(str(error)), *[gr.skip()] * 3

    return draw_again


def _present(session: Session | None) -> Session:
    if session is None or not session.there():
        raise AvsegError(_GONE)
    return session


def _forget(session: Session | None) -> None:
    if session is not None:
        session.close()


def _sampler(sample: Sample) -> Callable[[], str]:
    return lambda: str(sample_file(sample))
