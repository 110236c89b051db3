"""AVSegFormer's published checkpoints: recognised, refused by name, and giving the answers of their authors' code."""

import pytest
import torch
from fixtures.reference import Reference
from torch import Tensor

from avseg.errors import AvsegError
from avseg.models import build
from avseg.models.loading import load_state
from avseg.models.published import published_avsegformer, recognise

BASELINE, PVT, UFE = "avsegformer_resnet50_n2", "avsegformer_pvt_n2", "ufe_avsegformer_resnet50_n2"


@pytest.mark.parametrize(
    "name", [UFE, pytest.param(BASELINE, marks=pytest.mark.heavy), pytest.param(PVT, marks=pytest.mark.heavy)]
)
def test_reproduces_published_logits(name: str) -> None:
    reference = Reference(name)
    config, ours = published_avsegformer(reference.state(), "file.pth")
    model = build(config).eval()
    load_state(model, ours, "file.pth")
    del ours
    seen: dict[str, Tensor] = {}
    model.query_generator.register_forward_hook(lambda *call: seen.update(queries=call[2]))
    model.decoder[-1].register_forward_hook(lambda *call: seen.update(decoded=call[2]))
    frames = reference.input("frames").unsqueeze(1)
    flow = reference.input("flow").unsqueeze(1) if config.neighbouring_frames else None
    with torch.inference_mode():
        audio = model.embed_audio(reference.input("logmel").unsqueeze(1))
        prediction = model(frames, audio, flow)
    for stage, tokens in seen.items():  # where a mismatch begins
        torch.testing.assert_close(tokens.mean(1)[:, :16], reference.expected[stage], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prediction.aux["mask"], reference.expected["auxiliary"], rtol=1e-4, atol=1e-5)
    logits = prediction.logits.flatten(0, 1)[..., ::4, ::4]
    assert (logits - reference.expected["logits"]).abs().max() <= 1e-4 * reference.expected["largest"]


def test_configuration_follows_names() -> None:
    baseline, _ = published_avsegformer(Reference(BASELINE).hollow_state(), "a")
    assert (baseline.base, baseline.image_encoder, baseline.neighbouring_frames) == ("avsegformer", "resnet50", False)
    assert baseline.options == {"generator_bias": False, "dice": "squared"}
    ufe, _ = published_avsegformer(Reference(UFE).hollow_state(), "a")
    assert (ufe.neighbouring_frames, ufe.flow_fusion, ufe.inputs.flow_encoding) == (True, "normalised", "published")
    assert ufe.options["generator_bias"]


def test_pvt_with_ufe_is_read_although_no_reference_has_it() -> None:
    pvt, ufe = Reference(PVT).hollow_state(), Reference(UFE).hollow_state()
    added = {
        name: value for name, value in ufe.items() if "flow" in name or name.endswith(("j_bias", "attn.out_proj.bias"))
    }
    config, ours = published_avsegformer({**pvt, **added}, "a")
    assert (config.image_encoder, config.neighbouring_frames, config.flow_stages) == ("pvt_v2_b5", True, 1)
    with torch.device("meta"):
        wanted = build(config).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: item.shape for name, item in wanted.items()}


def test_refuses_missing_extra_and_misshapen_by_their_published_names() -> None:
    state = Reference(UFE).hollow_state()
    assert recognise(state, "a") == "avsegformer"
    del state["head.fusion_block.proj.bias"]
    state["head.fusion_block.kv_proj.weight"] = torch.zeros(512, 200)
    state["surprise.weight"] = torch.zeros(3)
    with pytest.raises(AvsegError) as refusal:
        published_avsegformer(state, "weights.pth")
    message = str(refusal.value)
    assert "weights.pth" in message
    assert "head.fusion_block.proj.bias is missing" in message
    assert "surprise.weight is unexpected" in message
    assert "head.fusion_block.kv_proj.weight is (512, 200) instead of (512, 256)" in message


def test_refuses_a_misshapen_attention_to_the_sound() -> None:
    state = Reference(UFE).hollow_state()
    name = "head.query_generator.layers.3.cross_attn.in_proj_bias"
    state[name] = torch.zeros(700)
    with pytest.raises(AvsegError, match=r"layers\.3\.cross_attn\.in_proj_bias is \(700,\) instead of \(768,\)"):
        published_avsegformer(state, "a")
    del state[name]
    with pytest.raises(AvsegError, match=r"layers\.3\.cross_attn\.in_proj_bias is missing"):
        published_avsegformer(state, "a")


def test_only_what_nothing_uses_is_left_out() -> None:
    state = Reference(UFE).hollow_state()
    _, ours = published_avsegformer(state, "a")
    unused = ("head.fpn.", "head.attn_fc.", "backbone.layer3_2.", "backbone.layer4_2.", "head.flownet.layer2.")
    unused += ("head.flownet.layer3.", "head.flownet.layer4.")
    # Keys and values of the channel mixer are stored as one tensor.
    assert len(ours) == len([name for name in state if not name.startswith(unused)]) + 1
