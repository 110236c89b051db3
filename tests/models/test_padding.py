"""What is predicted or seen where nothing is valid changes no loss and no gradient, for any base model and option."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from avseg.config import InputConfig, ModelConfig, WeightsConfig
from avseg.models import AVSModel, Prediction, build

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "tpavi cosine": ("tpavi", {"matching": "cosine"}),
    "tpavi kl": ("tpavi", {"matching": "kl"}),
    "tpavi some stages": ("tpavi", {"matching": "kl", "stages": [1, 3]}),
    "tpavi without matching": ("tpavi", {"matching_weight": 0.0}),
    "avsegformer squared": ("avsegformer", {"dice": "squared", "auxiliary_weight": 1.0}),
    "avsegformer plain": ("avsegformer", {"dice": "plain", "auxiliary_weight": 1.0}),
    "avsegformer alone": ("avsegformer", {"auxiliary_weight": 0.0}),
    "catr": ("catr", {"bce_weight": 0.0}),
    "catr finest": ("catr", {"mask_stride": 4}),
    "catr plain": ("catr", {"bce": "plain"}),
    "autr": ("autr", {}),
}
FEW = ("queries", "encoder_layers", "decoder_layers", "generator_layers", "heads", "points")
SMALL = {
    "avsegformer": dict.fromkeys(FEW, 2),
    "catr": dict.fromkeys(("queries", "encoder_layers", "decoder_layers", "heads"), 2),
    "autr": dict.fromkeys(("queries", "encoder_layers", "decoder_layers", "heads", "points"), 2),
}
SIZE = 64


def model_of(kind: str) -> AVSModel:
    base, options = KINDS[kind]
    config = ModelConfig(
        base=base,
        width=16,
        dilations=(1,),
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        options=SMALL.get(base, {}) | options,
        inputs=InputConfig(image_size=SIZE),
    )
    return build(config, WeightsConfig("none", "none", "none"), seed=0)


def predicted(model: AVSModel) -> Prediction:
    """What the model says of two clips of three frames, as leaves whose gradients can be asked for."""
    generator = Generator().manual_seed(1)
    frames = torch.randn(2, 3, 3, SIZE, SIZE, generator=generator)
    with torch.no_grad():
        said = model(frames, torch.randn(2, 3, 128, generator=generator))
    # The prediction of an untrained model is one grey: give it objects.
    said.logits = 4 * F.interpolate(torch.randn(6, 1, 8, 8, generator=generator), SIZE).unflatten(0, (2, 3))
    return mapped(said, lambda item: item.clone().requires_grad_())


def mapped(prediction: Prediction, change: Any) -> Prediction:
    aux = {
        name: [change(each) for each in item] if isinstance(item, list) else change(item)
        for name, item in prediction.aux.items()
    }
    return Prediction(change(prediction.logits), aux)


def tensors(prediction: Prediction) -> list[Tensor]:
    return [prediction.logits] + [
        each for item in prediction.aux.values() for each in (item if isinstance(item, list) else [item])
    ]


def losses(model: AVSModel, prediction: Prediction, masks: Tensor, valid: Tensor) -> list[Tensor]:
    """Every term, then the gradient of their sum with respect to all that the loss is given."""
    terms = model.loss(prediction, masks, valid)
    terms |= {"matching alone": model.matching(prediction, valid)} if "maps" in prediction.aux else {}
    given = tensors(prediction)
    found = torch.autograd.grad(torch.stack(list(terms.values())).sum(), given, allow_unused=True)
    assert (found[0] is None) == ("masks" in prediction.aux)  # competing queries' losses look at all of them
    return [*terms.values(), *(torch.zeros_like(x) if g is None else g for g, x in zip(found, given, strict=True))]


@pytest.fixture
def valid() -> Tensor:
    """Padding that cuts through the cells of every map, and one frame that nothing is valid in."""
    made = torch.zeros(2, 3, 1, SIZE, SIZE, dtype=torch.bool)
    made[0, ..., 9:51, 3:64] = True
    made[1, :2, ..., :23, 13:37] = True
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_valid_changes_no_loss_and_no_gradient(kind: str, valid: Tensor) -> None:
    model, generator = model_of(kind), Generator().manual_seed(2)
    prediction = predicted(model)
    masks = torch.rand(2, 3, 1, SIZE, SIZE, generator=generator)
    expected = losses(model, prediction, masks, valid)

    def noise(item: Tensor) -> Tensor:
        """The item with other values wherever none of a cell's pixels is valid; sounds and scores are of a frame."""
        size = item.shape[-2:] if item.ndim > 3 else (1, 1)
        kept = F.adaptive_max_pool2d(valid.flatten(0, 1).float(), size).bool()
        if item.ndim == 3:
            kept = kept.flatten(1)[..., None] if len(item) == len(kept) else kept.view(2, 3, 1)
        else:
            kept = kept.view(*item.shape[: item.ndim - 3], *kept.shape[1:])
        other = 30 * torch.randn(item.shape, generator=generator)
        return torch.where(kept, item.detach(), other).requires_grad_()

    changed = mapped(prediction, noise)
    assert not torch.equal(changed.logits, prediction.logits)
    found = losses(model, changed, torch.where(valid, masks, 1 - masks), valid)
    for ours, before in zip(found, expected, strict=True):
        assert torch.equal(ours, before)
    where = len(expected) - len(tensors(prediction))
    assert not expected[where][~valid].any(), "logits outside get no gradient"


