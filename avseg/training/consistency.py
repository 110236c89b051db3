"""Unlabeled frame exploitation: Eq. 5 to 7 and Algorithm 1 of the paper.

A teacher and a student that share weights look at the same distant frame. The teacher sees the weakly perturbed view
and gives a pseudo mask; the student sees the strongly perturbed one and must agree. `ufe_losses` is Algorithm 1; read
it first. (Neighbouring frames, the paper's other half, are an input: see `avseg.models.motion`.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from avseg.config import PerturbConfig, UFEConfig
from avseg.data import perturb
from avseg.data.clip import DistantBatch, LabelledBatch, TrainBatch
from avseg.models import AVSModel, Inputs, Prediction, normalise
from avseg.models.base import evaluation_mode

Terms = dict[str, Tensor]  # a loss as named terms, whose sum is minimised


@dataclass
class Draws:
    """The random generators of one step. Each stream has its own, so that switching one off changes no other."""

    labelled: Generator
    distant: Generator

    @classmethod
    def of(cls, seed: int, step: int, rank: int = 0) -> "Draws":
        """The draws of ``step`` on device ``rank``: a function of these numbers alone."""
        streams = (torch.Generator().manual_seed(mix_seed(seed, step, rank, stream)) for stream in (0, 1))
        return cls(*streams)


def ufe_losses(
    batch: TrainBatch,
    student: AVSModel,
    teacher: AVSModel,
    ufe: UFEConfig,
    perturbs: PerturbConfig,
    draws: Draws,
    notes: Terms | None = None,
) -> Iterator[Terms]:
    """Algorithm 1, one iteration i: yield each loss as soon as it can be differentiated.

    The caller calls ``backward`` on every loss before asking for the next. Gradients add up to those of
    L = L_sup + λ L_unsup (Eq. 7), while only one graph is alive at a time.

    Args:
        batch: Labelled frames (line 2), and distant frames (line 9) unless i < k: a batch of the burn-in has none.
        student: The model that is optimised.
        teacher: The model that gives pseudo masks: the student itself, or its moving average.
        ufe: λ and the variants.
        perturbs: H^w and H^s.
        draws: The step's random generators.
        notes: Receives what is worth watching: ``pseudo/foreground``, the share of valid pixels that the pseudo masks
            mark. Where it shrinks, the teacher unlearns to see.
    """
    labelled = weak_view(batch.labelled, perturbs, draws.labelled)

    if batch.distant is None:  # lines 4-7: L_sup alone
        yield supervised_loss(student, labelled)
        return

    # Lines 9-11. The flow O_d has been computed with the data (line 10).
    distant = exploit(teacher, batch.distant, ufe, perturbs, draws.distant)
    if notes is not None:
        valid = distant.batch.valid
        notes["pseudo/foreground"] = ((distant.pseudo > 0.5) & valid).sum() / valid.sum().clamp(min=1)
    if ufe.student == "joint":
        yield _joint_losses(student, labelled, distant, ufe)  # line 12 in one batch
    else:
        yield supervised_loss(student, labelled)
        yield unsupervised_loss(student, distant, ufe)  # line 12: λ L_unsup


def loss_count(batch: TrainBatch, ufe: UFEConfig) -> int:
    """How many losses `ufe_losses` yields for ``batch``."""
    return 1 if batch.distant is None or ufe.student == "joint" else 2


def supervised_loss(student: AVSModel, labelled: LabelledBatch) -> Terms:
    """L_sup: the base model's own loss (Eq. 3 or 4) on labelled frames."""
    assert labelled.masks is not None
    prediction = student.predict(normalise(labelled, student.config))
    return student.loss(prediction, labelled.masks.float(), labelled.valid)


def unsupervised_loss(student: AVSModel, distant: "StrongView", ufe: UFEConfig) -> Terms:
    """λ L_unsup: the student's p^s on the strong view against the pseudo masks.

    Batch norm uses the strong batch's own statistics but does not remember them: labelled frames alone decide the
    running ones, exactly as in the baseline.
    """
    with unremembered_statistics(student):
        prediction = student.predict(distant.inputs(student))
    return _unsupervised_terms(student, prediction, distant, ufe)


