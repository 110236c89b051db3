"""Base models whose queries compete: each has a mask and a score, and the one that scores best is the frame's mask."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.errors import AvsegError
from avseg.models.base import AVSModel, Prediction
from avseg.models.layers import enlarged_where_valid, mean_of_labelled
from avseg.models.transformer import Attention, FeedForward


@dataclass
class QueryOptions:
    """Settings that base models with competing queries share (``model.options``); the defaults are CATR's.

    Attributes:
        queries: How many.
        decoder_layers: Of the query decoder; the queries' masks after each take part in the loss.
        heads: Attention heads, everywhere; a divisor of ``model.width``.
        feedforward: Hidden channels of the feed-forward networks.
        dropout: In the transformer's layers.
        cost_score, cost_dice: What a query's score and its Dice with the mask weigh where it is matched.
        score_weight: Weight of the cross-entropy of scores.
        silent_weight: What a query that was not matched weighs in it.
        dice_weight, focal_weight, bce_weight: Weights of the losses of the matched query's mask.
        bce: ``doubled``: the cross-entropy takes the sigmoid twice, as CATR's authors do; ``plain``: once.
        agreement: ``matched``: the student's query that fits its teacher's mask best agrees with it (Eq. 5);
            ``best``: the one that it would choose itself.
        agreement_score: Weight, beside a matched Eq. 5, of the cross-entropy of scores.
    """

    queries: int = 50
    decoder_layers: int = 3
    heads: int = 8
    feedforward: int = 2048
    dropout: float = 0.1
    cost_score: float = 2.0
    cost_dice: float = 7.0
    score_weight: float = 1.0
    silent_weight: float = 0.1
    dice_weight: float = 5.0
    focal_weight: float = 5.0
    bce_weight: float = 4.0
    bce: Literal["doubled", "plain"] = "doubled"
    agreement: Literal["matched", "best"] = "matched"
    agreement_score: float = 0.1

    def check(self, width: int) -> None:
        """Raise AvsegError naming the first option that no model of ``width`` can have."""
        if width % self.heads:
            raise AvsegError(f"model.options.heads is {self.heads}: it must divide model.width, which is {width}.")
        if width % 4:
            raise AvsegError(f"model.width is {width}: positions in this model need a multiple of 4.")


class TokenLayer(nn.Module):
    """Self-attention and a feed-forward network, each added, then normalised; positions are added to queries and keys.

    Args:
        width: Channels of a token.
        heads: A divisor of ``width``.
        hidden: Channels inside the feed-forward network.
        dropout: Of attention weights, of hidden channels, and of each sum's second part.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attention = Attention(width, heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, dropout, nn.ReLU)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens ``(N, S, width)`` with positions ``(S, width)`` -> ``(N, S, width)``."""
        placed = tokens + positions
        tokens = self.norm1(tokens + self.dropout(self.self_attention(placed, placed, tokens)))
        result: Tensor = self.norm2(tokens + self.dropout(self.feed_forward(tokens)))
        return result


