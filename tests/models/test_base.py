"""The contract of a model: building, the flow branch in its middle, saving, loading and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avseg.config import InputConfig, ModelConfig, WeightsConfig
from avseg.data.clip import LabelledBatch
from avseg.errors import AvsegError
from avseg.models import AVSModel, Prediction, build, load, normalise

RANDOM = WeightsConfig(image="none", audio="none", flow="none")


def config(**changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "width": 8,
        "dilations": (1, 2),
        "image_encoder": "efficientnet_lite0",
        "audio_encoder": "cnn",
        "inputs": InputConfig(image_size=64),
    }
    return ModelConfig(**{**values, **changes})  # type: ignore[arg-type]


def small(seed: int | None = 0, **changes: object) -> AVSModel:
    return build(config(**changes), RANDOM, seed)


def test_motion_is_the_only_difference_of_two_models_of_one_seed() -> None:
    plain, moving, other = small(), small(neighbouring_frames=True), small(seed=1)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, moving.state_dict()[name]), name
    assert not torch.equal(plain.paths[0].refine.conv1.weight, other.paths[0].refine.conv1.weight)
    frames, audio, flow = torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 128), torch.randn(1, 2, 2, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain(frames, audio).logits, moving(frames, audio, flow).logits)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    small()
    assert torch.equal(torch.rand(1), expected)


def test_without_flow_a_model_with_motion_raises() -> None:
    with pytest.raises(ValueError, match="needs flow"):
        small(neighbouring_frames=True)(torch.randn(1, 1, 3, 64, 64), torch.randn(1, 1, 128))


@pytest.mark.parametrize("motion", [False, True])
def test_saved_and_loaded_is_the_same_function(tmp_path: Path, motion: bool) -> None:
    model = small(neighbouring_frames=motion, options={"stages": (2, 3)}).eval()
    (tmp_path / "notes.txt").write_text("kept")
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert not again.training
    # JSON has lists only; both models were built from the same options.
    assert list(again.config.options["stages"]) == [2, 3]
    frames, log_mel, flow = torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 1, 96, 64), torch.randn(1, 2, 2, 64, 64)
    with torch.no_grad():
        first, second = (m(frames, m.embed_audio(log_mel), flow if motion else None) for m in (model, again))
    assert torch.equal(first.logits, second.logits)
    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_half_takes_half_the_room_and_answers_nearly_the_same(tmp_path: Path) -> None:
    model = small().eval()
    whole, half = (model.save_pretrained(tmp_path / name, half=name == "half") for name in ("whole", "half"))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.55 * sizes[0]
    again = load(half)
    assert all(item.dtype != torch.float16 for item in again.state_dict().values())
    for name, item in model.state_dict().items():
        exact = item.ndim < 2
        torch.testing.assert_close(again.state_dict()[name], item, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-6)


def test_weights_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state["output.conv3.bias"]
    state["extra"] = torch.zeros(1)
    state["output.conv1.weight"] = torch.zeros(2, 2)
    save_file(state, file)
    with pytest.raises(AvsegError) as refusal:
        load(tmp_path)
    for part in ("output.conv3.bias is missing", "extra is unexpected", "output.conv1.weight is (2, 2) instead of"):
        assert part in str(refusal.value)


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AvsegError, match=r"has no config\.json"):
        load(tmp_path)
    with pytest.raises(AvsegError, match="does not exist"):
        load(tmp_path / "absent")
    small().save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(AvsegError, match=r"model\.safetensors is damaged"):
        load(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "format_version": 99}))
    with pytest.raises(AvsegError, match="format version 99"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AvsegError, match="not readable JSON"):
        load(tmp_path)
    with pytest.raises(AvsegError, match="is a file"):
        small().save_pretrained(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "unet"}, r"model\.base is 'unet': known base models are .*tpavi"),
        ({"inputs": InputConfig(image_size=100)}, r"model\.inputs\.image_size is 100"),
        ({"width": 6}, r"model\.width is 6"),
    ],
)
def test_impossible_configurations(changes: dict[str, object], message: str) -> None:
    with pytest.raises(AvsegError, match=message):
        small(**changes)


def test_frozen_audio_encoder_stays_in_evaluation_mode() -> None:
    model = small()
    model.audio_encoder.freeze()
    model.train()
    assert model.training
    assert not any(module.training for module in model.audio_encoder.modules())


def test_a_part_of_a_prediction_is_of_the_same_clips_in_everything() -> None:
    clips, frames = torch.arange(4), torch.arange(4 * 5)
    aux = {"mask": frames, "maps": [clips, frames], "named": {"sound": clips}}
    part = Prediction(clips.view(4, 1).expand(4, 5), aux).part(1, 3)
    assert part.logits[:, 0].tolist() == part.aux["maps"][0].tolist() == part.aux["named"]["sound"].tolist() == [1, 2]
    assert part.aux["mask"].tolist() == part.aux["maps"][1].tolist() == list(range(5, 15))


def test_normalise_is_what_stands_between_clips_and_models() -> None:
    frames = torch.randint(256, (2, 1, 3, 64, 64), dtype=torch.uint8)
    batch = LabelledBatch(
        frames=frames,
        flow=torch.tensor([-30.0, 0.0, 4.0])
        .repeat(2 * 2 * 64 * 64 // 3 + 1)[: 2 * 2 * 64 * 64]
        .view(2, 1, 2, 64, 64)
        .half(),
        log_mel=torch.zeros(2, 1, 1, 96, 64),
        masks=torch.zeros(2, 1, 1, 64, 64, dtype=torch.bool),
        inside=torch.ones(2, 1, 1, 64, 64, dtype=torch.bool),
        valid=torch.ones(2, 1, 1, 64, 64, dtype=torch.bool),
        names=("a", "b"),
        categories=("", ""),
        times=torch.zeros(2, 1, dtype=torch.float64),
    )
    pixels = normalise(batch, config(neighbouring_frames=True))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (frames.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(pixels.frames, expected)
    assert pixels.flow is not None
    assert torch.equal(pixels.flow, batch.flow.float())
    assert normalise(batch, config()).flow is None
    grey = config(neighbouring_frames=True, inputs=InputConfig(image_size=64, flow_encoding="published"))
    encoded = normalise(batch, grey).flow
    assert encoded is not None
    torch.testing.assert_close(encoded.flatten()[:3] * 255, torch.tensor([0.0, 128.0, 153.0]))
