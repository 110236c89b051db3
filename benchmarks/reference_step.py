"""A training step of UFE as the published code runs it.

For B labelled frames: the masks of the frames that CutMix pastes from, on B without a gradient; then labelled and weak
views on 2B and strong views on B, with one graph over both alive until ``backward``. Every pass embeds its sound anew.
During burn-in all of it runs too, and only the supervised loss counts.
"""

from dataclasses import replace

import torch
from torch import Tensor

from avseg.config import PerturbConfig, UFEConfig
from avseg.data import perturb
from avseg.data.clip import TrainBatch
from avseg.models import AVSModel, Inputs, normalise
from avseg.models.base import evaluation_mode
from avseg.training.consistency import Draws, consistency, weak_view


def published_losses(
    batch: TrainBatch,
    model: AVSModel,
    ufe: UFEConfig,
    perturbs: PerturbConfig,
    draws: Draws,
    burn_in: bool = False,
) -> dict[str, Tensor]:
    """The loss of one step as named terms that are to be summed.

    Views and boxes are drawn as `avseg.training.consistency.ufe_losses` draws them, so that both see the same.

    Args:
        batch: Labelled and as many distant frames; stored embeddings of sound are not used.
        model: In training mode.
        ufe: λ counts; the sound is each frame's own.
        perturbs: H^w and H^s.
        draws: The step's random generators.
        burn_in: Whether the step is one of the burn-in.
    """
    assert batch.distant is not None
    labelled = _own_sound(weak_view(batch.labelled, perturbs, draws.labelled))
    weak = _own_sound(weak_view(batch.distant, perturbs, draws.distant))
    strong = perturb.strong(weak, perturb.draw_colour(len(weak), perturbs, draws.distant))
    height, width = weak.frames.shape[-2:]
    boxes = perturb.draw_boxes(len(weak), (height, width), perturbs, draws.distant) if len(weak) > 1 else None

    with torch.no_grad(), evaluation_mode(model):
        mixed = model.predict(normalise(perturb.roll(weak), model.config)).logits.float().sigmoid()
    count = len(labelled)
    both = model.predict(_joined(normalise(labelled, model.config), normalise(weak, model.config)))
    pseudo = both.logits[count:].detach().float().sigmoid()
    strong = replace(strong, masks=pseudo)
    if boxes is not None:
        strong = perturb.paste(strong, replace(perturb.roll(strong), masks=mixed), boxes)
    student = model.predict(normalise(strong, model.config))

    assert labelled.masks is not None
    assert strong.masks is not None
    terms = model.loss(both.part(0, count), labelled.masks.float(), labelled.valid)
    if not burn_in:
        terms["unsup"] = ufe.unsup_weight * consistency(student.logits, strong.masks, strong.valid)
    return terms


def _own_sound(batch: "perturb.B") -> "perturb.B":
    return replace(batch, audio=None)


def _joined(first: Inputs, second: Inputs) -> Inputs:
    flow = None if first.flow is None or second.flow is None else torch.cat([first.flow, second.flow])
    return Inputs(torch.cat([first.frames, second.frames]), flow, torch.cat([first.log_mel, second.log_mel]), None)
