"""Algorithm 1, line by line."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from toy_models import tiny_config

from avseg.config import ModelConfig, PerturbConfig, UFEConfig, WeightsConfig
from avseg.data import perturb
from avseg.data.clip import DistantBatch, LabelledBatch, TrainBatch
from avseg.models import AVSModel, Prediction, build, normalise
from avseg.training.consistency import (
    Draws,
    EMATeacher,
    consistency,
    exploit,
    loss_count,
    ufe_losses,
    with_pseudo_masks,
)

SIZE = 32
STILL = PerturbConfig(scale=(1.0, 1.0), flip=0.0, jitter_probability=0, grayscale_probability=0, blur_probability=0)


class Recorder(nn.Module):
    """A tiny model with the contract that consistency needs; it remembers what it was shown."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = ModelConfig(neighbouring_frames=True)
        self.see = nn.Conv2d(5, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.hear = nn.Linear(64, 4)
        self.out = nn.Conv2d(4, 1, 1)
        self.calls = []

    def embed_audio(self, log_mel):
        return log_mel.mean(dim=(2, 3))  # (B, T, 64)

    def predict(self, inputs):
        audio = self.embed_audio(inputs.log_mel) if inputs.audio is None else inputs.audio
        return self(inputs.frames, audio, inputs.flow)

    def forward(self, frames, audio, flow=None):
        self.calls.append(
            {"frames": frames, "audio": audio, "flow": flow, "training": self.training, "grad": torch.is_grad_enabled()}
        )
        x = self.see(torch.cat([frames, flow], 2).flatten(0, 1))
        x = self.norm(x) + self.hear(audio.flatten(0, 1))[..., None, None]
        return Prediction(self.out(x.relu()).unflatten(0, frames.shape[:2]))

    def loss(self, prediction, masks, valid):
        return {"bce": consistency(prediction.logits, masks, valid)}

    agreement = AVSModel.agreement


def clips(kind, count=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return kind(
        frames=torch.randint(0, 256, (count, 1, 3, SIZE, SIZE), generator=g, dtype=torch.uint8),
        flow=torch.randn(count, 1, 2, SIZE, SIZE, generator=g).half(),
        log_mel=torch.randn(count, 1, 1, 96, 64, generator=g).clamp(-4, 4),
        masks=torch.rand(count, 1, 1, SIZE, SIZE, generator=g) > 0.6 if kind is LabelledBatch else None,
        inside=torch.ones(count, 1, 1, SIZE, SIZE, dtype=torch.bool),
        valid=torch.ones(count, 1, 1, SIZE, SIZE, dtype=torch.bool),
        names=tuple(f"v{i}" for i in range(count)),
        categories=("",) * count,
        times=torch.zeros(count, 1, dtype=torch.float64),
    )


def step(distant=True, index=7, count=4):
    return TrainBatch(index, clips(LabelledBatch, count, 1), clips(DistantBatch, count, 2) if distant else None)


def run(model, batch, ufe=None, perturbs=None, teacher=None, seed=0):
    """One iteration with a backward after each loss; the terms and the gradients."""
    model.train()
    model.zero_grad(set_to_none=True)
    model.calls.clear()
    terms = {}
    draws = Draws.of(seed, batch.step)
    for named in ufe_losses(batch, model, teacher or model, ufe or UFEConfig(), perturbs or PerturbConfig(), draws):
        sum(named.values()).backward()
        terms.update(named)
    return terms, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_eq_5_is_cross_entropy_with_the_soft_mask_over_valid_pixels():
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.0]]).view(2, 1, 1, 1, 2)
    pseudo = torch.tensor([[0.9, 0.2], [0.4, 0.5]]).view(2, 1, 1, 1, 2)
    valid = torch.tensor([[True, False], [True, True]]).view(2, 1, 1, 1, 2)
    p = logits.sigmoid()
    entropy = -(pseudo * p.log() + (1 - pseudo) * (1 - p).log())
    # Sample 1 has one valid pixel, sample 2 has two: each sample counts once.
    expected = (entropy[0, ..., 0].sum() + entropy[1].mean()) / 2
    torch.testing.assert_close(consistency(logits, pseudo, valid), expected)
    nothing = consistency(logits, pseudo, torch.zeros_like(valid))
    assert nothing == 0  # and not NaN
    half = valid.clone()
    half[0] = False
    torch.testing.assert_close(consistency(logits, pseudo, half), entropy[1].mean())


