"""VGGish: the published function of its weights, and frozen."""

from pathlib import Path

import pytest
import torch
from fixtures.reference import Reference

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models.encoders import build_audio_encoder


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "vggish.pth"
    # As in the published file, post-processing stands beside the network.
    torch.save({**Reference("vggish").state(), "pproc.pca_means": torch.zeros(128, 1)}, file)
    return file


def test_published_weights_give_published_embeddings_and_never_move(published: Path) -> None:
    encoder = build_audio_encoder(ModelConfig(), WeightsConfig(audio=str(published)))
    reference = Reference("vggish")
    embedding = encoder(reference.input("logmel"))
    torch.testing.assert_close(embedding, reference.expected["embedding"], rtol=1e-5, atol=1e-4)
    assert encoder.frozen
    assert not encoder.training
    assert not embedding.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, file)
    with pytest.raises(AvsegError, match=r"other\.pth does not hold .*features\.0\.bias is missing"):
        build_audio_encoder(ModelConfig(), WeightsConfig(audio=str(file)))
