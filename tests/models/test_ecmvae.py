"""ECMVAE: its authors' answers at zero and at given noise, their losses, and what training rests on."""

from collections.abc import Iterator

import pytest
import torch
from fixtures.reference import Reference, draw
from torch import Tensor

from avseg.config import InputConfig, ModelConfig
from avseg.errors import AvsegError
from avseg.models import build
from avseg.models.base import Prediction
from avseg.models.ecmvae import (
    ECMVAE,
    Pass,
    decorrelation,
    gaussian_kl,
    log_density,
    mean_where,
    similarity_loss,
    structure_loss,
)
from avseg.models.published import published_ecmvae, recognise

PRIOR = ["prior_v", "prior_a", "prior_va"]
ALL = [*PRIOR, "post_v", "post_a", "post_va", "js_prior", "js_post"]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference("ecmvae_pvt_n5t5")


@pytest.fixture(scope="module")
def model(reference: Reference) -> ECMVAE:
    state = reference.state()
    assert recognise(state, "file.pth") == "ecmvae"
    config, ours = published_ecmvae(state, "file.pth")
    assert (config.image_encoder, config.inputs.image_size, config.width) == ("pvt_v2_b5", 224, 128)
    config.audio_encoder = "cnn"  # such a checkpoint holds none; the small one builds quickly
    built = build(config)
    sound = {name: tensor for name, tensor in built.state_dict().items() if name.startswith("audio_encoder.")}
    built.load_state_dict({**ours, **sound})
    assert isinstance(built, ECMVAE)
    return built.eval()