def test_confidence_weighs_pixels_by_how_sure_the_teacher_is():
    logits, valid = torch.zeros(1, 1, 1, 1, 3), torch.ones(1, 1, 1, 1, 3, dtype=torch.bool)
    pseudo = torch.tensor([0.95, 0.6, 0.1]).view(1, 1, 1, 1, 3)
    entropy = torch.log(torch.tensor(2.0))
    # As sure of background as of an object counts alike.
    torch.testing.assert_close(consistency(logits, pseudo, valid, 0.8), entropy * (0.75 + 0 + 0.5) / 3)


def by_hand(model, view, target, weigh=lambda p: torch.ones_like(p)):
    """Cross-entropy over valid pixels, a clip and a pixel at a time, of a view that is shown to ``model``."""
    p = model.predict(normalise(view, model.config)).logits.double().sigmoid()
    rows = []
    for b in range(len(view)):
        inside = view.valid[b]
        q, y = p[b][inside], target[b][inside].double()
        rows.append((-(y * q.log() + (1 - y) * (1 - q).log()) * weigh(y)).mean())
    return torch.stack(rows).mean().float()


@pytest.mark.parametrize(
    "options", [{}, {"student": "joint"}, {"confidence": 0.5}, {"unsup_loss": "base", "unsup_weight": 0.25}], ids=str
)
def test_an_iteration_by_hand(options):
    """The labelled frames' weak view, the distant ones' strong view, and no pixel of padding in any number."""
    model, batch, perturbs = Recorder(), step(), PerturbConfig(scale=(0.5, 0.9))
    model.norm = nn.Identity()
    with torch.no_grad():  # pseudo masks on both sides of one half
        model.out.weight.mul_(10)
        model.out.bias.sub_(model.predict(normalise(batch.distant, model.config)).logits.median())
    ufe, notes, terms = UFEConfig(**options), {}, {}
    for named in ufe_losses(batch, model, model, ufe, perturbs, Draws.of(0, batch.step), notes):
        terms.update(named)

    draws = Draws.of(0, batch.step)
    labelled = perturb.weak(batch.labelled, perturb.draw_geometry(4, perturbs, draws.labelled))
    torch.testing.assert_close(terms["bce"], by_hand(model, labelled, labelled.masks), atol=1e-5, rtol=1e-4)
    view = exploit(model, batch.distant, ufe, perturbs, draws.distant)
    weigh = (lambda y: (torch.maximum(y, 1 - y) - 0.5) / 0.5) if ufe.confidence else torch.ones_like
    unsup = ufe.unsup_weight * by_hand(model, view.batch, view.pseudo, weigh)
    name = "unsup_bce" if ufe.unsup_loss == "base" else "unsup"
    torch.testing.assert_close(terms[name], unsup, atol=1e-5, rtol=1e-4)
    valid = view.batch.valid
    assert 0.2 < valid.float().mean() < 0.8
    assert 0.1 < notes["pseudo/foreground"] < 0.9
    torch.testing.assert_close(notes["pseudo/foreground"], (view.pseudo[valid] > 0.5).float().mean())


def test_a_frame_that_does_not_count_is_shown_and_is_in_no_number():
    model, batch, perturbs, ufe = Recorder(), step(), PerturbConfig(scale=(0.5, 0.9)), UFEConfig(cutmix_audio="none")
    model.norm = nn.Identity()
    with torch.no_grad():
        model.out.bias.sub_(model.predict(normalise(batch.distant, model.config)).logits.median())
    fewer = replace(batch.distant, valid=batch.distant.valid & (torch.arange(4) > 1).view(4, 1, 1, 1, 1))
    shown = []
    for distant in (batch.distant, fewer):
        model.calls.clear()
        notes, terms = {}, {}
        for named in ufe_losses(replace(batch, distant=distant), model, model, ufe, perturbs, Draws.of(0, 7), notes):
            terms.update(named)
        shown.append(torch.stack([call["frames"] for call in model.calls]))
    assert torch.equal(*shown)
    view = exploit(model, fewer, ufe, perturbs, Draws.of(0, 7).distant)
    counted = view.batch.valid[2:]
    torch.testing.assert_close(notes["pseudo/foreground"], (view.pseudo[2:][counted] > 0.5).float().mean())
    alone = consistency(model.predict(view.inputs(model)).logits[2:], view.pseudo[2:], counted)
    torch.testing.assert_close(terms["unsup"], ufe.unsup_weight * alone)


