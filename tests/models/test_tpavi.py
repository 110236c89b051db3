"""TPAVI: the attention is the published formula, shapes are free, and clips keep to themselves."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import InputConfig, ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models import AVSModel, Prediction, build
from avseg.models.tpavi import Options, Path, ResidualUnit, TPAVIBlock, matching_loss

RANDOM = WeightsConfig(image="none", audio="none", flow="none")


def small(seed: int = 0, **changes: object) -> AVSModel:
    config = ModelConfig(
        width=16,
        dilations=(1, 3),
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        inputs=InputConfig(image_size=64),
        **changes,  # type: ignore[arg-type]
    )
    return build(config, RANDOM, seed)


def plain_block(block: TPAVIBlock, x: Tensor, audio: Tensor) -> Tensor:
    """The block as it is published: the whole N×N matrix of pixels against pixels."""
    clips, frames, width, rows, columns = x.shape
    projected = block.audio(audio)
    tiled = projected[:, :, None, None, :].expand(clips, frames, rows, columns, width)
    pixels = x.permute(0, 1, 3, 4, 2).reshape(clips, -1, width)
    theta, phi, g = block.theta(pixels), block.phi(tiled.reshape(clips, -1, width)), block.g(pixels)
    y = (theta @ phi.transpose(1, 2) / pixels.shape[1]) @ g
    z = block.out_norm(block.out(y).transpose(1, 2).unsqueeze(3)).squeeze(3).transpose(1, 2)
    return block.norm(z + pixels).view(clips, frames, rows, columns, width).permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_block_is_the_published_formula(frames: int, training: bool) -> None:
    torch.manual_seed(0)
    block = TPAVIBlock(8, gain=0.7).double().train(training)
    twin = copy.deepcopy(block)
    x = torch.randn(2, frames, 8, 5, 4, dtype=torch.float64, requires_grad=True)
    audio = torch.randn(2, frames, 128, dtype=torch.float64, requires_grad=True)
    ours, projected = block(x, audio)
    plain = plain_block(twin, x, audio)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(projected, twin.audio(audio))
    torch.testing.assert_close(block.out_norm.running_mean, twin.out_norm.running_mean)
    torch.testing.assert_close(block.out_norm.running_var, twin.out_norm.running_var)
    weight = torch.randn_like(plain)
    mine = torch.autograd.grad((ours * weight).sum(), [x, audio, *block.parameters()])
    theirs = torch.autograd.grad((plain * weight).sum(), [x, audio, *twin.parameters()])
    for gradient, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-8)


def test_units_rectify_their_skip_as_in_place_relu_does() -> None:
    torch.manual_seed(0)
    unit, path, x, finer = ResidualUnit(4), Path(4), torch.randn(2, 4, 3, 3), torch.randn(2, 4, 6, 6)

    def in_place(unit: ResidualUnit, x: Tensor) -> Tensor:
        relu = nn.ReLU(inplace=True)
        out = unit.conv1(relu(x))
        return unit.conv2(relu(out)) + x

    with torch.no_grad():
        torch.testing.assert_close(unit(x), in_place(unit, x.clone()))
        assert path.lateral is not None
        large = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        expected = in_place(path.refine, large + in_place(path.lateral, finer.clone()))
        torch.testing.assert_close(path(finer, x), expected)


@pytest.mark.parametrize(("frames", "size"), [(1, (64, 64)), (5, (32, 96))])
def test_any_length_and_any_multiple_of_32(frames: int, size: tuple[int, int]) -> None:
    model = small().eval()
    with torch.no_grad():
        prediction = model(torch.randn(2, frames, 3, *size), torch.randn(2, frames, 128))
    assert prediction.logits.shape == (2, frames, 1, *size)
    assert [item.shape[:3] for item in prediction.aux["maps"]] == [(2, frames, 16)] * 4
    assert all(bool((item >= 0).all()) for item in prediction.aux["maps"])


def test_clips_keep_to_themselves_and_frames_of_a_clip_do_not() -> None:
    model = small(options={"initial_gain": 1.0}).eval()
    frames, audio = torch.randn(2, 3, 3, 64, 64), torch.randn(2, 3, 128)
    changed_frames, changed_audio = frames.clone(), audio.clone()
    changed_frames[1, 0] += 1
    changed_audio[1, 2] += 3
    with torch.no_grad():
        before = model(frames, audio).logits
        after = model(changed_frames, changed_audio).logits
    torch.testing.assert_close(after[0], before[0])
    assert (after[1, 1] - before[1, 1]).abs().max() > 1e-5


def test_starts_deaf_as_published_unless_asked() -> None:
    frames, audio = torch.randn(1, 1, 3, 64, 64), torch.randn(1, 1, 128)
    with torch.no_grad():
        deaf = small().eval()
        assert torch.equal(deaf(frames, audio).logits, deaf(frames, audio + 1).logits)
        hearing = small(options={"initial_gain": 0.5}).eval()
        assert not torch.equal(hearing(frames, audio).logits, hearing(frames, audio + 1).logits)


def test_bfloat16_training_step_is_close_to_single_precision() -> None:
    model = small(options={"initial_gain": 1.0}, neighbouring_frames=True)
    inputs = torch.randn(4, 1, 3, 64, 64), torch.randn(4, 1, 128), torch.randn(4, 1, 2, 64, 64)
    masks, valid = torch.rand(4, 1, 1, 64, 64), torch.ones(4, 1, 1, 64, 64, dtype=torch.bool)
    expected = model.loss(model(*inputs), masks, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.loss(model(*inputs), masks, valid)
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], rtol=0.1, atol=0.01)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_stages_say_where_sound_is_heard() -> None:
    model = small(options={"stages": [3, 4]})
    prediction = model(torch.randn(1, 1, 3, 64, 64), torch.randn(1, 1, 128))
    assert [tuple(item.shape[-2:]) for item in prediction.aux["maps"]] == [(4, 4), (2, 2)]
    assert not any("fusion.stage1" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matching_wieght": 1.0}, r"model\.options\.matching_wieght is not an option of 'tpavi'.*matching_weight"),
        ({"stages": [0]}, r"model\.options\.stages is \[0\]"),
        ({"matching": "dot"}, r"model\.options\.matching is 'dot'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(AvsegError, match=message):
        small(options=options)


def made_up(maps: Tensor, sound: Tensor, logits: Tensor) -> Prediction:
    return Prediction(logits, {"maps": [maps], "audio": [sound]})


def test_matching_loss_pools_what_is_predicted() -> None:
    torch.manual_seed(0)
    maps, sound = torch.rand(1, 3, 6, 2, 2, requires_grad=True), torch.randn(1, 3, 6)
    logits = torch.full((1, 3, 1, 4, 4), -5.0)
    logits[0, 0, 0, :2] = 5.0  # frame 0: the upper row of the 2×2 map; frame 1: nothing; frame 2: unlabelled
    valid = torch.ones(1, 3, 1, 4, 4, dtype=torch.bool)
    valid[0, 2] = False
    pooled = torch.stack([maps[0, 0, :, 0].mean(dim=1), torch.zeros(6)])
    prediction = made_up(maps, sound, logits.requires_grad_())
    cosine = F.cosine_similarity(pooled[:1], sound[0, :1]).relu()
    expected = (-torch.log(cosine + 1e-6).sum() - math.log(1e-6)) / 2
    torch.testing.assert_close(matching_loss(prediction, valid, "cosine"), expected)
    target = sound[0, :2].softmax(1)
    divergence = (target * (target.log() - pooled.log_softmax(1))).sum(1).mean()
    result = matching_loss(prediction, valid, "kl")
    torch.testing.assert_close(result, divergence)
    result.backward()
    assert maps.grad is not None
    assert maps.grad[0, 0, :, 0].any()
    assert not maps.grad[0, 0, :, 1].any()
    assert logits.grad is None


@pytest.mark.parametrize("kind", ["cosine", "kl"])
def test_matching_loss_is_a_mean_of_stages_over_pixels_that_are_mostly_predicted(kind: str) -> None:
    torch.manual_seed(0)
    maps, sounds = torch.rand(2, 1, 1, 6, 2, 2), torch.rand(2, 1, 1, 6)
    logits = torch.full((1, 1, 1, 4, 4), -8.0)
    logits[..., :2, :2] = 8.0
    logits[..., 0, 2:] = torch.tensor([0.0, 2.0])  # of the map's next pixel about a third, in the mean
    valid = torch.ones_like(logits, dtype=torch.bool)
    alone = torch.stack([matching_loss(made_up(maps[i], sounds[i], logits), valid, kind) for i in (0, 1)])
    both = Prediction(logits, {"maps": list(maps), "audio": list(sounds)})
    torch.testing.assert_close(matching_loss(both, valid, kind), alone.mean())
    assert alone[0] != alone[1]
    logits[..., 0, 2:] = -8.0
    torch.testing.assert_close(matching_loss(both, valid, kind), alone.mean(), rtol=0, atol=0)


def test_loss_has_named_terms_and_takes_soft_masks() -> None:
    frames, audio = torch.randn(2, 1, 3, 64, 64), torch.randn(2, 1, 128)
    masks, valid = torch.rand(2, 1, 1, 64, 64), torch.ones(2, 1, 1, 64, 64, dtype=torch.bool)
    model = small(options={"matching_weight": 0.25})
    prediction = model(frames, audio)
    terms = model.loss(prediction, masks, valid)
    assert list(terms) == ["bce", "matching"]
    torch.testing.assert_close(terms["matching"], 0.25 * matching_loss(prediction, valid, "cosine"))
    sum(terms.values()).backward()  # type: ignore[union-attr]
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all(name.startswith("audio_encoder.") for name in idle)  # given embeddings, it had nothing to do
    without = small(options={"matching_weight": 0.0})
    assert list(without.loss(without(frames, audio), masks, valid)) == ["bce"]


def test_unlabelled_clips_give_no_gradient() -> None:
    model = small()
    prediction = model(torch.randn(2, 1, 3, 64, 64), torch.randn(2, 1, 128))
    terms = model.loss(prediction, torch.rand(2, 1, 1, 64, 64), torch.zeros(2, 1, 1, 64, 64, dtype=torch.bool))
    total = sum(terms.values())
    assert isinstance(total, Tensor)
    assert total == 0
    total.backward()
    assert not any(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)


def test_defaults_are_those_of_s4() -> None:
    assert Options() == Options(matching_weight=0.5, matching="cosine", stages=(1, 2, 3, 4), initial_gain=0.0)