def noisy(model: ECMVAE, reference: Reference, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let latents be drawn with the reference's noise, in this order."""
    order: Iterator[str] = iter(names)

    def given(mean: Tensor, logvar: Tensor) -> Tensor:
        return mean + (0.5 * logvar).exp() * reference.input(f"noise.{next(order)}")

    monkeypatch.setattr(model, "draw", given)


def clip(reference: Reference, name: str) -> Tensor:
    return reference.input(name).unflatten(0, (-1, 5))


def close(ours: Tensor, theirs: Tensor, relative: float = 1e-4) -> bool:
    return bool((ours - theirs).abs().max() <= relative * theirs.abs().max())


def test_reproduces_logits_at_zero_and_given_noise(
    model: ECMVAE, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference.expected
    frames, audio = clip(reference, "frames"), clip(reference, "audio")
    with torch.no_grad():
        plain = model(frames, audio)
        noisy(model, reference, PRIOR, monkeypatch)
        drawn = model(frames, audio)
    for prediction, name in ((plain, ""), (drawn, "_with_noise")):
        logits = prediction.logits.flatten(0, 1)[..., ::4, ::4]
        assert (logits - expected[f"logits{name}"]).abs().max() <= 1e-4 * expected["largest"]
        for ours, latent in zip(prediction.aux["prior"]["drawn"], ("v", "a", "va"), strict=True):
            assert close(ours, expected[f"latent{name}_z_{latent}"])


@pytest.mark.heavy
def test_two_clips_keep_apart(model: ECMVAE, reference: Reference) -> None:
    both = [
        torch.stack([reference.input(name), draw(f"input.{name}.alt", list(reference.input(name).shape))])
        for name in ("frames", "audio")
    ]
    with torch.no_grad():
        logits = model(*both).logits.flatten(0, 1)[..., ::4, ::4]
    assert close(logits, reference.expected["logits_two_clips_stride4"])


def masks_of_the_reference() -> Tensor:
    y, x = torch.meshgrid(torch.arange(224), torch.arange(224), indexing="ij")
    discs = [(x - 96 - 8 * t) ** 2 + (y - 112) ** 2 < 56**2 for t in range(5)]
    return torch.stack(discs)[None, :, None].float()


def trained(model: ECMVAE, reference: Reference) -> Prediction:
    """The training pass in evaluation mode, as the reference was computed."""
    frames, audio = clip(reference, "frames"), clip(reference, "audio")
    prediction = model(frames, audio)
    prediction.aux["posterior"] = model.posterior.neck(model.image_encoder(frames.flatten(0, 1)))
    return prediction


def test_reproduces_both_paths_and_every_loss(
    model: ECMVAE, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy(model, reference, ALL, monkeypatch)
    masks, valid = masks_of_the_reference(), torch.ones(1, 5, 1, 224, 224, dtype=torch.bool)
    counted = torch.ones(5, dtype=torch.bool)
    want = reference.losses
    with torch.no_grad():
        prediction = trained(model, reference)
        prior = Pass(**prediction.aux["prior"])
        posterior = model._posterior(prediction, masks, counted)
        for name, path in (("prior", prior), ("post", posterior)):
            logits = path.logits.flatten(0, 1)[..., ::4, ::4]
            assert close(logits, reference.expected[f"train_logits_{name}_stride4"])
            structure = structure_loss(path.logits, masks, valid).item()
            assert structure == pytest.approx(want[f"structure_ms3_{name}"], rel=1e-4)
            similarity = similarity_loss(path, valid).item()
            assert similarity == pytest.approx(want[f"masked_similarity_kl_{name}"], rel=1e-3)
            for index, latent in enumerate(("v", "a")):
                apart = decorrelation(path.drawn[index], path.drawn[2]).item()
                assert apart == pytest.approx(want[f"diff_{latent}_va_{name}"], rel=1e-4)
        for index, latent in enumerate(("v", "a")):
            kl = mean_where(gaussian_kl(posterior.latents[index], prior.latents[index]), counted).item()
            assert kl == pytest.approx(want[f"kl_{latent}"], rel=1e-4)
        codes = [(model.prior.codes, prior.codes), (model.posterior.codes, posterior.codes)]
        mutual = sum(each.mutual(code).mean().item() for each, code in codes)
        assert mutual == pytest.approx(want["mi_loss"], rel=1e-4)
        whole = model.divergence(prior, posterior, counted).item()
        assert whole == pytest.approx(want["kl_loss (sum of the three)"], rel=1e-4)


def test_loss_is_the_weighed_sum_of_the_authors_terms(
    model: ECMVAE, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy(model, reference, ALL, monkeypatch)
    with torch.no_grad():
        prediction = trained(model, reference)
        terms = model.loss(prediction, masks_of_the_reference(), torch.ones(1, 5, 1, 224, 224, dtype=torch.bool))
    want = reference.losses
    assert {name: term.item() for name, term in terms.items()} == {
        "structure": pytest.approx(want["structure_ms3_prior"] + want["structure_ms3_post"], rel=1e-4),
        "similarity": pytest.approx(
            0.5 * (want["masked_similarity_kl_prior"] + want["masked_similarity_kl_post"]), rel=1e-3
        ),
        "mutual": pytest.approx(-0.001 * want["mi_loss"], rel=1e-4),
        "difference": pytest.approx(0.001 * want["diff_loss"], rel=1e-4),
        "kl": pytest.approx(0.01 * want["kl_loss (sum of the three)"], rel=1e-4),
    }


def tiny(**values: object) -> ECMVAE:
    config = ModelConfig(
        base="ecmvae",
        width=8,
        dilations=(1,),
        image_encoder="efficientnet_lite0",
        audio_encoder="cnn",
        inputs=InputConfig(image_size=32),
        **values,  # type: ignore[arg-type]
    )
    model = build(config, seed=0)
    assert isinstance(model, ECMVAE)
    return model


def example(clips: int = 2, times: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(clips, times, 3, 32, 32), (clips, times, 128), (clips, times, 2, 32, 32)]
    frames, audio, flow = (torch.randn(shape, generator=generator) for shape in shapes)
    return frames, audio, flow


def test_every_weight_learns_and_distant_frames_leave_the_posterior_alone() -> None:
    model = tiny(neighbouring_frames=True, flow_fusion="normalised").train()
    for module in model.modules():  # as published, attention starts from vision alone
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    frames, audio, flow = example(3)
    masks = (torch.arange(32) > 12).float().expand(3, 1, 1, 32, 32)
    prediction = model(frames, audio, flow)
    sum(model.loss(prediction, masks, torch.ones_like(masks, dtype=torch.bool)).values()).backward()  # type: ignore[union-attr]
    learnt = [name for name, weight in model.named_parameters() if not name.startswith("audio_encoder.")]
    weights = dict(model.named_parameters())
    assert [name for name in learnt if weights[name].grad is None] == []
    # A bias behind which a norm takes the mean away, and the deepest head of a single-pixel map, may have none.
    still = [name for name in learnt if not weights[name].grad.abs().sum() and "bias" not in name]  # type: ignore[union-attr]
    assert [name for name in still if not name.startswith("image_encoder.")] == []
    model.zero_grad()
    model(frames, audio, flow).logits.mean().backward()
    assert all(weight.grad is None for weight in model.posterior.parameters())


def test_flow_reaches_the_posterior_too() -> None:
    model = tiny(neighbouring_frames=True, flow_fusion="normalised").train()
    frames, audio, flow = example()
    torch.manual_seed(0)
    still = model(frames, audio, torch.zeros_like(flow)).aux["posterior"]
    torch.manual_seed(0)
    moving = model(frames, audio, flow).aux["posterior"]
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(still, moving, strict=True))


def test_evaluation_takes_the_mean_or_one_draw_and_never_varies() -> None:
    frames, audio, _ = example()
    means, draws = tiny().eval(), tiny(options={"latent": "draw"}).eval()
    with torch.no_grad():
        first = [model(frames, audio).logits for model in (means, draws)]
        again = [model(frames, audio).logits for model in (means, draws)]
        alone = draws(frames[1:], audio[1:]).logits
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert (first[0] - first[1]).abs().max() > 1e-4
    torch.testing.assert_close(alone, first[1][1:])
    varying = tiny().train()
    assert not torch.equal(varying(frames, audio).logits, varying(frames, audio).logits)


def test_frames_without_a_label_count_in_no_term(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny().eval()
    frames, audio, _ = example(2, 3)
    monkeypatch.setattr(model, "draw", lambda mean, logvar: mean)
    masks = (torch.arange(32) > 12).float().expand(2, 3, 1, 32, 32).clone()
    valid = torch.ones_like(masks, dtype=torch.bool)
    valid[:, 1:] = False
    other = masks.clone()
    other[:, 1:] = 1 - other[:, 1:]
    found = []
    with torch.no_grad():
        for target in (masks, other):
            prediction = model(frames, audio)
            prediction.aux["posterior"] = model.posterior.neck(model.image_encoder(frames.flatten(0, 1)))
            found.append(model.loss(prediction, target, valid))
    assert {name: term.item() for name, term in found[0].items()} == {
        name: pytest.approx(term.item(), rel=1e-5) for name, term in found[1].items()
    }
    nothing = model.loss(prediction, masks, torch.zeros_like(valid))
    assert all(term.isfinite() for term in nothing.values())


def test_a_part_of_a_prediction_has_the_loss_of_its_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """UFE's joint batch cuts labelled clips out of a larger one."""
    model = tiny().eval()
    monkeypatch.setattr(model, "draw", lambda mean, logvar: mean)
    frames, audio, _ = example(3, 2)
    masks = (torch.arange(32) > 12).float().expand(2, 2, 1, 32, 32)
    valid = torch.ones_like(masks, dtype=torch.bool)

    def loss(count: int) -> dict[str, float]:
        prediction = model(frames[:count], audio[:count])
        neck = model.posterior.neck
        prediction.aux["posterior"] = neck(model.image_encoder(frames[:count].flatten(0, 1)))
        terms = model.loss(prediction.part(0, 2), masks, valid)
        return {name: term.item() for name, term in terms.items()}

    with torch.no_grad():
        alone = loss(2)
        assert alone == {name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in loss(3).items()}


def test_densities_and_divergence_agree_with_torch() -> None:
    mean, logvar, x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    normal = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    torch.testing.assert_close(log_density(x, (mean, logvar)), normal.log_prob(x))
    p = torch.distributions.Normal(mean, logvar.exp())
    q = torch.distributions.Normal(x, (0.3 * logvar).exp())
    kl = torch.distributions.kl_divergence(q, p).sum(1)
    torch.testing.assert_close(gaussian_kl((x, 0.3 * logvar), (mean, logvar)), kl)


def test_other_variants_are_refused_by_name(reference: Reference) -> None:
    state = reference.hollow_state()
    for name, said in (
        ("cvae_model.fc.weight", "of images alone"),
        ("mm_vae_model.sc_prior.weight", "without factorised latents"),
        ("fusion_modules.0.conv1.weight", "with another fusion"),
    ):
        with pytest.raises(AvsegError, match=said):
            published_ecmvae({**state, name: torch.zeros(1)}, "file.pth")
    del state["mm_vae_model.sc1_posterior.bias"]
    with pytest.raises(AvsegError, match=r"mm_vae_model\.sc1_posterior\.bias"):
        published_ecmvae(state, "file.pth")
