"""The small audio encoder learns, and a fingerprint tells weights apart."""

import copy

import torch
from torch import Tensor, nn

from avseg.config import ModelConfig, WeightsConfig
from avseg.models.audio import AudioCNN, build_audio_encoder
from avseg.models.weights import weights_fingerprint


def timbres(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Log-mel examples of four timbres: spectral envelopes at any pitch, loudness and beat, in noise."""
    labels = torch.randint(4, (count,), generator=generator)
    bands = torch.arange(64.0)
    pitch = torch.rand(count, 1, generator=generator) * 12
    spacing = torch.tensor([5.0, 9.0, 14.0, 20.0])[labels].unsqueeze(1)
    comb = (torch.cos(2 * torch.pi * (bands - pitch) / spacing) > 0.7).float()
    beat = (torch.sin(torch.arange(96.0) * (0.1 + torch.rand(count, 1, generator=generator))) > -0.5).float()
    power = comb.unsqueeze(1) * beat.unsqueeze(2) * (0.2 + 3 * torch.rand(count, 1, 1, generator=generator))
    noise = 0.2 * torch.rand(count, 96, 64, generator=generator)
    return torch.log(power + noise + 0.01).unsqueeze(1), labels


def test_learns_to_tell_timbres_apart_quickly() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    encoder, classifier = AudioCNN(), nn.Linear(128, 4)
    optimiser = torch.optim.Adam([*encoder.parameters(), *classifier.parameters()], lr=1e-3)
    sounds, labels = timbres(120, generator)
    for step in range(60):
        chosen = torch.arange(16) + 16 * step
        loss = nn.functional.cross_entropy(classifier(encoder(sounds[chosen % 120])), labels[chosen % 120])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.eval()
    unheard, truth = timbres(200, generator)
    with torch.no_grad():
        accuracy = (classifier(encoder(unheard)).argmax(1) == truth).float().mean()
    assert accuracy > 0.85


def test_is_small_and_trained() -> None:
    encoder = build_audio_encoder(ModelConfig(audio_encoder="cnn"), WeightsConfig(audio="none"))
    assert not encoder.frozen
    for count in (1, 3):  # a single sound must pass in training too
        assert encoder.train()(torch.zeros(count, 1, 96, 64)).shape == (count, 128)


def test_sounds_stand_apart_from_the_start() -> None:
    torch.manual_seed(0)
    sounds, _ = timbres(32, torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding = AudioCNN()(sounds)
    assert embedding.mean(dim=0).abs().max() < 1e-4
    assert embedding.std(dim=0).min() > 0.9


def test_is_smaller_than_vggish_by_far() -> None:
    encoder = AudioCNN()
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 400_000


def test_fingerprint_follows_every_weight() -> None:
    encoder = AudioCNN()
    before = weights_fingerprint(encoder)
    assert before == weights_fingerprint(copy.deepcopy(encoder))
    assert len(before) == 16
    with torch.no_grad():
        encoder.embedding.bias[7] += 1e-6
    assert weights_fingerprint(encoder) != before
