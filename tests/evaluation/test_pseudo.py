"""Pseudo masks against the hidden truth, of a model whose masks are known."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers import make_avsbench, read_videos
from toy_models import toy

from avseg.data.avsbench import avsbench
from avseg.data.dataset import whole_videos
from avseg.data.loader import evaluation_clips
from avseg.errors import AvsegError
from avseg.evaluation import pseudo
from avseg.evaluation.evaluate import video_logits
from avseg.evaluation.metrics import MeanJaccard
from avseg.evaluation.pseudo import PseudoQuality, pseudo_quality
from avseg.models import AVSModel, normalise


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    wide = {name: {"size": (96, 48)} for name in ("-s4_train_0", "s4_train_3")}
    make_avsbench(folder, "s4", {"train": 7, "val": 1}, hidden=True, prepared=True, settings=wide)
    return folder


def expected(model: AVSModel, root: Path, flow: str, names: set[str]) -> PseudoQuality:
    """The slow way: whole videos, of which the first frame is cut off."""
    jaccard, shares = MeanJaccard(), []
    clips = evaluation_clips(root, "s4", "train", model.config.inputs, flow=flow, hidden=True)  # type: ignore[arg-type]
    for batch in clips:
        if batch.names[0] not in names:
            continue
        masks, valid = batch.masks[:, 1:], batch.valid[:, 1:]
        with torch.no_grad():
            logits = video_logits(model, normalise(batch, model.config), batch, 1)[:, 1:]
        jaccard.update(logits, masks, valid)
        p = logits.sigmoid()[valid]
        shares.append([(p > 0.5).float().mean().item(), p.mean().item(), masks[valid].float().mean().item()])
    return PseudoQuality(jaccard.compute().item(), *torch.tensor(shares).mean(0).tolist())


def close(ours: PseudoQuality | None, theirs: PseudoQuality) -> bool:
    assert ours is not None
    return all(a == pytest.approx(b, abs=1e-5) for a, b in zip(vars(ours).values(), vars(theirs).values(), strict=True))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("reads", ["light", "motion"])
def test_the_scores_are_those_of_seconds_2_to_5(root: Path, reads: str, resize: str) -> None:
    model = toy(reads, resize=resize)
    names = {video[0].video for video in read_videos(root, "s4") if video[0].split == "train"}
    for flow in ("computed", "shuffled"):
        found = pseudo_quality(model, root, flow=flow)  # type: ignore[arg-type]
        assert close(found, expected(model, root, flow if reads == "motion" else "none", names))
        assert found is not None
        assert found.miou > 0.01
        assert 0 < found.truth < 0.5


def test_the_sample_is_fixed_and_has_its_share_of_every_category(root: Path) -> None:
    items = whole_videos(avsbench(root, "s4"), "train")
    for count in (1, 2, 4, 7, 100):
        chosen = pseudo._sample(items, count)
        assert len(set(chosen)) == min(count, 7)
        shares = Counter(item[0].category for item in chosen)
        assert abs(shares["dog_barking"] - shares["helicopter"]) <= 1
    model = toy("light")
    names = {item[0].video for item in pseudo._sample(items, 3)}
    assert close(pseudo_quality(model, root, videos=3), expected(model, root, "none", names))
    assert pseudo_quality(model, root, videos=3) == pseudo_quality(model, root, videos=3)


def test_the_model_is_left_as_it_was(root: Path) -> None:
    model = toy("light").train()
    model.audio_encoder.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    pseudo_quality(model, root, videos=2)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_without_a_hidden_truth_there_is_nothing_to_say(root: Path, tmp_path: Path) -> None:
    model = toy("light")
    assert pseudo_quality(model, root, "ms3") is None
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    layout, video = avsbench(copy, "s4"), read_videos(copy, "s4")[1]
    video[2].hidden_mask.unlink()
    with pytest.raises(AvsegError, match=r"s4_train_1_3\.png"):
        pseudo_quality(model, copy)
    shutil.rmtree(layout.folder / "hidden_masks")
    assert pseudo_quality(model, copy) is None
