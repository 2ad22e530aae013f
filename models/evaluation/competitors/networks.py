"""Networks of the deep competitors, with the input, the latent layer and the heads of the SPT."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own idiom

from ....agent.types import Settings
from ...network import SPTShape, head
from ...training import continued

_LATENT_LENGTH = 128


class CNNSizes(Settings):
    """Sizes of :func:`cnn`."""

    width: int = 64
    """Channels of the first layer; deeper layers have twice as many."""
    layers: int = 3
    """Convolutions over five points; all but the last are followed by pooling over two points."""
    dropout: float = 0.2


class TokenSizes(Settings):
    """Sizes of :func:`ft_transformer`."""

    points: int = 8
    """Number of neighbouring grid points per token; 1 is the published value."""
    width: int = 96
    blocks: int = 3
    heads: int = 4
    dropout: float = 0.05


class ArithmeticSizes(TokenSizes):
    """Sizes of :func:`amformer`."""

    width: int = 64
    prompts: int = 16
    """Learnt queries of every attention; the heads read the first."""
    summed: int = 8
    """Number of tokens that a prompt of the additive attention reads."""
    multiplied: int = 6
    """Number of tokens that a prompt of the multiplicative attention reads."""


class Joint(nn.Module):
    """A body (N, G) → (N, features) under the latent layer and the heads of an SPT of one member.

    ``forward`` takes spectra (N, G) or (N, 1, G), and returns logits, mean and log-variance as :meth:`SPT.forward`.
    Spectra that end early (NaN) continue with their last value, since these networks cannot tell where a spectrum is
    known.
    """

    def __init__(self, body: nn.Module, features: int, shape: SPTShape, dropout: float) -> None:
        super().__init__()
        self.body = body
        self.latent = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(features, _LATENT_LENGTH), nn.GELU(), nn.Dropout(dropout)
        )
        self.heads = nn.ModuleList(head(_LATENT_LENGTH, n, 1) for n in (*shape.classes, 2 * shape.regressed))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.latent(self.body(continued(x.flatten(1))))
        *logits, regressed = (to_descriptor(z.unsqueeze(0)).transpose(0, 1) for to_descriptor in self.heads)
        mean, log_variance = regressed.chunk(2, dim=2)
        return torch.cat(logits, dim=2), mean, log_variance.clamp(-8.0, 4.0)


def cnn(shape: SPTShape, sizes: CNNSizes) -> Joint:
    """Return a plain convolutional network: layers of convolution, normalisation, GELU and pooling."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, shape.grid_points))]
    channels, points = 1, shape.grid_points
    for k in range(sizes.layers):
        wider = sizes.width * min(k + 1, 2)
        layers += [nn.Conv1d(channels, wider, 5, padding=2), nn.BatchNorm1d(wider), nn.GELU()]
        channels = wider
        if k < sizes.layers - 1:
            layers.append(nn.AvgPool1d(2))
            points //= 2
    return Joint(nn.Sequential(*layers, nn.Flatten()), channels * points, shape, sizes.dropout)


