"""What the pictures of a run are of: its model, its data, and which of them are shown."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvae.data.examples import Examples
from cvae.data.views import View
from cvae.evaluation.latents import Latents, latents
from cvae.evaluation.references import NUM_MASKS
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator
from cvae.pictures.grid import noise_of_rows, some_of_each

SAMPLES = 10  # of each condition
ANY = 10  # of the examples with several references
SHOWN = 2000  # examples as points, for the eye or the embedding projector


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
        return latents(self.model, self.data.x, self.data.y, self.seed)

    @property
    def conditions(self) -> Tensor:
        """Conditions worth showing, of which one stands for all where the model ignores x."""
        conditions = self.view.showcase(self.singles[0])
        return conditions if self.model.conditional else conditions[:1]

    @cached_property
    def chosen(self) -> Tensor:
        """Positions of two examples of each class, (2, C); where these are annotators, of any.

        Where there are too few, some come twice.
        """
        if self.data.references is not None:
            count = min(ANY, len(self.some))
            return self.some[torch.arange(2 * count) % len(self.some)].reshape(2, count)
        return some_of_each(self.data.labels, 2, self.seed)

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """x and y of two examples of each class, (2, C, …)."""
        return self.data.x[self.chosen], self.data.y[self.chosen]

    @property
    def singles(self) -> tuple[Tensor, Tensor]:
        """x and y of one example of each class, (C, …)."""
        x, y = self.pairs
        return x[0], y[0]

    @property
    def noise(self) -> Tensor:
        """ε of rows of samples, a column for each condition of the view's showcase."""
        rows = SAMPLES if self.data.references is None else NUM_MASKS
        columns = len(self.view.showcase(self.singles[0]))
        draws = generator(Stream.PICTURES, self.seed, 1)
        return noise_of_rows(self.model, rows, columns, draws).to(self.data.x.device)

    @property
    def noise_of_some(self) -> Tensor:
        """ε, one for each of `some`."""
        draws = generator(Stream.PICTURES, self.seed, 4)
        shape = (len(self.some), self.model.latent_dim)
        return torch.randn(shape, generator=draws).to(self.data.x.device)

    @cached_property
    def some(self) -> Tensor:
        """Positions of SHOWN examples in the order of the data, or of all if there are fewer."""
        draws = generator(Stream.PICTURES, self.seed, 2)
        return torch.randperm(len(self.data.x), generator=draws)[:SHOWN].sort().values
