"""Layers of the Spectral Pattern Translator: its embedding, its frequency bands and its graph attention."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own idiom

from .shape import SPTShape

_FEW_FRAMES = 2  # number of frames up to which one convolution of all bands is faster on a CPU than one per band


def present(bias: Tensor | None) -> Tensor:
    """Return the bias of a convolution that has one."""
    assert bias is not None
    return bias


class MembersLinear(nn.Linear):
    """One linear layer per member: (members, N, inputs) → (members, N, outputs).

    Inputs and outputs may be scaled. This costs no operation, since ``torch.jit.freeze`` scales the weights once.
    """

    def __init__(
        self, inputs: int, outputs: int, members: int, *, scale_in: float = 1.0, scale_out: float = 1.0
    ) -> None:
        super().__init__(inputs, members * outputs)
        self.members = members
        self.inputs, self.outputs = inputs, outputs
        self.scale_in, self.scale_out = scale_in, scale_out

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Return weights (members, inputs, outputs) and biases (members, 1, outputs)."""
        weight = self.weight.reshape(self.members, self.outputs, self.inputs).transpose(1, 2).contiguous()
        bias = self.bias.reshape(self.members, 1, self.outputs)
        return weight * (self.scale_in * self.scale_out), bias * self.scale_out

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.matrices()
        return torch.baddbmm(bias, input, weight)


def many_images(n: int, points: int) -> bool:
    """Return whether n frames give as many images, whole or in halves, as :func:`as_convolution` needs to pay off."""
    return n * (2 if points % 2 == 0 else 1) >= 16


