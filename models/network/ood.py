"""The out-of-distribution score: the distance of a spectrum from the training spectra."""

import torch
from torch import Tensor, nn


class OODScore(nn.Module):
    """Out-of-distribution score of aligned spectra, (N, G) → (N,); 1 is the threshold.

    A principal-component model of the augmented training spectra gives four distances:

    1. the mean distance to the nearest training spectra within the first components, large for other compounds;
    2. the smoothed remainder outside of more components, large for another normalisation (a misfit has one sign over
       neighbouring points, noise does not);
    3. the largest deviation of a single point from its neighbours, in units of the frame's own noise, for glitches;
    4. the first distance divided by the distance to outliers, which are examples of spectra that the model must flag
       (metals, sulphides), if there are any.

    The distribution over left-out training spectra puts the first three on one scale. The first two measure similar
    deviations and are added in quadrature; the score is the largest of that sum and the other two.

    Parameters
    ----------
    grid_points : number of grid points G
    remembered : number of training spectra to which distances are measured
    outliers : number of outliers
    """

    QUANTILE = 0.99
    """Quantile of the scores of left-out training spectra that becomes 1."""
    NEAR, BROAD, FINE = 8, 16, 32
    """Principal components of the first, second and third distance; of the third at most half as many as points."""
    FOLDS = 5
    """Folds of the training spectra from which the scales are found."""
    OUTLIERS = 256
    """Default number of outliers: a metal's offset may be anywhere in some 10 eV, which needs some ten examples."""
    FAR = 1e4
    """Coordinate of the outliers if there are none, far from every spectrum."""

    def __init__(self, grid_points: int, remembered: int = 2048, outliers: int = OUTLIERS) -> None:
        super().__init__()
        self.near, self.broad, self.neighbours, self.floor = self.NEAR, self.BROAD, 5, 0.004
        self.register_buffer("mean", torch.zeros(grid_points))
        self.register_buffer("axes", torch.zeros(grid_points, min(self.FINE, grid_points // 2)))
        self.register_buffer("seen", torch.zeros(remembered, self.NEAR, dtype=torch.float16))
        self.register_buffer("usual", torch.full((3,), 0.5))
        self.register_buffer("limits", torch.ones(3))
        self.register_buffer("edge", torch.ones(3))
        self.register_buffer("outliers", torch.full((outliers, self.NEAR), self.FAR))
        self.mean: Tensor
        self.axes: Tensor
        self.seen: Tensor
        """(remembered, NEAR) coordinates of training spectra."""
        self.usual: Tensor
        """(3,) medians of the first three distances."""
        self.limits: Tensor
        """(3,) quantiles of the first three distances."""
        self.edge: Tensor
        """(3,) quantiles of the combined distances."""
        self.outliers: Tensor
        """(outliers, NEAR) coordinates of the outliers."""

    def distances(self, x: Tensor) -> Tensor:
        """Return distances (N, 4): training spectra, smoothed remainder, worst point, ratio to outliers."""
        coordinates, smoothed, curved = (
            (x.double() - self.mean.double())
            .matmul(self.projections())
            .split([self.near, x.shape[1] - 4, x.shape[1] - 2], dim=1)
        )
        nearest, to_outliers = self.mean_distances(coordinates)
        deviation = curved.abs()
        median = deviation.topk((x.shape[1] - 1) // 2, dim=1, largest=False, sorted=False).values.amax(1)
        worst = deviation.amax(1) / (self.floor + median)
        smooth = torch.linalg.vector_norm(smoothed, dim=1)
        return torch.stack([nearest, smooth, worst, nearest / to_outliers.clamp_min(1e-6)], dim=1).float()

    def projections(self) -> Tensor:
        """Return the projections of a centred spectrum for the distances, as one matrix (G, NEAR + G − 4 + G − 2).

        These are the first coordinates; the remainder outside of more components, smoothed over five points; and the
        remainder outside of all components minus the mean of both neighbours. A remainder is a small difference of
        large numbers, which requires double precision.
        """
        axes, every = self.axes.double(), torch.eye(len(self.axes), dtype=torch.float64, device=self.axes.device)
        broad = every - axes[:, : self.broad] @ axes[:, : self.broad].T
        rest = every - axes @ axes.T
        curved = rest[:, 1:-1] - (rest[:, :-2] + rest[:, 2:]) / 2
        smoothed = broad.unfold(1, 5, 1).mean(2)
        smoothed = smoothed / float(smoothed.shape[1]) ** 0.5  # the norm is then the root of the mean square
        return torch.cat([axes[:, : self.near], smoothed, curved], dim=1)

    def mean_distances(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean distances (N,) of (N, NEAR) to the nearest training spectra, and to the nearest outliers.

        All are in double precision: the squared distances are differences of squares (one product of matrices).
        """
        points = torch.cat([self.seen.double(), self.outliers.double()])
        square = (x * x).sum(1, keepdim=True) + points.square().sum(1)
        # Not in place: torch.jit.freeze would then regard other tensors as changed, and fold no weights.
        seen, outliers = torch.addmm(square, x, points.T, alpha=-2.0).split(
            [len(self.seen), len(self.outliers)], dim=1
        )
        nearest = seen.topk(self.neighbours, dim=1, largest=False, sorted=False).values
        to_outliers = outliers.topk(self.neighbours, dim=1, largest=False, sorted=False).values
        mean = torch.stack([nearest, to_outliers]).clamp_min(0.0).sqrt().mean(2)
        return mean[0], mean[1]

    def combine(self, distances: Tensor) -> Tensor:
        """Combine (N, 4) distances to (N, 3): the first two in quadrature, and the others.

        A distance becomes 1/e at its median over training spectra and 1 at its quantile, so that distances with
        narrow and wide distributions are comparable.
        """
        exponent = (self.limits / self.usual).log().reciprocal()
        level = (distances.narrow(1, 0, 3) / self.limits).clamp_min(1e-6).pow(exponent)
        both = torch.linalg.vector_norm(level.narrow(1, 0, 2), dim=1)
        return torch.stack([both, level.select(1, 2), distances.select(1, 3)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.combine(self.distances(x)) / self.edge).amax(1)

    @torch.no_grad()
    def fit(self, spectra: Tensor, group: Tensor | None = None, outliers: Tensor | None = None) -> None:
        """Fit to augmented training spectra (N, G), N well above the number of components.

        Parameters
        ----------
        group : (N,) number of each spectrum's material, which is left out as a whole to find the limits. Without it,
            single spectra are left out, which flags too many if several belong to one material
        outliers : (outliers, G) augmented examples of spectra that must be flagged
        """
        group = torch.arange(len(spectra)) if group is None else group
        names, number = group.unique(return_inverse=True)
        fold = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))[number] % self.FOLDS
        distances = torch.zeros(len(spectra), 4)
        for k in fold.unique().tolist() if len(names) >= self.FOLDS else []:
            self.fit_components(spectra[fold != k], outliers)
            distances[fold == k] = self.distances(spectra[fold == k])
        self.fit_components(spectra, outliers)
        self.usual.copy_(distances[:, :3].quantile(0.5, dim=0))
        self.limits.copy_(distances[:, :3].quantile(self.QUANTILE, dim=0))
        combined = self.combine(distances)
        self.edge.copy_(combined.quantile(self.QUANTILE, dim=0))
        if outliers is None:
            self.edge[2] = torch.inf
        # The quantile of the largest of several exceeds the quantile of each.
        self.edge.mul_((combined / self.edge).amax(1).quantile(self.QUANTILE))

    @torch.no_grad()
    def fit_components(self, spectra: Tensor, outliers: Tensor | None = None) -> None:
        """Fit mean and principal components; remember some training spectra and the outliers."""
        self.mean.copy_(spectra.mean(0))
        v = torch.linalg.svd(spectra - self.mean, full_matrices=False)[2]
        self.axes.copy_(v[: self.axes.shape[1]].T)
        some = torch.linspace(0, len(spectra) - 1, len(self.seen)).long()
        self.seen.copy_((spectra[some] - self.mean) @ self.axes[:, : self.NEAR])
        if outliers is not None:
            self.outliers.copy_((outliers - self.mean) @ self.axes[:, : self.NEAR])
