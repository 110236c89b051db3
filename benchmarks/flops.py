"""Floating-point operations of a model's parts, ours and the reference's, as PyTorch counts them.

Matrix products, convolutions and attention count; Fourier transforms, sampling, resizing and what goes element by
element do not. An operation counts where its module is called; what a parent does with a child's weights is ``rest``.

    python -m benchmarks.flops [--quick]
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from avseg.models import AVSModel
from benchmarks.alone import run_alone
from benchmarks.reference import plain
from benchmarks.subjects import SUBJECTS, forward_inputs, subject_model
from benchmarks.timing import Row, Settings, ratio

GROUP = "flops"


def measure(settings: Settings) -> list[Row]:
    """GFLOP of one clip, T = 1 and for TPAVI also T = 5: in all, and by the model's own parts."""
    rows: list[Row] = []
    for key, subject in SUBJECTS.items():
        if settings.quick and key not in ("tpavi_resnet50", "avsegformer_resnet50"):
            continue
        model = subject_model(key)
        for frames in (1, 5) if key.startswith("tpavi") and not settings.quick else (1,):
            settings.tell(f"{GROUP}: {subject.name}, T = {frames}")
            ours, reference = parts(model, frames), parts(plain(model), frames)
            for part in reference:
                rows.append(
                    _row(f"{subject.name}, T = {frames}: {part}", ours[part], reference[part], key, frames, part)
                )
    return rows


def _row(name: str, ours: float, reference: float, key: str, frames: int, part: str) -> Row:
    return {
        "group": GROUP,
        "name": name,
        "unit": "GFLOP",
        "ours": round(ours, 4),
        "reference": round(reference, 4),
        "ratio": ratio(ours, reference, "GFLOP"),
        "model": key,
        "frames": frames,
        "part": part,
    }


def parts(model: AVSModel, frames: int) -> dict[str, float]:
    """GFLOP of a forward pass over one clip, sound included: ``all``, each child module, and the ``rest``."""
    model.requires_grad_(False)  # with gradients to come, the counter would follow each of them
    pictures, _, flow = forward_inputs(model, 1, frames)
    log_mel = torch.zeros(1, frames, 1, 96, 64)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(pictures, model.embed_audio(log_mel), flow)
    counts = {name: sum(found.values()) / 1e9 for name, found in counter.get_flop_counts().items()}
    top = type(model).__name__
    found = {name: _of(counts, f"{top}.{name}", type(child).__name__) for name, child in model.named_children()}
    return {"all": counts["Global"], **found, "rest": abs(round(counts["Global"] - sum(found.values()), 6))}


def _of(counts: dict[str, float], path: str, kind: str) -> float:
    """A child's operations: its own, or, where only modules inside it are called, the sum of theirs."""
    for name in (path, kind):  # the sound's encoder is called from outside the model
        if name in counts:
            return counts[name]
    within = [name for name in counts if name.startswith(f"{path}.")]
    outermost = [name for name in within if not any(name.startswith(f"{other}.") for other in within)]
    return sum(counts[name] for name in outermost)


if __name__ == "__main__":
    run_alone(measure)
