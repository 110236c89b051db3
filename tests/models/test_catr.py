"""CATR: its authors' answers and losses, and what sound, frames and padding change."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from fixtures.reference import Reference, draw
from torch import Tensor

from avseg.config import InputConfig, ModelConfig
from avseg.errors import AvsegError
from avseg.models import build
from avseg.models.base import Prediction
from avseg.models.catr import CATR
from avseg.models.deformable import sine_positions
from avseg.models.published import recognise
from avseg.models.published_catr import published_catr
from avseg.training.consistency import consistency


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("catr_pvt_n5t5")


@pytest.fixture(scope="module")
def model(reference: Reference) -> CATR:
    state = reference.state()
    assert recognise(state, "file.pth") == "catr"
    config, ours = published_catr(state, "file.pth")
    assert (config.image_encoder, config.inputs.image_size, config.inputs.model_size) == ("pvt_v2_b5", 224, 448)
    config.inputs.model_size = None  # the answers are those at 224
    config.audio_encoder = "cnn"  # such a checkpoint holds none; the small one builds quickly
    built = build(config)
    sound = {name: tensor for name, tensor in built.state_dict().items() if name.startswith("audio_encoder.")}
    built.load_state_dict({**ours, **sound})
    assert isinstance(built, CATR)
    return built.eval()


@pytest.mark.parametrize("times", [1, 5])
def test_reproduces_logits_scores_and_every_layer(model: CATR, reference: Reference, times: int) -> None:
    prefix, count = ("t1_", 2) if times == 1 else ("", 5)
    expected = {
        name.removeprefix(prefix): item
        for name, item in reference.expected.items()
        if name.startswith("t1_") == bool(prefix)
    }
    frames, audio = (reference.input(name)[:count].unflatten(0, (-1, times)) for name in ("frames", "audio"))
    with torch.no_grad():
        said = model(frames, audio)
    logits = said.logits.flatten(0, 1)[..., ::4, ::4]
    assert (logits - expected["logits"]).abs().max() <= 1e-4 * expected["largest"]
    scores = said.aux["scores"][-1].softmax(2)[..., 0]
    torch.testing.assert_close(scores, expected["scores"], rtol=0, atol=1e-4)
    assert scores.argmax(1).tolist() == expected["chosen"].tolist()
    assert said.confidence is not None
    torch.testing.assert_close(said.confidence.flatten(), scores.amax(1))
    masks = said.aux["masks"]
    assert [tuple(item.shape) for item in masks] == 3 * [(count, 50, 14, 14)]
    assert (masks[2][:, ::10] - expected["masks"]).abs().max() <= 1e-4 * expected["masks_largest"]
    for layer in (0, 1):
        first = masks[layer][::times, ::10]
        assert (first - expected[f"aux{layer}_masks"]).abs().max() <= 1e-4 * expected["masks_largest"]
        torch.testing.assert_close(said.aux["scores"][layer], expected[f"aux{layer}_scores"], rtol=0, atol=2e-4)


def test_positions_are_the_authors(reference: Reference) -> None:
    places = sine_positions(28, 28, 256, torch.device("cpu"), relative=True)
    for name, row in (("position[0,0]", 0), ("position[3,7]", 3 * 28 + 7), ("position[-1,-1]", -1)):
        torch.testing.assert_close(places[row], reference.expected[name], rtol=0, atol=2e-5)


def test_a_checkpoint_must_fit(reference: Reference) -> None:
    state = reference.hollow_state()
    with pytest.raises(AvsegError, match=r"transformer\.extra is unexpected"):
        published_catr({**state, "transformer.extra": torch.zeros(1)}, "file.pth")
    del state["transformer.temporal_encoder.attention_feature.0.bias"]
    with pytest.raises(AvsegError, match=r"attention_feature\.0\.bias is missing"):
        published_catr(state, "file.pth")


def test_a_resnet_is_recognised(reference: Reference) -> None:
    """Nobody published one; names as TPAVI's of the same encoder."""
    with torch.device("meta"):
        whole = build(ModelConfig(base="catr", image_encoder="resnet50", audio_encoder="cnn", width=256))
    tpavi = Reference("tpavi_resnet50_n5t5").hollow_state()
    state = {name: item for name, item in tpavi.items() if name.startswith(("resnet.", "conv"))}
    state |= {name: item for name, item in reference.hollow_state().items() if not name.startswith(("enc", "conv"))}
    config, ours = published_catr(state, "file.pth")
    assert config.image_encoder == "resnet50"
    want = {name: item.shape for name, item in whole.state_dict().items() if not name.startswith("audio_encoder.")}
    assert {name: item.shape for name, item in ours.items()} == want


# ---- Matching and losses ----


def mask_of(name: str) -> Tensor:
    y, x = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    return {
        "rectangle": (y >= 40) & (y < 150) & (x >= 60) & (x < 180),
        "disc": (y - 120) ** 2 + (x - 80) ** 2 < 2500,
        "half": x < 112,
        "empty": x < 0,
    }[name].float()


