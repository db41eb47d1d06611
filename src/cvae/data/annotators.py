"""Annotators of MNIST by rule: which x they see, what each draws, who answers how often."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Len
from scipy import ndimage
from torch import Generator, Tensor

from cvae.data.habits import HABITS, slant
from cvae.data.source import NUM_TRAIN, Source
from cvae.data.splits import Split, Splits, digest
from cvae.errors import UserError
from cvae.noise import Stream, generator
from cvae.ranges import NonNegative

AT_ONCE = 10_000  # digits, to bound the memory
# among the slants of MNIST's digits: their median is 0.10, mean 0.11, standard deviation 0.28
MIDDLE, SPREAD = 0.16, 0.3
TILT: Mapping[str, float] = {"thin": 1.0, "thick": -1.0}
Habit = Literal["faithful", "thin", "thick", "fractured"]
Who = Callable[[Tensor, Tensor, Tensor], Tensor]


def always(weights: Tensor, tilt: Tensor, digits: Tensor) -> Tensor:
    """The annotators' probabilities p_a, (A,), the same for each of (N, 28, 28) digits, (N, A)."""
    return (weights / weights.sum()).expand(len(digits), -1)


def by_slant(weights: Tensor, tilt: Tensor, digits: Tensor) -> Tensor:
    """p_a(x) ∝ p_a exp(c_a s), (N, A), s = (slant − 0.16) / 0.3 within ±2.

    c is 1 for thin, −1 for thick and 0 for the others: the more a digit leans to the right, the
    more often it is drawn thin, and thick the more to the left.
    """
    s = ((slant(digits) - MIDDLE) / SPREAD).clamp(-2, 2)
    return (weights.log() + s.unsqueeze(1) * tilt).softmax(1)


STYLES: Mapping[str, Who] = {"always": always, "by_slant": by_slant}


class Annotators:
    """Noisy, blurred digits, and the masks that simulated annotators draw of them.

    Args:
        digits: whose masks these are.
        annotators: who there are.
        probabilities: how often each answers; of those there are, they are made to add up to one.
        style: always (the same for every digit) or by_slant (the more a digit leans to the right,
            the more often it is drawn thin, and thick the more to the left).
        blur: standard deviation of a Gaussian that x is blurred with, pixels.
        noise: standard deviation of what is added to x then, of the range [0, 1].

    Raises:
        UserError: an annotator comes twice, or never answers.
    """

    num_train = NUM_TRAIN

    def __init__(
        self,
        digits: Source,
        annotators: Annotated[list[Habit], Len(1)],
        probabilities: dict[Habit, NonNegative],
        style: Literal["always", "by_slant"],
        blur: NonNegative,
        noise: NonNegative,
    ) -> None:
        if len(set(annotators)) < len(annotators):
            raise UserError(f"data.annotators={annotators}: name each once")
        if missing := [name for name in annotators if not probabilities.get(name)]:
            raise UserError(f"data.probabilities.{missing[0]}: above 0, or leave {missing[0]} out")
        self.digits, self.names = digits, list(annotators)
        self.weights = torch.tensor([probabilities[name] for name in annotators])
        self.tilt = torch.tensor([TILT.get(name, 0.0) for name in annotators])
        self.style, self.blur, self.noise = STYLES[style], blur, noise

    def has_validation(self, root: str | None) -> bool:
        """There is."""
        return True

    def prepare(self, root: str | None) -> None:
        """Fetch the digits, if they are not there."""
        self.digits.prepare(root)

    def load(self, root: str | None) -> Splits:
        """Read the digits and let the annotators draw, which takes some ten seconds.

        Raises:
            UserError: a file is missing, altered, cut short or of another shape.
        """
        arrays = self.digits.load(root)
        train = arrays.train_images
        parts = {
            "train": train[: self.num_train],
            "val": train[self.num_train :],
            "test": arrays.test_images,
        }
        splits = {
            name: self._split(part, place) for place, (name, part) in enumerate(parts.items())
        }
        record = {"name": f"{self.digits.name}, {self}", "made": digest(*splits.values())}
        return Splits(splits, self.names, arrays.record | record)

    def __str__(self) -> str:
        """Who there are, and what they see: what these data are beside the digits."""
        pairs = zip(self.names, self.weights.tolist(), strict=True)
        who = ", ".join(f"{name} {weight:g}" for name, weight in pairs)
        style = self.style.__name__
        return f"{who} ({style}), blur {self.blur:g}, noise {self.noise:g}"

    def _split(self, digits: Tensor, place: int) -> Split:
        draws = generator(Stream.IMAGE_NOISE, place)
        parts = [self._some(some, draws) for some in digits.split(AT_ONCE)]
        return Split(*map(torch.cat, zip(*parts, strict=True)))

    def _some(self, digits: Tensor, draws: Generator) -> tuple[Tensor, Tensor, Tensor]:
        blurred = ndimage.gaussian_filter(
            digits.numpy() / np.float32(255), (0, self.blur, self.blur)
        )
        x = torch.from_numpy(blurred) + self.noise * torch.randn(digits.shape, generator=draws)
        seen = (x.clamp(0, 1) * 255).round().to(torch.uint8).unsqueeze(1)
        masks = np.stack([HABITS[name](digits) for name in self.names], 1).astype(np.uint8)
        return seen, torch.from_numpy(masks), self.style(self.weights, self.tilt, digits).float()
