"""Runs on real prepared data: what they leave, that they resume exactly, and that arms share what they must."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import make_avsbench, read_videos
from small_run import small_config

from avseg.config import OptimConfig, UFEConfig, WeightsConfig
from avseg.data.loader import training_data
from avseg.errors import AvsegError
from avseg.evaluation.evaluate import evaluate_checkpoint
from avseg.inference import AVSegmenter
from avseg.models import build, load
from avseg.training.run import _with_embeddings, read_run, train
from avseg.training.start import StartWarning

VIDEOS = {"train": 8, "val": 2, "test": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    make_avsbench(folder, "s4", VIDEOS, prepared=True)
    return folder


def configuration(root, out, ufe=True, epochs=4, **options):
    return small_config(
        root,
        out,
        UFEConfig(distant_frames=ufe, burn_in=2, **options),
        OptimConfig(batch_size=4, epochs=epochs, learning_rate=1e-3, name="adamw", schedule="cosine"),
        flow=ufe,
    )


def weights(folder):
    return load(folder).state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def rows(folder):
    with (Path(folder) / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ufe"
    return train(configuration(root, out))


def test_a_run_leaves_a_model_checkpoints_curves_and_its_origin(finished, root):
    folder = finished.folder
    assert finished.steps == 8
    model = load(folder)
    assert model.config.neighbouring_frames
    assert load(folder / "best").config == model.config
    assert same(weights(folder / "checkpoints" / "last.ckpt"), weights(folder))
    origin = json.loads((folder / "run.json").read_text())
    assert origin["seed"] == 3
    assert origin["steps"] == 8
    assert origin["torch"] == torch.__version__.split("+")[0] or origin["torch"] == torch.__version__
    columns = rows(folder)
    assert {
        "loss",
        "loss/bce",
        "loss/matching",
        "loss/unsup",
        "loss/sup",
        "pseudo/foreground",
        "lr",
        "val/miou",
        "val/f_score",
    } <= set(columns[0])
    assert len([row for row in columns if row["val/miou"]]) == 4
    assert list((folder / "tensorboard").glob("events*"))
    # L_unsup appears once the burn-in of 2 epochs (4 steps) is over.
    assert [bool(row["loss/unsup"]) for row in columns if row["loss"]] == [False, True]


def test_the_same_seed_gives_the_same_weights_bit_for_bit(finished, root, tmp_path):
    again = train(configuration(root, tmp_path / "again"))
    assert same(weights(finished.folder), weights(again.folder))


def test_the_store_changes_nothing_and_is_beside_the_data(finished, root, tmp_path):
    assert list((root / ".avseg" / "store" / "s4").glob("frame-64-stretch-*/*.safetensors"))
    config = configuration(root, tmp_path / "files")
    config.data.store = "off"
    shutil.copytree(root, tmp_path / "root", ignore=shutil.ignore_patterns(".avseg"))
    config.data.root = str(tmp_path / "root")
    assert same(weights(train(config).folder), weights(finished.folder))
    assert not (tmp_path / "root" / ".avseg").exists()
    config.run.out, config.data.store, config.optim.epochs = str(tmp_path / "else"), str(tmp_path / "store"), 3
    train(config)
    assert list((tmp_path / "store").glob("root-*/s4/frame-64-stretch-*/*.safetensors"))
    assert not (tmp_path / "root" / ".avseg").exists()


def test_a_killed_run_resumes_bit_for_bit(finished, root, tmp_path):
    """A real process, killed after some epoch's checkpoint, then continued by another."""
    out = tmp_path / "killed"
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from test_run import configuration; from avseg.training.run import read_run, train\n"
        "config = configuration(sys.argv[1], sys.argv[2]); config.run.resume = True; train(config)\n"
    )
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    command = [sys.executable, "-c", script, str(root), str(out), str(here)]
    checkpoint = out / "checkpoints" / "last.ckpt"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not checkpoint.is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    done = torch.load(checkpoint, weights_only=True)["global_step"]
    assert done < 8
    config = configuration(root, out)
    config.run.resume = True
    train(config)
    assert same(weights(out), weights(finished.folder))
    ours, theirs = (
        [(row["step"], row["loss"], row["val/miou"]) for row in rows(folder)] for folder in (out, finished.folder)
    )
    assert ours == theirs


def test_a_finished_folder_is_not_trained_over(finished, root):
    before = (finished.folder / "model.safetensors").read_bytes()
    with pytest.raises(AvsegError, match="holds a run already"):
        train(configuration(root, finished.folder))
    assert (finished.folder / "model.safetensors").read_bytes() == before


