"""Published checkpoints through the commands: converted, they answer as published, and evaluate, segment and train."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from fixtures.reference import Reference
from helpers import make_avsbench, read_videos
from safetensors import safe_open
from safetensors.torch import load_file
from toy_models import save_tiny

from avseg.cli import main
from avseg.data.flow_trees import export_published_flow
from avseg.models import load

CONFIGS = Path(__file__).parents[1] / "avseg" / "configs"
PARITY = 1e-4  # of the reference's largest logit


def avseg(*arguments: object, code: int = 0) -> None:
    assert main([str(argument) for argument in arguments]) == code


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    make_avsbench(root, "s4", {"train": 1, "val": 1, "test": 1}, prepared=True)
    return root


@pytest.fixture
def folder() -> Iterator[Path]:
    """Files of hundreds of megabytes, which pytest would keep."""
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


def publish(name: str, folder: Path) -> Path:
    """A checkpoint as people have it: from a distributed run."""
    file = folder / f"{name}.pth"
    torch.save({f"module.{key}": tensor for key, tensor in Reference(name).state().items()}, file)
    return file


def check_answers(name: str, converted: Path) -> None:
    """The converted model's logits and embeddings are the published ones."""
    reference, model = Reference(name), load(converted)

    def given(part: str) -> torch.Tensor:
        return reference.input(part).unflatten(0, (-1, reference.clip_frames))

    with torch.inference_mode():
        if model.config.base == "tpavi":  # VGGish was added
            vggish = Reference("vggish")
            embedding = model.embed_audio(vggish.input("logmel")[None])
            torch.testing.assert_close(embedding[0], vggish.expected["embedding"], rtol=1e-5, atol=1e-4)
            audio = given("audio")
        else:
            audio = model.embed_audio(given("logmel"))
        flow = given("flow") if model.config.neighbouring_frames else None
        logits = model(given("frames"), audio, flow).logits.flatten(0, 1)[..., ::4, ::4]
    assert (logits - reference.expected["logits"]).abs().max() <= PARITY * reference.expected["largest"]


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["ufe_tpavi_resnet50_n2t1", "avsegformer_pvt_n2"])
def test_from_a_published_file_to_scores_and_a_segmented_video(
    name: str, bench: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    model, ufe = folder / "model", name.startswith("ufe")
    complete: tuple[object, ...] = ()
    if "tpavi" in name:
        avseg("convert", publish("vggish", folder), "--out", folder / "vggish")
        complete = ("--vggish", folder / "vggish")
    avseg("convert", publish(name, folder), "--out", model, *complete)
    assert f"next: avseg segment VIDEO --checkpoint {model}" in capsys.readouterr().out
    assert {path.name for path in model.iterdir()} == {"config.json", "model.safetensors"}
    check_answers(name, model)

    avseg("evaluate", model, "--data.root", bench, "--data.workers", 0, "--device", "cpu", "--json", folder / "s.json")
    assert set(json.loads((folder / "s.json").read_text())["protocols"]) == {"T=5", "T=1"}
    video = next(bench.glob("**/raw_videos/test/*/*.mp4"))
    span = ("--fps", 2, "--end", 1.5, "--device", "cpu")
    avseg("segment", video, "--checkpoint", model, "--out", folder / "out", *span)
    assert len(list((folder / "out" / video.stem / "masks").iterdir())) == 3

    base, arm = ("tpavi_resnet50", "ufe") if ufe else ("avsegformer_pvt_v2_b5", "baseline")
    arguments = ["train", "--config", CONFIGS / f"s4_{base}_{arm}.yaml", "--weights.start", model]
    arguments += ["--data.root", bench, "--data.workers", 0, "--run.out", folder / "run", "--run.accelerator", "cpu"]
    arguments += ["--optim.batch_size", 1, "--optim.epochs", 1, "--ufe.burn_in", 0, "--ufe.distant_frames", "false"]
    arguments += ["--optim.learning_rate", 1e-6, "--run.validate_every", 2, "--model.inputs.image_size", 64]
    arguments += ["--model.inputs.front_end", "avsbench"]
    if ufe:
        arguments += ["--model.inputs.flow_encoding", "published"]
    else:
        arguments += ["--model.options.generator_bias", "false", "--optim.freeze_image_encoder", 1]
    shutil.rmtree(folder / "out")
    avseg(*arguments)
    assert "weights.start" not in capsys.readouterr().err
    before, after = load_file(model / "model.safetensors"), folder / "run" / "model.safetensors"
    with safe_open(after, "pt") as trained:
        assert set(trained.keys()) == set(before)
        for key in trained.keys():  # noqa: SIM118
            if key.startswith("audio_encoder."):
                assert torch.equal(trained.get_tensor(key), before[key]), key
            elif "running_" not in key and before[key].is_floating_point():
                torch.testing.assert_close(trained.get_tensor(key), before[key], atol=1e-5, rtol=0)


def test_evaluate_reads_the_flow_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "bench"
    make_avsbench(root, "s4", {"train": 1, "test": 1}, prepared=True)
    model = save_tiny(tmp_path / "model", neighbouring_frames=True)
    arguments = ("evaluate", model, "--data.root", root, "--data.workers", 0, "--device", "cpu", "--data.flow")
    avseg(*arguments, "published", code=1)
    assert "S4_flows" in capsys.readouterr().err
    avseg(*arguments, "computed")
    export_published_flow(root, "s4")
    for video in read_videos(root, "s4"):
        for k in range(1, 6):
            video[k - 1].flow().unlink()
    avseg(*arguments, "published")
    assert "all videos" in capsys.readouterr().out
    avseg(*arguments, "computed", code=1)
    assert "avseg data prepare" in capsys.readouterr().err
