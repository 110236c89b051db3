"""Audio encoders: log-mel examples to embeddings of 128 numbers."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.config import ModelConfig, WeightsConfig
from avseg.models.catalogue import folder_of
from avseg.models.foreign import load_foreign
from avseg.models.weights import VGGISH_URL, download, read_state

EMBEDDING = 128


class AudioEncoder(nn.Module):
    """Base of the audio encoders: ``(N, 1, 96, 64)`` log-mel examples -> ``(N, 128)`` embeddings.

    Attributes:
        frozen: Whether training leaves the weights as they are, so that embeddings can be computed once and stored.
    """

    frozen: bool = False

    def freeze(self) -> None:
        """Keep the weights, and the statistics of any norm, as they are from now on."""
        self.frozen = True
        self.eval().requires_grad_(False)


class AudioCNN(AudioEncoder):
    """A small network over log-mel that is trained with the model, for when no AudioSet weights are at hand.

    Four convolutions, then mean and maximum over time and band: what sounds matters, not when within the second.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for index, after in enumerate(channels):
            kernel = 5 if index == 0 else 3
            layers += [
                nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
            before = after
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.embedding = nn.Linear(2 * before, EMBEDDING)
        # Pooled features are all positive, and so alike for all sounds: what differs between them must stand out.
        self.norm = nn.BatchNorm1d(EMBEDDING)

    def forward(self, log_mel: Tensor) -> Tensor:
        """``(N, 1, 96, 64)`` -> ``(N, 128)``."""
        # Log-mel runs from ln 0.01 = -4.6 in silence to about 4 for a loud pure tone.
        x = self.features((log_mel + 1.0) / 2.0)
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        embedding: Tensor = self.embedding(self.dropout(pooled))
        if len(embedding) > 1 or not self.training:
            return self.norm(embedding)
        # A single sound has no variance of its own.
        norm = self.norm
        return F.batch_norm(embedding, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def build_audio_encoder(config: ModelConfig, weights: WeightsConfig | None) -> AudioEncoder:
    """The audio encoder that ``config`` names.

    Args:
        config: ``audio_encoder`` counts.
        weights: ``audio`` says where VGGish's weights come from; None builds the architecture alone.

    Raises:
        AvsegError: weights that cannot be had or belong to something else.
    """
    if config.audio_encoder == "cnn":
        return AudioCNN()
    return build_vggish(weights)


# Post-processing (PCA and quantisation) that stands beside VGGish in some files.
VGGISH_UNUSED = ("pproc.",)


class VGGish(AudioEncoder):
    """VGGish without the PCA and quantisation that its authors put behind it; always frozen.

    The names of the layers are those of the published PyTorch weights.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for group in ((64,), (128,), (256, 256), (512, 512)):
            for after in group:
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(6 * 4 * 512, 4096),
            nn.ReLU(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, EMBEDDING),
            nn.ReLU(),
        )
        self.freeze()

    @torch.no_grad()
    def forward(self, log_mel: Tensor) -> Tensor:
        """``(N, 1, 96, 64)`` -> ``(N, 128)``, none negative."""
        x = self.features(log_mel)
        embedding: Tensor = self.embeddings(x.permute(0, 2, 3, 1).flatten(1))
        return embedding


def build_vggish(weights: WeightsConfig | None) -> VGGish:
    """VGGish with the weights that ``weights.audio`` names; random (and frozen) for None and ``none``.

    Raises:
        AvsegError: the weights cannot be had, or belong to something else.
    """
    model = VGGish()
    if weights is None or weights.audio == "none":
        return model
    file: str | Path = weights.audio
    if weights.audio == "audioset":
        file = folder_of("vggish") or download(VGGISH_URL, "weights.audio")
    load_foreign(model, read_state(file), file, unused=VGGISH_UNUSED)
    return model