def test_arms_share_initial_weights_and_the_labelled_loss_of_burn_in(finished, root, tmp_path):
    ufe, baseline = configuration(root, "x"), configuration(root, "x", ufe=False)
    a = build(ufe.model, ufe.weights, seed=3).state_dict()
    b = build(baseline.model, baseline.weights, seed=3).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert {name.split(".")[0] for name in a if name not in b} == {"motion"}
    # With flow refinement starting at zero, the first step sees the same labelled batch and gives the same loss.
    run = train(configuration(root, tmp_path / "baseline", ufe=False, epochs=3))
    first, also = rows(run.folder)[0], rows(finished.folder)[0]
    assert float(first["loss"]) == pytest.approx(float(also["loss"]), abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"teacher": "ema", "ema_decay": 0.5},
        {"student": "joint"},
        {"unsup_loss": "base"},
        {"confidence": 0.6, "cutmix_audio": "own"},
        {"cutmix_audio": "conditional"},
    ],
    ids=str,
)
def test_every_variant_trains_and_differs(finished, root, tmp_path, options):
    run = train(configuration(root, tmp_path / "variant", **options))
    assert not same(weights(run.folder), weights(finished.folder))


@pytest.mark.parametrize("options", [{"flow": "shuffled"}, {"distant": "far"}, {"distant": "labelled"}], ids=str)
def test_every_control_trains_and_differs(finished, root, tmp_path, options):
    config = configuration(root, tmp_path / "control")
    for name, value in options.items():
        setattr(config.data, name, value)
    run = train(config)
    assert not same(weights(run.folder), weights(finished.folder))
    losses = [[row["loss"] for row in rows(folder)] for folder in (run.folder, finished.folder)]
    # The labelled stream and, with a flow branch that starts at zero, the first step are those of the other arms.
    assert losses[0][0] == losses[1][0]


def test_accumulated_steps_move_weights_once(root, tmp_path):
    config = configuration(root, tmp_path / "accumulated", ufe=False, epochs=1)
    config.optim.accumulate = 2
    config.optim.schedule = "constant"
    start = build(config.model, config.weights, seed=3)
    moved = weights(train(config).folder)
    name = "audio_encoder.embedding.weight"
    largest = (moved[name] - start.state_dict()[name]).abs().max().item()
    assert 0 < largest <= 1.05e-3  # Adam's first step moves a weight by the learning rate at most


def test_the_frozen_image_encoder_stays(root, tmp_path):
    config = configuration(root, tmp_path / "frozen", ufe=False, epochs=1)
    config.optim.freeze_image_encoder = 1
    start = build(config.model, config.weights, seed=3).state_dict()
    end = weights(train(config).folder)
    for name in start:
        if name.startswith("image_encoder."):
            assert torch.equal(start[name], end[name]), name
    assert not same(start, end)


def test_a_run_shorter_than_a_validation_is_away_is_validated_in_the_end(root, tmp_path):
    config = configuration(root, tmp_path / "short", ufe=False, epochs=1)
    config.run.validate_every = 10
    run = train(config)
    assert read_run(run.folder)["validation"]["val/miou"] >= 0
    assert same(weights(run.folder / "best"), weights(run.folder))


@pytest.mark.parametrize(
    ("step", "epochs", "sentence"),
    [
        (0, 2, r"The loss is nan at step 1 .*learning_rate"),
        (1, 1, r"The model's answer to .* is NaN or infinite"),  # no loss comes after it: validation does
        (5, 3, r"Weights are NaN or infinite after step 5: .*learning_rate"),  # nor does a validation
    ],
)
def test_what_is_no_number_stops_training_with_a_sentence(root, tmp_path, monkeypatch, step, epochs, sentence):
    config = configuration(root, tmp_path / "nan", ufe=False, epochs=epochs)
    config.run.validate_every = 2
    monkeypatch.setattr("avseg.training.task.AVSTask.learning_rate", lambda _, at: float("inf") if at == step else 1e-3)
    with pytest.raises(AvsegError, match=sentence):
        train(config)
    left = sorted(path.name for path in (tmp_path / "nan").rglob("*") if path.suffix in (".ckpt", ".safetensors"))
    assert left == (["best.ckpt", "last.ckpt"] if epochs == 3 else [])
    assert all(load(tmp_path / "nan" / "checkpoints" / name) for name in left)


def test_burn_in_that_never_ends_is_refused(root, tmp_path):
    with pytest.raises(AvsegError, match=r"ufe\.burn_in is 2 of 2 epochs"):
        train(configuration(root, tmp_path / "x", epochs=2))


def test_training_starts_from_saved_weights(finished, root, tmp_path):
    config = configuration(root, tmp_path / "started", epochs=3)
    config.weights.start = str(finished.folder)
    config.optim.learning_rate = 1e-12
    moved, start = weights(train(config).folder), weights(finished.folder)
    for name in ("motion.encoder.conv1.weight", "audio_encoder.embedding.weight"):
        torch.testing.assert_close(moved[name], start[name], atol=1e-6, rtol=0)
    config.run.out = str(tmp_path / "other")
    config.model.width = 32
    with pytest.raises(AvsegError, match="another model"):
        train(config)