class QueryLayer(nn.Module):
    """Self-attention, cross-attention to tokens and a feed-forward network, each added, then normalised.

    Args:
        width, heads, hidden, dropout: See `TokenLayer`.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attention = Attention(width, heads, dropout=dropout)
        self.norm1 = nn.LayerNorm(width)
        self.token_attention = Attention(width, heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, dropout, nn.ReLU)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, content: Tensor, places: Tensor, tokens: Tensor, placed: Tensor) -> Tensor:
        """What queries hold, after one more look.

        Args:
            content: ``(N, Q, width)``.
            places: ``(Q, width)``, the queries' positions.
            tokens: ``(N, S, width)``.
            placed: ``(N, S, width)``, tokens with their positions.

        Returns:
            ``(N, Q, width)``.
        """
        asking = content + places
        content = self.norm1(content + self.dropout(self.self_attention(asking, asking, content)))
        content = self.norm2(content + self.dropout(self.token_attention(content + places, placed, tokens)))
        result: Tensor = self.norm3(content + self.dropout(self.feed_forward(content)))
        return result


class CompetingQueries(AVSModel):
    """A base model whose queries each have a mask and a score.

    A subclass calls `build_answers` in ``__init__`` and ends `decode` with `answer`. ``Prediction.aux`` holds, for each
    layer of the query decoder, ``masks``, logits ``(B·T, Q, h, w)``, and ``scores``, logits ``(B·T, Q, 2)`` of
    "sounds" and "no object". ``Prediction.confidence`` is the best query's probability of "sounds".
    """

    options_class = QueryOptions
    options: QueryOptions
    tells_confidence = True

    def build_answers(self, width: int, channels: int) -> None:
        """Make what turns a query of ``width`` channels into a score and a kernel over a map of ``channels``."""
        self.kernels = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, channels))
        self.score = nn.Linear(width, 2)

    def answer(self, contents: list[Tensor], feature: Tensor, clips: tuple[int, int]) -> Prediction:
        """The prediction of queries.

        Args:
            contents: ``(B·T, Q, width)`` of each layer of the decoder.
            feature: ``(B·T, channels, h, w)``, on which masks are dot products with kernels.
            clips: B and T.
        """
        masks = [torch.einsum("nqc,nchw->nqhw", self.kernels(content), feature) for content in contents]
        return self.answered(masks, [self.score(content) for content in contents], clips)

    def answered(self, masks: list[Tensor], scores: list[Tensor], clips: tuple[int, int]) -> Prediction:
        """The prediction of every layer's masks and scores: in each frame, the mask of the query that scores best."""
        sure, best = scores[-1].float().softmax(dim=2)[..., 0].max(dim=1)
        chosen = _of_query(masks[-1], best).unflatten(0, clips)
        return Prediction(chosen, {"masks": masks, "scores": scores}, sure.unflatten(0, clips))

    def loss(self, prediction: Prediction, masks: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Losses of the matched query's mask and of all scores, summed over the decoder's layers.

        One query is matched for all labelled frames of a clip, in each layer anew; see `AVSModel.loss`.
        """
        layers = [
            self.layer_losses(mask, score, masks, valid)
            for mask, score in zip(prediction.aux["masks"], prediction.aux["scores"], strict=True)
        ]
        weights = {name: getattr(self.options, f"{name}_weight") for name in ("score", "dice", "focal", "bce")}
        return {
            name: weight * torch.stack([terms[name] for terms in layers]).sum()
            for name, weight in weights.items()
            if weight
        }

    def layer_losses(self, masks: Tensor, scores: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Every term of one layer of the decoder, without its weight.

        Args:
            masks: ``(B·T, Q, h, w)``, logits.
            scores: ``(B·T, Q, 2)``, logits.
            target: ``(B, T, 1, H, W)`` in [0, 1].
            valid: The same shape, bool.
        """
        matched = self.match(masks, scores, target, valid)
        logits = enlarged_where_valid(_of_query(masks, matched).float(), valid)
        terms = mask_losses(logits, target.float(), valid, self.options.bce)
        return {"score": self.score_loss(scores, matched, valid), **terms}

    @torch.no_grad()
    def match(self, masks: Tensor, scores: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Which query is each frame's: the cheapest, on average over the clip's labelled frames. ``(B·T,)``.

        A query costs −`cost_score` · p − `cost_dice` · Dice of its mask and the target's, over valid pixels.
        """
        clips = valid.shape[:2]
        weight, target = valid.flatten(2).float(), target.flatten(2).float() * valid.flatten(2)
        p = enlarged_where_valid(masks.float(), valid).sigmoid().flatten(3)  # (B, T, Q, H·W)
        shared, covered = (p @ torch.stack([target, weight], dim=3)).unbind(3)
        dice = (2 * shared + 1) / (covered + target.sum(dim=2, keepdim=True) + 1)
        sounding = scores.float().softmax(dim=2)[..., 0].unflatten(0, clips)
        cost = -self.options.cost_score * sounding - self.options.cost_dice * dice
        labelled = valid.flatten(2).any(dim=2)
        best = (cost * labelled.unsqueeze(2)).sum(dim=1).argmin(dim=1)
        return best.repeat_interleave(clips[1])

    def score_loss(self, scores: Tensor, matched: Tensor, valid: Tensor) -> Tensor:
        """Cross-entropy of scores, summed over queries: "sounds" for the matched one, "no object" for all others."""
        silence = -scores.float().log_softmax(dim=2)  # of either answer
        is_matched = F.one_hot(matched, scores.shape[1]).bool()
        each = torch.where(is_matched, silence[..., 0], self.options.silent_weight * silence[..., 1])
        return mean_of_labelled(each.sum(dim=1).unflatten(0, valid.shape[:2]), valid)

    def agreement(
        self, prediction: Prediction, pseudo: Tensor, valid: Tensor, eq5: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """Eq. 5 of the query that matches the teacher's mask, and, weighted, which query that is."""
        if self.options.agreement == "best":
            return super().agreement(prediction, pseudo, valid, eq5)
        masks, scores = prediction.aux["masks"][-1], prediction.aux["scores"][-1]
        matched = self.match(masks, scores, pseudo, valid)
        terms = {"unsup": eq5(enlarged_where_valid(_of_query(masks, matched).float(), valid))}
        if self.options.agreement_score:
            terms["unsup_score"] = self.options.agreement_score * self.score_loss(scores, matched, valid)
        return terms


def _of_query(masks: Tensor, query: Tensor) -> Tensor:
    """The mask of one query for each frame: ``(N, Q, h, w)`` and ``(N,)`` -> ``(N, 1, h, w)``."""
    return masks[torch.arange(len(masks), device=masks.device), query].unsqueeze(1)


def mask_losses(
    logits: Tensor, target: Tensor, valid: Tensor, bce: Literal["doubled", "plain"] = "plain"
) -> dict[str, Tensor]:
    """Dice, focal loss (α 0.25, γ 2) and cross-entropy of each labelled frame, over valid pixels; means over frames.

    Args:
        logits: ``(B, T, 1, H, W)``.
        target: The same shape, in [0, 1].
        valid: The same shape, bool.
        bce: See `QueryOptions`.
    """
    weight, target, logits = valid.flatten(2).float(), target.flatten(2), logits.flatten(2)
    p, count = logits.sigmoid(), weight.sum(dim=2).clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    right = p * target + (1 - p) * (1 - target)
    focal = (0.25 * target + 0.75 * (1 - target)) * (1 - right).square() * entropy
    if bce == "doubled":
        entropy = F.binary_cross_entropy_with_logits(p, target, reduction="none")
    shared, total = (p * target * weight).sum(dim=2), ((p + target) * weight).sum(dim=2)
    frames = {
        "dice": 1 - (2 * shared + 1) / (total + 1),
        "focal": (focal * weight).sum(dim=2) / count,
        "bce": (entropy * weight).sum(dim=2) / count,
    }
    return {name: mean_of_labelled(each, valid) for name, each in frames.items()}
