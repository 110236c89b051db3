"""``avseg convert``: make a published checkpoint a model of avseg's."""

from typing import Any

from avseg.commands.console import note
from avseg.commands.parser import Parser


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
