"""The plain reference is the same function as the models: logits, losses, gradients, statistics, published answers."""

from dataclasses import replace

import pytest
import torch
from fixtures.reference import Reference
from torch import Tensor

from avseg.config import InputConfig, ModelConfig, PerturbConfig, UFEConfig, WeightsConfig
from avseg.data.clip import DistantBatch, LabelledBatch, TrainBatch
from avseg.models import AVSModel, build
from avseg.models.published import published_avsegformer, published_tpavi
from avseg.training.consistency import Draws, ufe_losses
from benchmarks.plain_transformer import PlainAudioAttention
from benchmarks.reference import plain
from benchmarks.reference_step import published_losses

RANDOM = WeightsConfig(image="none", audio="none", flow="none")
SIDE = 64
TINY_RESNET = {"model_type": "resnet", "depths": [1, 1, 1, 1], "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32]}
TINY_PVT = {
    "model_type": "pvt_v2",
    "depths": [1, 1, 2, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 2, 4],
    "drop_path_rate": 0.5,
}
FORMER = {
    "queries": 11,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "generator_layers": 2,
    "heads": 4,
    "feedforward": 24,
    "generator_feedforward": 20,
    "mask_hidden": 28,
    "dropout": 0.0,
}
ENCODERS = {"efficientnet_lite0": None, "resnet50": TINY_RESNET, "pvt_v2_b5": TINY_PVT}


def small(base: str, encoder: str = "efficientnet_lite0", flow: str | None = None, **changes: object) -> AVSModel:
    """A small model in float64 whose every part matters."""
    config = ModelConfig(
        base=base,
        width=16,
        dilations=(1, 3, 6),
        image_encoder=encoder,
        image_encoder_config=ENCODERS[encoder],
        audio_encoder="cnn",
        neighbouring_frames=flow is not None,
        flow_fusion=flow or "gated",  # type: ignore[arg-type]
        options=dict(FORMER) if base == "avsegformer" else {"initial_gain": 0.7},
        inputs=InputConfig(image_size=SIDE),
        **changes,  # type: ignore[arg-type]
    )
    model = build(config, RANDOM, seed=3)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if not parameter.any() or name.startswith(("motion.refine", "motion.gain")):
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def inputs(clips: int, frames: int, flow: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"frames": (3, SIDE, SIDE), "audio": (128,), **({"flow": (2, SIDE, SIDE)} if flow else {})}
    return {
        name: torch.randn(clips, frames, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


def close(ours: Tensor, reference: Tensor, what: str) -> None:
    scale = max(float(reference.abs().max()), 1e-12)
    assert float((ours - reference).abs().max()) <= 1e-9 * scale, what


CASES = [
    ("tpavi", 1, None, "efficientnet_lite0"),
    ("tpavi", 5, "gated", "efficientnet_lite0"),
    ("tpavi", 5, "normalised", "resnet50"),
    ("tpavi", 1, "normalised", "pvt_v2_b5"),
    ("avsegformer", 1, None, "efficientnet_lite0"),
    ("avsegformer", 2, "sum", "resnet50"),
    ("avsegformer", 1, "normalised", "pvt_v2_b5"),
]


@pytest.mark.parametrize(("base", "frames", "flow", "encoder"), CASES)
def test_logits_are_the_models_in_evaluation(base: str, frames: int, flow: str | None, encoder: str) -> None:
    model = small(base, encoder, flow).eval()
    reference = plain(model)
    given = inputs(2, frames, flow is not None)
    with torch.no_grad():
        ours, plainly = model(**given), reference(**given)
    assert ours.logits.std() > 1e-3
    close(ours.logits, plainly.logits, "logits")
    if base == "tpavi":
        for kind in ("maps", "audio"):
            for mine, theirs in zip(ours.aux[kind], plainly.aux[kind], strict=True):
                close(mine, theirs, kind)
    else:
        close(ours.aux["mask"], plainly.aux["mask"], "auxiliary mask")


@pytest.mark.parametrize(("base", "frames", "flow", "encoder"), CASES)
def test_loss_gradients_and_statistics_are_the_models_in_training(
    base: str, frames: int, flow: str | None, encoder: str
) -> None:
    model = small(base, encoder, flow).train()
    reference = plain(model)
    given = inputs(2, frames, flow is not None)
    masks = torch.rand(2, frames, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    losses = []
    for each in (model, reference):
        torch.manual_seed(0)  # stochastic depth
        loss = torch.stack(list(each.loss(each(**given), masks, masks > 0.1).values())).sum()
        loss.backward()
        losses.append(loss.detach())
    close(*losses, what="loss")
    mine, theirs = dict(model.named_parameters()), dict(reference.named_parameters())
    extra = set(theirs) - set(mine)
    assert set(mine) <= set(theirs)
    assert all(".audio_attention." in name for name in extra)
    largest = max(float(item.grad.abs().max()) for item in theirs.values() if item.grad is not None)
    for name, parameter in mine.items():
        given_ours, given_plain = parameter.grad, theirs[name].grad
        assert (given_ours is None) == (given_plain is None), name
        if given_ours is not None and given_plain is not None:
            # Some gradients are zero but for rounding: they are compared with the largest of all.
            scale = max(float(given_plain.abs().max()), 1e-3 * largest)
            assert float((given_ours - given_plain).abs().max()) <= 1e-9 * scale, name
    for name, buffer in reference.named_buffers():
        if buffer.is_floating_point():
            close(model.get_buffer(name), buffer, name)


def test_a_reference_shares_nothing_with_its_model_and_needs_nothing_of_it() -> None:
    model = small("avsegformer", flow="gated")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reference = plain(model)
    own = {id(module) for module in reference.modules()}
    assert not own & {id(module) for module in model.modules()}
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.fill_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    attentions = [module for module in reference.modules() if isinstance(module, PlainAudioAttention)]
    assert len(attentions) == FORMER["generator_layers"]


def test_other_base_models_have_no_reference() -> None:
    from toy_models import toy

    with pytest.raises(TypeError, match="Toy has no plain reference"):
        plain(toy("light"))


def batch(count: int) -> TrainBatch:
    """Random clips of one frame, labelled and distant."""
    generator = torch.Generator().manual_seed(4)

    def fields(kind: type, masks: bool) -> LabelledBatch | DistantBatch:
        shape = (count, 1, 1, SIDE, SIDE)
        return kind(
            frames=torch.rand(count, 1, 3, SIDE, SIDE, generator=generator),
            flow=torch.randn(count, 1, 2, SIDE, SIDE, generator=generator),
            log_mel=torch.randn(count, 1, 1, 96, 64, generator=generator),
            masks=torch.rand(shape, generator=generator) > 0.5 if masks else None,
            inside=torch.ones(shape, dtype=torch.bool),
            valid=torch.ones(shape, dtype=torch.bool),
            names=("",) * count,
            categories=("",) * count,
            times=torch.zeros(count, 1),
        )

    labelled, distant = fields(LabelledBatch, True), fields(DistantBatch, False)
    assert isinstance(labelled, LabelledBatch)
    assert isinstance(distant, DistantBatch)
    return TrainBatch(0, labelled, distant)


@pytest.mark.parametrize("burn_in", [True, False])
def test_the_published_step_minimises_the_same_loss(burn_in: bool) -> None:
    """Where batch norm has no say in it, one graph over all views gives the gradients of one pass after the other."""
    model = small("tpavi", flow="normalised").float().eval()
    reference = plain(model)
    ufe, perturbs = UFEConfig(cutmix_audio="own"), PerturbConfig(cutmix_probability=1.0)
    given = batch(3)
    ours: dict[str, Tensor] = {}
    asked = replace(given, distant=None) if burn_in else given
    for terms in ufe_losses(asked, model, model, ufe, perturbs, Draws.of(0, 0)):
        torch.stack(list(terms.values())).sum().backward()
        ours |= terms
    published = published_losses(given, reference, ufe, perturbs, Draws.of(0, 0), burn_in)
    torch.stack(list(published.values())).sum().backward()
    assert set(ours) == set(published)
    assert ("unsup" in published) != burn_in
    for name, term in ours.items():
        torch.testing.assert_close(term, published[name])
    theirs = dict(reference.named_parameters())
    learning = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    mine = torch.cat([model.get_parameter(name).grad.flatten() for name in learning])  # type: ignore[union-attr]
    expected = torch.cat([theirs[name].grad.flatten() for name in learning])  # type: ignore[union-attr]
    assert (mine - expected).norm() <= 1e-3 * expected.norm()


def test_the_published_step_embeds_sound_in_every_pass() -> None:
    model = small("tpavi", flow="normalised").float().eval()
    reference = plain(model)
    heard: list[int] = []
    reference.audio_encoder.register_forward_hook(lambda module, given, result: heard.append(len(given[0])))
    seen: list[int] = []
    reference.image_encoder.register_forward_hook(lambda module, given, result: seen.append(len(given[0])))
    whole = batch(3)
    stored = replace(whole.labelled, audio=torch.zeros(3, 1, 128))
    published_losses(replace(whole, labelled=stored), reference, UFEConfig(), PerturbConfig(), Draws.of(0, 0))
    assert heard == seen == [3, 6, 3]


@pytest.mark.parametrize(
    "name",
    [
        "ufe_tpavi_resnet50_n2t1",
        "ufe_avsegformer_resnet50_n2",
        pytest.param("tpavi_resnet50_n5t5", marks=pytest.mark.heavy),
        pytest.param("ufe_tpavi_pvt_n2t1", marks=pytest.mark.heavy),
        pytest.param("avsegformer_resnet50_n2", marks=pytest.mark.heavy),
        pytest.param("avsegformer_pvt_n2", marks=pytest.mark.heavy),
    ],
)
def test_gives_the_answers_of_the_authors_code(name: str) -> None:
    fixture = Reference(name)
    former = "avsegformer" in name
    config, ours = (published_avsegformer if former else published_tpavi)(fixture.state(), "file.pth")
    if not former:
        config.audio_encoder = "cnn"  # such a checkpoint holds none
    model = build(config, RANDOM)
    model.load_state_dict(ours, strict=former)
    reference = plain(model.eval())
    del model, ours
    length = 1 if former else fixture.clip_frames
    given = {"frames": fixture.input("frames").unflatten(0, (-1, length))}
    if config.neighbouring_frames:
        given["flow"] = fixture.input("flow").unflatten(0, (-1, length))
    with torch.inference_mode():
        if former:
            given["audio"] = reference.embed_audio(fixture.input("logmel").unsqueeze(1))
        else:
            given["audio"] = fixture.input("audio").unflatten(0, (-1, length))
        logits = reference(**given).logits.flatten(0, 1)[..., ::4, ::4]
    assert (logits - fixture.expected["logits"]).abs().max() <= 1e-4 * fixture.expected["largest"]
