"""A training step with UFE and one of the burn-in, against the published step over plain models.

Ours is what training does: `ufe_losses` and the optimiser of `AVSTask`, with stored embeddings of the sound where its
encoder is frozen. Both draw the same views with the same functions.

    python -m benchmarks.step [--quick]
"""

import statistics
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import count

import torch
from torch import Tensor

from avseg.config import Config
from avseg.data.clip import TrainBatch
from avseg.models import AVSModel
from avseg.training.consistency import Draws, supervised_loss, ufe_losses, weak_view
from avseg.training.task import AVSTask
from benchmarks.alone import run_alone
from benchmarks.case import Case, add_memory, sampled
from benchmarks.options import accelerate
from benchmarks.reference import plain
from benchmarks.reference_step import published_losses
from benchmarks.subjects import SUBJECTS, subject_model, train_batch
from benchmarks.timing import Function, Maker, Row, Settings, digits, ratio, timed_row

GROUP = "step"
_OPTIONS_OF = ("tpavi_resnet50", "avsegformer_resnet50")
Terms = dict[str, Tensor]


def measure(settings: Settings) -> list[Row]:
    """Rows of the UFE step and of the burn-in's step for each model and batch size."""
    rows: list[Row] = []
    for case in cases(settings):
        rows += _rows(case, settings)
    return rows


def cases(settings: Settings) -> Iterator[Case]:
    """Models and batch sizes; the burn-in with the smallest batch alone."""
    sizes = [1] if settings.quick else [1, 4]
    if settings.gpu:
        sizes.append(24)
    for key, subject in SUBJECTS.items():
        if key == "demo" or (settings.quick and key not in ("tpavi_resnet50", "avsegformer_resnet50")):
            continue
        for size in sizes:
            for burn_in in (False, True):
                if burn_in and (size != sizes[0] or settings.quick):
                    continue
                # On a CPU training is in float32; compiling takes minutes for each model and size.
                tried = settings.gpu and size == sizes[-1] and key in _OPTIONS_OF and not burn_in
                options = list(settings.options) if tried else ["eager"]
                spec = {"key": key, "size": size, "burn_in": burn_in, "options": options}
                name = f"{subject.name}, {'burn-in, ' if burn_in else ''}B = {size}"
                yield Case("benchmarks.step", spec, name, {"model": key, "batch": size, "burn_in": burn_in})


def make(device: str, key: str, size: int, burn_in: bool, options: list[str]) -> dict[str, Maker]:
    """Whole steps: views, passes, backward, optimiser."""
    config = SUBJECTS[key].config()
    model = subject_model(key).train().to(device)
    batch = train_batch(model, size, device)
    makers: dict[str, Maker] = {"reference": lambda: _published(plain(model), config, batch, burn_in)}
    asked = replace(batch, distant=None) if burn_in else batch
    for option in options:
        name = "ours" if option == "eager" else option
        makers[name] = partial(lambda option: _ours(deepcopy(model), config, asked, option, device), option)
    if burn_in:
        makers["supervised"] = lambda: _supervised(deepcopy(model), config, batch)
    return makers


def _ours(model: AVSModel, config: Config, batch: TrainBatch, option: str, device: str) -> Function:
    context = accelerate(model, option, device)

    def losses(draws: Draws) -> Iterator[Terms]:
        return ufe_losses(batch, model, model, config.ufe, config.perturb, draws)

    step = _stepper(losses, AVSTask(model, config, 1, 1).configure_optimizers())

    def run() -> None:
        with context():
            step()

    return run


def _supervised(model: AVSModel, config: Config, batch: TrainBatch) -> Function:
    """What a step costs that knows nothing of UFE."""

    def losses(draws: Draws) -> Iterator[Terms]:
        yield supervised_loss(model, weak_view(batch.labelled, config.perturb, draws.labelled))

    return _stepper(losses, AVSTask(model, config, 1, 1).configure_optimizers())


def _published(model: AVSModel, config: Config, batch: TrainBatch, burn_in: bool) -> Function:
    def losses(draws: Draws) -> Iterator[Terms]:
        yield published_losses(batch, model, config.ufe, config.perturb, draws, burn_in)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return _stepper(losses, torch.optim.Adam(trained, lr=config.optim.learning_rate, foreach=False))


def _stepper(losses: Callable[[Draws], Iterator[Terms]], optimiser: torch.optim.Optimizer) -> Function:
    """A call that is one step; every step draws its own views."""
    steps = count()

    def step() -> None:
        for terms in losses(Draws.of(0, next(steps))):
            torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _rows(case: Case, settings: Settings) -> Iterator[Row]:
    settings.tell(f"{GROUP}: {case.name}")
    samples, note = sampled(case.make(settings), settings)
    for name in samples:
        if name in ("reference", "supervised"):
            continue
        option = "eager" if name == "ours" else name
        shown = case.name if option == "eager" else f"{case.name}, {option}"
        found = timed_row(GROUP, shown, samples, ours=name, option=option, **case.tags)
        if "supervised" in samples:
            found["supervised"] = digits(1e3 * statistics.median(samples["supervised"]))
            found["against_supervised"] = ratio(found["ours"], found["supervised"], "ms")
        if note:
            found["note"] = note
        if option == "eager" and (not settings.quick or case.tags["model"] == "tpavi_resnet50"):
            add_memory(found, case, settings, "above")
        yield found


if __name__ == "__main__":
    run_alone(measure)
