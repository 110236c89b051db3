"""AVSegFormer: the contract of a base model, its loss, and training that reaches every weight."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avseg.config import InputConfig, ModelConfig
from avseg.errors import AvsegError
from avseg.models import AVSModel, Prediction, build, load
from avseg.models.transformer import Attention

TINY: dict[str, Any] = {
    "queries": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "generator_layers": 2,
    "heads": 4,
    "points": 2,
    "feedforward": 64,
    "generator_feedforward": 48,
    "mask_hidden": 40,
}


def tiny(motion: bool = False, fusion: str = "normalised", **options: Any) -> AVSModel:
    config = ModelConfig(
        base="avsegformer",
        width=32,
        dilations=(1, 3),
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        neighbouring_frames=motion,
        flow_fusion=fusion,  # type: ignore[arg-type]
        options={**TINY, **options},
        inputs=InputConfig(image_size=64),
    )
    return build(config, seed=0)


def inputs(clips: int = 2, frames: int = 1, size: tuple[int, int] = (64, 64), motion: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(3, *size), (128,), (2, *size)][: 3 if motion else 2]
    return [torch.randn(clips, frames, *shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("motion", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (32, 64)])
def test_predicts_at_the_size_of_the_pictures(size: tuple[int, int], motion: bool) -> None:
    model = tiny(motion).eval()
    with torch.no_grad():
        prediction = model(*inputs(2, 1, size, motion))
        maps = model.pyramid(torch.randn(2, 3, *size))
    assert prediction.logits.shape == (2, 1, 1, *size)
    assert prediction.aux["mask"].shape == (2, 1, size[0] // 4, size[1] // 4)
    assert [tuple(item.shape) for item in maps] == [(2, 32, size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]


def test_sound_and_motion_count() -> None:
    model = tiny(motion=True).eval()
    frames, audio, flow = inputs(motion=True)
    with torch.no_grad():
        logits = model(frames, audio, flow).logits
        assert (model(frames, audio.flip(0), flow).logits - logits).abs().max() > 1e-4
        assert (model(frames, audio, -flow).logits - logits).abs().max() > 1e-4
        with pytest.raises(ValueError, match="needs flow"):
            model(frames, audio)


def test_frames_are_independent() -> None:
    model = tiny(motion=True).eval()
    clips = inputs(clips=2, frames=3, motion=True)
    with torch.no_grad():
        together = model(*clips)
        alone = model(*(item.flatten(0, 1).unsqueeze(1) for item in clips))
    torch.testing.assert_close(together.logits.flatten(0, 1), alone.logits.flatten(0, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.aux["mask"], alone.aux["mask"], rtol=1e-4, atol=1e-5)
    part = together.part(1, 2)
    torch.testing.assert_close(part.aux["mask"], together.aux["mask"][3:])


def test_the_sum_that_starts_at_zero_changes_nothing() -> None:
    frames, audio, flow = inputs(motion=True)
    with torch.no_grad():
        plain = tiny().eval()(frames, audio)
        refined = tiny(motion=True, fusion="sum").eval()(frames, audio, flow)
    torch.testing.assert_close(plain.logits, refined.logits)


@pytest.mark.parametrize("fusion", ["sum", "normalised"])
def test_training_lowers_the_loss_and_reaches_every_weight(fusion: str) -> None:
    torch.manual_seed(0)
    model = tiny(motion=True, fusion=fusion, dropout=0.0).train()
    clips = inputs(motion=True)
    masks = torch.zeros(2, 1, 1, 64, 64)
    masks[0, ..., 8:40, 16:56] = 1
    masks[1, ..., 30:60, 4:30] = 1
    valid = torch.ones_like(masks, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(16):
        optimizer.zero_grad()
        frames, _, flow = clips
        # The sound's path, too: log-mel through the audio encoder.
        audio = model.embed_audio(torch.randn(2, 1, 1, 96, 64, generator=torch.Generator().manual_seed(3)))
        loss = torch.stack(list(model.loss(model(frames, audio, flow), masks, valid).values())).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    unreached = [
        name
        for name, value in model.named_parameters()
        if value.requires_grad and (value.grad is None or not value.grad.any())
    ]
    assert not unreached


def test_saves_and_loads(tmp_path: Path) -> None:
    model = tiny(motion=True, queries=12).eval()
    clips = inputs(motion=True)
    with torch.no_grad():
        model(*clips)
        model.save_pretrained(tmp_path)
        again = load(tmp_path)
        torch.testing.assert_close(again(*clips).logits, model(*clips).logits)
        torch.testing.assert_close(deepcopy(model)(*clips).logits, model(*clips).logits)
    assert again.config == model.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"querys": 3}, "querys is not an option of 'avsegformer'"),
        ({"heads": 5}, "heads is 5: it must divide model.width"),
        ({"group_channels": 7}, "group_channels is 7: it must divide model.width"),
        ({"queries": 0}, "queries is 0: give a whole number from 1 to 10,000"),
        ({"decoder_layers": "many"}, "decoder_layers is 'many'"),
        ({"dice": "cubed"}, "dice is 'cubed'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"auxiliary_weight": -1.0}, "auxiliary_weight is -1.0"),
    ],
)
def test_refuses_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AvsegError, match=message):
        tiny(**options)


def test_loss_is_dice_over_valid_pixels_and_labelled_frames() -> None:
    torch.manual_seed(0)
    model = tiny()
    prediction = Prediction(torch.randn(2, 3, 1, 32, 32), {"mask": torch.randn(6, 1, 8, 8)})
    masks = torch.rand(2, 3, 1, 32, 32)  # soft
    valid = torch.rand(2, 3, 1, 32, 32) > 0.3
    valid[0, 1] = valid[1, 2] = False
    auxiliary = F.interpolate(prediction.aux["mask"], (32, 32), mode="bilinear").unflatten(0, (2, 3))

    def dice(logits: Tensor, power: int) -> float:
        each = []
        for b, t in [(0, 0), (0, 2), (1, 0), (1, 1)]:
            p, y = logits[b, t][valid[b, t]].sigmoid(), masks[b, t][valid[b, t]]
            each.append(1 - 2 * (p * y).sum() / ((p**power).sum() + (y**power).sum() + 0.002))
        return float(torch.stack(each).mean())

    terms = model.loss(prediction, masks, valid)
    assert terms["dice"].item() == pytest.approx(dice(prediction.logits, 2), rel=1e-5)
    assert terms["auxiliary"].item() == pytest.approx(0.1 * dice(auxiliary, 2), rel=1e-5)
    plain = tiny(dice="plain", auxiliary_weight=0.0).loss(prediction, masks, valid)
    assert set(plain) == {"dice"}
    assert plain["dice"].item() == pytest.approx(dice(prediction.logits, 1), rel=1e-5)
    nothing = model.loss(prediction, masks, torch.zeros_like(valid))
    assert all(term.item() == 0 for term in nothing.values())


def test_generator_attends_to_the_sound_as_multi_head_attention_does() -> None:
    torch.manual_seed(0)
    reference = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    torch.nn.init.normal_(reference.in_proj_bias)
    queries, tokens = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    ours = Attention(32, 4)
    ours.input.load_state_dict({"weight": reference.in_proj_weight, "bias": reference.in_proj_bias})
    ours.output.load_state_dict(reference.out_proj.state_dict())
    torch.testing.assert_close(ours(queries, tokens), reference(queries, tokens, tokens)[0])
    torch.testing.assert_close(ours(queries), reference(queries, queries, queries)[0])
    layer = tiny().query_generator.layers[0].audio_attention
    layer.value.load_state_dict({"weight": reference.in_proj_weight[64:], "bias": reference.in_proj_bias[64:]})
    layer.output.load_state_dict(reference.out_proj.state_dict())
    sound = tokens[:, :1]
    torch.testing.assert_close(layer(sound).expand(-1, 5, -1), reference(queries, sound, sound)[0])


def test_mixer_and_mask_head_equal_their_plain_formulas() -> None:
    torch.manual_seed(0)
    model = tiny(queries=90, mask_hidden=8)
    mixer, head = model.mixer, model.mask_head
    feature, sound, queries = torch.randn(2, 32, 6, 10), torch.randn(2, 1, 32), torch.randn(2, 90, 32)
    pixels = feature.flatten(2).transpose(1, 2)
    query, key, value = (
        layer(item).unflatten(2, (4, 8)).transpose(1, 2)
        for layer, item in ((mixer.query, sound), (mixer.key, pixels), (mixer.value, pixels))
    )
    found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    expected = feature * mixer.output(found).sigmoid().transpose(1, 2).unsqueeze(3)
    torch.testing.assert_close(mixer(feature, sound), expected)

    def first(head: Any, queries: Tensor) -> Tensor:
        maps = torch.einsum("nqc,nchw->nqhw", queries, feature)
        return head.conv1(maps).flatten(2).transpose(1, 2)

    # Few hidden channels and many queries, and the other way round: both orders of multiplication.
    torch.testing.assert_close(head._first(queries, pixels), first(head, queries), rtol=1e-4, atol=1e-4)
    other = tiny(queries=6, mask_hidden=128).mask_head
    torch.testing.assert_close(other._first(queries[:, :6], pixels), first(other, queries[:, :6]), rtol=1e-4, atol=1e-4)


def test_trains_in_mixed_precision() -> None:
    model = tiny(motion=True).train()
    masks = torch.rand(2, 1, 1, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model.loss(model(*inputs(motion=True)), masks, torch.ones_like(masks, dtype=torch.bool))
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)


def test_encoder_compiles_without_a_break() -> None:
    encoder = tiny().encoder.eval()
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    for sizes in ([(4, 6), (2, 3), (1, 2)], [(8, 8), (4, 4), (2, 2)]):
        maps = [torch.randn(2, 32, *size) for size in sizes]
        with torch.no_grad():
            torch.testing.assert_close(compiled(maps)[0], encoder(maps)[0], rtol=1e-4, atol=1e-5)
