"""``avseg segment``: mark what sounds in any number of videos."""

from typing import TYPE_CHECKING, Any, Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, OpenUnitInterval, PositiveFloat

from avseg.commands.console import agreed, complain, note, show
from avseg.commands.parser import Parser
from avseg.progress import progress

if TYPE_CHECKING:
    from avseg.inference.inputs import Input
    from avseg.inference.video import SegmentReport

FAILED = 1


def segment_parser() -> Parser:
    parser = Parser(
        "avseg segment",
        "PATH [PATH ...] [options]",
        "Mark what sounds in videos. Of each it writes OUT/NAME.mp4, the video with its sound and the masks drawn over "
        "it, OUT/NAME/masks/*.png, one mask a moment, and OUT/NAME/moments.json. A video that can't be segmented is "
        "named, and the others go on; the exit code is 0 if all is well and 1 if any failed. The model that comes with "
        "avseg knows generated scenes, not the world: for real videos fetch open-vocabulary, which names what it hears "
        "and finds it, or give weights that learned from real videos.",
        "avseg segment concert.mp4\n"
        "avseg segment films/ 'clips/**/*.mov' --fps 10 --save video,coco --out found\n"
        "avseg segment concert.mp4 --checkpoint runs/demo/ufe --start 60 --end 90 \\\n"
        "    --threshold 0.4 --smoothing 0.4",
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        nargs="+",
        type=str,
        help="a video with sound (mp4, mkv, webm, mov …), a folder of videos, a folder of numbered images with a "
        "sound file, or a pattern such as 'clips/*.mp4'",
    )
    parser.add_argument(
        "--checkpoint",
        type=str | None,
        help="folder of a trained model, a .ckpt of a run, a name that `avseg models` lists, or an id on the Hugging "
        "Face hub; if not given, open-vocabulary where it was downloaded, else the model that comes with avseg",
    )
    parser.add_argument("--out", type=str, default="segmented", help="folder for the results")
    parser.add_argument(
        "--save",
        type=str,
        metavar="KINDS",
        default="video,masks",
        help="what to write, with commas between: video, masks (PNG), coco (COCO's JSON), npz (times and scores), "
        "strip (an image)",
    )
    parser.add_argument(
        "--fps",
        type=PositiveFloat | Literal["all"],
        metavar="{FPS,all}",
        default=5.0,
        help="moments a second, or every frame",
    )
    parser.add_argument("--start", type=NonNegativeFloat, default=0.0, help="first moment, in seconds")
    parser.add_argument("--end", type=PositiveFloat | None, help="stop before this many seconds")
    parser.add_argument(
        "--threshold",
        type=OpenUnitInterval | None,
        help="least probability of a mask's pixels; the model's own if not given",
    )
    parser.add_argument(
        "--smoothing",
        type=NonNegativeFloat,
        metavar="SECONDS",
        default=0.0,
        help="average scores over moments up to this far before and after",
    )
    parser.add_argument(
        "--hysteresis",
        type=NonNegativeFloat,
        metavar="MARGIN",
        default=0.0,
        help="a pixel enters a mask at the threshold plus this and leaves it at the threshold less this",
    )
    parser.add_argument(
        "--frame_rate", type=PositiveFloat | None, metavar="RATE", help="of folders of images, in images a second"
    )
    parser.add_argument(
        "--audio_track",
        type=NonNegativeInt | None,
        metavar="N",
        help="which audio track of a video is heard and kept, counted from 0; the default one if not given",
    )
    parser.add_argument(
        "--labels", type=bool, default=True, help="write what is heard beside each mask, where the model has names"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist, which are kept otherwise")
    return parser


def segment(options: Any) -> int:
    from avseg.errors import AvsegError
    from avseg.inference.base import choose_device
    from avseg.inference.inputs import find_inputs
    from avseg.inference.moments import Smoothing
    from avseg.inference.output_paths import kinds_of
    from avseg.openvocab.pretrained import Pretrained, check_segmenter

    save = kinds_of(kind.strip() for kind in options.save.split(",") if kind.strip())
    smoothing = Smoothing(options.smoothing, options.hysteresis)
    if options.checkpoint is not None:
        check_segmenter(options.checkpoint)
    choose_device(options.device)
    inputs = find_inputs(options.path)
    checkpoint = _default() if options.checkpoint is None else options.checkpoint
    model = Pretrained(checkpoint, options.device, options.threshold)
    done: list[tuple[Input, SegmentReport | None]] = []
    for number, item in enumerate(inputs, 1):
        count = f" ({number} of {len(inputs)})" if len(inputs) > 1 else ""
        try:
            with progress(f"Segmenting {item.name}{count}", "moments") as update:
                report = _segment_one(item, model, options, save, smoothing, update)
        except (AvsegError, OSError) as error:
            # A model that can't be had is no video's fault, and a single video needs no table.
            if model.error is not None or len(inputs) == 1:
                raise
            complain(error)
            done.append((item, None))
            continue
        for text in report.notes:
            note(text)
        done.append((item, report))
    _tell(done)
    if checkpoint is None and any(report is not None and not report.skipped for _, report in done):
        note(
            "The model that comes with avseg knows generated scenes, not the world: for real videos fetch one that "
            "knows it (`avseg models download open-vocabulary`), or give one that learned from them (--checkpoint)."
        )
    return FAILED if any(report is None for _, report in done) else 0


def _default() -> str | None:
    """Open vocabulary where it is here; in a terminal, a person is asked once whether to fetch it."""
    import sys

    from avseg.commands.models import fetch
    from avseg.openvocab.pretrained import choose_default

    there = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
    return choose_default(agreed if there else None, lambda: fetch(["open-vocabulary"]))


def _segment_one(item: "Input", model: Any, options: Any, save: Any, smoothing: Any, update: Any) -> "SegmentReport":
    from avseg.inference.video import segment_video

    try:
        return segment_video(
            item.given(options.frame_rate),
            model,
            options.out,
            fps=None if options.fps == "all" else options.fps,
            start=options.start,
            end=options.end,
            overwrite=options.overwrite,
            progress=update,
            save=save,
            smoothing=smoothing,
            name=item.name,
            audio_track=options.audio_track,
            labels=options.labels,
        )
    except OSError as error:
        if error.filename is None:  # as where a disk is full
            error.filename = options.out
        raise


def _tell(done: "list[tuple[Input, SegmentReport | None]]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=False)
    table.add_column("video", no_wrap=True, overflow="ellipsis", max_width=34)
    for name in ("seconds", "moments", "sounding", "frames/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for item, report in done:
        video = Text(item.path.name or str(item.path))
        if report is None:
            table.add_row(video, "", "", "", "", "failed")
            continue
        speed = "" if report.skipped else f"{report.moments / max(report.elapsed, 1e-3):.1f}"
        sounding = f"{100 * report.sounding:.0f} %"
        state = "kept" if report.skipped else "done"
        table.add_row(video, f"{report.seconds:.1f}", str(report.moments), sounding, speed, state)
    show(table)
    finished = [report for _, report in done if report is not None]
    for path in finished[0].written if len(done) == 1 else []:
        print(f"  {path}")
    kept = sum(report.skipped for report in finished)
    if kept:
        what = "the results were" if len(done) == 1 else f"results of {kept} of {len(done)} videos were"
        note(f"{what} there already and were kept: --overwrite replaces them.")
