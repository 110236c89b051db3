"""SAMA-AVS: Segment Anything, told by adapters in every layer of its encoder what is heard.

Liu et al., Annotation-free Audio-Visual Segmentation, WACV 2024; docs/departures.md says what is read into it.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avseg.config import ModelConfig, WeightsConfig
from avseg.errors import AvsegError
from avseg.models.audio import EMBEDDING
from avseg.models.base import AVSModel, Prediction, register
from avseg.models.layers import at_least_single, masked_bce, mean_of_labelled
from avseg.models.sam import PATCH, build_mask_decoder, build_sam_encoder, dense_positions, sa1b_weights


@dataclass
class Options:
    """SAMA-AVS's own settings (``model.options``); the defaults are those of its authors' program.

    Attributes:
        adapter_width: Numbers between the two layers of an adapter.
        iou_weight: Weight of 1 − IoU beside the cross-entropy.
        checkpointing: Compute each layer of the encoder again in the backward pass instead of keeping what it computed:
            a third more work for a fraction of the memory, and the same gradients.
    """

    adapter_width: int = 512
    iou_weight: float = 1.0
    checkpointing: bool = True

    def check(self, width: int) -> None:
        """Raise AvsegError where the mask decoder's eight heads don't divide ``width``."""
        if width % 16:
            raise AvsegError(f"model.width is {width}: give SAMA-AVS a multiple of 16 (published: 256).")


class Adapters(nn.Module):
    """A vector for each layer of the encoder from the sound: ``S(GELU(L_i(a)))``, with one ``S`` for all layers.

    Args:
        layers: How many.
        hidden: Numbers between ``L_i`` and ``S``.
        width: Of the encoder's tokens.
    """

    def __init__(self, layers: int, hidden: int, width: int):
        super().__init__()
        self.each = nn.ModuleList(nn.Linear(EMBEDDING, hidden) for _ in range(layers))
        self.shared = nn.Linear(hidden, width)
        for module in [*self.each, self.shared]:
            assert isinstance(module, nn.Linear)
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def forward(self, audio: Tensor) -> list[Tensor]:
        """``(N, 128)`` -> ``(N, width)`` for each layer."""
        return [self.shared(F.gelu(layer(audio))) for layer in self.each]


@register("sama")
class SAMA(AVSModel):
    """SAMA-AVS. Frames are independent of each other; all of Segment Anything's encoder keeps its weights.

    Flow is added to the tokens that enter the first layer, and so before any sound.
    """

    options_class = Options
    options: Options

    def __init__(self, config: ModelConfig, weights: WeightsConfig | None = None):
        super().__init__(config, weights)
        assert self.config.image_encoder_config is not None
        values: dict[str, Any] = self.config.image_encoder_config
        self.hidden_size: int = values["hidden_size"]
        self.adapters = Adapters(values["num_hidden_layers"], self.options.adapter_width, self.hidden_size)
        self.mask_decoder = build_mask_decoder(config.width)
        self.no_mask = nn.Parameter(torch.randn(1, config.width))
        # Random frequencies; the authors draw their own too, since they load SAM's under another name.
        self.positions = nn.Parameter(torch.randn(2, config.width // 2), requires_grad=False)
        if weights is not None and weights.image != "none":
            found = sa1b_weights(config.image_encoder, weights.image, self)
            self.load_state_dict({**self.state_dict(), **found})

    def build_image_encoder(self, weights: WeightsConfig | None) -> nn.Module:
        """See `AVSModel.build_image_encoder`; none of it is ever trained."""
        return build_sam_encoder(self.config).requires_grad_(False)

    def scales(self) -> list[tuple[int, int]]:
        """See `AVSModel.scales`: one map, the encoder's tokens."""
        return [(PATCH, self.hidden_size)]

    def timestamps_per_pass(self, device: torch.device) -> int:
        """See `AVSModel.timestamps_per_pass`: an attention map of the full image takes heads × tokens² numbers."""
        tokens = (self.config.inputs.seen_size // PATCH) ** 2
        usual = super().timestamps_per_pass(device)
        return max(1, min(usual, usual * 512 // tokens))

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """See `AVSModel.pyramid`: patches with their absolute positions."""
        encoder: Any = self.image_encoder
        tokens = encoder.patch_embed(frames) + encoder.pos_embed
        return [tokens.permute(0, 3, 1, 2)]

    def decode(self, pyramid: list[Tensor], audio: Tensor, frames: Tensor) -> Prediction:
        """See `AVSModel.decode`; logits have a quarter of the side that the model sees."""
        encoder: Any = self.image_encoder
        tokens = pyramid[0].permute(0, 2, 3, 1)
        again = self.options.checkpointing and self.training and torch.is_grad_enabled()
        for layer, vector in zip(encoder.layers, self.adapters(audio.flatten(0, 1)), strict=True):
            tokens = tokens + vector[:, None, None]
            tokens = checkpoint(layer, tokens, use_reentrant=False) if again else layer(tokens)
        embedding = encoder.neck(tokens)
        positions = dense_positions(self.positions, embedding.shape[-1])
        masks, _ = self.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=positions.expand(len(embedding), -1, -1, -1),
            sparse_prompt_embeddings=None,
            dense_prompt_embeddings=self.no_mask[:, :, None, None].expand_as(embedding),
            multimask_output=False,
        )
        return Prediction(masks[:, 0].unflatten(0, audio.shape[:2]))

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Cross-entropy, and ``1 − Σpy / (Σ(p + y) − Σpy)`` as a mean over labelled frames; see `AVSModel.loss`."""
        logits = at_least_single(prediction.logits)
        counted = valid.to(logits.dtype).flatten(2)
        probability, target = logits.sigmoid().flatten(2) * counted, masks.to(logits.dtype).flatten(2) * counted
        shared = (probability * target).sum(dim=2)
        union = (probability + target).sum(dim=2) - shared
        apart = mean_of_labelled(1 - shared / union.clamp(min=1e-6), valid)
        return {"bce": masked_bce(logits, masks, valid), "iou": self.options.iou_weight * apart}
