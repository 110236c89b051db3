"""VGGish: the audio encoder that was trained on AudioSet (Hershey et al., 2017)."""

import torch
from torch import Tensor, nn

from avseg.config import WeightsConfig
from avseg.models.audio import EMBEDDING, AudioEncoder
from avseg.models.foreign import load_foreign
from avseg.models.weights import VGGISH_URL, download, read_state

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
    file = download(VGGISH_URL, "weights.audio") if weights.audio == "audioset" else weights.audio
    load_foreign(model, read_state(file), file, unused=VGGISH_UNUSED)
    return model
