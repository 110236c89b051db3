"""Published checkpoints become folders: what is recognised, what is refused, and that nothing is left by a failure."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from fixtures.reference import Reference
from safetensors.torch import load_file
from torch import Tensor, nn

from avseg.cli import main
from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models import load
from avseg.models.convert import convert
from avseg.models.encoders import build_audio_encoder, build_image_encoder
from avseg.models.foreign import Names, pvt_authors, torchvision_resnet
from avseg.models.motion import FlowEncoder, MotionBranch

TPAVI = "ufe_tpavi_resnet50_n2t1"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Files of hundreds of megabytes, which pytest would keep."""
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


@pytest.fixture(scope="module")
def vggish(folder: Path) -> Path:
    state = {**Reference("vggish").state(), "pproc.pca_means": torch.zeros(128, 1)}
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, folder / "vggish.pth")
    return folder / "vggish.pth"


@pytest.fixture
def fails(capsys: pytest.CaptureFixture, tmp_path: Path) -> Callable[..., str]:
    """Runs a conversion that should fail, and gives what it says; it must leave everything as it was."""

    def run(*arguments: object) -> str:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert main(["convert", *map(str, arguments)]) == 1
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
        assert not list(tmp_path.glob(".*"))
        said = capsys.readouterr().err
        assert said.startswith("avseg: error: ")
        assert said.count("\n") == 1
        return said

    return run


def hollow(name: str, path: Path, **changes: Tensor | None) -> Path:
    """A small file with a published model's names and shapes; a name that changes to None is left out."""
    state = {**Reference(name).hollow_state(), **changes}
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    return path


# ---- Encoders ----


def test_vggish_becomes_a_folder_that_audio_weights_and_vggish_take(vggish: Path, folder: Path) -> None:
    done = convert(vggish, folder / "converted")
    assert (done.folder, done.kind, done.config) == (folder / "converted", "vggish", None)
    reference = Reference("vggish")
    encoder = build_audio_encoder(ModelConfig(), WeightsConfig(audio=str(done.folder)))
    embedding = encoder(reference.input("logmel"))
    torch.testing.assert_close(embedding, reference.expected["embedding"], rtol=1e-5, atol=1e-4)
    with pytest.raises(AvsegError, match=r"describes the encoder vggish alone.*avseg convert --vggish"):
        load(done.folder)


def published(module: nn.Module, names: Names) -> dict[str, Tensor]:
    """What ``module``'s weights are called by those who published them."""
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in module.state_dict().items():
        parts.setdefault(names(name).name, []).append(tensor)
    return {name: tensors[0] if len(tensors) == 1 else torch.cat(tensors) for name, tensors in parts.items()}


@pytest.mark.parametrize("kind", ["resnet50", pytest.param("pvt_v2_b5", marks=pytest.mark.heavy)])
def test_image_encoders_become_folders_that_image_weights_take(kind: str, tmp_path: Path) -> None:
    config = ModelConfig(image_encoder=kind)
    backbone = build_image_encoder(config, None).get_submodule("backbone")
    names, head = {"resnet50": (torchvision_resnet, "fc"), "pvt_v2_b5": (pvt_authors, "head")}[kind]
    state = {**published(backbone, names), f"{head}.weight": torch.zeros(1000, 8), f"{head}.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "file.pth")
    done = convert(tmp_path / "file.pth", tmp_path / "out")
    assert done.kind == kind
    again = build_image_encoder(config, WeightsConfig(image=str(done.folder))).get_submodule("backbone").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in backbone.state_dict().items())


def test_resnet18_becomes_a_folder_that_flow_weights_take(tmp_path: Path) -> None:
    state = FlowEncoder(stages=4).state_dict()
    stem = torch.randn(64, 3, 7, 7)
    torch.save({**state, "conv1.weight": stem, "fc.bias": torch.zeros(1000)}, tmp_path / "file.pth")
    done = convert(tmp_path / "file.pth", tmp_path / "out")
    assert done.kind == "resnet18"
    branch = MotionBranch(ModelConfig(), [(4, 8)], WeightsConfig(flow=str(done.folder)))
    assert torch.equal(branch.encoder.conv1.weight, stem.mean(1, keepdim=True).repeat(1, 2, 1, 1))
    assert torch.equal(branch.encoder.get_parameter("layer1.0.conv1.weight"), state["layer1.0.conv1.weight"])


# ---- What is recognised ----


def without_flow(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("flownet.") and "_flow." not in name}


