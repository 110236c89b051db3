"""The page in real Chromium: a video goes in, and what comes out is looked at, moved and taken home."""

import base64
import io
import json
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from served import Served, bar, served, write_bars
from served_models import Quiet, Server
from tiny import write_ast, write_clipseg, write_rf_detr

from avseg.cli import main
from avseg.media.audio import load_audio
from avseg.media.video import probe, read_frames
from avseg.models.catalogue import named
from avseg.render import MASK_COLOUR

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NEEDED = os.environ.get("AVSEG_NEED_BROWSER") == "1"  # continuous integration leaves nothing out
WAIT = 120_000  # milliseconds until a condition that never comes is given up

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None and not NEEDED, reason="Chromium isn't installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("page"), "--max-seconds", "60", "--max-megabytes", "1") as page:
        yield page
        assert page.strangers() == ""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Person:
    """Somebody with a browser of their own."""

    def __init__(self, chromium: Any, site: Served, **more: Any) -> None:
        self.site = site
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.context = chromium.new_context(viewport={"width": 1280, "height": 900}, **more)
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.page.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(site.address)
        self.page.wait_for_selector("#go")

    def give(self, video: Path) -> None:
        self.page.set_input_files("#given input[type=file]", video)
        self.page.wait_for_selector("#given video")

    def clear(self) -> None:
        # gradio stacks two of them where the browser can't play the file
        self.page.locator("#given [aria-label='Clear']").last.click()
        self.page.wait_for_selector("#given input[type=file]", state="attached")

    def go(self) -> None:
        self.page.click("#go")

    def run(self, video: Path) -> None:
        self.give(video)
        self.go()
        self.page.wait_for_selector("#marked video")
        self.page.wait_for_selector("#take-coco:not([disabled])")

    def marked_video(self, folder: Path) -> Path:
        """The video that the page shows, downloaded."""
        source = self.page.get_attribute("#marked video", "src")
        path = folder / source.rsplit("/", 1)[-1]
        path.write_bytes(self.context.request.get(source).body())
        return path

    def take(self, what: str, folder: Path) -> Path:
        with self.page.expect_download() as download:
            self.page.click(f"#take-{what}")
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def source(self) -> str:
        return str(self.page.get_attribute(".avseg-moment img", "src"))

    def moment(self) -> np.ndarray:
        """The shown moment's pixels."""
        data = base64.b64decode(self.source().split(",")[1])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def move(self, threshold: float) -> None:
        """Drag the threshold and wait until the shown moment has changed."""
        before = self.source()
        self.page.fill("#threshold input[type=range]", str(threshold))
        self.changed(before)

    def changed(self, before: str) -> None:
        self.page.wait_for_function("was => document.querySelector('.avseg-moment img').src !== was", arg=before)

    def error(self) -> str:
        return str(self.page.wait_for_selector("#message .avseg-error").inner_text())

    def picture(self, name: str, tmp_path: Path) -> None:
        """Keep a screenshot: in the folder that AVSEG_SCREENSHOTS names, else beside the test's files."""
        folder = Path(os.environ.get("AVSEG_SCREENSHOTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=folder / f"{name}.png", full_page=True)

    def leave(self) -> None:
        self.context.close()
        hosts = {re.sub(r"^blob:", "", url).split("/")[2] for url in self.asked if not url.startswith("data:")}
        assert hosts == {self.site.address.split("/")[2]}


@pytest.fixture
def invite(chromium: Any, site: Served, went_wrong: Callable[[], bool], tmp_path: Path) -> Iterator[Any]:
    """A function that brings another person to the page. When the test has failed, it is pictured how they left it."""
    people: list[Person] = []

    def bring(**more: Any) -> Person:
        people.append(Person(chromium, site, **more))
        return people[-1]

    yield bring
    for number, somebody in enumerate(people):
        if went_wrong():
            somebody.picture(f"failed-{tmp_path.name}-{number}", tmp_path)
            print(somebody.complaints, somebody.page.inner_text("body"))
        somebody.leave()


@pytest.fixture
def person(invite: Any) -> Person:
    return invite()


def tinted(pixels: np.ndarray, frame: np.ndarray, number: int, mirrored: bool = False) -> bool:
    """Whether a bar carries the mask's tint: halfway from the frame to the mask's colour, or the frame itself."""
    place = bar(number, mirrored)
    expected = 0.55 * frame[place].mean((0, 1)) + 0.45 * np.array(MASK_COLOUR)
    found = pixels[place].mean((0, 1))
    marked = bool(np.abs(found - expected).max() < 8)
    assert marked or np.abs(found - frame[place].mean((0, 1))).max() < 8
    return marked


def test_a_video_goes_in_and_its_sounding_objects_come_out_marked(person: Person, tmp_path: Path) -> None:
    frame = write_bars(tmp_path / "bars.mp4")
    person.run(tmp_path / "bars.mp4")
    person.picture("found-1280-light", tmp_path)

    # the video: marked where the model marks, as it was elsewhere, with its sound
    overlay = person.marked_video(tmp_path)
    before, after = probe(tmp_path / "bars.mp4"), probe(overlay)
    assert (after.width, after.height, after.has_audio) == (before.width, before.height, True)
    for shown in read_frames(overlay, [0.3, 1.5, 2.8]):
        assert [tinted(shown.astype(int), frame, number) for number in range(3)] == [False, True, True]
        assert np.abs(shown[:8].astype(int) - frame[:8]).mean() < 4
    assert np.abs(load_audio(overlay)[:16000]).max() > 0.1

    # the page: facts, moments, the shown one
    assert "15 moments, 100 % of them with a sounding object" in person.page.inner_text("#facts")
    assert [tinted(person.moment(), frame, number) for number in range(3)] == [False, True, True]
    assert person.page.locator(".avseg-thumbs button").count() == 15

    # the downloads
    masks = zipfile.ZipFile(person.take("masks", tmp_path))
    assert len(masks.namelist()) == 15
    mask = np.asarray(Image.open(io.BytesIO(masks.read(masks.namelist()[3])))) > 127
    assert [bool(mask[bar(number)].all()) for number in range(3)] == [False, True, True]
    coco = json.loads(person.take("coco", tmp_path).read_text())
    assert (len(coco["images"]), len(coco["annotations"])) == (15, 15)
    assert person.take("video", tmp_path).read_bytes() == overlay.read_bytes()
    assert person.complaints == []


def test_the_threshold_moves_the_mask_at_once_and_the_video_on_request(person: Person, tmp_path: Path) -> None:
    frame = write_bars(tmp_path / "bars.mp4")
    person.run(tmp_path / "bars.mp4")
    area = person.page.inner_html(".avseg-wide")
    person.move(0.8)
    assert [tinted(person.moment(), frame, number) for number in range(3)] == [False, False, True]
    person.move(0.2)
    assert [tinted(person.moment(), frame, number) for number in range(3)] == [True, True, True]

    # timeline and thumbnails follow; the video doesn't, until it is asked for
    person.page.wait_for_function("was => document.querySelector('.avseg-wide').innerHTML !== was", arg=area)
    person.page.wait_for_selector("#facts:has-text('15 moments, 100 %')")
    old = person.page.get_attribute("#marked video", "src")
    shown = read_frames(person.marked_video(tmp_path), [1.0])[0].astype(int)
    assert [tinted(shown, frame, number) for number in range(3)] == [False, True, True]
    person.page.click("#redraw:not([disabled])")
    person.page.wait_for_function("was => document.querySelector('#marked video')?.src !== was", arg=old)
    person.page.wait_for_selector("#marked video")
    shown = read_frames(person.marked_video(tmp_path), [1.0])[0].astype(int)
    assert [tinted(shown, frame, number) for number in range(3)] == [True, True, True]
    coco = json.loads(person.take("coco", tmp_path).read_text())
    assert coco["info"]["threshold"] == 0.2
    person.picture("threshold-1280-light", tmp_path)
    assert person.complaints == []


def test_moments_are_clicked_through(person: Person, tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.mp4")
    person.run(tmp_path / "bars.mp4")

    def says(text: str) -> None:
        person.page.wait_for_selector(f".avseg-moment figcaption:has-text('{text}')")

    person.page.click(".avseg-thumbs button[data-index='12']")
    says("2.4 s")
    assert person.page.get_attribute(".avseg-thumbs button[aria-current]", "data-index") == "12"
    person.page.keyboard.press("ArrowLeft")
    says("2.2 s")
    chart = person.page.locator(".avseg-wide")
    box = chart.bounding_box()
    left, right = float(chart.get_attribute("data-left")), float(chart.get_attribute("data-right"))
    chart.click(position={"x": box["width"] * (left + (right - left) * 1.1 / 3), "y": box["height"] / 2})
    says("1.0 s")
    line = chart.locator(".avseg-now").bounding_box()
    assert abs(line["x"] + 1 - box["x"] - box["width"] * (left + (right - left) / 3)) < 3
    before = person.source()
    person.page.check("#score input")
    person.changed(before)
    before = person.source()
    slider = person.page.locator("#threshold input[type=range]").bounding_box()
    middle = slider["y"] + slider["height"] / 2
    person.page.mouse.move(slider["x"] + slider["width"] / 2, middle)
    person.page.mouse.down()
    person.page.mouse.move(slider["x"] + 0.9 * slider["width"], middle, steps=12)
    person.page.mouse.up()
    person.page.wait_for_selector("#redraw:has-text('with 0.')")
    person.changed(before)
    assert person.complaints == []


def test_a_broken_file_gets_the_terminals_sentence(
    person: Person, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_bars(tmp_path / "whole.mp4")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:3000])
    (tmp_path / "letter.mp4").write_text("Dear reader, this is no video.\n" * 40)
    write_bars(tmp_path / "mute.mp4", sound=False)
    model = person.site.folder / "runs" / "light"
    for name in ("cut.mp4", "letter.mp4", "mute.mp4"):
        path = tmp_path / name
        assert main(["segment", str(path), "--checkpoint", str(model), "--out", str(tmp_path / "out")]) == 1
        sentence = capsys.readouterr().err.split("avseg: error: ")[1].strip().replace(str(path), name)
        person.page.set_input_files("#given input[type=file]", path)
        person.page.wait_for_selector("#given [aria-label='Clear']")
        person.go()
        person.page.wait_for_selector(f"#message .avseg-error:has-text('{name}')")
        assert person.error() == sentence
        person.picture(f"broken-{name[:-4]}", tmp_path)
        person.clear()
    # and the next video goes well
    person.run(tmp_path / "whole.mp4")
    assert person.page.locator("#message .avseg-error").count() == 0


def test_limits_are_told(person: Person, tmp_path: Path) -> None:
    person.go()
    assert "No video is given" in person.error()
    write_bars(tmp_path / "long.mp4", seconds=61)
    person.give(tmp_path / "long.mp4")
    person.go()
    person.page.wait_for_selector("#message .avseg-error:has-text('--max-seconds')")
    assert person.error().startswith("long.mp4: 61.0 s were asked for where this page takes 60:")
    large = tmp_path / "large.mp4"
    large.write_bytes((tmp_path / "long.mp4").read_bytes() + bytes(1_200_000))
    assert large.stat().st_size > 2**20
    person.clear()
    person.page.set_input_files("#given input[type=file]", large)
    person.page.wait_for_selector("text=/maximum allowed size of 1.0 Mb/")
    person.picture("too-large", tmp_path)


def test_a_folder_is_typed_and_a_wrong_one_told(person: Person, tmp_path: Path) -> None:
    write_bars(tmp_path / "bars.mp4")
    person.give(tmp_path / "bars.mp4")
    person.page.fill("#model input", "no/such/folder")
    person.page.keyboard.press("Enter")
    person.go()
    assert person.error().startswith("no/such/folder does not exist")
    person.page.fill("#model input", str(person.site.folder / "runs" / "sound"))
    person.page.keyboard.press("Enter")
    person.go()
    person.page.wait_for_selector("#take-coco:not([disabled])")
    # this model marks all of the image while there is sound, and nothing in the silence at the end
    assert "100 %" not in person.page.inner_text("#facts")
    person.picture("silence", tmp_path)


def test_a_button_fetches_models_that_know_the_world(chromium: Any, tmp_path: Path) -> None:
    """From a hub of this machine's own, with tiny models that know nothing: the way is what is proven."""
    for name, write in (("ast", write_ast), ("clipseg", write_clipseg), ("rf-detr-seg-nano", write_rf_detr)):
        files = write(tmp_path / "published" / name).iterdir()
        Server.repositories[named(name)[0].source.partition(":")[2]] = {file.name: file.read_bytes() for file in files}
    hub = Quiet(("127.0.0.1", 0), Server)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "AVSEG_HOME": str(tmp_path / "home")}
    try:
        with served(tmp_path, environment={**own, "HF_HUB_OFFLINE": "0"}) as site:
            person = Person(chromium, site)
            assert Server.seen == []  # nothing unasked
            assert person.page.inner_text("#fetch").endswith("(1084 MB; Apache-2.0, BSD-3-Clause)")
            person.page.click("#fetch")
            person.page.wait_for_selector("#fetch", state="hidden")
            assert person.page.input_value("#model input").startswith("any real video")
            write_bars(tmp_path / "bars.mp4")
            person.run(tmp_path / "bars.mp4")
            person.picture("open-vocabulary", tmp_path)
            person.leave()
            assert site.strangers() == ""
        with served(tmp_path, "--checkpoint", "open-vocabulary", environment=own) as site:
            person = Person(chromium, site)
            assert not person.page.is_visible("#fetch")
            assert person.page.input_value("#model input") == "open-vocabulary"
            person.leave()
    finally:
        hub.shutdown()
        hub.server_close()
        Server.repositories, Server.seen = {}, []


def test_a_run_is_stopped(person: Person, tmp_path: Path) -> None:
    write_bars(tmp_path / "long.mp4", seconds=59)
    person.give(tmp_path / "long.mp4")
    person.page.get_by_text("Which part, how closely").click()
    person.page.fill("#fps input", "60")
    person.go()
    person.page.click("#stop:not([disabled])")
    person.page.wait_for_selector("#message:has-text('Stopped.')")
    assert not person.page.is_visible("#found")
    write_bars(tmp_path / "bars.mp4")
    person.clear()
    person.run(tmp_path / "bars.mp4")
    assert "bars.mp4: 3.0 s" in person.page.inner_text("#facts")


def test_two_people_at_once_get_their_own(invite: Any, tmp_path: Path) -> None:
    people = {"left": invite(), "right": invite()}
    frames = {}
    for name, somebody in people.items():
        frames[name] = write_bars(tmp_path / f"{name}.mp4", mirrored=name == "left")
        somebody.give(tmp_path / f"{name}.mp4")
    for somebody in people.values():
        somebody.go()
    for somebody in people.values():
        somebody.page.wait_for_selector("#take-coco:not([disabled])")
    for name, somebody in people.items():
        (tmp_path / f"of-{name}").mkdir()
        mirrored = name == "left"
        assert f"{name}.mp4" in somebody.page.inner_text("#facts")
        overlay = somebody.marked_video(tmp_path / f"of-{name}")
        assert overlay.name == f"{name}-marked.mp4"
        shown = read_frames(overlay, [1.0])[0].astype(int)
        assert [tinted(shown, frames[name], n, mirrored) for n in range(3)] == [False, True, True]
    # what one of them does changes nothing for the other
    before = people["right"].source()
    people["left"].move(0.8)
    assert [tinted(people["left"].moment(), frames["left"], n, True) for n in range(3)] == [False, False, True]
    assert people["right"].source() == before
    people["right"].page.click(".avseg-thumbs button[data-index='7']")
    people["right"].page.wait_for_selector(".avseg-moment figcaption:has-text('1.4 s')")
    assert [tinted(people["right"].moment(), frames["right"], n) for n in range(3)] == [False, True, True]
    for somebody in people.values():
        assert somebody.complaints == []


def test_somebody_who_leaves_keeps_nobody_waiting(chromium: Any, site: Served, person: Person, tmp_path: Path) -> None:
    write_bars(tmp_path / "long.mp4", seconds=59)
    write_bars(tmp_path / "bars.mp4")
    for moment in ("#stop:not([disabled])", "#found .avseg-thumbs"):  # while the model runs, while files are written
        other = Person(chromium, site)
        other.give(tmp_path / "long.mp4")
        other.go()
        other.page.wait_for_selector(moment)
        other.leave()
        if person.page.locator("#given [aria-label='Clear']").count():
            person.clear()
        person.run(tmp_path / "bars.mp4")
        assert "bars.mp4: 3.0 s" in person.page.inner_text("#facts")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (420, "light"), (420, "dark")])
def test_a_sample_is_looked_at_on_any_screen(invite: Any, tmp_path: Path, width: int, scheme: str) -> None:
    somebody = invite(color_scheme=scheme)
    somebody.page.set_viewport_size({"width": width, "height": 860})
    somebody.picture(f"empty-{width}-{scheme}", tmp_path)
    somebody.page.get_by_role("button", name="Sample: taking turns").click()
    somebody.page.wait_for_selector("#given video")
    somebody.go()
    somebody.page.wait_for_selector("#take-coco:not([disabled])")
    somebody.picture(f"sample-{width}-{scheme}", tmp_path)
    assert "turns.mp4: 5.0 s, 25 moments" in somebody.page.inner_text("#facts")
    # nothing stands out beyond the screen
    assert somebody.page.evaluate("document.documentElement.scrollWidth") <= width
    assert somebody.page.is_visible(".avseg-wide") == (width > 640)
    assert somebody.page.is_visible(".avseg-narrow") == (width <= 640)
    dark = somebody.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark")
    assert somebody.complaints == []