def as_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply every member's channels by its matrix: (N, points, members, inputs) → (N, points, members, outputs).

    On a CPU, torch multiplies matrices with MKL, which uses half the vector width of AMD's processors. oneDNN
    computes the same product as a convolution of one pixel with the full width; torch uses it for 16 images or more.

    Parameters
    ----------
    x : Tensor
    weight : (members, inputs, outputs)
    """
    n, points = x.shape[:2]
    m, inputs, outputs = weight.shape  # taken from the weights, so that torch.jit.freeze knows them
    halves = 2 if points % 2 == 0 else 1
    images = x.reshape(n * halves, 1, points // halves, m * inputs).permute(0, 3, 1, 2)
    filters = weight.transpose(1, 2).reshape(m * outputs, inputs, 1, 1)
    return F.conv2d(images, filters, groups=m).permute(0, 2, 3, 1).reshape(n, points, m, outputs)


class MembersNorm(nn.GroupNorm):
    """Normalisation of every member over points and channels: (N, points, members, width) → the same."""

    def forward(self, input: Tensor) -> Tensor:
        pixels = input.flatten(2).unsqueeze(1).permute(0, 3, 1, 2)  # channels last in memory
        normal = torch.group_norm(pixels, self.num_groups, self.weight, self.bias, self.eps)
        return normal.permute(0, 2, 3, 1).reshape(input.shape)


class SpectralEmbedding(nn.Module):
    """Spectra → (N, nodes, members, width): value, slope, position and known state of every spectral point.

    Spectra are (N, G), shared by all members, or (N, members, G).
    """

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        channels = shape.members * shape.width
        self.members, self.width, self.nodes = shape.members, shape.width, shape.nodes
        self.masked = shape.short_points is not None
        self.local = nn.Conv1d(3 if self.masked else 2, channels, 5, padding=2, stride=shape.node_points)
        self.stride = shape.node_points
        self.place = nn.Parameter(torch.randn(1, channels, shape.nodes) * 0.02)
        inputs, points = self.local.in_channels, shape.grid_points
        self.as_large = [1.0, 5.0, 1.0][:inputs]
        """Factors that make slopes as large as values."""
        point = np.arange(shape.nodes)[:, None, None] * shape.node_points + np.arange(-2, 3)
        near = np.arange(inputs)[:, None] * points + point
        self.near = np.where((point >= 0) & (point < points), near, inputs * points).ravel().tolist()
        """Indices of the five points of every channel about each node, one channel after another, and of a 0."""

    def forward(self, x: Tensor) -> Tensor:
        n, shared = x.shape[0], x.dim() == 2
        x = x.unsqueeze(1) if shared else x
        padded = torch.cat([x.narrow(2, 0, 1), x, x.narrow(2, -1, 1)], dim=2)
        slope = padded[..., 2:] - padded[..., :-2]
        channels = [x, slope]
        if self.masked:
            channels = [x.nan_to_num(), slope.nan_to_num(), (~x.isnan()).to(x.dtype)]
        zero = torch.zeros_like(x.narrow(2, 0, 1))
        near = torch.cat(channels + [zero], dim=2).index_select(2, torch.tensor(self.near, device=self.place.device))
        near = near.transpose(0, 1).reshape(x.shape[1], n, self.nodes, -1)
        place = (self.place + present(self.local.bias).unsqueeze(1)).transpose(1, 2)  # (1, nodes, channels)
        as_large = torch.tensor(self.as_large, device=self.place.device).unsqueeze(1)
        weight = self.local.weight * as_large
        if shared:  # one product for the channels of all members
            weight = weight.flatten(1).T.unsqueeze(0)
            values = torch.baddbmm(place, near[0], weight.expand(n, -1, -1))
            return values.reshape(n, self.nodes, self.members, self.width)
        weight = weight.reshape(self.members, self.width, -1).transpose(1, 2)
        values = torch.bmm(near.flatten(1, 2), weight).reshape(self.members, n, self.nodes, self.width)
        return values.permute(1, 2, 0, 3) + place.reshape(self.nodes, self.members, self.width)


class FrequencyBand(nn.Module):
    """One band: the sequence folded into rows of its period, a 2-D convolution, unfolded (eqs. 2 and 3).

    Depthwise 2-D filters here and the pointwise ``mix`` in the branch have a ninth of the weights of a full 3 × 3
    convolution. Pointwise operations do not depend on the folding, so the branch does them for all bands at once.
    """

    def __init__(self, shape: SPTShape, period: int) -> None:
        super().__init__()
        self.period = period
        self.folded = shape.nodes + -shape.nodes % period
        channels = shape.members * shape.width
        self.within = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mix = nn.Linear(shape.width, channels)

    def forward(self, h: Tensor) -> Tensor:
        """Filter (N, points, channels) → the same; zeros complete the last row."""
        n, _, channels = h.shape
        rows = h[:, : self.folded].reshape(n, -1, self.period, channels)
        filtered = self.within(rows.permute(0, 3, 1, 2))  # channels last in memory, as the filters need them
        return filtered.permute(0, 2, 3, 1).reshape(n, self.folded, channels)


class FrequencyBranch(nn.Module):
    """Bands fused by a learnable query through a softmax over bands, with a residual (eq. 4)."""

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        w = shape.width
        self.width, self.members, self.points = w, shape.members, shape.nodes
        self.bands = nn.ModuleList(FrequencyBand(shape, p) for p in shape.periods)
        self.count = len(shape.periods)
        self.missing = max(-shape.nodes % p for p in shape.periods)
        of_sum = MembersLinear(w, w, shape.members, scale_in=1.0 / shape.nodes)
        self.query = nn.Sequential(of_sum, nn.GELU(), MembersLinear(w, w, shape.members))
        self.key = MembersLinear(w, w, shape.members, scale_out=w**-0.5)
        self.norm = MembersNorm(shape.members, shape.members * w)
        self.chosen = shape.frame_bands or self.count
        self.harmonics = [round(shape.nodes / p) for p in shape.periods]
        self.few, self.longest = _FEW_FRAMES, max(shape.periods)  # TorchScript sees attributes, not globals
        self.pixels, self.unfolded = self.places(shape)

    def places(self, shape: SPTShape) -> tuple[list[int], list[int]]:
        """Return the point of every pixel of all bands' images, and the pixel of every point, member and band.

        The images have the same height and width, with the pixels of the bands side by side; a pixel without a point
        has the number after the last point.
        """
        height = max(-(-shape.nodes // p) for p in shape.periods)
        row, column = np.divmod(np.arange(height * self.longest)[:, None], self.longest)
        periods = np.array(shape.periods)
        point = row * periods + column  # (pixels, bands)
        pixels = np.where((column < periods) & (point < shape.nodes), point, shape.nodes)
        rows, columns = np.divmod(np.arange(shape.nodes)[:, None], periods)  # (points, bands)
        pixel = (rows * self.longest + columns) * self.count + np.arange(self.count)
        unfolded = pixel[:, None] * shape.members + np.arange(shape.members)[:, None]  # (points, members, bands)
        return pixels.ravel().tolist(), unfolded.ravel().tolist()

    def unchosen(self, h: Tensor) -> Tensor:
        """Return (N, bands): 0 for the strongest bands of a frame, −10⁴ for the others."""
        harmonics = torch.tensor(self.harmonics, device=h.device)
        amplitude = torch.fft.rfft(h.mean(dim=[2, 3])).abs().index_select(1, harmonics)
        strongest = amplitude.topk(self.chosen, dim=1).indices
        return torch.full_like(amplitude, -1e4).scatter(1, strongest, 0.0)

    def forward(self, h: Tensor) -> Tensor:
        n, points, m, w = h.shape[0], self.points, self.members, self.width
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for band in self.bands:
            weights.append(band.mix.weight.reshape(m, w, w).transpose(1, 2))  # pyright: ignore  a ModuleList forgets
            biases.append(band.mix.bias.reshape(m, w))  # pyright: ignore
        bias = torch.stack(biases, dim=1)  # added to means and sum instead of every point
        scripted = torch.jit.is_scripting()  # pyright: ignore  TorchScript knows it by this name
        on_cpu = scripted and not h.is_cuda
        if on_cpu and n <= self.few:
            return self.norm(self.at_once(h, self.filtered_at_once(h), torch.stack(weights, dim=1), bias))
        rows = F.pad(h.flatten(2), [0, 0, 0, self.missing])
        filtered: list[Tensor] = []
        for band in self.bands:
            filtered.append(band(rows)[:, :points].reshape(n, points, m, w))
        if on_cpu and many_images(n, points):
            return self.norm(self.one_by_one(h, filtered, weights, bias))
        return self.norm(self.at_once(h, torch.stack(filtered, dim=3), torch.stack(weights, dim=1), bias))

    def filtered_at_once(self, h: Tensor) -> Tensor:
        """Filter all bands in one convolution: (N, points, members, width) → (N, points, members, bands, width).

        Zeros extend the images of all bands to the same size. For few frames, a convolution costs little more than
        its call.
        """
        n, m, w = h.shape[0], self.members, self.width
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for band in self.bands:
            weights.append(band.within.weight)  # pyright: ignore
            biases.append(present(band.within.bias))  # pyright: ignore
        weight, bias = torch.cat(weights), torch.cat(biases)
        pixels = F.pad(h.flatten(2), [0, 0, 0, 1]).index_select(1, torch.tensor(self.pixels, device=bias.device))
        images = pixels.reshape(n, -1, self.longest, self.count * m * w).permute(0, 3, 1, 2)
        filtered = F.conv2d(images, weight, bias, padding=1, groups=self.count * m * w).permute(0, 2, 3, 1)
        rows = filtered.reshape(n, -1, w).index_select(1, torch.tensor(self.unfolded, device=bias.device))
        return rows.reshape(n, self.points, m, self.count, w)

    def one_by_one(self, h: Tensor, filtered: list[Tensor], weights: list[Tensor], bias: Tensor) -> Tensor:
        """Fuse the filtered bands one by one, since for many frames all bands together would not fit the CPU's cache.

        Parameters
        ----------
        h : (N, points, members, width)
        filtered : filtered sequence of each band, shaped like h
        weights : weights of each band's mix, (members, width, width)
        bias : (members, bands, width)
        """
        mixed: list[Tensor] = []
        means: list[Tensor] = []
        for band, weight in zip(filtered, weights):  # noqa: B905  TorchScript knows no strict
            mixed.append(as_convolution(F.gelu(band), weight))
            means.append(mixed[-1].mean(dim=1).transpose(0, 1))
        share = self.shares(h, torch.stack(means, dim=1) + bias.unsqueeze(2))
        fused = h + torch.bmm(share.transpose(0, 1), bias).transpose(0, 1).unsqueeze(1)
        for k, band in enumerate(mixed):
            fused.addcmul_(band, share[:, :, k].unsqueeze(1).unsqueeze(3))
        return fused

    def at_once(self, h: Tensor, filtered: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Fuse as :meth:`one_by_one` does, with the mix of all bands and their sum as a single product of matrices.

        A band's share follows from its mean over points, and the mean of a mixed band is the mix of its mean, so that
        mixed bands are never stored. This takes the fewest operations, whose number limits the latency of a single
        frame.

        Parameters
        ----------
        h, bias
            As for :meth:`one_by_one`.
        filtered : (N, points, members, bands, width)
        weight : (members, bands, width, width)
        """
        n, points, m, w = h.shape[0], self.points, self.members, self.width
        signal = F.gelu(filtered)
        total = signal.sum(dim=1).permute(1, 2, 0, 3).reshape(m * self.count, n, w)
        of_each = bias.reshape(m * self.count, 1, w)
        mean = torch.baddbmm(of_each, total, weight.flatten(0, 1), alpha=1.0 / points)
        share = self.shares(h, mean.reshape(m, self.count, n, w))
        signal = (signal * share.unsqueeze(1).unsqueeze(4)).reshape(n * points, m, self.count * w)
        mixed = torch.bmm(signal.transpose(0, 1), weight.flatten(1, 2)).reshape(m, n, points, w)
        offset = torch.bmm(share.transpose(0, 1), bias).transpose(0, 1).unsqueeze(1)
        return h + offset + mixed.permute(1, 2, 0, 3)

    def shares(self, h: Tensor, mean: Tensor) -> Tensor:
        """Return the bands' shares (N, members, bands) from the mixed bands' means (members, bands, N, width)."""
        m, n, w = self.members, h.shape[0], self.width
        key = self.key(mean.reshape(m, self.count * n, w)).reshape(m, self.count, n, w)
        query = self.query(h.sum(dim=1).transpose(0, 1)).unsqueeze(1)
        score = (query * key).sum(dim=3)
        if self.chosen < self.count:
            score = score + self.unchosen(h).T
        return torch.softmax(score, dim=1).permute(2, 0, 1)


