"""What the pictures of a run are of: its model, its data, and which of them are shown."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvae.data.module import Examples
from cvae.data.views import View
from cvae.densities import Unconditional
from cvae.evaluation.latents import Latents, latents
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator
from cvae.pictures.grid import some_of_each

SAMPLES = 10  # of each condition


@dataclass(frozen=True)
class Subject:
    """A trained model and the data that its pictures are of.

    Attributes:
        model: on the device of the data.
        view: of the data.
        data: a whole split.
        seed: of the noise, and of which examples are shown.
    """

    model: ConditionalVAE
    view: View
    data: Examples
    seed: int

    @cached_property
    def latents(self) -> Latents:
        """Posterior and prior of each example."""
        return latents(self.model, self.data.x, self.data.y)

    @property
    def labelled(self) -> bool:
        """Whether x is no picture, so that its values can be named and mixed."""
        return self.view.condition(self.data.x[:1]) is None

    @property
    def conditional(self) -> bool:
        """Whether p(y|x,z) sees x."""
        return not isinstance(self.model.decoder, Unconditional)

    @property
    def conditions(self) -> Tensor:
        """Conditions worth showing, of which one stands for all where the model ignores x."""
        conditions = self.view.showcase(self.singles[0])
        return conditions if self.conditional else conditions[:1]

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """x and y of two examples of each class, (2, C, …)."""
        chosen = some_of_each(self.data.labels, 2, self.seed)
        return self.data.x[chosen], self.data.y[chosen]

    @property
    def singles(self) -> tuple[Tensor, Tensor]:
        """x and y of one example of each class, (C, …)."""
        x, y = self.pairs
        return x[0], y[0]

    @property
    def noise(self) -> Tensor:
        """Standard-normal ε for rows of conditions, (R, 1, d), or (R, C, d) where they are alike.

        R is SAMPLES, or 1 where z has no dimension.
        """
        rows = SAMPLES if self.model.latent_dim else 1
        columns = 1 if self.conditional else len(self.view.showcase(self.singles[0]))
        draws = generator(Stream.PICTURES, self.seed, 1)
        noise = torch.randn((rows, columns, self.model.latent_dim), generator=draws)
        return noise.to(self.data.x.device)