def with_flow_of(ufe: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An AVSegFormer with what UFE's has besides: the flow branch, and biases in the query generator."""
    added = ("flow", "j_bias", "attn.out_proj.bias")
    return {**state, **{name: value for name, value in ufe.items() if any(part in name for part in added)}}


CASES: dict[str, Callable[[Callable[[str], dict[str, Tensor]]], dict[str, Tensor]]] = {
    "tpavi resnet50 plain": lambda state: state("tpavi_resnet50_n5t5"),
    "tpavi resnet50 ufe": lambda state: state(TPAVI),
    "tpavi pvt_v2_b5 plain": lambda state: without_flow(state("ufe_tpavi_pvt_n2t1")),
    "tpavi pvt_v2_b5 ufe": lambda state: state("ufe_tpavi_pvt_n2t1"),
    "avsegformer resnet50 plain": lambda state: state("avsegformer_resnet50_n2"),
    "avsegformer resnet50 ufe": lambda state: state("ufe_avsegformer_resnet50_n2"),
    "avsegformer pvt_v2_b5 plain": lambda state: state("avsegformer_pvt_n2"),
    "avsegformer pvt_v2_b5 ufe": lambda state: with_flow_of(
        state("ufe_avsegformer_resnet50_n2"), state("avsegformer_pvt_n2")
    ),
    "ecmvae pvt_v2_b5 plain": lambda state: state("ecmvae_pvt_n5t5"),
    "catr pvt_v2_b5 plain": lambda state: state("catr_pvt_n5t5"),
}


@pytest.mark.heavy
@pytest.mark.parametrize("case", CASES)
def test_every_combination_converts_and_runs(case: str, vggish: Path, folder: Path) -> None:
    base, encoder, arm = case.split()
    file, out = folder / "published.pth", folder / case
    torch.save({"state_dict": CASES[case](lambda name: Reference(name).state()), "epoch": 3}, file)
    config = convert(file, out, None if base == "avsegformer" else vggish).config
    file.unlink()
    assert config is not None
    assert (config.base, config.image_encoder, config.neighbouring_frames) == (base, encoder, arm == "ufe")
    assert config.flow_stages == (4 if case == "tpavi pvt_v2_b5 ufe" else 1)
    values = json.loads((out / "config.json").read_text())
    if base not in ("ecmvae", "catr"):  # of which nobody published one with UFE
        assert (values["flow_fusion"], values["inputs"]["flow_encoding"]) == ("normalised", "published")
        assert values["inputs"]["flow_bound"] == 20
    assert values["inputs"]["front_end"] == "avsbench"
    if base == "avsegformer":
        assert values["options"] == {"dice": "squared", "generator_bias": arm == "ufe"}

    model = load(out)
    for path in out.iterdir():
        path.unlink()
    generator = torch.Generator().manual_seed(0)
    size = 224 if base == "ecmvae" else 64  # of the latents' linear layers
    frames = torch.randn(1, 5, 3, size, size, generator=generator)
    log_mel = torch.randn(1, 5, 1, 96, 64, generator=generator)
    flow = torch.rand(1, 5, 2, size, size, generator=generator) if arm == "ufe" else None
    with torch.inference_mode():
        audio = model.embed_audio(log_mel)
        together = model(frames, audio, flow).logits
        alone = model(frames[:, :1], audio[:, :1], None if flow is None else flow[:, :1]).logits
        assert together.shape == (1, 5, 1, size, size)
        assert together.isfinite().all()
        # The frames of all look at each other but AVSegFormer's.
        assert torch.allclose(together[:, :1], alone, atol=1e-3) == (base == "avsegformer")
        if flow is not None:
            assert not torch.allclose(together, model(frames, audio, 1 - flow).logits, atol=1e-3)
            with pytest.raises(ValueError, match="needs flow"):
                model(frames, audio)


def test_half_precision_and_shared_memory_become_plain_single_precision(folder: Path, tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in FlowEncoder(stages=4).state_dict().items() if tensor.ndim}
    big = torch.randn(2, 64).half()
    state |= {"bn1.weight": big[0], "bn1.bias": big[1], "layer1.0.bn1.weight": big[0], "conv1.weight": torch.ones(1)}
    state["conv1.weight"] = state["conv1.weight"].expand(64, 3, 7, 7)
    torch.save(state, tmp_path / "file.pth")
    tensors = load_file(convert(tmp_path / "file.pth", tmp_path / "out").folder / "model.safetensors")
    assert {tensor.dtype for name, tensor in tensors.items() if "num_batches" not in name} == {torch.float32}
    assert torch.equal(tensors["layer1.0.bn1.weight"], big[0].float())
    assert torch.equal(tensors["bn1.bias"], big[1].float())


# ---- What is refused ----


class Malicious:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_malicious_checkpoint_does_not_run(wrapped: bool, tmp_path: Path, fails: Callable[..., str]) -> None:
    file, trace = tmp_path / "bad.pth", tmp_path / "ran"
    state = {**Reference(TPAVI).hollow_state(), "conv1.conv2d_list.0.bias": Malicious(trace)}
    torch.save({"state_dict": state} if wrapped else state, file)
    assert "or it holds something other than tensors" in fails(file, "--out", tmp_path / "out")
    assert not trace.exists()
    torch.load(file, weights_only=False)  # the file is indeed malicious
    assert trace.exists()
    trace.rmdir()
    good = hollow(TPAVI, tmp_path / "good.pth")
    torch.save({"features.0.weight": Malicious(trace)}, file)
    assert "bad.pth is refused" in fails(good, "--vggish", file, "--out", tmp_path / "out")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["vggish", TPAVI, "ufe_avsegformer_resnet50_n2"])