@pytest.mark.filterwarnings("error::avseg.training.start.StartWarning")
def test_a_start_needs_no_other_weights_and_tells_what_it_meant_before(finished, root, tmp_path, monkeypatch):
    monkeypatch.setattr("avseg.training.run._with_cache", lambda *_: pytest.fail("enough"))
    config = configuration(root, tmp_path / "started", epochs=3)
    gone = str(tmp_path / "gone.pth")
    config.weights = WeightsConfig(gone, gone, gone, start=str(finished.folder))
    with pytest.raises(pytest.fail.Exception):
        train(config)
    config.model.inputs.flow_encoding = "published"
    with pytest.raises(pytest.fail.Exception), pytest.warns(StartWarning, match="flow_encoding pixels, and this run"):
        train(config)

    # A model without the flow branch leaves it to start as it does otherwise.
    plain = configuration(root, tmp_path / "plain", ufe=False)
    build(plain.model, plain.weights, seed=0).save_pretrained(tmp_path / "plain")
    config.weights.start = str(tmp_path / "plain")
    with pytest.raises(AvsegError, match=r"gone\.pth does not exist"):
        train(config)
    config.weights.flow = "none"
    with pytest.raises(pytest.fail.Exception):
        train(config)


@pytest.mark.parametrize("length", [2, 3])
def test_any_number_of_frames_trains_is_scored_and_segments(root, tmp_path, length):
    config = configuration(root, tmp_path / "run", epochs=3)
    config.model.frames_per_clip = length
    folder = train(config).folder
    assert [row["val/miou"] for row in rows(folder) if row["val/miou"]]
    found = evaluate_checkpoint(folder, root, "s4", "val", workers=0, progress=False)
    assert list(found.scores) == ["T=5", "T=1", f"T={length}"]
    best = max(float(row["val/miou"]) for row in rows(folder) if row["val/miou"])
    scored = evaluate_checkpoint(folder / "best", root, "s4", "val", workers=0, progress=False)
    assert scored.scores[f"T={length}"].miou == pytest.approx(best, abs=1e-5), "validation is at the T of training"
    segmenter = AVSegmenter.from_pretrained(folder, "cpu")
    video = read_videos(root, "s4")[0][0].raw
    assert len(list(segmenter.stream(video, fps=1))) == 5


def test_both_subsets_train_together(root, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(root, both)
    make_avsbench(both, "ms3", {"train": 2, "val": 1}, prepared=True)
    config = configuration(both, tmp_path / "run", epochs=3)
    config.data.subset = "both"
    run = train(config)
    assert run.steps == 3 * ((8 + 2 * 5) // 4)
    assert rows(run.folder)[-1]["val/miou"]

    # The embeddings of a frozen encoder, of every video of either subset that is trained on or validated.
    encoder = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(96 * 64, 128))
    data = _with_embeddings(training_data(config), SimpleNamespace(audio_encoder=encoder))
    found = {found.name: set(embeddings) for found, embeddings in data.embeddings.items()}
    assert found == {
        subset: {video[0].key for video in read_videos(both, subset) if video[0].split != "test"}
        for subset in ("s4", "ms3")
    }
    assert next(iter(data.loader())).labelled.audio.shape == (4, 1, 128)


def test_sounds_are_embedded_on_the_run_s_device(root, tmp_path, monkeypatch):
    found = []

    def told(frames, encoder, fingerprint, device, progress):
        found.append((str(device), callable(progress)))
        return {}

    monkeypatch.setattr("avseg.training.run.audio_embeddings", told)
    monkeypatch.setattr("avseg.training.run._with_cache", lambda data, show: pytest.skip("far enough"))
    frozen = property(lambda encoder: True)
    config = configuration(root, tmp_path / "run")
    monkeypatch.setattr(
        type(build(config.model, config.weights, seed=0).audio_encoder), "frozen", frozen, raising=False
    )
    with pytest.raises(pytest.skip.Exception):
        train(config)
    assert found
    assert set(found) == {(str(torch.device("cpu")), True)}


@pytest.mark.heavy
def test_two_processes_train_as_one(root, tmp_path):
    """DDP over gloo: every process leaves with the same weights, and they are those of one process's average."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from test_run import configuration; from avseg.training.run import read_run, train\n"
        "config = configuration(sys.argv[1], sys.argv[2]); config.run.devices = 2; config.optim.batch_size = 2\n"
        "train(config)\n"
    )
    here = Path(__file__).resolve().parent
    path = tmp_path / "two.py"
    path.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(here.parent), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "ddp"
    subprocess.run([sys.executable, str(path), str(root), str(out), str(here)], env=environment, check=True)
    assert json.loads((out / "run.json").read_text())["steps"] == 8
    assert rows(out)[-1]["val/miou"]
    load(out)
