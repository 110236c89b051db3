"""Every file of configs/ loads, describes a model that can be built, and says what the papers say."""

import re
from pathlib import Path

import pytest
import torch

from avseg.cli import main
from avseg.config import Config, find_config, load_config
from avseg.errors import AvsegError
from avseg.models import AVSModel, build
from avseg.models.motion import MotionBranch
from avseg.training.task import AVSTask

FILES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "avseg" / "configs").glob("*.yaml"))}
ROWS = [name for name in FILES if not name.startswith(("demo", "shipped", "own_videos"))]
SETTINGS = {  # subset, base model, arm -> batch size, epochs, burn-in, optimiser, learning rate
    ("s4", "tpavi", "baseline"): (4, 15, None, "adam", 1e-4),
    ("ms3", "tpavi", "baseline"): (4, 30, None, "adam", 1e-4),
    ("s4", "tpavi", "ufe"): (24, 120, 10, "adam", 1e-4),
    ("ms3", "tpavi", "ufe"): (16, 120, 20, "adam", 1e-4),
    ("s4", "avsegformer", "ufe"): (None, 200, 10, "adamw", 2e-5),
    ("ms3", "avsegformer", "ufe"): (8, 200, 10, "adamw", 2e-5),
}
SEEN = {("catr", ""): 448, ("sama", "sam_vit_b"): 256, ("sama", "sam_vit_h"): 1024}


def built(config: Config) -> AVSModel:
    """The model of a configuration without memory for its weights."""
    with torch.device("meta"):
        return build(config.model)


@pytest.mark.parametrize("name", FILES)
def test_a_configuration_builds_its_model_and_task(name: str) -> None:
    config = load_config(FILES[name], "--data.root=bench", "--optim.batch_size=3")
    assert (config.data.root, config.optim.batch_size) == ("bench", 3)
    assert config.run.out.startswith("runs/")
    model = built(config)
    assert isinstance(model.motion, MotionBranch) == config.model.neighbouring_frames
    assert type(model).__name__.lower() == config.model.base
    task = AVSTask(model, config, total_steps=10, steps_per_epoch=5)
    groups = task.configure_optimizers().param_groups
    assert groups[0]["lr"] == config.optim.learning_rate
    assert config.ufe.burn_in < config.optim.epochs or not config.ufe.distant_frames


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_what_its_name_says(name: str) -> None:
    config = load_config(FILES[name])
    subset, base, *words, arm = name.split("_")
    encoder = "_".join(words)
    assert (config.data.subset, config.model.base) == (subset, base)
    assert config.model.image_encoder == encoder
    assert config.model.neighbouring_frames == config.ufe.distant_frames == (arm == "ufe")
    assert config.model.audio_encoder == "vggish"
    assert (config.weights.image, config.weights.audio) == ("sa1b" if base == "sama" else "imagenet", "audioset")
    assert config.model.inputs.image_size == 224
    assert config.model.inputs.seen_size == SEEN.get((base, encoder), SEEN.get((base, ""), 224))
    assert config.run.out == f"runs/{name}"
    if arm == "ufe":  # as the authors' code has it; see docs/departures.md
        fusion = "gated" if base in ("sama", "catr", "autr") else "normalised"
        assert (config.ufe.cutmix_audio, config.model.flow_fusion) == ("own", fusion)
        assert (config.ufe.unsup_weight, config.model.frames_per_clip) == (0.5, 1)
        assert config.ufe.unsup_loss == ("base" if base == "avsegformer" else "consistency")
        assert config.ufe.unsup_matching == (0.2 if (subset, base) == ("s4", "tpavi") else None)
    if (subset, base, arm) in SETTINGS:
        batch, epochs, burn_in, optimiser, rate = SETTINGS[subset, base, arm]
        optim = config.optim
        assert (optim.epochs, optim.name, optim.learning_rate) == (epochs, optimiser, rate)
        assert batch is None or optim.batch_size == batch
        assert burn_in is None or config.ufe.burn_in == burn_in


def test_all_rows_are_there() -> None:
    assert len(ROWS) == 48
    assert "demo" in FILES


@pytest.mark.parametrize("option", ["--optim.epoch=3", "--modle.width=3"])
def test_an_option_that_no_configuration_has_is_named_and_none_is_guessed(option: str) -> None:
    with pytest.raises(AvsegError, match=f"^{re.escape(option)} names no field of a configuration"):
        load_config(FILES["demo"], option)


def test_a_configuration_is_found_by_its_name_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "demo.yaml", "configs/demo.yaml"):
        assert find_config(name) == FILES["demo"]
        assert load_config(name).to_dict() == load_config(FILES["demo"]).to_dict()
    for name in ("nothing", "elsewhere/demo.yaml", str(tmp_path / "demo.yaml")):
        assert find_config(name) == Path(name)
    (tmp_path / "demo.yaml").write_text("optim: {epochs: 7}")
    assert load_config("demo.yaml").optim.epochs == 7, "a file of that name comes first"


@pytest.mark.parametrize("form", [["--config", "demo"], ["--config=configs/demo.yaml"]])
def test_the_command_takes_the_name_of_a_configuration(
    form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *form, "--print_config"]) == 0
    assert f"epochs: {load_config(FILES['demo']).optim.epochs}\n" in capsys.readouterr().out