def test_missing_extra_and_misshapen_tensors_are_named(name: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    first, second = {
        "vggish": ("features.3.bias", "embeddings.2.weight"),
        TPAVI: ("tpavi_b3.theta.bias", "conv1_flow.conv2d_list.2.weight"),
        "ufe_avsegformer_resnet50_n2": ("vggish.features.3.bias", "head.query_generator.query.weight"),
    }[name]
    assert {first, second} <= {row[0] for row in Reference(name).rows}
    file = hollow(name, tmp_path / "file.pth", **{first: None, second: torch.zeros(7, 5), "surprise": torch.zeros(3)})
    said = fails(file, "--out", tmp_path / "out")
    for part in ("file.pth", f"{first} is missing", "surprise is unexpected", f"{second} is (7, 5) instead of ("):
        assert part in said


@pytest.mark.parametrize("name", ["vggish", TPAVI, "ufe_tpavi_pvt_n2t1", "avsegformer_pvt_n2"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_file_that_lacks_an_end_is_still_recognised(
    name: str, place: int, tmp_path: Path, fails: Callable[..., str]
) -> None:
    unused = ("flownet.layer2.", "flownet.layer3.", "flownet.layer4.")
    gone = [row[0] for row in Reference(name).rows if not row[0].startswith(unused)][place]
    file = hollow(name, tmp_path / "file.pth", **{gone: None})
    assert f"{gone} is missing" in fails(file, "--out", tmp_path / "out")


def test_a_tpavi_needs_a_vggish(tmp_path: Path, fails: Callable[..., str]) -> None:
    file, out = hollow(TPAVI, tmp_path / "tpavi.pth"), tmp_path / "out"
    assert "tpavi.pth is a TPAVI, whose checkpoints hold no audio encoder: add --vggish" in fails(file, "--out", out)
    assert "is not a VGGish" in fails(file, "--out", out, "--vggish", file)
    assert "gone.pth does not exist" in fails(file, "--out", out, "--vggish", tmp_path / "gone.pth")
    assert "model.safetensors does not exist" in fails(file, "--out", out, "--vggish", tmp_path)
    short = hollow("vggish", tmp_path / "short.pth", **{"features.0.bias": None})
    assert "short.pth does not hold the weights" in fails(file, "--out", out, "--vggish", short)


def test_strangers_are_refused(tmp_path: Path, fails: Callable[..., str]) -> None:
    out = tmp_path / "out"
    torch.save({"linear.weight": torch.zeros(2, 2)}, tmp_path / "linear.pth")
    assert "linear.pth is not a checkpoint that is known here" in fails(tmp_path / "linear.pth", "--out", out)
    (tmp_path / "text.pth").write_text("weights")
    assert "text.pth is " in fails(tmp_path / "text.pth", "--out", out)
    assert "gone.pth does not exist" in fails(tmp_path / "gone.pth", "--out", out)


def test_what_is_there_stays_unless_it_is_to_be_replaced(
    tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture
) -> None:
    small = {"fc.bias": torch.zeros(3), **FlowEncoder(stages=4).state_dict(), "conv1.weight": torch.ones(64, 3, 7, 7)}
    file, out = tmp_path / "file.pth", tmp_path / "out"
    torch.save(small, file)
    out.mkdir()
    assert main(["convert", str(file), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: resnet18\nnext: avseg train --weights.flow {out} ...\n"
    assert "out is there already: name another folder, or replace it with --overwrite" in fails(file, "--out", out)
    torch.save({**small, "conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    assert main(["convert", str(file), "--out", str(out), "--overwrite"]) == 0
    assert not load_file(out / "model.safetensors")["conv1.weight"].any()
    torch.save({**small, "surprise": torch.zeros(3)}, file)
    assert "surprise is unexpected" in fails(file, "--out", out, "--overwrite")
    (out / "notes.txt").write_text("mine")
    torch.save(small, file)
    said = fails(file, "--out", out, "--overwrite")
    assert "out holds more than a converted model (notes.txt)" in said
    assert "is a file, and a folder is needed there" in fails(file, "--out", file, "--overwrite")
