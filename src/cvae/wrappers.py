"""Conditional densities that are another one, given less or more than they are handed."""

from torch import Tensor, nn
from torch.distributions import Distribution


class Wrapped(nn.Module):
    """A density that is another one, given less than it is handed."""

    def __init__(self, density: nn.Module) -> None:
        super().__init__()
        self.density = density

    def start_at(self, mean: Tensor) -> None:
        """As the density itself does."""
        self.density.start_at(mean)  # type: ignore[operator]  # a conditional density


class Unconditional(Wrapped):
    """Handed the condition x, it ignores it: p(· | x, rest) = p(· | rest)."""

    def forward(self, x: Tensor, *rest: Tensor) -> Distribution:
        return self.density(*rest)


class PriorAsPosterior(nn.Module):
    """q(z|x,y) = p(z|x): what a model has whose z is drawn from its prior in training too."""

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        return self.prior(x)


class WithGuess(nn.Module):
    """p(· | x, ŷ, rest), where ŷ is the mean of a first guess p(y|x).

    Source: Sohn et al. 2015, the recurrent connection.

    Args:
        guess: p(y|x), called as guess(x).
        density: called as density(x, ŷ, …).
    """

    def __init__(self, guess: nn.Module, density: nn.Module) -> None:
        super().__init__()
        self.guess, self.density = guess, density

    def forward(self, x: Tensor, *rest: Tensor) -> Distribution:
        return self.density(x, self.guess(x).mean, *rest)


class WithoutLatent(Wrapped):
    """p(y|x) as a decoder p(y|x,z): computed once for x (B, …), whatever z (…, B, d) is."""

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        density: Distribution = self.density(x)
        return density.expand(z.shape[:-1])