def test_pools_are_of_valid_pixels(valid: Tensor) -> None:
    """The matching loss by hand: every pixel is given its cell's features, and those marked and valid are averaged."""
    for kind in ("tpavi cosine", "tpavi kl"):
        model = model_of(kind)
        prediction = predicted(model)
        marked = (prediction.logits.sigmoid() * valid).flatten(0, 1)
        stages = []
        for maps, sound in zip(prediction.aux["maps"], prediction.aux["audio"], strict=True):
            each, factor = maps.flatten(0, 1), SIZE // maps.shape[-1]
            rows = []
            for i, shown in enumerate(valid.flatten(0, 1)[:, 0]):
                cells = [block.unfold(0, factor, factor).unfold(1, factor, factor) for block in (shown, marked[i, 0])]
                share = cells[0].float().mean((2, 3))
                chosen = (cells[1].mean((2, 3)) > 0.5 * share) & (share > 0)
                inside = shown & chosen.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
                full = each[i].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
                pooled = full[:, inside].mean(1) if inside.any() else torch.zeros(16)
                heard = sound.flatten(0, 1)[i]
                if kind == "tpavi cosine":
                    row = -torch.log(F.relu(F.cosine_similarity(pooled, heard, dim=0)) + 1e-6)
                else:
                    p, q = heard.softmax(0), pooled.log_softmax(0)
                    row = (p * (p.log() - q)).sum()
                if shown.any():
                    rows.append(row)
            stages.append(torch.stack(rows).mean())
        torch.testing.assert_close(model.matching(prediction, valid), torch.stack(stages).mean())


def test_without_padding_the_auxiliary_mask_is_enlarged_as_published() -> None:
    model = model_of("avsegformer squared")
    prediction = predicted(model)
    full = F.interpolate(prediction.aux["mask"], (SIZE, SIZE), mode="bilinear", align_corners=False)
    plain = Prediction(full.unflatten(0, (2, 3)), prediction.aux)
    masks = torch.rand(2, 3, 1, SIZE, SIZE, generator=Generator().manual_seed(2))
    everywhere = torch.ones_like(masks, dtype=torch.bool)
    assert torch.equal(
        model.loss(prediction, masks, everywhere)["auxiliary"], model.loss(plain, masks, everywhere)["dice"]
    )