def test_burn_in_is_the_supervised_loss_alone():
    model = Recorder()
    batch = step(distant=False)
    terms, _ = run(model, batch)
    assert set(terms) == {"bce"}
    assert len(model.calls) == 1  # no pass for distant frames, none for a teacher
    assert loss_count(batch, UFEConfig()) == 1


def test_after_burn_in_the_loss_is_eq_7():
    terms, gradients = run(Recorder(), step(), UFEConfig(unsup_weight=0.5))
    alone, own = run(Recorder(), step(distant=False))
    torch.testing.assert_close(terms["bce"], alone["bce"], rtol=0, atol=0)  # the labelled path is the baseline's
    once, full = run(Recorder(), step(), UFEConfig(unsup_weight=1.0))
    torch.testing.assert_close(terms["unsup"], 0.5 * once["unsup"])
    # Two backward passes leave the gradient of L_sup + λ L_unsup.
    for name in gradients:
        torch.testing.assert_close(gradients[name], own[name] + 0.5 * (full[name] - own[name]), atol=1e-5, rtol=1e-4)
    assert any((gradients[name] - own[name]).abs().max() > 1e-5 for name in gradients)


def test_the_teacher_sees_the_weak_view_in_evaluation_mode_without_gradient():
    model = Recorder()
    run(model, step(), UFEConfig(cutmix_audio="none"))
    teacher, labelled, student = model.calls
    assert teacher["training"] is False
    assert teacher["grad"] is False
    assert labelled["training"]
    assert student["training"]
    # Weak and strong views share the geometric draw: flow is the same, colours are not.
    torch.testing.assert_close(teacher["flow"], student["flow"], rtol=0, atol=0)
    assert (teacher["frames"] - student["frames"]).abs().mean() > 0.05
    torch.testing.assert_close(teacher["audio"], student["audio"], rtol=0, atol=0)
    assert model.training
    run(model, step(), UFEConfig(cutmix_audio="none"), replace(STILL, flip=0.5, scale=(0.5, 2.0)))
    teacher, _, student = model.calls
    torch.testing.assert_close(teacher["frames"], student["frames"], rtol=0, atol=1e-5)


def test_pseudo_masks_are_soft_and_carry_no_gradient():
    model = Recorder().train()
    masks = with_pseudo_masks(model, clips(DistantBatch), UFEConfig()).masks
    assert not masks.requires_grad
    assert 0 <= masks.min() < masks.max() <= 1
    assert len(masks.unique()) > 2
    logits = model.eval().predict(normalise(clips(DistantBatch), model.config)).logits
    torch.testing.assert_close(masks, 1 / (1 + torch.exp(-logits)))
    model.train()
    with_pseudo_masks(model, clips(DistantBatch), UFEConfig())
    assert model.training
    assert model.norm.training


def test_the_strong_pass_leaves_batch_norm_statistics_to_the_labelled_frames():
    with_distant, alone = Recorder(), Recorder()
    run(with_distant, step())
    run(alone, step(distant=False))
    assert not torch.equal(with_distant.norm.running_mean, torch.zeros(4))
    torch.testing.assert_close(with_distant.norm.running_mean, alone.norm.running_mean, rtol=0, atol=0)
    torch.testing.assert_close(with_distant.norm.running_var, alone.norm.running_var, rtol=0, atol=0)
    assert with_distant.norm.num_batches_tracked == 1
    assert with_distant.norm.track_running_stats


