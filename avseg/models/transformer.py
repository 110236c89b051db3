"""AVSegFormer's transformer: a deformable encoder over pixels, queries made from sound, and a decoder between them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avseg.models.deformable import DeformableAttention, Sizes, sine_positions


class Attention(nn.Module):
    """Multi-head scaled dot-product attention.

    Args:
        width: Channels of a token.
        heads: A divisor of ``width``.
        bias: Whether the projections have biases.
        dropout: Share of the attention's weights that training drops.
    """

    def __init__(self, width: int, heads: int, bias: bool = True, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.input = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        _initialise(self)

    def forward(self, queries: Tensor, tokens: Tensor | None = None, values: Tensor | None = None) -> Tensor:
        """``(N, Q, width)`` attend to tokens ``(N, S, width)``, or to one another -> ``(N, Q, width)``.

        What is read of the tokens is ``values`` ``(N, S, width)``, where these differ, as they do by positions.
        """
        if tokens is None:
            query, key, value = self.input(queries).chunk(3, dim=2)
        elif values is not None:
            weights = self.input.weight.chunk(3)
            biases = (None,) * 3 if self.input.bias is None else self.input.bias.chunk(3)
            given = zip((queries, tokens, values), weights, biases, strict=True)
            query, key, value = (F.linear(item, weight, bias) for item, weight, bias in given)
        else:
            width = queries.shape[2]
            sections = [width, 2 * width]
            weight, bias = self.input.weight.split(sections), self.input.bias
            parts = (None, None) if bias is None else bias.split(sections)
            query = F.linear(queries, weight[0], parts[0])
            key, value = F.linear(tokens, weight[1], parts[1]).chunk(2, dim=2)
        query, key, value = (item.unflatten(2, (self.heads, -1)).transpose(1, 2) for item in (query, key, value))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        result: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return result


class AttentionToOne(nn.Module):
    """Multi-head attention to a single token: whatever asks, the softmax is 1 and the answer the token's value.

    Args:
        width: Channels.
        bias: Whether the projections have biases.
    """

    def __init__(self, width: int, bias: bool = True):
        super().__init__()
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        _initialise(self)

    def forward(self, token: Tensor) -> Tensor:
        """``(N, 1, width)`` -> ``(N, 1, width)``, the same for every query."""
        result: Tensor = self.output(self.value(token))
        return result


class FeedForward(nn.Sequential):
    """Linear, GELU (or another ``activation``), Linear, applied to each token.

    Args:
        width: Channels.
        hidden: Channels between.
        dropout: Share of the hidden channels that training drops.
        activation: Between the two.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, activation: type[nn.Module] = nn.GELU):
        super().__init__(nn.Linear(width, hidden), activation(), nn.Dropout(dropout), nn.Linear(hidden, width))
        _initialise(self)


class EncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each added, then normalised."""

    def __init__(self, width: int, heads: int, levels: int, points: int, hidden: int, dropout: float):
        super().__init__()
        self.attention = DeformableAttention(width, heads, levels, points)
        self.norm1 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor, sizes: Sizes) -> Tensor:
        """Tokens ``(N, S, width)`` with positions ``(S, width)`` -> ``(N, S, width)``."""
        tokens = self.norm1(tokens + self.dropout(self.attention(tokens + positions, tokens, sizes)))
        result: Tensor = self.norm2(tokens + self.dropout(self.feed_forward(tokens)))
        return result


class Encoder(nn.Module):
    """Pixels of several maps look at one another.

    Args:
        width: Channels.
        layers: How many.
        heads, levels, points: See `DeformableAttention`.
        hidden: Channels inside the feed-forward networks.
        dropout: In training, of each sum's second part.
    """

    def __init__(self, width: int, layers: int, heads: int, levels: int, points: int, hidden: int, dropout: float):
        super().__init__()
        self.level_embedding = nn.Parameter(torch.randn(levels, width))
        self.layers = nn.ModuleList(EncoderLayer(width, heads, levels, points, hidden, dropout) for _ in range(layers))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps ``(N, width, h, w)`` -> all their tokens ``(N, S, width)``, and the same as maps."""
        sizes = [(item.shape[2], item.shape[3]) for item in maps]
        tokens = torch.cat([item.flatten(2).transpose(1, 2) for item in maps], dim=1)
        places = [sine_positions(*size, tokens.shape[2], tokens.device, self.level_embedding.dtype) for size in sizes]
        positions = torch.cat([place + level for place, level in zip(places, self.level_embedding, strict=True)])
        for layer in self.layers:
            tokens = layer(tokens, positions, sizes)
        parts = tokens.transpose(1, 2).split([height * width for height, width in sizes], dim=2)
        return tokens, [part.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]


class GeneratorLayer(nn.Module):
    """Self-attention, cross-attention to the sound and a feed-forward network, each added, then normalised."""

    def __init__(self, width: int, heads: int, hidden: int, bias: bool):
        super().__init__()
        self.self_attention = Attention(width, heads, bias)
        self.norm1 = nn.LayerNorm(width)
        self.audio_attention = AttentionToOne(width, bias)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, queries: Tensor, sound: Tensor) -> Tensor:
        """Queries ``(N or 1, Q, width)`` and sounds ``(N, 1, width)`` -> ``(N, Q, width)``."""
        queries = self.norm1(queries + self.self_attention(queries))
        queries = self.norm2(queries + self.audio_attention(sound))
        result: Tensor = self.norm3(queries + self.feed_forward(queries))
        return result


class QueryGenerator(nn.Module):
    """Queries that know the sound.

    Args:
        width: Channels.
        queries: How many.
        layers: How many.
        heads: Attention heads.
        hidden: Channels inside the feed-forward networks.
        bias: Whether the attentions' projections have biases.
    """

    def __init__(self, width: int, queries: int, layers: int, heads: int, hidden: int, bias: bool):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.layers = nn.ModuleList(GeneratorLayer(width, heads, hidden, bias) for _ in range(layers))

    def forward(self, sound: Tensor) -> Tensor:
        """Sounds ``(N, 1, width)`` -> queries ``(N, Q, width)``."""
        # Until the first layer has heard the sound, the queries are the same for all frames.
        queries = self.queries.unsqueeze(0)
        for layer in self.layers:
            queries = layer(queries, sound)
        return queries.expand(sound.shape[0], -1, -1)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the pixels and a feed-forward network, each added, then normalised."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attention = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.pixel_attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, dropout)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Queries ``(N, Q, width)`` and tokens ``(N, S, width)`` -> ``(N, Q, width)``."""
        queries = self.norm1(queries + self.dropout(self.self_attention(queries)))
        queries = self.norm2(queries + self.dropout(self.pixel_attention(queries, tokens)))
        result: Tensor = self.norm3(queries + self.dropout(self.feed_forward(queries)))
        return result


def _initialise(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
