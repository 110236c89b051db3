"""``avseg data annotate``: a data set of one's own videos, with labels made by machine."""

from typing import Any

from jsonargparse.typing import OpenUnitInterval, PositiveInt

from avseg.commands.console import note
from avseg.commands.parser import Parser


def annotate_parser() -> Parser:
    parser = Parser(
        "avseg data annotate",
        "PATH [PATH ...] --out ROOT [options]",
        "Make a data set of videos without drawing a mask: a segmenter marks one frame a second, the frames about "
        "which sound, sight and motion agree become labels, and all others distant frames for `avseg train`. A video "
        "that can't be read is named, and the others go on. Started again, it does what is missing.",
        "avseg data annotate films --out mine\n"
        "avseg train --config configs/own_videos.yaml --data.root mine --data.labelled mine/labelled.txt",
    )
    parser.add_argument(
        "path", metavar="PATH", nargs="+", type=str, help="a video with sound, a folder of videos, or a pattern"
    )
    parser.add_argument("--out", type=str, required=True, help="folder of the data set")
    parser.add_argument(
        "--checkpoint",
        type=str | None,
        help="what marks the videos; if not given, open-vocabulary where it was downloaded, else avseg's own model",
    )
    parser.add_argument(
        "--confidence",
        type=OpenUnitInterval,
        default=0.5,
        help="from which a frame is a label: the least of sound, sight and motion; of a network without names the mean "
        "probability within its mask",
    )
    parser.add_argument("--size", type=PositiveInt, default=224, help="side of the frames in pixels")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
    return parser


def annotate(options: Any) -> int:
    from avseg.inference.base import choose_device
    from avseg.inference.inputs import find_inputs
    from avseg.openvocab.annotate import annotate as annotate_videos
    from avseg.openvocab.pretrained import Pretrained, check_segmenter, choose_default
    from avseg.progress import ProgressBar

    if options.checkpoint is not None:
        check_segmenter(options.checkpoint)
    choose_device(options.device)
    checkpoint = choose_default(None, lambda: None) if options.checkpoint is None else options.checkpoint
    done = annotate_videos(
        find_inputs(options.path),
        Pretrained(checkpoint, options.device),
        options.out,
        options.confidence,
        options.size,
        lambda name: ProgressBar(f"Marking {name}", "seconds"),
    )
    for _, remark in done.notes:
        note(remark)
    for _, reason in done.failures:
        print(f"failed: {reason}")
    print(f"{done.root}: {done.pieces} pieces of five seconds from {done.videos} videos; {done.labelled} are labelled")
    if not done.labelled:
        note("no frame is sure enough to be a label: give a lower --confidence (confidence.csv has every frame's).")
    else:
        print(
            f"look at {done.root}/contact-001.png; next: avseg train --config configs/own_videos.yaml --data.root "
            f"{done.root} --data.labelled {done.root}/labelled.txt"
        )
    return 1 if done.failures or not done.labelled else 0
