"""A model for others: its folder with a card that says what it is, sent to the Hugging Face hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import avseg
from avseg.config import ModelConfig
from avseg.errors import AvsegError
from avseg.files import scratch
from avseg.models import AVSModel
from avseg.reading import read_json, read_yaml

_ENCODERS = {
    "resnet50": "ResNet-50",
    "pvt_v2_b5": "PVT-v2-b5",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "vggish": "VGGish, frozen",
    "cnn": "a small network over log-mel",
}
_NAMES = {"val/miou": "mIoU, validation", "val/f_score": "F-score, validation"}


def model_card(config: ModelConfig, parameters: int, name: str, scores: Mapping[str, float], subset: str = "") -> str:
    """A model card in Markdown: what the model is, how to use it, and what it scored.

    Args:
        config: The model's.
        parameters: How many it has.
        name: What it is called, such as the id of its repository.
        scores: Named scores in [0, 1]; none is fine.
        subset: AVSBench's subset, or the layout of another data set, that it was trained on.
    """
    image, audio = (_ENCODERS.get(given, given) for given in (config.image_encoder, config.audio_encoder))
    size = config.inputs.image_size
    facts = {
        "base model": config.base,
        "image encoder": image,
        "audio encoder": audio,
        "neighbouring frames (optical flow)": "yes" if config.neighbouring_frames else "no",
        "frames per clip": str(config.frames_per_clip),
        "pictures": f"{size} × {size} pixels",
        "front end": config.inputs.front_end,
        "threshold": f"{config.threshold:g}",
        "parameters": f"{parameters / 1e6:.1f} million",
    }
    if subset:
        facts["trained on the layout of"] = subset
    lines = [
        *("---", "library_name: avseg", "tags:", "- audio-visual-segmentation", "---", "", f"# {name}", ""),
        "Marks, in every frame of a video, the pixels of the objects that make the sound.",
        *("", "```python", "from avseg import AVSegmenter", ""),
        f'model = AVSegmenter.from_pretrained("{name}")',
        *('model("concert.mp4").save_video("marked.mp4")', "```", "", "| | |", "|---|---|"),
        *(f"| {key} | {value} |" for key, value in facts.items()),
    ]
    if scores:
        lines += ["", "| score | |", "|---|---|"]
        lines += [f"| {_NAMES.get(key, key)} | {100 * value:.1f} |" for key, value in scores.items()]
        if not _NAMES.keys().isdisjoint(scores):
            lines += ["", "Validation scores are at the model's image size, not at the truth's own."]
    else:
        lines += ["", "No scores came with this model: measure them with `avseg evaluate` before relying on it."]
    lines += [
        "",
        "It knows what it was trained on. What it marks elsewhere is a guess: look at its results before using them.",
        *("", f"Written by avseg {avseg.__version__}.", ""),
    ]
    return "\n".join(lines)


def push_to_hub(
    model: AVSModel, repository: str, private: bool, scores: Mapping[str, float] | None, origin: Path | None
) -> str:
    """Write a model and its card to a repository of the Hugging Face hub, which is made where there is none.

    Args:
        model: What to write.
        repository: ``OWNER/NAME``.
        private: Whether only its owner sees a repository that is made.
        scores: What the card says; None takes what the model's run measured.
        origin: The folder that the model was loaded from. A ``README.md`` there is the card.

    Returns:
        Where it is, an address.

    Raises:
        AvsegError: no connection, no permission, or a name that the hub doesn't take.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise AvsegError(f"'{repository}' is no repository of the hub: give OWNER/NAME.")
    from huggingface_hub import HfApi

    known = _run(origin)
    with scratch("model") as temporary:
        folder = model.save_pretrained(temporary)
        given = origin / "README.md" if origin is not None else None
        if given is not None and given.is_file() and scores is None:
            card = given.read_text(encoding="utf-8")
        else:
            parameters = sum(parameter.numel() for parameter in model.parameters())
            measured = known["scores"] if scores is None else scores
            card = model_card(model.config, parameters, repository, measured, known["subset"])
        (folder / "README.md").write_text(card, encoding="utf-8")
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload a model of avseg")
        except Exception as error:
            raise AvsegError(
                f"{repository} could not be written on the hub ({type(error).__name__}): check its name, the "
                "connection, and that you are logged in (hf auth login)."
            ) from error
    return f"https://huggingface.co/{repository}"


def _run(origin: Path | None) -> dict[str, Any]:
    """Scores and subset of the run that a folder holds, as far as it says so."""
    known: dict[str, Any] = {"scores": {}, "subset": ""}
    if origin is None or not origin.is_dir():
        return known
    try:
        validation = read_json(origin / "run.json", "leave it out")["validation"]
        known["scores"] = {key: float(value) for key, value in validation.items() if key in _NAMES}
    except (AvsegError, OverflowError, ValueError, KeyError, TypeError, AttributeError):
        pass
    try:
        subset = read_yaml(origin / "config.yaml")["data"]["subset"]
        known["subset"] = {"s4": "AVSBench S4", "ms3": "AVSBench MS3"}.get(subset, "")
    except (AvsegError, KeyError, TypeError):
        pass
    return known
