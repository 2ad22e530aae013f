"""The network as plainly as its equations: spectra first, a layer at a time, one loop per descriptor.

:mod:`xas_agent.models.network` computes the same in an order that suits the hardware; the parameters have the same
names here, so that one state dict serves both.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own idiom

from xas_agent.models.network.ensemble import Served
from xas_agent.models.network.ood import OODScore
from xas_agent.models.network.recall import Recall
from xas_agent.models.network.shape import GATHERED_POINTS, SPTShape


class GroupedLinear(nn.Linear):
    """One linear layer per member: (N, members · inputs) → (N, members · outputs)."""

    def __init__(self, inputs: int, outputs: int, members: int) -> None:
        super().__init__(inputs, members * outputs)
        self.members = members
        self.inputs, self.outputs = inputs, outputs

    def forward(self, input: Tensor) -> Tensor:
        x = input.reshape(-1, self.members, self.inputs).transpose(0, 1)
        weight = self.weight.reshape(self.members, self.outputs, self.inputs).transpose(1, 2)
        out = torch.baddbmm(self.bias.reshape(self.members, 1, self.outputs), x, weight)
        return out.transpose(0, 1).reshape(-1, self.members * self.outputs)


class SpectralEmbedding(nn.Module):
    """Spectra → (N, members · width, nodes): value, slope and position of every spectral point, and whether known.

    Spectra are (N, G), the same for all members, or (N, members, G).
    """

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        channels = shape.members * shape.width
        self.masked = shape.short_points is not None
        self.local = nn.Conv1d(3 if self.masked else 2, channels, 5, padding=2, stride=shape.node_points)
        self.stride = shape.node_points
        self.place = nn.Parameter(torch.randn(1, channels, shape.nodes) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            x = x.unsqueeze(1)
        padded = F.pad(x, [1, 1], mode="replicate")
        slope = (padded[:, :, 2:] - padded[:, :, :-2]) * 5.0  # slopes become as large as the values
        channels = [x, slope]
        if self.masked:
            channels = [x.nan_to_num(), slope.nan_to_num(), (~x.isnan()).to(x.dtype)]
        own = torch.stack(channels, dim=2).flatten(1, 2)  # of each member behind each other
        weight, bias = self.local.weight, self.local.bias
        return F.conv1d(own, weight, bias, [self.stride], [2], [1], x.shape[1]) + self.place


class FrequencyBand(nn.Module):
    """One band: the sequence folded into rows of its period, a 2-D convolution, unfolded (eqs. 2 and 3).

    Depthwise 2-D filters here and the pointwise ``mix`` in the branch have a ninth of the weights of a full 3 × 3
    convolution. Pointwise operations do not depend on the folding, so the branch does them for all bands at once.
    """

    def __init__(self, shape: SPTShape, period: int) -> None:
        super().__init__()
        self.period = period
        self.points = shape.nodes
        self.missing = -shape.nodes % period
        channels = shape.members * shape.width
        self.within = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mix = nn.Linear(shape.width, channels)

    def forward(self, h: Tensor) -> Tensor:
        n, channels, _ = h.shape
        folded = self.within(F.pad(h, [0, self.missing]).reshape(n, channels, -1, self.period))
        return folded.reshape(n, channels, -1)[:, :, : self.points]


class FrequencyBranch(nn.Module):
    """Bands fused by a learnable query through a softmax over bands, with a residual (eq. 4)."""

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        w = shape.width
        self.width, self.members = w, shape.members
        self.bands = nn.ModuleList(FrequencyBand(shape, p) for p in shape.periods)
        self.count = len(shape.periods)
        grouped = GroupedLinear(w, w, shape.members)
        self.query = nn.Sequential(grouped, nn.GELU(), GroupedLinear(w, w, shape.members))
        self.key = GroupedLinear(w, w, shape.members)
        self.norm = nn.GroupNorm(shape.members, shape.members * w)
        self.chosen = shape.frame_bands or self.count
        self.harmonics = [round(shape.nodes / p) for p in shape.periods]

    def unchosen(self, h: Tensor) -> Tensor:
        """(N, bands) 0 for the strongest bands of a frame, −10⁴ for the others."""
        harmonics = torch.tensor(self.harmonics, device=h.device)
        amplitude = torch.fft.rfft(h.mean(dim=1)).abs().index_select(1, harmonics)
        strongest = amplitude.topk(self.chosen, dim=1).indices
        return torch.full_like(amplitude, -1e4).scatter(1, strongest, 0.0)

    def forward(self, h: Tensor) -> Tensor:
        n, channels, points = h.shape
        filtered: list[Tensor] = []
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for band in self.bands:
            filtered.append(band(h))
            weights.append(band.mix.weight.unsqueeze(2))  # pyright: ignore  a ModuleList forgets its types
            biases.append(band.mix.bias)  # pyright: ignore
        mixed = F.conv1d(
            F.gelu(torch.cat(filtered, dim=1)),
            torch.cat(weights),
            torch.cat(biases),
            groups=self.count * self.members,
        )
        bands = mixed.reshape(n, self.count, channels, points)
        query = self.query(h.mean(dim=2)).unsqueeze(1)
        key = self.key(bands.mean(dim=3).reshape(-1, channels)).reshape(n, self.count, channels)
        score = (query * key).reshape(n, self.count, self.members, self.width).sum(dim=3) * self.width**-0.5
        if self.chosen < self.count:
            score = score + self.unchosen(h).unsqueeze(2)
        weight = torch.softmax(score, dim=1).unsqueeze(3).expand(-1, -1, -1, self.width)
        fused = (bands * weight.reshape(n, self.count, channels, 1)).sum(dim=1)
        return self.norm(h + fused)


class GraphAttention(nn.Module):
    """Attention of every spectral point over its neighbours in energy (eqs. 5–7).

    The relevance of a neighbour is ``aᵀ LeakyReLU(W [hᵢ ‖ hⱼ])``. W acts on the two halves separately, so that the
    concatenated pair is never stored.
    """

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        w, m = shape.width, shape.members
        self.window = shape.window
        self.heads = m * shape.heads
        self.here = nn.Conv1d(m * w, m * w, 1, groups=m)
        self.there = nn.Conv1d(m * w, m * w, 1, groups=m, bias=False)
        each = w // shape.heads
        self.relevance = nn.Parameter(torch.randn(1, self.heads, each, 1, 1) * each**-0.5)
        self.value = nn.Conv1d(m * w, m * w, 1, groups=m)
        self.norm = nn.GroupNorm(m, m * w)
        reach = torch.arange(shape.nodes).unsqueeze(1) + torch.arange(-shape.window, shape.window + 1)
        outside = (reach < 0) | (reach >= shape.nodes)
        self.register_buffer("outside", torch.zeros(outside.shape).masked_fill(outside, -1e4))
        self.outside: Tensor

    def forward(self, h: Tensor) -> Tensor:
        n, channels, points = h.shape
        pad = [self.window, self.window]
        split = [n, self.heads, channels // self.heads, points]
        reach = 2 * self.window + 1
        there = F.pad(self.there(h), pad).reshape(split[:3] + [-1]).unfold(3, reach, 1)
        pair = F.leaky_relu(self.here(h).reshape(split).unsqueeze(4) + there, 0.2, inplace=True)
        # aᵀ(…) per head as a grouped convolution: one pass over the largest tensor instead of two.
        relevance = self.relevance.reshape(self.heads, channels // self.heads, 1)
        score = F.conv1d(pair.reshape(n, channels, points * reach), relevance, groups=self.heads)
        score = score.reshape(n, self.heads, points, reach) + self.outside
        weight = torch.softmax(score, dim=3).unsqueeze(2)
        value = F.pad(self.value(h), pad).reshape(split[:3] + [-1]).unfold(3, reach, 1)
        return self.norm(h + F.gelu((value * weight).sum(dim=4).reshape(n, channels, points)))


class PlainSPT(nn.Module):
    """One network, or several side by side, for all descriptors of a site.

    ``forward`` takes aligned spectra, (N, G) or one of each member (N, members, G), and returns, per member, the
    logits of all classes of all classified descriptors (N, members, sum of classes), mean and log-variance of the
    standardised regressed quantities, each (N, members, R), and the query (N, members, key) that recalls training
    sites.
    """

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        m, w = shape.members, shape.width
        self.members = m
        self.embedding = SpectralEmbedding(shape)
        blocks: list[nn.Module] = []
        for _ in range(shape.blocks):
            blocks += [FrequencyBranch(shape)] if shape.frequency else []
            blocks += [GraphAttention(shape)] if shape.graph else []
        self.blocks = nn.Sequential(*blocks)
        stride = GATHERED_POINTS // shape.node_points
        self.gather = nn.Conv1d(m * w, m * shape.gathered, stride, stride=stride, groups=m)
        self.latent = nn.Sequential(
            nn.Dropout(shape.dropout),
            GroupedLinear(shape.gathered * (shape.nodes // stride), shape.latent, m),
            nn.GELU(),
            nn.Dropout(shape.dropout),
        )
        outputs = (*shape.classes, 2 * shape.regressed)
        self.heads = nn.ModuleList(head(shape.latent, n, m) for n in outputs)
        self.key = shape.key
        self.query = GroupedLinear(shape.latent, shape.key, m)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z = self.latent(F.gelu(self.gather(self.blocks(self.embedding(x)))).flatten(1))
        out: list[Tensor] = []
        for to_descriptor in self.heads:
            out.append(to_descriptor(z).reshape(len(x), self.members, -1))
        mean, log_variance = out.pop().chunk(2, dim=2)
        query = self.query(z).reshape(len(x), self.members, -1)
        return torch.cat(out, dim=2), mean, log_variance.clamp(-8.0, 4.0), query


def head(latent: int, outputs: int, members: int) -> nn.Module:
    """Return the head of one descriptor, (N, members · latent) → (N, members · outputs)."""
    return nn.Sequential(
        GroupedLinear(latent, latent // 2, members), nn.GELU(), GroupedLinear(latent // 2, outputs, members)
    )


class PlainRecall(Recall):
    def forward(self, query: Tensor, barred: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # (members, N, key) and (members, S, key). In single precision the difference of large squares would make the
        # fourth digit of a frame's estimate depend on the other frames of its batch.
        q, k = query.transpose(0, 1).double(), self.keys.double()
        square = q.square().sum(2, keepdim=True) + k.square().sum(2).unsqueeze(1) - 2 * q @ k.transpose(1, 2)
        square = square.float()
        if barred is not None:
            square = square.masked_fill(barred, self.far)
        weight = torch.softmax(-square * self.log_sharpness.exp(), dim=2)
        by_site = weight.flatten(0, 1).T.contiguous()  # (S, members · N)
        by_class: list[Tensor] = []
        for d, count in enumerate(self.classes):
            per_class = by_site.new_zeros(count + 1, by_site.shape[1])
            per_class = per_class.index_add(0, self.labels[d].long(), by_site)[:count]
            by_class.append(per_class / per_class.sum(0, keepdim=True).clamp_min(self.least))
        shape = [query.shape[1], query.shape[0], -1]
        probabilities = torch.cat(by_class).T.reshape(shape).transpose(0, 1)
        known = (~self.targets.isnan()).float()
        values = (weight @ self.targets.nan_to_num()) / (weight @ known).clamp_min(self.least)
        return probabilities.clamp_min(self.least).log(), values.transpose(0, 1)


class PlainOODScore(OODScore):
    def mean_distances(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean_distance(x, self.seen), self.mean_distance(x, self.outliers)

    def mean_distance(self, x: Tensor, points: Tensor) -> Tensor:
        far = torch.cdist(x.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
        return far.topk(self.neighbours, dim=1, largest=False)[0].mean(1).float()


class PlainServed(Served):
    """As :class:`Served`, of the layers above."""

    def __init__(self, shape: SPTShape, sites: int, outliers: int = OODScore.OUTLIERS) -> None:
        super().__init__(shape, sites, outliers)
        self.plain = PlainSPT(shape)
        self.recall = PlainRecall(shape.members, sites, shape.key, shape.classes, shape.regressed)
        self.ood_score = PlainOODScore(self.short, outliers=outliers)

    def forward(self, x: Tensor) -> Tensor:
        always_known = x[:, : self.short]
        denoised = torch.cat([self.denoiser(always_known), x[:, self.short :]], dim=1)
        logits, mean, log_variance, query = self.plain((denoised - self.centre) / self.spread)
        recalled, recalled_values = self.recall(query)
        share = self.share[len(self.classes) :]
        difference = recalled_values - mean
        value = mean + share * difference
        variance = (log_variance.exp() + share * (1 - share) * difference.square()).mean(1)
        return torch.cat(
            [
                self.probabilities(logits, recalled),
                value.mean(1) * self.target_sd + self.target_mean,
                variance.sqrt() * self.target_sd,
                self.ood_score(always_known).unsqueeze(1),
            ],
            dim=1,
        )

    def probabilities(self, logits: Tensor, recalled: Tensor) -> Tensor:
        """Blend heads and recall, each (N, members, sum of classes), to probabilities (N, sum of classes)."""
        parts: list[Tensor] = []
        recalled_parts = recalled.split(self.classes, dim=2)
        for k, part in enumerate(logits.split(self.classes, dim=2)):
            from_heads = torch.softmax(part / self.temperature[k], dim=2)
            blended = (1 - self.share[k]) * from_heads + self.share[k] * recalled_parts[k].exp()
            parts.append(torch.softmax(blended.clamp_min(1e-9).log().mean(1), dim=1))
        return torch.cat(parts, dim=1)


def plain(served: Served, shape: SPTShape) -> PlainServed:
    """Return the plain form with the weights of ``served``, of that shape."""
    found = PlainServed(shape, served.recall.keys.shape[1], len(served.ood_score.outliers))
    found.plain.load_state_dict(served.spt.state_dict())
    found.load_state_dict(served.state_dict(), strict=False)
    return found.train(served.training)
