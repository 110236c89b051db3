"""Published checkpoints: recognised, refused by name, and giving the answers of their authors' code."""

import pytest
import torch
from fixtures.reference import Reference

from avseg.errors import AvsegError
from avseg.models import build
from avseg.models.base import Prediction
from avseg.models.published import published_tpavi, published_vggish, recognise


def answer(reference: Reference) -> Prediction:
    """What our model says after conversion."""
    state = reference.state()
    assert recognise(state, "file.pth") == "tpavi"
    config, ours = published_tpavi(state, "file.pth")
    config.audio_encoder = "cnn"  # a TPAVI checkpoint holds none; the small one builds quickly
    model = build(config)
    sound = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("audio_encoder.")}
    model.load_state_dict({**ours, **sound})
    inputs = {
        name: reference.input(name).unflatten(0, (-1, reference.clip_frames))
        for name in ("frames", "audio", "flow")
        if name != "flow" or config.neighbouring_frames
    }
    with torch.no_grad():
        return model.eval()(**inputs)


@pytest.mark.parametrize(
    "name",
    [
        "ufe_tpavi_resnet50_n2t1",
        pytest.param("tpavi_resnet50_n5t5", marks=pytest.mark.heavy),
        pytest.param("ufe_tpavi_pvt_n2t1", marks=pytest.mark.heavy),
    ],
)
def test_reproduces_published_logits(name: str) -> None:
    reference = Reference(name)
    prediction = answer(reference)
    expected, largest = reference.expected["logits"], reference.expected["largest"]
    logits = prediction.logits.flatten(0, 1)[..., ::4, ::4]
    assert (logits - expected).abs().max() <= 1e-4 * largest
    for stage in range(4):
        sound, item = prediction.aux["audio"][stage], prediction.aux["maps"][stage]
        torch.testing.assert_close(sound, reference.expected[f"audio{stage}"], rtol=1e-4, atol=1e-5)
        stats = torch.stack([item.mean(), item.std(), item.abs().mean(), item.min(), item.max()])
        torch.testing.assert_close(stats, reference.expected[f"maps{stage}"], rtol=1e-4, atol=1e-5)


def test_configuration_follows_names_and_shapes() -> None:
    plain, _ = published_tpavi(Reference("tpavi_resnet50_n5t5").hollow_state(), "a")
    assert (plain.image_encoder, plain.neighbouring_frames, plain.flow_stages) == ("resnet50", False, 1)
    ufe, _ = published_tpavi(Reference("ufe_tpavi_resnet50_n2t1").hollow_state(), "a")
    assert (ufe.neighbouring_frames, ufe.flow_fusion, ufe.inputs.flow_encoding) == (True, "normalised", "published")
    assert ufe.inputs.front_end == "avsbench"
    pvt = Reference("ufe_tpavi_pvt_n2t1").hollow_state()
    with_flow, _ = published_tpavi(pvt, "a")
    assert (with_flow.image_encoder, with_flow.flow_stages) == ("pvt_v2_b5", 4)
    without = {name: value for name, value in pvt.items() if not name.startswith("flownet.") and "_flow." not in name}
    assert not published_tpavi(without, "a")[0].neighbouring_frames


def test_unused_copies_are_dropped_and_nothing_else() -> None:
    state = Reference("ufe_tpavi_resnet50_n2t1").hollow_state()
    _, ours = published_tpavi(state, "a")
    theirs = {name for name in state if not name.startswith(("resnet.layer3_2.", "resnet.layer4_2.", "flownet.layer"))}
    theirs -= {name for name in theirs if name.startswith("path4.resConfUnit1.")}
    used = {name for name in ours if not name.startswith("motion.encoder.layer")}
    assert len(used) == len(theirs)


def test_refuses_missing_extra_and_misshapen_by_their_published_names() -> None:
    state = Reference("ufe_tpavi_pvt_n2t1").hollow_state()
    del state["tpavi_b2.W_z.0.weight"]
    state["encoder_backbone.block3.7.attn.kv.weight"] = torch.zeros(640, 300)
    state["surprise.weight"] = torch.zeros(3)
    with pytest.raises(AvsegError) as refusal:
        published_tpavi(state, "weights.pth")
    message = str(refusal.value)
    assert "weights.pth" in message
    assert "tpavi_b2.W_z.0.weight is missing" in message
    assert "surprise.weight is unexpected" in message
    assert "encoder_backbone.block3.7.attn.kv.weight is (640, 300) instead of (640, 320)" in message


def test_vggish_takes_its_place_in_a_model() -> None:
    state = Reference("vggish").hollow_state()
    assert recognise(state, "a") == "vggish"
    ours = published_vggish({**state, "pproc.pca_means": torch.zeros(128, 1)}, "a")
    assert set(ours) == {f"audio_encoder.{name}" for name in state}
    with pytest.raises(AvsegError, match=r"embeddings\.4\.bias is missing"):
        published_vggish({name: value for name, value in state.items() if name != "embeddings.4.bias"}, "a")


def test_encoders_are_recognised_and_strangers_refused() -> None:
    resnet = {"bn1.weight": torch.zeros(64), "layer4.0.conv3.weight": torch.zeros(2048, 512, 1, 1)}
    assert recognise(resnet, "a") == "resnet50"
    assert recognise({"patch_embed1.proj.weight": torch.zeros(64, 3, 7, 7)}, "a") == "pvt_v2_b5"
    with pytest.raises(AvsegError, match=r"b\.pth is not a checkpoint that is known"):
        recognise({"linear.weight": torch.zeros(2, 2)}, "b.pth")