def test_one_joint_batch_has_the_same_losses_where_nothing_depends_on_the_batch():
    def without_norm():
        model = Recorder()
        model.norm = nn.Identity()
        return model

    separate, a = run(without_norm(), step())
    model = without_norm()
    joint, b = run(model, step(), UFEConfig(student="joint"))
    assert loss_count(step(), UFEConfig(student="joint")) == 1
    assert len(model.calls) == 2  # the teacher, and one pass over both
    assert model.calls[1]["frames"].shape[0] == 8
    for name in ("bce", "unsup"):
        torch.testing.assert_close(separate[name], joint[name])
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4)


def boxes_everywhere(**kwargs):
    return replace(STILL, cutmix_probability=1.0, **kwargs)


def strong_view(mode, perturbs, count=4, audio=False):
    model = Recorder()
    batch = clips(DistantBatch, count)
    if audio:
        batch = replace(batch, audio=model.embed_audio(batch.log_mel))
    view = exploit(model, batch, UFEConfig(cutmix_audio=mode), perturbs, torch.Generator().manual_seed(3))
    return model, batch, view


@pytest.mark.parametrize("audio", [False, True], ids=["log-mel", "embeddings"])
@pytest.mark.parametrize("mode", ["mix", "own", "conditional"])
def test_cutmix_pastes_the_partner_rolled_by_one(mode, audio):
    model, batch, view = strong_view(mode, boxes_everywhere(), audio=audio)
    own = batch.frames.float() / 255
    partner = own.roll(1, 0)
    took = (view.batch.frames - partner).abs().amax(2, keepdim=True) < 1e-3
    kept = (view.batch.frames - own).abs().amax(2, keepdim=True) < 1e-3
    assert (took | kept).all()
    assert (took & ~kept).flatten(1).any(1).all()  # every clip has a box
    pseudo = with_pseudo_masks(model, batch, UFEConfig()).masks
    heard = batch
    if mode == "conditional":  # the partner's image under one's own sound
        heard = replace(batch, log_mel=batch.log_mel.roll(-1, 0), audio=batch.audio.roll(-1, 0) if audio else None)
    pasted = with_pseudo_masks(model, heard, UFEConfig()).masks.roll(1, 0)
    expected = torch.where(took & ~kept, pasted, pseudo)
    torch.testing.assert_close(view.pseudo, expected, atol=5e-3, rtol=0)


def test_the_pasted_patch_is_as_strongly_perturbed_as_its_partner():
    perturbs = PerturbConfig(scale=(1.0, 1.0), flip=0, jitter_probability=1, cutmix_probability=1)
    (_, batch, whole), (_, _, mixed) = (strong_view(mode, perturbs) for mode in ("none", "own"))
    strong = whole.batch.frames
    assert ((strong - batch.frames / 255).abs().flatten(1).mean(1) > 0.02).all()
    took = (mixed.batch.frames == strong.roll(1, 0)).all(2, keepdim=True)
    assert (took | (mixed.batch.frames == strong).all(2, keepdim=True)).all()
    assert took.flatten(1).any(1).all()


def test_own_sound_stays_and_mixed_sound_is_both():
    _, batch, own = strong_view("own", boxes_everywhere())
    assert torch.equal(own.batch.log_mel, batch.log_mel)
    _, _, conditional = strong_view("conditional", boxes_everywhere())
    assert torch.equal(conditional.batch.log_mel, batch.log_mel)
    _, _, mixed = strong_view("mix", boxes_everywhere())
    partner = batch.log_mel.roll(1, 0)
    gain = (mixed.batch.log_mel.exp() - batch.log_mel.exp()) / (partner.exp() - 0.01)
    gain = gain[partner.exp() > 0.5]  # where the division is well conditioned
    assert gain.min() > 10 ** (-6.5 / 20)
    assert gain.max() < 10 ** (6.5 / 20)
    _, batch, mixed = strong_view("mix", boxes_everywhere(), count=40)
    partner = batch.log_mel.roll(1, 0)
    gain = ((mixed.batch.log_mel.exp() - batch.log_mel.exp()) / (partner.exp() - 0.01)).flatten(1)
    loudest = partner.flatten(1).argmax(1, keepdim=True)
    decibels = 20 * gain.gather(1, loudest).log10()
    assert -6.1 < decibels.min() < -5
    assert 5 < decibels.max() < 6.1
    assert decibels.mean().abs() < 1.5


