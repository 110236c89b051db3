"""AVSegFormer's parts in plain form: explicit softmax matrices, nothing kept between calls, no cheaper order."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain import Plain

Sizes = list[tuple[int, int]]


class PlainAttention(Plain):
    """Multi-head attention by way of its matrix of weights.

    Args:
        source: ``input`` holds the projections of queries, keys and values one below the other.
        heads: How many.
    """

    input: nn.Linear
    output: nn.Linear

    def __init__(self, source: nn.Module, heads: int):
        super().__init__(source)
        self.heads = heads

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """``(N, Q, width)`` attend to ``(N, S, width)`` -> ``(N, Q, width)``."""
        weights = self.input.weight.chunk(3)
        biases = (None,) * 3 if self.input.bias is None else self.input.bias.chunk(3)
        query, key, value = (
            F.linear(item, weight, bias)
            for item, weight, bias in zip((queries, tokens, tokens), weights, biases, strict=True)
        )
        return self.output(softmax_attention(query, key, value, self.heads))


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """``(N, Q, width)``, ``(N, S, width)``, ``(N, S, width)`` -> ``(N, Q, width)``."""
    query, key, value = (item.unflatten(2, (heads, -1)).transpose(1, 2) for item in (query, key, value))
    scores = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    return (scores.softmax(dim=3) @ value).transpose(1, 2).flatten(2)


class PlainAudioAttention(Plain):
    """Attention to the one token of sound like any other. What its queries and keys are makes no difference.

    The model has no weights for them, so those of the values stand in.
    """

    value: nn.Linear
    output: nn.Linear

    def __init__(self, source: nn.Module, heads: int):
        super().__init__(source)
        self.heads = heads
        self.query, self.key = deepcopy(self.value), deepcopy(self.value)

    def forward(self, queries: Tensor, sound: Tensor) -> Tensor:
        """``(N, Q, width)`` and ``(N, 1, width)`` -> ``(N, Q, width)``."""
        query, key, value = self.query(queries), self.key(sound), self.value(sound)
        return self.output(softmax_attention(query, key, value, self.heads))


class PlainFeedForward(nn.Module):
    """Linear, GELU, dropout, linear."""

    def __init__(self, source: nn.Module):
        super().__init__()
        for name, child in source.named_children():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, S, width)`` -> ``(N, S, width)``."""
        for layer in self.children():
            x = layer(x)
        return x


class PlainGeneratorLayer(Plain):
    """Self-attention, cross-attention to the sound and a feed-forward network, each added, then normalised."""

    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm

    def __init__(self, source: nn.Module, heads: int):
        super().__init__(source)
        self.self_attention = PlainAttention(source.get_submodule("self_attention"), heads)
        self.audio_attention = PlainAudioAttention(source.get_submodule("audio_attention"), heads)
        self.feed_forward = PlainFeedForward(source.get_submodule("feed_forward"))

    def forward(self, queries: Tensor, sound: Tensor) -> Tensor:
        """``(N, Q, width)`` and ``(N, 1, width)`` -> ``(N, Q, width)``."""
        queries = self.norm1(queries + self.self_attention(queries, queries))
        queries = self.norm2(queries + self.audio_attention(queries, sound))
        return self.norm3(queries + self.feed_forward(queries))


class PlainQueryGenerator(Plain):
    """Every frame has its own copy of the queries from the first layer on."""

    queries: nn.Parameter
    layers: nn.ModuleList

    def __init__(self, source: nn.Module, heads: int):
        super().__init__(source)
        self.layers = nn.ModuleList(PlainGeneratorLayer(layer, heads) for layer in self.layers)

    def forward(self, sound: Tensor) -> Tensor:
        """``(N, 1, width)`` -> ``(N, Q, width)``."""
        queries = self.queries.repeat(len(sound), 1, 1)
        for layer in self.layers:
            queries = layer(queries, sound)
        return queries


