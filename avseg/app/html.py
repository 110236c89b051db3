"""Pieces of the page as HTML: the moment that is shown, the timeline with its thumbnails, what happened in words."""

import base64
import io
import math
from html import escape
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from avseg.app.session import Session
from avseg.render import timeline
from avseg.render.figures import clock

_INK = "#1f2328"
_DRAWING = Lock()  # matplotlib's settings are everybody's


def picture(session: Session, threshold: float, score: bool) -> str:
    """The shown moment, marked."""
    image = session.picture(threshold, score)
    share = _percent(float(session.shares(threshold)[session.index]))
    loudness = float(session.result.loudness[session.index])
    heard = "silence" if loudness <= -100 else f"{loudness:.0f} dB"
    when = _time(float(session.result.times[session.index]))
    words = f"{when} · {share} of the frame sounds · loudness: {heard}"
    return (
        f'<figure class="avseg-moment"><img src="{_jpeg(image, 88)}" width="{image.shape[1]}" '
        f'height="{image.shape[0]}" alt="The moment at {when} with what sounds marked">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def strip(session: Session, threshold: float) -> str:
    """Loudness and sounding area over time, and below them thumbnails; `strip.js` makes both choose moments."""
    times = session.result.times
    wide, begin, end = _chart(session, threshold, "wide", 9.6)
    narrow, _, _ = _chart(session, threshold, "narrow", 4.0)
    pictures = []
    for index, image in session.thumbnails(threshold):
        when = _time(float(session.result.times[index]))
        pictures.append(
            f'<button type="button" data-index="{index}" aria-label="Show {when}">'
            f'<img src="{_jpeg(image, 80)}" alt="" width="{image.shape[1]}" height="{image.shape[0]}">'
            f"<span>{when}</span></button>"
        )
    marks = ",".join(f"{mark:.4f}" for mark in (times - begin) / (end - begin))
    return (
        f'<div class="avseg-strip" data-session="{session.folder.name}" data-index="{session.index}" '
        f'data-marks="{marks}">{wide}{narrow}'
        f'<div class="avseg-thumbs" tabindex="0" aria-label="Moments; arrow keys go from one to the next">'
        f"{''.join(pictures)}</div></div>"
    )


def facts(session: Session, threshold: float) -> str:
    """What was done, in one line."""
    result = session.result
    sounding = float((session.shares(threshold) > 0).mean())
    notes = "".join(f"<br>{escape(note)}" for note in result.notes)
    count = len(result)
    return (
        f'<p class="avseg-facts">{escape(Path(result.video.info.path).name)}: {result.seconds:.1f} s, {count} '
        f"moment{'' if count == 1 else 's'}, {_percent(sounding)} of them with a sounding object; "
        f"{session.rate:.1f} moments per second.{notes}</p>"
    )


def error(sentence: str) -> str:
    """What went wrong, in one sentence."""
    return f'<p class="avseg-error" role="alert">{escape(sentence)}</p>'


def note(sentence: str) -> str:
    """What a person should know."""
    return f'<p class="avseg-note" role="status">{escape(sentence)}</p>'


def _chart(session: Session, threshold: float, kind: str, width: float) -> tuple[str, float, float]:
    """A timeline as SVG in the colour of the page's text; and the seconds at which it begins and ends."""
    from matplotlib import rc_context

    file = io.StringIO()
    result, shares = session.result, session.shares(threshold)
    with _DRAWING, rc_context({"svg.fonttype": "none"}):
        figure = timeline(result.times, result.loudness, shares, width=width, ink=_INK, paper="none")
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        axes = figure.axes[0]
        box, (begin, end) = axes.get_position(), axes.get_xlim()
    text = file.getvalue()
    drawing = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Where the axes stand, in shares of the drawing's width, for what is clicked and for the line at the shown moment.
    html = (
        f'<div class="avseg-chart avseg-{kind}" data-left="{box.x0:.5f}" data-right="{box.x1:.5f}" role="img" '
        f'aria-label="Loudness and sounding area over time">{drawing}<i class="avseg-now"></i></div>'
    )
    return html, begin, end


def _jpeg(image: np.ndarray, quality: int) -> str:
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 1 or percent == 0 else "less than 1 %"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else clock(math.floor(seconds))
