"""One HTML page that says what was found: self-contained, readable on a phone, in light and in dark."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from avseg.errors import AvsegError
from avseg.evaluation.compare import METRICS, Comparison, compare
from avseg.evaluation.curves import as_uri, curve_panels, forest
from avseg.evaluation.page import facts_table, html_page, html_table, themed
from avseg.evaluation.scores import Evaluation
from avseg.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 200
"""Below so many test videos a test set is called small."""


@dataclass(frozen=True)
class Arm:
    """A model of the comparison.

    Attributes:
        name: As shown, such as ``baseline``, ``NF``, ``UFE``.
        evaluations: One per seed; all arms have the same seeds in the same order.
        curves: Rows of the first seed's ``metrics.csv``; empty where there was no training.
    """

    name: str
    evaluations: tuple[Evaluation, ...]
    curves: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True)
class Report:
    """What a page shows. Everything but title and arms may be empty.

    Attributes:
        title: The page's heading.
        arms: The first is the baseline that the others are compared with.
        protocol: Which protocol the verdict and the breakdowns speak of; None takes the evaluation's first.
        images: Captions and figures, shown as they are.
        video: Address of an overlay video relative to the page, such as ``overlay.mp4``.
        video_caption: What the video is.
        facts: Sections of labelled facts, such as the benchmark, its calibration, machine, seconds per stage.
        commands: Shell commands that reproduce the page.
        limits: Sentences about what the numbers don't show, beside those that follow from the numbers.
        generated: Whether the data were generated, which the verdict then says.
    """

    title: str
    arms: tuple[Arm, ...]
    protocol: str | None = None
    pictures: Sequence[tuple[str, "Figure"]] = ()
    video: str | None = None
    video_caption: str = ""
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    commands: Sequence[str] = ()
    limits: Sequence[str] = ()
    generated: bool = False


def compare_arms(arms: Sequence[Arm]) -> dict[str, list[Comparison]]:
    """Every arm but the first against the first, by its name.

    Raises:
        AvsegError: no arms, or arms that cannot be compared (see `compare`).
    """
    if not arms:
        raise AvsegError("There is no model to report on.")
    first, *others = arms
    return {arm.name: compare(first.evaluations, arm.evaluations) for arm in others}


def verdict(name: str, baseline: str, found: Comparison, generated: bool = False) -> str:
    """What a comparison says, in one sentence, computed from its numbers.

    Args:
        name: The candidate's name.
        baseline: The baseline's name.
        found: The comparison.
        generated: Whether the data were generated.
    """
    gain = found.difference
    points = f"{abs(100 * gain.mean):.1f} {METRICS[found.metric]} points"
    interval = f"{100 * gain.confidence:g} % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    if gain.low > 0:
        says = f"{name} is better than {baseline} by {points} at {found.protocol} ({interval})"
    elif gain.high < 0:
        says = f"{name} is worse than {baseline} by {points} at {found.protocol} ({interval})"
    else:
        says = (
            f"No difference between {name} and {baseline} can be told: {100 * gain.mean:+.1f} {METRICS[found.metric]} "
            f"points at {found.protocol}, and the {interval} includes 0"
        )
    return f"{says}, measured on {_where(gain.videos, gain.seeds, generated)}."


def write_report(path: str | Path, report: Report) -> Path:
    """Write ``report`` as one HTML file. Images are part of it; only the video stays beside it.

    Args:
        path: The file, such as ``runs/demo/report.html``.
        report: What it shows.

    Returns:
        ``path``.

    Raises:
        AvsegError: no arms, or arms that cannot be compared (see `compare`).
    """
    comparisons = compare_arms(report.arms)
    protocol = report.protocol or next(iter(report.arms[0].evaluations[0].scores))
    parts: list[tuple[str, Callable[[], str]]] = [
        ("Scores", lambda: _scores(report.arms) + _differences(report.arms[0].name, comparisons)),
        ("Pictures", lambda: _pictures(report)),
        ("Video", lambda: _video(report)),
        ("Training", lambda: _curves(report.arms)),
        ("Where the score comes from", lambda: _diagnostics(report.arms, protocol)),
        ("By category", lambda: _categories(report.arms, protocol)),
        ("What this does not show", lambda: _limits(report, comparisons)),
        *((name, lambda rows=rows: facts_table(rows)) for name, rows in report.facts.items()),  # type: ignore[misc]
        ("Do it again", lambda: _commands(report.commands)),
    ]
    sections = [(name, body()) for name, body in parts]
    lead = "".join(
        f'<p class="lead">{escape(verdict(name, report.arms[0].name, found, report.generated))}</p>'
        for name, rows in comparisons.items()
        for found in rows
        if (found.protocol, found.metric) == (protocol, "miou")
    )
    with whole_file(path) as temporary:
        temporary.write_text(html_page(report.title, lead, sections), encoding="utf-8")
    return Path(path)


def _where(videos: int, seeds: int, generated: bool) -> str:
    small = "a small " if videos < SMALL else "a "
    kind = "generated test set" if generated else "test set"
    runs = "one training run of each" if seeds == 1 else f"{seeds} training runs of each"
    return f"{small}{kind} ({videos} videos, {runs})"


def _scores(arms: Sequence[Arm]) -> str:
    protocols = list(arms[0].evaluations[0].scores)
    head = ["", *(f"{label}<br>{escape(protocol)}" for protocol in protocols for label in METRICS.values())]
    rows = []
    for arm in arms:
        numbers = [
            fmean(getattr(found.scores[protocol], metric) for found in arm.evaluations)
            for protocol in protocols
            for metric in METRICS
        ]
        rows.append([escape(arm.name), *(f"{100 * number:.2f}" for number in numbers)])
    note = (
        "Percent, mean over the test videos; T = 5: a clip's five frames enter the model together, T = 1: each alone."
    )
    remarks = dict.fromkeys(found.remark for arm in arms for found in arm.evaluations if found.remark)
    sizes = {found.size for arm in arms for found in arm.evaluations}
    note += "" if sizes == {"truth"} else " Scored at the model's image size, not the truth's own."
    return html_table(head, rows, " ".join([note, *map(escape, remarks)]))


def _differences(baseline: str, comparisons: Mapping[str, list[Comparison]]) -> str:
    parts = []
    for name, found in comparisons.items():
        gains = [row.difference for row in found]
        labels = [f"{METRICS[row.metric]}, {row.protocol}" for row in found]
        rows = [
            [
                escape(label),
                f"{100 * gain.mean:+.2f}",
                f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}",
                f"{gain.p:.4f}",
            ]
            for label, gain in zip(labels, gains, strict=True)
        ]
        head = [f"{escape(name)} − {escape(baseline)}", "points", f"{100 * gains[0].confidence:g} % interval", "p"]
        dots = [(label, 100 * g.mean, 100 * g.low, 100 * g.high) for label, g in zip(labels, gains, strict=True)]
        unit = f"{name} − {baseline}, percentage points"
        note = "Paired bootstrap over " + ("videos." if gains[0].seeds == 1 else "training runs and videos.")
        plot = themed(forest(dots, unit), forest(dots, unit, "dark"), f"Differences of {name} from {baseline}")
        parts.append(html_table(head, rows, note) + f'<div class="narrow">{plot}</div>')
    return "\n".join(parts)


def _pictures(report: Report) -> str:
    return "\n".join(
        f'<figure class="paper"><div class="scroll"><img src="{as_uri(figure, "png")}" alt="{escape(caption)}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, figure in report.pictures
    )


def _video(report: Report) -> str:
    if report.video is None:
        return ""
    address = escape(report.video, quote=True)
    caption = f"{escape(report.video_caption)} " if report.video_caption else ""
    return (
        f'<figure><video controls preload="metadata" src="{address}"></video>'
        f'<figcaption>{caption}<a href="{address}">{address}</a></figcaption></figure>'
    )


def _curves(arms: Sequence[Arm]) -> str:
    panels = curve_panels({arm.name: arm.curves for arm in arms})
    figures = [
        f"<figure><h3>{escape(title)}</h3>{themed(light, dark, title)}</figure>" for title, light, dark in panels
    ]
    return f'<div class="panels">{"".join(figures)}</div>' if figures else ""


def _diagnostics(arms: Sequence[Arm], protocol: str) -> str:
    found = [[one.diagnostics.get(protocol) or {} for one in arm.evaluations] for arm in arms]
    if not all("sounding" in one for arm in found for one in arm):
        return ""
    kinds = {"all sounding frames": [[one["sounding"] for one in arm] for arm in found]}
    for name in found[0][0].get("strata", {}):
        kinds[name] = [[one["strata"][name] for one in arm if name in one.get("strata", {})] for arm in found]
    head = ["frames", "number", *(f"{escape(arm.name)}<br>{what}" for arm in arms for what in ("right", "IoU then"))]
    rows = [
        [escape(name), str(cells[0][0]["frames"])]
        + [_percent(one[key] for one in arm) for arm in cells for key in ("selection", "quality")]
        for name, cells in kinds.items()
    ]
    silent = found[0][0]["silent"]["frames"]
    if silent:
        quiet = [_percent(one["silent"]["background"] for one in arm) for arm in found]
        rows.append(["silent: background kept", str(silent), *(cell for value in quiet for cell in (value, ""))])
    note = (
        f"{protocol}, percent. Right: frames whose mask has an IoU above 0.5 with the truth, so that it marks the "
        "sounding object. IoU then: the mean over these frames alone."
    )
    return html_table(head, rows, escape(note))


def _categories(arms: Sequence[Arm], protocol: str) -> str:
    means = [[found.scores[protocol].categories for found in arm.evaluations] for arm in arms]
    rows = [
        [escape(name.replace("_", " ")), str(first.videos)]
        + [_percent(found[name].miou for found in arm) for arm in means]
        for name, first in means[0][0].items()
    ]
    head = ["category", "videos", *(f"{escape(arm.name)}<br>mIoU" for arm in arms)]
    return html_table(head, rows, f"{escape(protocol)}, percent.") if rows else ""


def _percent(values: Any) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * fmean(known):.1f}" if known else "–"


def _limits(report: Report, comparisons: Mapping[str, list[Comparison]]) -> str:
    sentences = list(report.limits)
    first = report.arms[0].evaluations
    videos = len(next(iter(first[0].scores.values())).videos)
    if len(first) == 1 and comparisons:
        sentences.append(
            "Each model was trained once: the intervals cover the choice of test videos, not how much another training "
            "run would differ."
        )
    if videos < SMALL:
        sentences.append(f"The test set has {videos} videos: small differences cannot be told from none.")
    if report.generated:
        sentences.append("The videos are generated: scores on real recordings will be others.")
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _commands(commands: Sequence[str]) -> str:
    return f"<pre><code>{escape(chr(10).join(commands))}</code></pre>" if commands else ""