def test_only_samples_with_a_box_are_mixed():
    _, batch, view = strong_view("mix", replace(STILL, cutmix_probability=0.5), count=12)
    boxed = ((view.batch.frames - batch.frames.float() / 255).abs() > 1e-3).flatten(1).any(1)
    assert 0 < boxed.sum() < 12
    mixed = (view.batch.log_mel != batch.log_mel).flatten(1).any(1)
    assert torch.equal(mixed, boxed)


def test_stored_embeddings_are_replaced_for_mixed_sound_only():
    model, batch, view = strong_view("mix", replace(STILL, cutmix_probability=0.5), count=12, audio=True)
    inputs = view.inputs(model)
    mixed = (view.batch.log_mel != batch.log_mel).flatten(1).any(1)
    torch.testing.assert_close(inputs.audio[mixed], model.embed_audio(view.batch.log_mel[mixed]))
    assert torch.equal(inputs.audio[~mixed], batch.audio[~mixed])
    assert not torch.allclose(inputs.audio[mixed], batch.audio[mixed])


def test_a_batch_of_one_and_none_skip_cutmix():
    for mode, count in (("mix", 1), ("none", 4)):
        _, batch, view = strong_view(mode, boxes_everywhere(), count)
        torch.testing.assert_close(view.batch.frames, batch.frames.float() / 255, atol=1e-4, rtol=0)
        assert torch.equal(view.batch.log_mel, batch.log_mel)


def test_base_loss_replaces_eq_5_on_request():
    terms, _ = run(Recorder(), step(), UFEConfig(unsup_loss="base", unsup_weight=0.25))
    assert set(terms) == {"bce", "unsup_bce"}


@pytest.mark.parametrize("student", ["separate", "joint"])
@pytest.mark.parametrize("unsup_loss", ["consistency", "base"])
def test_the_unlabelled_matching_loss_has_a_weight_of_its_own(unsup_loss, student):
    """As in the authors' S4 scripts of TPAVI: λ (cross-entropy + 0.2 matching), beside 0.5 matching on labels."""
    found, matching = [], []
    for weight in (None, 0.0, 0.2, 0.4):
        model = build(tiny_config(neighbouring_frames=True), WeightsConfig("none", "none", "none"), seed=0)
        torch.manual_seed(0)
        ufe, terms = UFEConfig(unsup_loss=unsup_loss, student=student, unsup_matching=weight), {}
        for named in ufe_losses(step(), model, model, ufe, STILL, Draws.of(0, 7)):
            terms.update({name: term.detach() for name, term in named.items()})
        matching.append(terms.pop("unsup_matching", torch.zeros(())))
        found.append(terms)
    assert found == found[:1] * 4, "nothing else changes"
    own, none, some, twice = matching
    assert none == 0 < some
    torch.testing.assert_close(twice, 2 * some)
    torch.testing.assert_close(own, 2.5 * some if unsup_loss == "base" else none)


def test_moving_average_teacher():
    student = Recorder()
    teacher = EMATeacher(student, decay=0.9)
    start = student.out.weight.detach().clone()
    with torch.no_grad():
        student.out.weight.add_(1.0)
        student.norm.running_mean.add_(2.0)
    teacher.update(student)
    torch.testing.assert_close(teacher.model.out.weight, start + 0.1)
    assert not teacher.model.out.weight.requires_grad
    torch.testing.assert_close(teacher.model.norm.running_mean, torch.full((4,), 2.0))
    student.calls.clear()
    teacher.model.calls.clear()
    run(student, step(), teacher=teacher.model)
    assert len(teacher.model.calls) == 1
    assert len(student.calls) == 2


def test_draws_depend_on_seed_step_and_rank_alone():
    def first(*numbers):
        draws = Draws.of(*numbers)
        return perturb.draw_geometry(4, PerturbConfig(), draws.labelled).scale

    assert torch.equal(first(0, 5), first(0, 5))
    for other in ((1, 5), (0, 6), (0, 5, 1)):
        assert not torch.equal(first(0, 5), first(*other))
    draws = Draws.of(0, 5)
    a = perturb.draw_geometry(4, PerturbConfig(), draws.labelled).scale
    b = perturb.draw_geometry(4, PerturbConfig(), draws.distant).scale
    assert not torch.equal(a, b)