def consistency(
    logits: Tensor, pseudo: Tensor, valid: Tensor, confidence: float | None = None, weight: Tensor | None = None
) -> Tensor:
    """Eq. 5: binary cross-entropy of the student with the soft pseudo mask.

    Mean over the valid pixels of a sample, then over the samples (B_u) that have any.

    Args:
        logits: ``(B, T, 1, H, W)`` of the student.
        pseudo: ``(B, T, 1, H, W)`` in [0, 1]: p^w.
        valid: ``(B, T, 1, H, W)`` bool.
        confidence: c: pixels weigh ``(max(p, 1 − p) − c) / (1 − c)``, at least 0. None weighs all alike.
        weight: ``(B, T, 1, H, W)`` in [0, 1], what else pixels weigh; None weighs all alike.
    """
    entropy = F.binary_cross_entropy_with_logits(logits.float(), pseudo, reduction="none")
    if confidence is not None:
        entropy = entropy * ((torch.maximum(pseudo, 1 - pseudo) - confidence) / (1 - confidence)).clamp(min=0)
    if weight is not None:
        entropy = entropy * weight
    counted = valid.flatten(1).float()
    total = counted.sum(1)
    per_sample = (entropy.flatten(1) * counted).sum(1) / total.clamp(min=1)
    return per_sample.sum() / (total > 0).sum().clamp(min=1)


@dataclass
class StrongView:
    """What the student sees and hears of distant frames, and what it should say.

    Attributes:
        batch: The strong view H^s; ``masks`` are the pseudo masks p^w and ``log_mel`` is what is heard.
        remix: Indices of clips whose sound was mixed, so that a stored embedding no longer tells it.
    """

    batch: DistantBatch
    remix: Tensor | None = None

    @property
    def pseudo(self) -> Tensor:
        """The pseudo masks ``(B, T, 1, H, W)`` in [0, 1]."""
        assert self.batch.masks is not None
        return self.batch.masks

    def inputs(self, student: AVSModel) -> Inputs:
        """The view as ``student`` takes it, embedding mixed sound anew."""
        inputs = normalise(self.batch, student.config)
        if inputs.audio is not None and self.remix is not None:
            mixed = student.embed_audio(inputs.log_mel[self.remix])
            inputs.audio = inputs.audio.index_copy(0, self.remix, mixed.to(inputs.audio.dtype))
        return inputs


def exploit(
    teacher: AVSModel, distant: DistantBatch, ufe: UFEConfig, perturbs: PerturbConfig, generator: Generator
) -> StrongView:
    """Eq. 6 up to the student: the weak view, its pseudo masks, and the strong view with both perturbed alike.

    The weak views of the batch serve twice: for the pseudo masks and, rolled by one, as CutMix partners.
    """
    weak = weak_view(distant, perturbs, generator)
    weak = with_pseudo_masks(teacher, weak, ufe)
    strong = perturb.strong(weak, perturb.draw_colour(len(weak), perturbs, generator))
    if ufe.cutmix_audio == "none" or len(strong) < 2:
        return StrongView(strong)

    height, width = strong.frames.shape[-2:]
    boxes = perturb.draw_boxes(len(strong), (height, width), perturbs, generator)
    gain = 10 ** ((2 * torch.rand(len(strong), generator=generator) - 1) * ufe.mix_gain_db / 20)
    partner = perturb.roll(strong)
    if ufe.cutmix_audio == "conditional":  # what of the partner's image sounds, under one's own sound
        heard = with_pseudo_masks(teacher, replace(perturb.roll(weak), log_mel=weak.log_mel, audio=weak.audio), ufe)
        partner = replace(partner, masks=heard.masks, weight=heard.weight)
    mixed = perturb.paste(strong, partner, boxes)
    if ufe.cutmix_audio != "mix" or not boxes.chosen.any():
        return StrongView(mixed)

    # The student hears what it sees: both sounds, wherever there is a box.
    chosen = boxes.chosen.nonzero().flatten().to(strong.log_mel.device)
    loudness = gain[boxes.chosen].to(strong.log_mel).view(-1, 1, 1, 1, 1)
    both = perturb.mix_log_mel(strong.log_mel[chosen], partner.log_mel[chosen], loudness)
    return StrongView(replace(mixed, log_mel=strong.log_mel.index_copy(0, chosen, both)), chosen)


