"""The Spectral Pattern Translator, Multi-Target Joint form (Zhong et al., section 4.3).

Serving requires two properties beyond the paper. The periods of the frequency branch are chosen once, from the
training spectra, so that a frame's result never depends on the other frames of its batch. Every operation compiles
with ``torch.jit.script``, so that the shipped file needs neither this code nor Python.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own idiom

from .branches import FrequencyBranch, GraphAttention, MembersLinear, SpectralEmbedding, present
from .shape import GATHERED_POINTS, SPTShape


class SPT(nn.Module):
    """One network, or several side by side, for all descriptors of a site.

    ``forward`` takes aligned spectra, (N, G) or one of each member (N, members, G), and returns, per member, the
    logits of all classes of all classified descriptors (N, members, sum of classes), mean and log-variance of the
    standardised regressed quantities, each (N, members, R), and the query (N, members, key) that recalls training
    sites.

    Inside, channels come last, those of all members side by side, (N, points, members, width), so that the pointwise
    layers of all members are one product of matrices. Quantities that depend on weights alone, such as their order
    and their joining, are computed in ``forward``: ``torch.jit.freeze`` does this once, when a model is loaded.
    """

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        m, w = shape.members, shape.width
        self.members, self.width, self.gathered, self.latents = m, w, shape.gathered, shape.latent
        self.embedding = SpectralEmbedding(shape)
        blocks: list[nn.Module] = []
        for _ in range(shape.blocks):
            blocks += [FrequencyBranch(shape)] if shape.frequency else []
            blocks += [GraphAttention(shape)] if shape.graph else []
        self.blocks = nn.Sequential(*blocks)
        self.stride = GATHERED_POINTS // shape.node_points
        self.gather = nn.Conv1d(m * w, m * shape.gathered, self.stride, stride=self.stride, groups=m)
        self.whole = shape.nodes // self.stride
        self.latent = nn.Sequential(
            nn.Dropout(shape.dropout),
            MembersLinear(shape.gathered * self.whole, shape.latent, m),
            nn.GELU(),
            nn.Dropout(shape.dropout),
        )
        outputs = (*shape.classes, 2 * shape.regressed)
        self.heads = nn.ModuleList(head(shape.latent, n, m) for n in outputs)
        self.classes, self.regressed, self.most = list(shape.classes), shape.regressed, max(outputs)
        self.key = shape.key
        self.query = MembersLinear(shape.latent, shape.key, m)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits, mean, log_variance, query = self.by_descriptor(x)
        parts: list[Tensor] = []
        for d, count in enumerate(self.classes):
            parts.append(logits[:, :, d, :count])
        joined = torch.cat(parts, dim=2).transpose(0, 1)
        return joined, mean.transpose(0, 1), log_variance.transpose(0, 1), query.transpose(0, 1)

    def by_descriptor(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the output of ``forward``, members before spectra, with logits (members, N, descriptors, classes).

        All descriptors have as many classes as the one with most; logits of surplus classes are −∞.
        """
        z = self.latent(F.gelu(self.gather_points(self.blocks(self.embedding(x)))))
        out, classified, r = self.head_outputs(z), len(self.classes), self.regressed
        logits, regressed = out.narrow(2, 0, classified).narrow(3, 0, max(self.classes)), out.select(2, classified)
        mean, log_variance = regressed.narrow(2, 0, r), regressed.narrow(2, r, r)
        return logits, mean, log_variance.clamp(-8.0, 4.0), self.query(z)

    def gather_points(self, h: Tensor) -> Tensor:
        """Gather points: (N, points, members, width) → (members, N, gathered · points / stride)."""
        m, n, w = self.members, h.shape[0], self.width
        several = h.narrow(1, 0, self.whole * self.stride).reshape(n * self.whole, self.stride, m, w)
        weight = self.gather.weight.reshape(m, self.gathered, w, self.stride)
        gathered = present(self.gather.bias).reshape(m, 1, self.gathered)
        for k in range(self.stride):
            own = weight[..., k].transpose(1, 2).contiguous()
            gathered = torch.baddbmm(gathered, several.select(1, k).transpose(0, 1), own)
        return gathered.reshape(m, n, self.whole, self.gathered).transpose(2, 3).flatten(2)

    def head_outputs(self, z: Tensor) -> Tensor:
        """Apply the heads: (members, N, latent) → (members, N, heads, most outputs), −∞ for surplus outputs.

        The first layers of all heads are one product of matrices, and the second layers another.
        """
        m, n = self.members, z.shape[1]
        first_weights: list[Tensor] = []
        first_biases: list[Tensor] = []
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for to_descriptor in self.heads:
            weight, bias = to_descriptor[0].matrices()  # pyright: ignore  a ModuleList forgets its types
            first_weights.append(weight)
            first_biases.append(bias)
            weight, bias = to_descriptor[2].matrices()  # pyright: ignore
            missing = [0, self.most - weight.shape[2]]
            weights.append(F.pad(weight, missing))
            biases.append(F.pad(bias, missing, value=float("-inf")))
        heads = len(weights)
        hidden = F.gelu(torch.baddbmm(torch.cat(first_biases, 2), z, torch.cat(first_weights, 2)))
        hidden = hidden.reshape(m, n, heads, -1).transpose(1, 2).reshape(m * heads, n, -1)
        weight, bias = torch.stack(weights, 1).flatten(0, 1), torch.stack(biases, 1).flatten(0, 1)
        return torch.baddbmm(bias, hidden, weight).reshape(m, heads, n, self.most).transpose(1, 2)


def head(latent: int, outputs: int, members: int) -> nn.Module:
    """Return the head of one descriptor, (members, N, latent) → (members, N, outputs)."""
    return nn.Sequential(
        MembersLinear(latent, latent // 2, members), nn.GELU(), MembersLinear(latent // 2, outputs, members)
    )


def ensemble_weights(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join the weights of single SPTs to those of one with several members, with the channels side by side."""
    joined: dict[str, Tensor] = {}
    for name, first in members[0].items():
        if name.endswith("outside"):
            joined[name] = first
        else:
            joined[name] = torch.cat([m[name] for m in members], dim=channels_of(name))
    return joined


def channels_of(name: str) -> int:
    """Return the dimension of a tensor along which the members are side by side."""
    return 1 if name.endswith(("place", "relevance")) else 0


def member_weights(joined: Mapping[str, Tensor], k: int, members: int) -> dict[str, Tensor]:
    """Return the weights of member k, the inverse of :func:`ensemble_weights`."""
    weights: dict[str, Tensor] = {}
    for name, tensor in joined.items():
        own = tensor if name.endswith("outside") else tensor.chunk(members, dim=channels_of(name))[k]
        weights[name] = own.contiguous()
    return weights