class Tokens(nn.Module):
    """(N, G) spectra → (N, 1 + G / points, width): a learnt first token, and one per group of neighbouring points.

    The feature tokenizer of Gorishniy et al., NeurIPS 2021 (sec. 3.3), with the tokens of neighbours added.
    """

    def __init__(self, grid_points: int, points: int, width: int) -> None:
        super().__init__()
        self.points, self.missing = points, -grid_points % points
        self.count = 1 + (grid_points + self.missing) // points
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(self.count - 1, points, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(self.count, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        groups = F.pad(x, [0, self.missing]).unflatten(1, (-1, self.points))
        return F.pad(torch.einsum("ntp,tpw->ntw", groups, self.weight), [0, 0, 1, 0]) + self.bias


class FeedForward(nn.Module):
    """Normalisation and a gated layer; ``gate`` is ReLU in FT-Transformer and GELU in AMFormer."""

    def __init__(self, width: int, hidden: int, gate: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.gate, self.dropout = gate, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(self.norm(x)).chunk(2, dim=-1)
        return self.down(self.dropout(value * self.gate(gate)))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward; only the ``answering`` first tokens are returned (None: all)."""

    def __init__(self, sizes: TokenSizes, norm: nn.Module, answering: int | None) -> None:
        super().__init__()
        w = sizes.width
        self.heads, self.rate, self.answering = sizes.heads, sizes.dropout, answering
        self.norm = norm
        self.query, self.key_value, self.out = nn.Linear(w, w), nn.Linear(w, 2 * w), nn.Linear(w, w)
        self.feed = FeedForward(w, w * 4 // 3, nn.ReLU(), sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        key, value = self.key_value(normal).chunk(2, dim=2)
        projected = (self.query(normal[:, : self.answering]), key, value)
        parts = (p.unflatten(2, (self.heads, -1)).transpose(1, 2) for p in projected)
        mixed = F.scaled_dot_product_attention(*parts, dropout_p=self.rate if self.training else 0.0)
        x = x[:, : self.answering] + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed(x)


def ft_transformer(shape: SPTShape, sizes: TokenSizes) -> Joint:
    """FT-Transformer (Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, NeurIPS 2021).

    As published, the first block has no first normalisation, and the last one returns only the first token.
    """
    last = sizes.blocks - 1
    blocks = [
        TransformerBlock(sizes, nn.LayerNorm(sizes.width) if k else nn.Identity(), 1 if k == last else None)
        for k in range(sizes.blocks)
    ]
    body = [Tokens(shape.grid_points, sizes.points, sizes.width), *blocks, nn.Flatten()]
    return Joint(nn.Sequential(*body, nn.LayerNorm(sizes.width), nn.ReLU()), sizes.width, shape, sizes.dropout)


class PromptAttention(nn.Module):
    """Hard attention: each learnt prompt attends only to the ``nearest`` tokens that match it best."""

    def __init__(self, sizes: ArithmeticSizes, tokens: int, nearest: int) -> None:
        super().__init__()
        w = sizes.width
        self.heads, self.nearest = sizes.heads, min(nearest, tokens)
        self.prompts = nn.Parameter(torch.randn(sizes.heads, sizes.prompts, w // sizes.heads))
        self.key_value = nn.Linear(w, 2 * w)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        key, value = self.key_value(x).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        score = self.prompts @ key.transpose(2, 3) * key.shape[3] ** -0.5
        threshold = score.topk(self.nearest, dim=3).values[..., -1:]
        weight = self.dropout(score.masked_fill(score < threshold, -torch.inf).softmax(3))
        return (weight @ value).transpose(1, 2).flatten(2)


class ArithmeticBlock(nn.Module):
    """Additive and multiplicative attention side by side, fused over the tokens, and a feed-forward layer."""

    def __init__(self, sizes: ArithmeticSizes, tokens: int) -> None:
        super().__init__()
        w = sizes.width
        self.norm = nn.LayerNorm(w)
        self.sum = PromptAttention(sizes, tokens, sizes.summed)
        self.product = PromptAttention(sizes, tokens, sizes.multiplied)
        self.of_sum, self.of_product = nn.Linear(w, w), nn.Linear(w, w)
        self.fuse = nn.Linear(2 * sizes.prompts, sizes.prompts)
        self.carry = nn.Linear(tokens, sizes.prompts)
        self.feed = FeedForward(w, 2 * w, nn.GELU(), sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm(x)
        log = self.product(torch.log1p(F.relu(normal)))
        # The exponent is scaled to 0…1 for each frame; the authors scale it over the batch.
        low, high = log.amin((1, 2), keepdim=True), log.amax((1, 2), keepdim=True)
        product = torch.exp((log - low) / (high - low + 1e-6))
        both = torch.cat([self.of_sum(self.sum(normal)), self.of_product(product)], dim=1)
        x = self.carry(x.transpose(1, 2)) + self.fuse(both.transpose(1, 2))
        x = x.transpose(1, 2)
        return x + self.feed(x)


class FirstToken(nn.Module):
    """Select the first token: (N, tokens, width) → (N, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


def amformer(shape: SPTShape, sizes: ArithmeticSizes) -> Joint:
    """AMFormer (Cheng et al., Arithmetic Feature Interaction Is Necessary for Deep Tabular Learning, AAAI 2024).

    This is the form for many features, in which even the first block has fewer prompts than tokens.
    """
    tokens = Tokens(shape.grid_points, sizes.points, sizes.width)
    counts = [tokens.count] + [sizes.prompts] * (sizes.blocks - 1)
    body = [tokens, *(ArithmeticBlock(sizes, n) for n in counts), FirstToken()]
    return Joint(nn.Sequential(*body, nn.LayerNorm(sizes.width), nn.ReLU()), sizes.width, shape, sizes.dropout)
