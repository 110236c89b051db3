"""``avseg app``: the web page."""

from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveFloat

from avseg.commands.parser import Parser


def app_parser() -> Parser:
    parser = Parser(
        "avseg app",
        "[options]",
        "Serve a web page on this machine: drop a video, see what sounds, look at any moment under any threshold, and "
        "take video and masks home. But for a button that fetches models it asks no other machine for anything and "
        "works offline; uploads and results are deleted after an hour. The model that comes with avseg knows generated "
        "scenes, not the world: for real videos press that button, or give weights that learned from real ones.",
        "avseg app\navseg app --checkpoint runs/demo/ufe --max-seconds 300",
    )
    parser.add_argument(
        "--checkpoint",
        type=str | None,
        help="folder of a trained model, a .ckpt of a run, or a downloaded model's name; if not given, open-vocabulary "
        "where it was downloaded, else the model that comes with avseg",
    )
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in")
    parser.add_argument("--port", type=NonNegativeInt, default=7860, help="port to listen on; 0 for any that is free")
    parser.add_argument("--max-seconds", type=PositiveFloat, default=120.0, help="longest stretch that is segmented")
    parser.add_argument("--max-megabytes", type=PositiveFloat, default=500.0, help="largest file that is taken")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--open", action="store_true", help="open the page in a browser, also without a desktop")
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    return parser


def app(options: Any) -> int:
    from avseg.app.server import Options, serve
    from avseg.app.session import Limits

    serve(
        Options(
            model=options.checkpoint,
            host=options.host,
            port=int(options.port),
            limits=Limits(float(options.max_seconds), float(options.max_megabytes)),
            device=options.device,
            browser=False if options.no_browser else True if options.open else None,
        ),
        lambda address: print(f"avseg app: {address} (Ctrl-C ends it)", flush=True),
    )
    return 0
