"""The plane that a latent space of more than two dimensions is seen in."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plane:
    """Two directions of z, without a shift: the origin stays where it is.

    Attributes:
        directions: W, orthonormal, (d, 2).
        names: of the two axes.
    """

    directions: Tensor
    names: tuple[str, str]

    @classmethod
    def of(cls, means: Tensor) -> "Plane":
        """The first two principal directions of means (N, d); z itself if it has two dimensions."""
        if means.shape[1] == 2:
            return cls(torch.eye(2), ("z[0]", "z[1]"))
        centred = means.double() - means.double().mean(0)
        variances, vectors = torch.linalg.eigh(centred.T @ centred)
        directions = vectors[:, [-1, -2]]
        largest = directions.abs().argmax(0, keepdim=True)
        directions = directions * directions.gather(0, largest).sign()  # the solver's is arbitrary
        shares = (variances / variances.sum()).clamp(min=0).tolist()
        names = [
            f"{order} principal direction, {share:.0%} of the variance"
            for order, share in (("first", shares[-1]), ("second", shares[-2]))
        ]
        return cls(directions.float(), (names[0], names[1]))

    def __call__(self, z: Tensor) -> Tensor:
        """Wᵀz, (…, 2), for z of (…, d)."""
        return z @ self.directions

    def covariance(self, scale: Tensor) -> Tensor:
        """Wᵀ diag(σ²) W, (…, 2, 2): that of Wᵀz for a Gaussian z with scales σ of (…, d)."""
        return self.directions.T @ (scale.square().unsqueeze(-1) * self.directions)

    def ellipse(self, mean: Tensor, scale: Tensor, radius: float, points: int = 181) -> Tensor:
        """Where Wᵀz has its contour at so many standard deviations, exactly: (…, points, 2).

        Wᵀz is Gaussian with mean Wᵀμ and covariance LLᵀ: the contour is Wᵀμ + r L (cos, sin). The
        part 1 − exp(−r²/2) of the probability lies within: 39% for r = 1, 86% for r = 2.

        Args:
            mean: μ, (…, d).
            scale: σ, (…, d).
            radius: r.
            points: on the closed contour.
        """
        angles = torch.linspace(0, 2 * math.pi, points)
        circle = torch.stack([angles.cos(), angles.sin()], -1)
        root = torch.linalg.cholesky(self.covariance(scale).double()).to(mean)
        return self(mean).unsqueeze(-2) + radius * circle @ root.mT