class PlainDecoderLayer(Plain):
    """Self-attention, cross-attention to the pixels and a feed-forward network, each added, then normalised."""

    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm
    dropout: nn.Dropout

    def __init__(self, source: nn.Module, heads: int):
        super().__init__(source)
        self.self_attention = PlainAttention(source.get_submodule("self_attention"), heads)
        self.pixel_attention = PlainAttention(source.get_submodule("pixel_attention"), heads)
        self.feed_forward = PlainFeedForward(source.get_submodule("feed_forward"))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """``(N, Q, width)`` and ``(N, S, width)`` -> ``(N, Q, width)``."""
        queries = self.norm1(queries + self.dropout(self.self_attention(queries, queries)))
        queries = self.norm2(queries + self.dropout(self.pixel_attention(queries, tokens)))
        return self.norm3(queries + self.dropout(self.feed_forward(queries)))


class PlainDeformableAttention(Plain):
    """Multi-scale deformable attention as its authors' fallback without a compiled kernel has it."""

    offsets: nn.Linear
    weights: nn.Linear
    value: nn.Linear
    output: nn.Linear

    def __init__(self, source: nn.Module, heads: int, points: int):
        super().__init__(source)
        self.heads, self.points = heads, points

    def forward(self, queries: Tensor, references: Tensor, tokens: Tensor, sizes: Sizes) -> Tensor:
        """Attend from every pixel of every level.

        Args:
            queries: ``(N, S, width)``: tokens with their positions.
            references: ``(N, S, L, 2)``: each pixel's place on every level, x and y in [0, 1].
            tokens: ``(N, S, width)``.
            sizes: Height and width of the levels.

        Returns:
            ``(N, S, width)``.
        """
        count, places, width = queries.shape
        split = (self.heads, len(sizes), self.points)
        precise = torch.promote_types(queries.dtype, torch.float32)
        value = self.value(tokens).view(count, places, self.heads, width // self.heads).to(precise)
        offsets = self.offsets(queries).view(count, places, *split, 2).to(precise)
        weights = self.weights(queries).view(count, places, self.heads, -1).to(precise)
        weights = weights.softmax(dim=3).view(count, places, *split)
        extent = torch.tensor([(w, h) for h, w in sizes], device=queries.device, dtype=precise)
        locations = references[:, :, None, :, None, :] + offsets / extent[None, None, None, :, None, :]
        grids = 2 * locations - 1
        sampled = []
        for level, part in enumerate(value.split([h * w for h, w in sizes], dim=1)):
            maps = part.flatten(2).transpose(1, 2).reshape(count * self.heads, -1, *sizes[level])
            grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
            sampled.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
        weights = weights.transpose(1, 2).reshape(count * self.heads, 1, places, -1)
        attended = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1)
        attended = attended.view(count, width, places).transpose(1, 2).contiguous()
        return self.output(attended.to(self.output.weight.dtype))


class PlainEncoderLayer(Plain):
    """Deformable self-attention and a feed-forward network, each added, then normalised."""

    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    dropout: nn.Dropout

    def __init__(self, source: nn.Module, heads: int, points: int):
        super().__init__(source)
        self.attention = PlainDeformableAttention(source.get_submodule("attention"), heads, points)
        self.feed_forward = PlainFeedForward(source.get_submodule("feed_forward"))

    def forward(self, tokens: Tensor, positions: Tensor, references: Tensor, sizes: Sizes) -> Tensor:
        """Tokens and their positions ``(N, S, width)`` -> ``(N, S, width)``."""
        attended = self.attention(tokens + positions, references, tokens, sizes)
        tokens = self.norm1(tokens + self.dropout(attended))
        return self.norm2(tokens + self.dropout(self.feed_forward(tokens)))


