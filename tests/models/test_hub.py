"""Publishing a model: what reaches the hub, what the card says, and one sentence where it can't be had."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from toy_models import save_tiny

from avseg.errors import AvsegError
from avseg.inference import AVSegmenter
from avseg.models import load


class Hub:
    """Takes what is uploaded, in place of the hub's own client."""

    made: dict[str, Any]
    files: dict[str, bytes]

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> None:
        Hub.made = {"repository": repository, "private": private, "exist_ok": exist_ok}

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        Hub.files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


def test_model_and_card_are_sent(hub: type[Hub], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "run", neighbouring_frames=True)
    (folder / "run.json").write_text(json.dumps({"validation": {"val/miou": 0.4321}}))
    (folder / "config.yaml").write_text("data: {subset: ms3, root: secret/place}\n")

    address = AVSegmenter.from_pretrained(folder, "cpu").push_to_hub("someone/marks", private=True)

    assert address == "https://huggingface.co/someone/marks"
    assert hub.made == {"repository": "someone/marks", "private": True, "exist_ok": True}
    assert set(hub.files) == {"README.md", "config.json", "model.safetensors"}
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "got" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "got" / name).write_bytes(hub.files[name])
    load(tmp_path / "got")
    card = hub.files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "avseg"
    for text in ('from_pretrained("someone/marks")', "| base model | tpavi |", "| mIoU, validation | 43.2 |"):
        assert text in card
    assert "| neighbouring frames (optical flow) | yes |" in card
    assert "AVSBench MS3" in card
    assert "secret" not in card


def test_scores_can_be_given_and_a_card_that_is_there_is_kept(hub: type[Hub], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    segmenter = AVSegmenter.from_pretrained(folder, "cpu")
    segmenter.push_to_hub("someone/marks")
    assert b"No scores came with this model" in hub.files["README.md"]
    segmenter.push_to_hub("someone/marks", scores={"mIoU, test": 0.5})
    assert b"| mIoU, test | 50.0 |" in hub.files["README.md"]
    (folder / "README.md").write_text("my own card")
    segmenter.push_to_hub("someone/marks")
    assert hub.files["README.md"] == b"my own card"


@pytest.mark.parametrize("name", ["marks", "a/b/c", "/marks", "someone/"])
def test_a_name_that_is_no_repository(name: str, hub: type[Hub], tmp_path: Path) -> None:
    segmenter = AVSegmenter.from_pretrained(save_tiny(tmp_path / "model"), "cpu")
    with pytest.raises(AvsegError, match=f"'{name}' is no repository of the hub: give OWNER/NAME"):
        segmenter.push_to_hub(name)


def test_without_the_hub_it_ends_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    segmenter = AVSegmenter.from_pretrained(save_tiny(tmp_path / "model"), "cpu")
    with pytest.raises(AvsegError, match=r"someone/marks could not be written on the hub \(\w+\): check its name"):
        segmenter.push_to_hub("someone/marks")