def drawn(reference: Reference, case: str) -> tuple[Prediction, Tensor]:
    """The case's prediction of two clips with one frame each, as leaves, and its masks."""
    values = reference.matching[case]
    size = (1, 2, 50, values["size"], values["size"])
    masks = [values["scale"] * draw(f"input.{case}.pred_masks.{layer}", size)[0] for layer in range(3)]
    scores = [draw(f"input.{case}.pred_is_referred.{layer}", (1, 2, 50, 2))[0] for layer in range(3)]
    for item in (*masks, *scores):
        item.requires_grad_()
    target = torch.stack([mask_of(name) for name in values["masks"]])[:, None, None]
    return Prediction(torch.zeros(2, 1, 1, 224, 224), {"masks": masks, "scores": scores}), target


@pytest.mark.parametrize("case", ["s4", "s4_448", "empty"])
def test_reproduces_matching_losses_and_gradients(reference: Reference, case: str) -> None:
    model, want = tiny(), reference.matching[case]
    prediction, target = drawn(reference, case)
    valid = torch.ones_like(target, dtype=torch.bool)
    named = {"focal": "loss_sigmoid_focal", "dice": "loss_dice", "bce": "bce_loss", "score": "loss_is_referred"}
    for layer, suffix in enumerate(("_0", "_1", "")):
        said = prediction.aux["masks"][layer], prediction.aux["scores"][layer]
        assert model.match(*said, target, valid).tolist() == want["matched"][layer]
        terms = model.layer_losses(*said, target, valid)
        for ours, theirs in named.items():
            assert terms[ours].item() == pytest.approx(want["terms"][theirs + suffix], rel=1e-4), (ours, layer)
    total = torch.stack(list(model.loss(prediction, target, valid).values())).sum()
    assert total.item() == pytest.approx(want["total"], rel=1e-4)
    total.backward()
    gradients = [item.grad for item in (*prediction.aux["masks"], *prediction.aux["scores"])]
    for ours, (sums, norm) in zip(gradients, want["gradients"], strict=True):
        assert ours.norm().item() == pytest.approx(norm, rel=1e-4)
        assert ours.sum().item() == pytest.approx(sums, rel=1e-4, abs=1e-5)


def test_one_query_is_matched_for_all_labelled_frames_of_a_clip() -> None:
    """Each frame alone would take another query; frames without a label have no say."""
    model = tiny()
    target = (torch.arange(32) > 12).float().expand(1, 3, 1, 32, 32).clone()
    target[:, 2] = 1 - target[:, 2]
    valid = torch.ones_like(target, dtype=torch.bool)
    masks = torch.full((3, 3, 4, 4), -8.0)
    small = F.interpolate(target.flatten(0, 1), (4, 4))[:, 0]
    good = 16 * small - 8
    masks[0, 0], masks[1, 1], masks[2, 2] = good[0], good[1], good[2]
    masks[0, 2] = masks[1, 2] = 0.5 * good[0]
    scores = torch.zeros(3, 3, 2)
    assert model.match(masks, scores, target, valid).tolist() == [2, 2, 2]
    valid[:, 1:] = False
    assert model.match(masks, scores, target, valid).tolist() == [0, 0, 0]
    valid[:] = False
    terms = model.loss(Prediction(masks, {"masks": [masks], "scores": [scores]}), target, valid)
    assert all(term == 0 for term in terms.values())


def test_agreement_is_of_the_query_that_fits_and_trains_scores() -> None:
    model, best = tiny(), tiny(agreement="best")
    pseudo = (torch.arange(32) > 15).float().expand(2, 1, 1, 32, 32) * 0.8 + 0.1
    valid = torch.ones_like(pseudo, dtype=torch.bool)
    fits = (8 * (F.interpolate(pseudo[:, 0], (4, 4)) - 0.5))[:, 0]
    masks = torch.stack([-fits, fits, 0 * fits], dim=1).requires_grad_()
    scores = torch.zeros(2, 3, 2)
    scores[:, 0, 0] = 3  # the student would choose the wrong one
    scores.requires_grad_()
    prediction = model.answered([masks], [scores], (2, 1))
    prediction.logits = F.interpolate(prediction.logits[:, 0], (32, 32), mode="bilinear").unsqueeze(1)
    eq5 = partial(consistency, pseudo=pseudo, valid=valid)
    terms = model.agreement(prediction, pseudo, valid, eq5)
    assert set(terms) == {"unsup", "unsup_score"}
    assert terms["unsup"] < best.agreement(prediction, pseudo, valid, eq5)["unsup"]
    by_mask, by_score = torch.autograd.grad(sum(terms.values()), [masks, scores])  # type: ignore[arg-type]
    assert by_mask[:, 1].abs().sum() > 0
    assert not by_mask[:, [0, 2]].any()
    assert (by_score[:, 1, 0] < 0).all()
    assert (by_score[:, [0, 2], 0] > 0).all()


# ---- The model ----


