"""What is timed is what it says: both sides give the same, options change little, parts add up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from avseg.errors import AvsegError
from avseg.models.tpavi import TPAVIBlock
from benchmarks import attention, flops, forward, segment, step
from benchmarks.attention import factored
from benchmarks.options import accelerate, check, difference
from benchmarks.reference import attention as plain_attention
from benchmarks.reference import plain
from benchmarks.subjects import SUBJECTS, subject_model, textured
from benchmarks.timing import Settings


@pytest.mark.parametrize("frames", [1, 3])
def test_attention_alone_gives_the_same_as_the_whole_matrix_and_as_the_block(frames: int) -> None:
    torch.manual_seed(0)
    block = TPAVIBlock(8, gain=1.0).double().eval()
    x = torch.randn(2, frames, 8, 5, 4, dtype=torch.float64)
    audio = torch.randn(2, frames, 128, dtype=torch.float64)
    pixels = x.permute(0, 1, 3, 4, 2).flatten(1, 3)
    phi = block.phi(block.audio(audio)).repeat_interleave(20, dim=1)
    expected = plain_attention(block.theta(pixels), phi, block.g(pixels))
    y = factored(block, x, audio)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-12)
    scale = block.out_norm.weight / (block.out_norm.running_var + block.out_norm.eps).sqrt()
    z = F.layer_norm(block.out(y) * scale + pixels, (8,), block.norm.weight, block.norm.bias)
    torch.testing.assert_close(z.view(2, frames, 5, 4, 8).permute(0, 1, 4, 2, 3), block(x, audio)[0])


@pytest.mark.parametrize("training", [False, True])
def test_the_flow_branch_is_timed_from_the_same_map(training: bool) -> None:
    makers = attention.make("cpu", "flow", 1, training)
    ours, reference = makers["ours"]()(), makers["reference"]()()
    if training:
        assert ours is reference is None
        return
    for mine, theirs in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_forward_passes_give_the_same_and_lower_precision_little_else() -> None:
    makers = forward.make("cpu", "demo", 2, 1, ["eager", "bf16", "channels_last"])
    logits = {name: maker()() for name, maker in makers.items()}
    assert logits["ours"].shape == (2, 1, 1, 96, 96)
    assert logits["reference"].float().std() > 1e-3
    exact = difference(logits["ours"], logits["reference"])
    assert exact["largest"] < 1e-3
    assert exact["flipped"] < 1e-3
    assert exact["mean"] < difference(logits["bf16"], logits["reference"])["mean"] < 0.1
    assert difference(logits["channels_last"], logits["reference"])["largest"] < 1e-3


def test_differences_are_of_probabilities_and_of_a_mask_that_is_half_the_picture() -> None:
    reference = torch.linspace(-1, 1, 101)
    same = difference(reference, reference)
    assert same == {"largest": 0.0, "mean": 0.0, "flipped": 0.0}
    moved = difference(reference + 0.2, reference)
    assert moved["flipped"] == pytest.approx(10 / 101, abs=0.011)
    assert moved["largest"] == pytest.approx(0.2 / 4, abs=0.003)


def test_options_are_known_by_name_and_add_up() -> None:
    check(("eager", "bf16+channels_last"))
    with pytest.raises(AvsegError, match=r"--options: 'fp8' is none: there are eager, .*bf16"):
        check(("bf16+fp8",))
    model = subject_model("demo")
    context = accelerate(model, "bf16+channels_last", "cpu")
    with context():
        assert torch.is_autocast_enabled("cpu")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    kernels = [weight for weight in model.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


@pytest.mark.parametrize("burn_in", [False, True])
def test_steps_move_the_weights_and_look_at_as_many_frames_as_they_say(
    burn_in: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.nn.Module] = []

    def noting(original: Callable[..., Any]) -> Callable[..., Any]:
        def make(model: torch.nn.Module, *rest: Any) -> Any:
            made.append(model)
            return original(model, *rest)

        return make

    for part in ("_ours", "_published", "_supervised"):
        monkeypatch.setattr(step, part, noting(getattr(step, part)))
    looked: dict[str, list[int]] = {}
    for name, maker in step.make("cpu", "demo", 2, burn_in, ["eager"]).items():
        run, model = maker(), made[-1]
        seen = looked[name] = []
        model.image_encoder.register_forward_hook(lambda module, given, result, seen=seen: seen.append(len(given[0])))
        before = {key: value.clone() for key, value in model.named_parameters()}
        run()
        moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
        assert len(moved) > 0.9 * len(before)
        assert all(parameter.grad is None for parameter in model.parameters())
    # For B labelled frames the published step looks at 4B, in the burn-in too; ours at 3B, and at B in the burn-in.
    ours = {"ours": [2], "supervised": [2]} if burn_in else {"ours": [2, 2, 2]}
    assert looked == {"reference": [2, 4, 2], **ours}


def test_subjects_are_the_papers_models_with_all_parts_awake() -> None:
    for key, subject in SUBJECTS.items():
        config = subject.config().model
        assert config.neighbouring_frames
        assert config.inputs.image_size == (96 if key == "demo" else 224)
        assert key.startswith("demo") or f"{config.base}_{config.image_encoder}" == key
    model = subject_model("demo")
    assert not model.training
    assert all(
        bool(parameter.any()) for name, parameter in model.named_parameters() if name.startswith("motion.refine")
    )


def test_texture_is_neither_flat_nor_noise_alone() -> None:
    x = textured(2, 3, 64, seed=0)
    assert x.shape == (2, 3, 64, 64)
    assert float(x.std()) == pytest.approx(1, abs=1e-3)
    neighbours = (x[..., 1:] * x[..., :-1]).mean()
    assert 0.3 < neighbours < 0.99
    assert torch.equal(x, textured(2, 3, 64, seed=0))


def test_operations_of_parts_add_up_and_the_reference_has_more() -> None:
    model = subject_model("demo")
    ours, reference = flops.parts(model, 5), flops.parts(plain(model), 5)
    for counted in (ours, reference):
        assert counted["all"] == pytest.approx(sum(value for name, value in counted.items() if name != "all"))
        assert all(value >= -1e-9 for value in counted.values())
        assert counted["audio_encoder"] > 0
    assert set(ours) == set(reference)
    assert reference["fusion"] > 10 * ours["fusion"]
    assert reference["motion"] > ours["motion"]


def test_operations_count_where_only_parts_of_a_part_are_called() -> None:
    counts = {"M.a.0.1": 2.0, "M.a.0.1.x": 2.0, "M.a.2": 3.0, "M.ab": 7.0, "Sound": 5.0, "M.b": 4.0, "M.b.0": 1.0}
    assert flops._of(counts, "M.a", "Sequential") == 5
    assert flops._of(counts, "M.b", "Linear") == 4
    assert flops._of(counts, "M.sound", "Sound") == 5
    assert flops._of(counts, "M.none", "None") == 0


def test_stages_of_segmenting_run_on_a_video_with_sound(tmp_path: Path) -> None:
    from avseg.media.video import probe

    video = tmp_path / "scene.mp4"
    segment.write_scene(video, (96, 96), 12)
    info = probe(video)
    assert (info.width, info.height, info.has_audio) == (96, 96, True)
    segmenter = segment.segmenter_for(video, "cpu")
    shares = [moment.share for moment in segmenter.stream(video, 5)]
    assert 0.02 < sum(shares) / len(shares) < 0.3
    for stage, function in segment._stages(video, segmenter, tmp_path / "out").items():
        function()
        function()
        row = segment._row("small", stage, 12, [0.5, 0.25, 1.0])
        assert (row["ours"], row["unit"]) == (24.0, "frames/s")
    assert len(list((tmp_path / "out").glob("*/scene.mp4"))) == 4


def test_cases_of_a_quick_run_are_few_and_a_gpu_has_large_batches() -> None:
    for module in (attention, forward, step):
        everything = {case.name for case in module.cases(Settings())}
        quick = {case.name for case in module.cases(Settings(quick=True))}
        assert quick < everything
        assert len(everything) == len(list(module.cases(Settings())))
    for module in (forward, step):
        cases = list(module.cases(Settings(device="cuda", options=("eager", "bf16"))))
        large = [case for case in cases if 24 in (case.spec.get("clips"), case.spec.get("size"))]
        assert large
        assert {tuple(case.spec["options"]) for case in large} == {("eager",), ("eager", "bf16")}
