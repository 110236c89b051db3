"""SAMA-AVS: its authors' answers, which of its weights learn, and positions at other sizes than SAM's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.reference import FIXTURES, Reference, draw
from helpers import make_avsbench
from torch import Tensor
from torch.nn import functional as F

from avseg.config import InputConfig, ModelConfig, WeightsConfig
from avseg.data.clip import EvaluationBatch
from avseg.data.loader import evaluation_clips
from avseg.errors import AvsegError
from avseg.evaluation.evaluate import evaluate_checkpoint
from avseg.evaluation.metrics import jaccard_per_frame
from avseg.inference import AVSegmenter
from avseg.models import build, load, normalise
from avseg.models.convert import convert
from avseg.models.encoders import check_weights
from avseg.models.motion import MotionBranch
from avseg.models.published import recognise
from avseg.models.published_sama import published_sama
from avseg.models.sam import ENCODERS, dense_positions
from avseg.models.sama import SAMA

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "global_attn_indexes": [1]}


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("sama_vit_b_n1")


@pytest.fixture(scope="module")
def model(reference: Reference) -> SAMA:
    state = reference.state()
    assert recognise(state, "file.pth") == "sama"
    config, ours = published_sama(state, "file.pth")
    assert (config.image_encoder, config.inputs.image_size, config.width) == ("sam_vit_b", 1024, 256)
    built = build(config)
    built.load_state_dict(ours)
    assert isinstance(built, SAMA)
    return built.eval()


def test_reproduces_sound_prompts_positions_and_the_first_layer(model: SAMA, reference: Reference) -> None:
    expected = reference.expected
    with torch.no_grad():
        audio = model.embed_audio(reference.input("logmel")[None])[0]
        prompts = model.adapters(audio)
        tokens = model.pyramid(reference.input("frames"))[0].permute(0, 2, 3, 1)
        tokens = model.image_encoder.layers[0](tokens + prompts[0][:, None, None])
        positions = dense_positions(model.positions, 64)
    torch.testing.assert_close(audio, expected["audio_embedding"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.stack(prompts, 1)[..., :16], expected["prompts_first16"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(positions.mean((2, 3))[:, :16], expected["position"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tokens.mean((1, 2))[:, :16], expected["block0"], atol=1e-5, rtol=1e-4)


@pytest.mark.heavy
def test_reproduces_logits_and_losses_at_1024_pixels(model: SAMA, reference: Reference) -> None:
    with torch.no_grad():
        audio = model.embed_audio(reference.input("logmel")[None])
        prediction = model(reference.input("frames")[None], audio)
        y, x = torch.meshgrid(torch.arange(1024), torch.arange(1024), indexing="ij")
        mask = ((x - 440) ** 2 + (y - 512) ** 2 < 256**2).float()[None, None, None]
        terms = model.loss(prediction, mask, torch.ones_like(mask, dtype=torch.bool))
    logits = prediction.logits[0, :, :, ::8, ::8]
    assert (logits - reference.expected["logits_stride8"]).abs().max() <= 1e-4 * reference.expected["largest"]
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(reference.losses, rel=1e-5)


def test_the_published_size_has_every_name_and_shape() -> None:
    rows = json.loads((FIXTURES / "sama_vit_h_names.json").read_text())
    state = {name: torch.zeros(1).expand(shape) for name, shape in rows}
    config, ours = published_sama(state, "file.pth")
    assert config.image_encoder == "sam_vit_h"
    assert len(ours) == len(rows) == 663
    with pytest.raises(AvsegError, match=r"blocks\.31\.attn\.qkv\.bias is missing"):
        published_sama({name: t for name, t in state.items() if "blocks.31.attn.qkv.bias" not in name}, "file.pth")
    with pytest.raises(AvsegError, match=r"head\.weight is unexpected"):
        published_sama({**state, "head.weight": torch.zeros(1)}, "file.pth")


def test_a_depth_that_nobody_published_is_told_by_its_positions(reference: Reference) -> None:
    few = [row for row in reference.rows if not _later(row[0], 4)]
    config, _ = published_sama({name: torch.zeros(1).expand(shape) for name, shape, _ in few}, "file.pth")
    assert config.image_encoder_config == {
        "hidden_size": 768, "num_hidden_layers": 4, "num_attention_heads": 12, "global_attn_indexes": [2]
    }  # fmt: skip


def _later(name: str, depth: int) -> bool:
    return any(f"blocks.{n}." in name or f"mlp_{n}." in name for n in range(depth, 12))


@pytest.mark.heavy
def test_converts_and_loads(reference: Reference, tmp_path: Path) -> None:
    few = {name: draw(name, shape, kind) for name, shape, kind in reference.rows if not _later(name, 1)}
    torch.save(few, tmp_path / "model_epoch_best.pth")
    converted = convert(tmp_path / "model_epoch_best.pth", tmp_path / "out")
    assert (converted.kind, converted.notes) == ("sama", ())
    model = load(tmp_path / "out")
    assert isinstance(model, SAMA)
    assert torch.equal(model.positions, few["pe_layer.positional_encoding_gaussian_matrix"])
    assert not any(weight.requires_grad for weight in model.image_encoder.parameters())


def tiny(size: int = 64, weights: WeightsConfig | None = None, **values: Any) -> SAMA:
    config = ModelConfig(
        base="sama",
        width=16,
        dilations=(1,),
        image_encoder="sam_vit_b",
        image_encoder_config=TINY,
        audio_encoder="cnn",
        inputs=InputConfig(image_size=64, model_size=size),
        **values,
    )
    model = build(config, weights, seed=0)
    assert isinstance(model, SAMA)
    return model


def example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 1, 3, 64, 64), (2, 1, 128), (2, 1, 2, 64, 64)]
    frames, audio, flow = (torch.randn(shape, generator=generator) for shape in shapes)
    return frames, audio, flow, (torch.arange(64) > 24).float().expand(2, 1, 1, 64, 64)


def loss_of(model: SAMA) -> Tensor:
    frames, audio, flow, masks = example()
    terms = model.loss(model(frames, audio, flow), masks, torch.ones_like(masks, dtype=torch.bool))
    return torch.stack(list(terms.values())).sum()


def test_adapters_decoder_and_flow_learn_and_sam_does_not() -> None:
    model = tiny(neighbouring_frames=True, flow_fusion="normalised").train()
    before = {name: weight.clone() for name, weight in model.image_encoder.state_dict().items()}
    loss_of(model).backward()
    for name, weight in model.named_parameters():
        never = name.startswith("image_encoder.") or "iou_prediction_head" in name or name == "positions"
        never = never or any(f"hypernetworks_mlps.{n}." in name for n in (1, 2, 3))
        assert weight.requires_grad == (not never), name
        if not never and not name.startswith("audio_encoder.") and "bias" not in name:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name
    torch.optim.SGD([w for w in model.parameters() if w.requires_grad], 1.0).step()
    assert all(torch.equal(before[name], weight) for name, weight in model.image_encoder.state_dict().items())


def test_computing_again_gives_the_same_gradients() -> None:
    found = []
    for again in (True, False):
        model = tiny(options={"checkpointing": again}, neighbouring_frames=True).train()
        loss_of(model).backward()
        found.append([weight.grad for weight in model.parameters() if weight.requires_grad])
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)


def test_sound_and_flow_change_the_mask() -> None:
    model = tiny(neighbouring_frames=True, flow_fusion="normalised").eval()
    frames, audio, flow, _ = example()
    with torch.no_grad():
        plain = model(frames, audio, flow).logits
        assert plain.shape == (2, 1, 1, 64, 64)
        assert (model(frames, -audio, flow).logits - plain).abs().max() > 1e-4
        assert (model(frames, audio, -flow).logits - plain).abs().max() > 1e-4


def test_the_size_that_is_seen_decides_tokens_and_how_many_timestamps_pass() -> None:
    small, large = tiny(64), tiny(256)
    assert (small.image_encoder.pos_embed.shape[1], large.image_encoder.pos_embed.shape[1]) == (4, 16)
    frames, audio, _, _ = example()
    with torch.no_grad():
        assert large.eval()(frames, audio).logits.shape == (2, 1, 1, 64, 64)
    cpu = torch.device("cpu")
    assert small.timestamps_per_pass(cpu) == large.timestamps_per_pass(cpu) == 8
    large.config.inputs.model_size = 1024
    assert large.timestamps_per_pass(cpu) == 1


def test_frames_without_a_label_count_in_no_term() -> None:
    model = tiny().eval()
    frames, audio, _, masks = example()
    valid = torch.ones_like(masks, dtype=torch.bool)
    valid[1] = False
    with torch.no_grad():
        prediction = model(frames, audio)
        alone = model.loss(prediction.part(0, 1), masks[:1], valid[:1])
        both = model.loss(prediction, torch.cat([masks[:1], 1 - masks[1:]]), valid)
        nothing = model.loss(prediction, masks, torch.zeros_like(valid))
    assert {name: term.item() for name, term in both.items()} == {
        name: pytest.approx(term.item(), rel=1e-5) for name, term in alone.items()
    }
    assert all(term == 0 for term in nothing.values())


@pytest.mark.parametrize("kind", ["transformers", "meta"])
def test_starts_from_sam_and_fits_its_positions(kind: str, tmp_path: Path) -> None:
    from avseg.models.sam import _META, _TRANSFORMERS, _named

    rules = {"transformers": _TRANSFORMERS, "meta": _META}[kind]
    source = tiny(128)
    state = {
        _named(rules, name).name: tensor
        for name, tensor in source.state_dict().items()
        if not name.startswith(("adapters.", "audio_encoder."))
    }
    state["prompt_encoder.not_a_point_embed.weight"] = torch.zeros(1, 16)
    torch.save(state, tmp_path / "sam.pth")
    weights = WeightsConfig(str(tmp_path / "sam.pth"), "none", "none")
    same, smaller = tiny(128, weights).state_dict(), tiny(64, weights).state_dict()
    for name, tensor in source.state_dict().items():
        if not name.startswith(("adapters.", "audio_encoder.")):
            assert torch.equal(same[name], tensor), name
            if "pos" not in name:
                assert torch.equal(smaller[name], tensor), name
    assert smaller["image_encoder.layers.1.attn.rel_pos_h"].shape == (7, 16)
    torch.save({name: tensor for name, tensor in state.items() if "mask_decoder" not in name}, tmp_path / "sam.pth")
    with pytest.raises(AvsegError, match="is missing"):
        tiny(128, weights)


def test_settings_that_make_no_model_are_sentences() -> None:
    for values, said in (
        ({"image_encoder": "resnet50"}, "choose sam_vit_b, sam_vit_l, sam_vit_h"),
        ({"image_encoder": "sam_vit_b", "width": 24}, "a multiple of 16"),
        ({"image_encoder": "sam_vit_b", "image_encoder_config": {"hidden_size": 32}}, "no vision transformer"),
        ({"image_encoder": "sam_vit_b", "image_encoder_config": {**TINY, "num_hidden_layers": 500_000}}, "sizes that"),
    ):
        with pytest.raises(AvsegError, match=said):
            build(ModelConfig(base="sama", audio_encoder="cnn", **{"width": 16, **values}))  # type: ignore[arg-type]
    assert sorted(ENCODERS) == ["sam_vit_b", "sam_vit_h", "sam_vit_l"]
    with pytest.raises(AvsegError, match=r"weights\.image: imagenet does not exist: give a weights file, sa1b or none"):
        check_weights(ModelConfig(base="sama", image_encoder="sam_vit_b"), WeightsConfig())


@pytest.mark.parametrize(("resize", "height"), [("stretch", 128), ("letterbox", 64)])
def test_saved_and_loaded_it_is_scored_at_each_size_and_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resize: Any, height: int
) -> None:
    """Scores at the larger size are of the larger logits; motion stays as the model learnt it."""
    wide: dict[str, Any] = {name: {"size": (96, 48)} for name in ("-s4_test_0", "s4_test_1")}
    make_avsbench(tmp_path, "s4", {"test": 2}, settings=wide, prepared=True)
    model = tiny(128, neighbouring_frames=True, flow_fusion="normalised")
    model.config.inputs.resize = resize
    folder = model.save_pretrained(tmp_path / "model")
    given: list[Tensor] = []
    features = MotionBranch.features

    def spy(self: MotionBranch, flow: Tensor, sizes: Any) -> list[Tensor]:
        given.append(flow)
        return features(self, flow, sizes)

    monkeypatch.setattr(MotionBranch, "features", spy)
    scores, motion = {}, {}
    for size in ("truth", "model", "seen"):
        found = evaluate_checkpoint(folder, tmp_path, "s4", workers=0, progress=False, size=size)  # type: ignore[arg-type]
        assert found.size == size
        scores[size], motion[size] = found.scores["T=5"].miou, torch.cat(given)
        given.clear()
    assert torch.equal(motion["truth"], motion["seen"])
    assert scores["seen"] != scores["truth"]
    loaded, wanted, top = load(folder).eval(), [], (128 - height) // 2
    for batch in evaluation_clips(tmp_path, "s4", "test", loaded.config.inputs, truth=True):
        inputs = normalise(batch, loaded.config)
        frames = F.interpolate(inputs.frames[0], (128, 128), mode="bilinear")[None]
        with torch.no_grad():
            logits = loaded.compute(frames, loaded.embed_audio(inputs.log_mel), inputs.flow).logits
        logits = F.interpolate(logits[0], (128, 128), mode="bilinear")[None, :, :, top : top + height]
        assert isinstance(batch, EvaluationBatch)
        assert batch.truth is not None
        truth = F.interpolate(batch.truth[0].float(), (height, 128), mode="nearest-exact")[None].bool()
        wanted.append(jaccard_per_frame(logits, truth).mean().item())
    assert scores["seen"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-6)

    video = next(tmp_path.glob("**/raw_videos/test/*/*.mp4"))
    assert [moment.mask.shape for moment in AVSegmenter(loaded, "cpu").stream(video, fps=1)] == [(48, 96)] * 5