def tiny(**options: object) -> CATR:
    values = {"queries": 5, "heads": 2, "feedforward": 16, "encoder_layers": 1, "decoder_layers": 2, **options}
    config = ModelConfig(
        base="catr",
        width=16,
        dilations=(1,),
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        neighbouring_frames=True,
        options=values,
        inputs=InputConfig(image_size=64),
    )
    built = build(config, seed=0)
    assert isinstance(built, CATR)
    return built


def example(clips: int = 2, times: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(clips, times, 3, 64, 64), (clips, times, 128), (clips, times, 2, 64, 64)]
    frames, audio, flow = (torch.randn(shape, generator=generator) for shape in shapes)
    return frames, audio, flow


@pytest.mark.parametrize("stride", [16, 8, 4])
def test_maps_that_nothing_reads_are_not_computed(stride: int) -> None:
    model = tiny(mask_stride=stride)
    want = {16: [8, 16, 32], 8: [8, 16], 4: [4, 8]}[stride]
    assert [each for each, _ in model.scales()] == want
    assert len(model.project) == len(model.motion.refine) == len(want)  # type: ignore[union-attr]
    frames, audio, flow = example()
    assert [64 // item.shape[-1] for item in model.pyramid(frames.flatten(0, 1))] == want
    said = model(frames, audio, flow)
    assert said.logits.shape == (2, 3, 1, 64, 64)
    assert said.aux["masks"][0].shape == (6, 5, 64 // stride, 64 // stride)


@pytest.mark.parametrize("times", [1, 3])
def test_every_weight_learns(times: int) -> None:
    model = tiny(dropout=0.0).train()
    with torch.no_grad():  # flow starts unheard, and queries' contents as zeros
        model.motion.gain.fill_(0.5)  # type: ignore[union-attr]
        for layer in model.decoder:
            layer.norm1.bias.copy_(torch.linspace(-1, 1, 16))
            layer.self_attention.input.bias.copy_(torch.linspace(-1, 1, 48))
    frames, audio, flow = example(3, times)
    masks = (torch.arange(64) > 24).float().expand(3, times, 1, 64, 64)
    terms = model.loss(model(frames, audio, flow), masks, torch.ones_like(masks, dtype=torch.bool))
    assert set(terms) == {"score", "dice", "focal", "bce"}
    torch.stack(list(terms.values())).sum().backward()
    weights = {name: w for name, w in model.named_parameters() if not name.startswith("audio_encoder.")}
    assert [name for name, weight in weights.items() if weight.grad is None] == []
    still = {name for name, weight in weights.items() if not weight.grad.abs().sum() and "bias" not in name}  # type: ignore[union-attr]
    assert not {name for name in still if not name.startswith("image_encoder.")}


def test_sound_is_a_bag_and_the_first_frame_carries_it() -> None:
    model = tiny().eval()
    frames, audio, flow = example(1, 3)
    with torch.no_grad():
        said = model(frames, audio, flow).logits
        other_order = model(frames, audio[:, [2, 0, 1]], flow).logits
        other_sound = model(frames, -audio, flow).logits
        swapped = [0, 2, 1]
        later = model(frames[:, swapped], audio, flow[:, swapped]).logits
    torch.testing.assert_close(other_order, said, rtol=0, atol=1e-5)
    torch.testing.assert_close(later, said[:, swapped], rtol=0, atol=1e-5)
    assert (other_sound - said).abs().max() > 1e-5


def test_a_frame_is_enlarged_to_the_size_that_the_model_sees() -> None:
    model = tiny().eval()
    frames, audio, flow = example()
    model.config.inputs.model_size = 128
    with torch.no_grad():
        said = model(frames, audio, flow)
    assert said.aux["masks"][0].shape[-2:] == (8, 8)
    assert said.logits.shape == (2, 3, 1, 64, 64)


def test_a_part_of_a_prediction_has_the_loss_of_its_clips() -> None:
    """UFE's joint batch cuts labelled clips out of a larger one."""
    model = tiny().eval()
    frames, audio, flow = example(3, 2)
    masks = (torch.arange(64) > 24).float().expand(2, 2, 1, 64, 64)
    valid = torch.ones_like(masks, dtype=torch.bool)
    with torch.no_grad():
        part = model.loss(model(frames, audio, flow).part(0, 2), masks, valid)
        alone = model.loss(model(frames[:2], audio[:2], flow[:2]), masks, valid)
    assert {name: term.item() for name, term in part.items()} == {
        name: pytest.approx(term.item(), rel=1e-4) for name, term in alone.items()
    }


@pytest.mark.parametrize(
    ("options", "width", "said"),
    [
        ({"heads": 3}, 16, r"model\.options\.heads is 3: it must divide model\.width"),
        ({"heads": 2}, 12, r"model\.width is 12: CATR's masks need a multiple of 8"),
        ({"heads": 2, "mask_stride": 2}, 16, r"model\.options\.mask_stride is 2"),
    ],
)
def test_options_that_no_model_can_have_are_named(options: dict[str, object], width: int, said: str) -> None:
    config = ModelConfig(base="catr", width=width, image_encoder="efficientnet_lite0", options=options)
    with pytest.raises(AvsegError, match=said):
        build(config)