def weak_view(batch: "perturb.B", perturbs: PerturbConfig, generator: Generator) -> "perturb.B":
    """H^w: one geometric draw per clip, for image, mask and flow together."""
    return perturb.weak(batch, perturb.draw_geometry(len(batch), perturbs, generator))


@torch.no_grad()
def with_pseudo_masks(teacher: AVSModel, weak: DistantBatch, ufe: UFEConfig) -> DistantBatch:
    """The weak view with p^w of Eq. 6, the teacher's soft masks, in evaluation mode and without a gradient."""
    with evaluation_mode(teacher):
        said = teacher.predict(normalise(weak, teacher.config))
    weight = None
    if ufe.frame_confidence and said.confidence is not None:
        weight = said.confidence.float()[:, :, None, None, None].expand_as(said.logits)
    return replace(weak, masks=said.logits.float().sigmoid(), weight=weight)


class EMATeacher:
    """A teacher that is the moving average of its student, instead of sharing the student's current weights.

    Args:
        student: Copied at once.
        decay: Share of the old average that is kept at each step.
    """

    def __init__(self, student: AVSModel, decay: float):
        fixed = {id(weight): weight for weight in student.parameters() if not weight.requires_grad}
        self.model = deepcopy(student, fixed).requires_grad_(False).eval()  # what is never trained is shared
        self.decay = decay

    @torch.no_grad()
    def update(self, student: AVSModel) -> None:
        """Move the average towards ``student``; batch-norm statistics and counters are copied."""
        for average, weight in zip(self.model.parameters(), student.parameters(), strict=True):
            if average is not weight:
                average.lerp_(weight.detach(), 1 - self.decay)
        for own, new in zip(self.model.buffers(), student.buffers(), strict=True):
            own.copy_(new)


@contextmanager
def unremembered_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm normalises by the batch's statistics within the block, and leaves its running ones alone."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    remembering = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, remember in zip(norms, remembering, strict=True):
            norm.track_running_stats = remember


def _unsupervised_terms(student: AVSModel, prediction: Prediction, distant: StrongView, ufe: UFEConfig) -> Terms:
    pseudo, valid = distant.pseudo, distant.batch.valid
    if ufe.unsup_loss == "base":
        terms = {f"unsup_{name}": term for name, term in student.loss(prediction, pseudo, valid).items()}
    else:
        eq5 = partial(consistency, pseudo=pseudo, valid=valid, confidence=ufe.confidence, weight=distant.batch.weight)
        terms = student.agreement(prediction, pseudo, valid, eq5)
    if ufe.unsup_matching is not None:
        terms.pop("unsup_matching", None)
        if ufe.unsup_matching:
            terms["unsup_matching"] = ufe.unsup_matching * student.matching(prediction, valid)
    return {name: ufe.unsup_weight * term for name, term in terms.items()}


def _joint_losses(student: AVSModel, labelled: LabelledBatch, distant: StrongView, ufe: UFEConfig) -> Terms:
    """L_sup + λ L_unsup from one forward pass over labelled and distant frames together."""
    assert labelled.masks is not None
    own, theirs = normalise(labelled, student.config), distant.inputs(student)
    audio = [i.audio if i.audio is not None else student.embed_audio(i.log_mel) for i in (own, theirs)]
    flow = None if own.flow is None or theirs.flow is None else torch.cat([own.flow, theirs.flow])
    prediction: Prediction = student(torch.cat([own.frames, theirs.frames]), torch.cat(audio), flow)
    count = len(labelled)
    supervised = student.loss(prediction.part(0, count), labelled.masks.float(), labelled.valid)
    strong = prediction.part(count, count + len(distant.batch))
    return {**supervised, **_unsupervised_terms(student, strong, distant, ufe)}


def mix_seed(*numbers: int) -> int:
    """A seed that differs wherever any of ``numbers`` does (splitmix64 over them)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state