class GraphAttention(nn.Module):
    """Attention of every spectral point over its neighbours in energy (eqs. 5–7).

    The relevance of a neighbour is ``aᵀ LeakyReLU(W [hᵢ ‖ hⱼ])``. W acts on the two halves separately, so that the
    concatenated pair is never stored. Points come last here; those of all frames follow each other, separated by
    zeros. The neighbours at one distance are then the same numbers, shifted, and each distance is one step of a loop
    whose tensors fit the cache.
    """

    def __init__(self, shape: SPTShape) -> None:
        super().__init__()
        w, m = shape.width, shape.members
        self.members, self.width, self.points = m, w, shape.nodes
        self.window, self.reach = shape.window, 2 * shape.window + 1
        self.heads, self.each = shape.heads, w // shape.heads
        self.here = nn.Conv1d(m * w, m * w, 1, groups=m)
        self.there = nn.Conv1d(m * w, m * w, 1, groups=m, bias=False)
        self.relevance = nn.Parameter(torch.randn(1, m * self.heads, self.each, 1, 1) * self.each**-0.5)
        self.value = nn.Conv1d(m * w, m * w, 1, groups=m)
        self.norm = MembersNorm(m, m * w)
        reach = torch.arange(shape.nodes).unsqueeze(1) + torch.arange(-shape.window, shape.window + 1)
        outside = (reach < 0) | (reach >= shape.nodes)
        self.register_buffer("outside", torch.zeros(outside.shape).masked_fill(outside, -1e4))
        self.outside: Tensor

    def weights(self, weight: Tensor) -> Tensor:
        """Return the weights of a pointwise convolution as (members, inputs, outputs)."""
        return weight.reshape(self.members, self.width, self.width).transpose(1, 2)

    def projected(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three projections of every point, including points of zeros at both ends of each frame.

        Each is (members, width, N · (points + 2 window)).
        """
        m, w = self.members, self.width
        parts = [self.weights(self.here.weight), self.weights(self.there.weight), self.weights(self.value.weight)]
        of_here, of_value = present(self.here.bias).reshape(m, 1, w), present(self.value.bias).reshape(m, 1, w)
        bias = torch.cat([of_here, torch.zeros_like(of_here), of_value], dim=2)
        apart = F.pad(h.flatten(2), [0, 0, self.window, self.window]).reshape(-1, m, w).permute(1, 2, 0)
        mixed = torch.baddbmm(bias.transpose(1, 2), torch.cat(parts, dim=2).transpose(1, 2), apart)
        return mixed[:, :w], mixed[:, w : 2 * w], mixed[:, 2 * w :]

    def attention(self, here: Tensor, there: Tensor) -> Tensor:
        """Return the weights (members, reach, heads, all points but the zeros at both ends) from two projections."""
        m, count = self.members, here.shape[2] - 2 * self.window
        of_heads = torch.diag_embed(self.relevance.reshape(m, self.heads, self.each).transpose(1, 2))
        of_heads = of_heads.permute(0, 2, 3, 1).reshape(m, self.heads, self.width)  # each head at its own channels
        scores: list[Tensor] = []
        for k in range(self.reach):
            pair = there[..., k : k + count] + here[..., self.window : self.window + count]
            pair = F.leaky_relu(pair, 0.2, inplace=True)
            scores.append(torch.bmm(of_heads, pair))
        frames = here.shape[2] // (self.points + 2 * self.window)
        outside = F.pad(self.outside.T, [0, 2 * self.window]).unsqueeze(1).expand(-1, frames, -1).flatten(1)
        return torch.softmax(torch.stack(scores, dim=1) + outside.narrow(1, 0, count).unsqueeze(1), dim=1)

    def frames(self, x: Tensor) -> Tensor:
        """Rearrange (members, channels, all points but the zeros at both ends) to (N, points, members, channels)."""
        padded = F.pad(x.transpose(1, 2), [0, 0, 0, 2 * self.window])
        by_frame = padded.reshape(x.shape[0], -1, self.points + 2 * self.window, x.shape[1])
        return by_frame.narrow(2, 0, self.points).permute(1, 2, 0, 3)

    def forward(self, h: Tensor) -> Tensor:
        here, there, value = self.projected(h)
        weight = self.attention(here, there).unsqueeze(3)  # (members, reach, heads, 1, ·)
        value, count = value.reshape(self.members, self.heads, self.each, -1), weight.shape[4]
        attended = weight.select(1, 0) * value[..., :count]
        for k in range(1, self.reach):
            attended.addcmul_(weight.select(1, k), value[..., k : k + count])
        return self.norm(h + self.frames(F.gelu(attended).flatten(1, 2)))