class PlainEncoder(Plain):
    """Deformable encoder; positions and reference points are made anew in every call."""

    level_embedding: nn.Parameter
    layers: nn.ModuleList

    def __init__(self, source: nn.Module, heads: int, points: int):
        super().__init__(source)
        self.layers = nn.ModuleList(PlainEncoderLayer(layer, heads, points) for layer in self.layers)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps ``(N, width, h, w)`` -> all their tokens ``(N, S, width)``, and the first map encoded."""
        sizes = [(item.shape[2], item.shape[3]) for item in maps]
        tokens = torch.cat([item.flatten(2).transpose(1, 2) for item in maps], dim=1)
        positions = torch.cat(
            [
                sine_positions(item).flatten(2).transpose(1, 2) + level
                for item, level in zip(maps, self.level_embedding, strict=True)
            ],
            dim=1,
        )
        references = reference_points(maps)
        for layer in self.layers:
            tokens = layer(tokens, positions, references, sizes)
        height, width = sizes[0]
        first = tokens[:, : height * width].transpose(1, 2).reshape(len(tokens), -1, height, width)
        return tokens, first


def sine_positions(x: Tensor) -> Tensor:
    """Sine positions of a map ``(N, C, h, w)``, for every sample: y first, counted from 1, temperature 10,000."""
    inside = torch.ones(x.shape[0], x.shape[2], x.shape[3], device=x.device, dtype=x.dtype)
    half = x.shape[1] // 2
    index = torch.arange(half, device=x.device, dtype=x.dtype)
    temperature = 10_000 ** (2 * torch.div(index, 2, rounding_mode="floor") / half)
    axes = []
    for count in (inside.cumsum(1), inside.cumsum(2)):
        angle = count[..., None] / temperature
        axes.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=4).flatten(3))
    return torch.cat(axes, dim=3).permute(0, 3, 1, 2)


def reference_points(maps: list[Tensor]) -> Tensor:
    """Centres of all pixels of all levels, x and y in [0, 1], on every level: ``(N, S, L, 2)``."""
    centres = []
    for item in maps:
        height, width = item.shape[2:]
        y, x = torch.meshgrid(
            torch.linspace(0.5, height - 0.5, height, device=item.device, dtype=item.dtype) / height,
            torch.linspace(0.5, width - 0.5, width, device=item.device, dtype=item.dtype) / width,
            indexing="ij",
        )
        centres.append(torch.stack([x, y], dim=2).flatten(0, 1).repeat(len(item), 1, 1))
    return torch.cat(centres, dim=1)[:, :, None].repeat(1, 1, len(maps), 1)


class PlainMaskFeature(Plain):
    """The map that masks are read from."""

    def forward(self, finest: Tensor, encoded: Tensor) -> Tensor:
        """``(N, width, h, w)`` and ``(N, width, h/2, w/2)`` -> ``(N, width, h, w)``."""
        lateral = finest
        for layer in self.get_submodule("lateral").children():
            lateral = layer(lateral)
        x = lateral + F.interpolate(encoded, finest.shape[-2:], mode="bilinear", align_corners=False)
        for layer in self.get_submodule("output").children():
            x = layer(x)
        return F.relu(x)


class PlainChannelMixer(Plain):
    """Sound attends to the pixels, each with its key and value."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear

    def __init__(self, source: nn.Module, heads: int):
        super().__init__(source)
        self.heads = heads

    def forward(self, feature: Tensor, sound: Tensor) -> Tensor:
        """``(N, width, h, w)`` and ``(N, 1, width)`` -> ``(N, width, h, w)``."""
        pixels = feature.flatten(2).transpose(1, 2)
        attended = softmax_attention(self.query(sound), self.key(pixels), self.value(pixels), self.heads)
        return feature * self.output(attended).sigmoid().transpose(1, 2).unsqueeze(3)


class PlainMaskHead(Plain):
    """One map for each query, three 1×1 convolutions, and an output network."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv3: nn.Conv2d
    output1: nn.Conv2d
    output2: nn.Conv2d
    output3: nn.Conv2d

    def forward(self, queries: Tensor, feature: Tensor) -> Tensor:
        """Queries ``(N, Q, width)`` and the mask feature ``(N, width, h, w)`` -> logits ``(N, 1, 4h, 4w)``."""
        maps = torch.einsum("nqc,nchw->nqhw", queries, feature)
        x = self.conv3(F.relu(self.conv2(F.relu(self.conv1(maps))))) + feature
        x = F.interpolate(self.output1(x), scale_factor=4, mode="bilinear", align_corners=False)
        return self.output3(F.relu(self.output2(x)))
