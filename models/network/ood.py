"""How far a spectrum is from those seen in training."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  torch's own idiom


class OODScore(nn.Module):
    """How unlike the training spectra a spectrum is: 1 is the edge of what was seen.

    Looks four times, through a principal-component model of the augmented training spectra. How far it is from its
    nearest neighbours among them within the first components (another compound); what remains outside of more
    components, smoothed (another normalisation: a misfit lies on one side over neighbouring points, noise does not);
    how far a single point stands off its neighbours, in units of the frame's own noise (a glitch); and how far it is
    from those neighbours against how far from examples of what the model does not know, if it was shown any (metals).
    The looks are brought to one scale by how they are spread over training spectra that were left out. The first two
    tell of the same and are added in quadrature; the largest of that and the others is the score.
    """

    QUANTILE = 0.99
    """Of the training spectra, left out of the model that looks at them, that score below 1."""
    NEAR, BROAD, FINE = 8, 16, 32
    """Components of the three looks."""
    FOLDS = 5
    STRANGERS = 64
    FAR = 1e4
    """Where strangers stand before any are shown: nothing is near them."""

    def __init__(self, grid_points: int, remembered: int = 2048) -> None:
        super().__init__()
        self.near, self.broad, self.neighbours, self.floor = self.NEAR, self.BROAD, 5, 0.004
        self.register_buffer("mean", torch.zeros(grid_points))
        self.register_buffer("axes", torch.zeros(grid_points, self.FINE))
        self.register_buffer("seen", torch.zeros(remembered, self.NEAR, dtype=torch.float16))
        self.register_buffer("usual", torch.full((3,), 0.5))
        self.register_buffer("limits", torch.ones(3))
        self.register_buffer("edge", torch.ones(3))
        self.register_buffer("strange", torch.full((self.STRANGERS, self.NEAR), self.FAR))
        self.mean: Tensor
        self.axes: Tensor
        self.seen: Tensor
        self.usual: Tensor
        self.limits: Tensor
        self.edge: Tensor
        self.strange: Tensor

    def looks(self, x: Tensor) -> Tensor:
        """(N, 4): distance to the neighbours, smoothed remainder, worst point, nearness to strangers."""
        off = x - self.mean
        within = off @ self.axes
        nearest = self.distance(within[:, : self.near], self.seen.float())
        strange = nearest / self.distance(within[:, : self.near], self.strange).clamp_min(1e-6)
        broad = off - within[:, : self.broad] @ self.axes[:, : self.broad].T
        smooth = F.avg_pool1d(broad.unsqueeze(1), 5, 1).squeeze(1).square().mean(1).sqrt()
        rest = off - within @ self.axes.T
        lone = (rest[:, 1:-1] - (rest[:, :-2] + rest[:, 2:]) / 2).abs()
        worst = lone.amax(1) / (self.floor + lone.median(1).values)
        return torch.stack([nearest, smooth, worst, strange], dim=1)

    def distance(self, x: Tensor, to: Tensor) -> Tensor:
        """(N,) mean distance of (N, K) to the nearest of (M, K)."""
        return torch.cdist(x, to).topk(self.neighbours, dim=1, largest=False).values.mean(1)

    def together(self, looks: Tensor) -> Tensor:
        """(N, 4) looks → (N, 3): the first two in quadrature, and the others.

        A look is 1/e where training spectra usually are and 1 at its limit, so that looks of narrow and of wide
        spread compare.
        """
        level = ((looks[:, :3] / self.limits).clamp_min(1e-6).log() / (self.limits / self.usual).log()).exp()
        return torch.stack([level[:, :2].square().sum(1).sqrt(), level[:, 2], looks[:, 3]], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.together(self.looks(x)) / self.edge).amax(1)

    @torch.no_grad()
    def fit(self, spectra: Tensor, group: Tensor | None = None, strangers: Tensor | None = None) -> None:
        """Learn from augmented training spectra (N, G), N well above the number of components.

        Parameters
        ----------
        group : (N,) number of each spectrum's material. Limits are found on materials left out; without it on
            spectra left out, which flags too much where several are of one material
        strangers : (:attr:`STRANGERS`, G) augmented examples of what must be flagged
        """
        group = torch.arange(len(spectra)) if group is None else group
        names, number = group.unique(return_inverse=True)
        fold = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))[number] % self.FOLDS
        looks = torch.zeros(len(spectra), 4)
        for k in fold.unique().tolist() if len(names) >= self.FOLDS else []:
            self.learn(spectra[fold != k], strangers)
            looks[fold == k] = self.looks(spectra[fold == k])
        self.learn(spectra, strangers)
        self.usual.copy_(looks[:, :3].quantile(0.5, dim=0))
        self.limits.copy_(looks[:, :3].quantile(self.QUANTILE, dim=0))
        together = self.together(looks)
        self.edge.copy_(together.quantile(self.QUANTILE, dim=0))
        if strangers is None:
            self.edge[2] = torch.inf
        self.edge.mul_((together / self.edge).amax(1).quantile(self.QUANTILE))  # of the score itself, the larger one

    @torch.no_grad()
    def learn(self, spectra: Tensor, strangers: Tensor | None = None) -> None:
        """The components, and spectra to remember."""
        self.mean.copy_(spectra.mean(0))
        v = torch.linalg.svd(spectra - self.mean, full_matrices=False)[2]
        self.axes.copy_(v[: self.FINE].T)
        some = torch.linspace(0, len(spectra) - 1, len(self.seen)).long()
        self.seen.copy_((spectra[some] - self.mean) @ self.axes[:, : self.NEAR])
        if strangers is not None:
            self.strange.copy_((strangers - self.mean) @ self.axes[:, : self.NEAR])
