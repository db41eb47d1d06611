"""What a model draws from its prior: is it what was asked for, how varied, how like the data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cvae.data.source import NUM_CLASSES
from cvae.data.views import View
from cvae.evaluation.judge import Judge, frechet_distance
from cvae.metrics import mean_and_error
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator

BATCH = 500
COMPARED = 500  # pictures of each class whose distances are taken
Draw = Callable[[Tensor, Tensor], Tensor]  # from x (B, …) and ε (B, d) to a mean (B, *y_shape)


class Sampler(nn.Module):
    """A model as a function of x (B, …) and ε (B, d): the mean of p(y|x,z), (B, *y_shape).

    z is made of ε with the model's own prior, `reparameterize`, so nothing in it is random.
    """

    def __init__(self, model: ConditionalVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.model.sample(x, noise).mean


@torch.inference_mode()
def sampled_means(draw: Draw, latent_dim: int, x: Tensor, seed: int = 0) -> Tensor:
    """One sample for each condition: the mean of p(y|x,z) for z from p(z|x).

    Args:
        draw: what computes it from x and ε.
        latent_dim: d.
        x: the conditions, (N, …).
        seed: of ε.

    Returns:
        (N, *y_shape), on the CPU.
    """
    draws, means = generator(Stream.GENERATION, seed, device=x.device), []
    for some in x.split(BATCH):
        noise = torch.randn((len(some), latent_dim), device=x.device, generator=draws)
        means.append(draw(some, noise).cpu())
    return torch.cat(means)


def sampled_pictures(model: ConditionalVAE, view: View, x: Tensor, seed: int = 0) -> Tensor:
    """A model's samples as pictures, (N, 1, H, W) in [0, 1], on the CPU.

    Args:
        model: the composition, on the device of x.
        view: puts x and y together.
        x: the conditions, (N, …).
        seed: of z.
    """
    means = sampled_means(Sampler(model), model.latent_dim, x, seed)
    return view.picture(x.cpu(), means).clamp(0, 1)


@dataclass(frozen=True)
class Generation:
    """Sampled pictures against real ones of the same classes, seen by a judge.

    Attributes:
        judge: the classifier.
        sampled: pictures that the model drew, (N, 1, H, W).
        real: pictures of the data, (N, 1, H, W).
        labels: the class of both, (N,).
        shared: whether each sampled picture holds a part of the real one in its place. Perfect
            samples are then nearer to the real ones than other real pictures are.
    """

    judge: Judge
    sampled: Tensor
    real: Tensor
    labels: Tensor
    shared: bool = False

    @cached_property
    def correct(self) -> Tensor:
        """Which of the sampled pictures the judge takes for what was asked for, (N,)."""
        return self.judge.correct(self.sampled, self.labels)

    def diversity_of(self, label: int) -> tuple[float, float]:
        """Mean Euclidean distance between two pictures of a class: of sampled and of real ones."""
        chosen = self.labels == label
        sampled, real = (
            torch.pdist(pictures[chosen][:COMPARED].flatten(1)).mean().item()
            for pictures in (self.sampled, self.real)
        )
        return sampled, real

    def frechet(self) -> float:
        """Fréchet distance between sampled and real pictures in the judge's features."""
        return frechet_distance(self.judge, self.sampled, self.real)

    def numbers(self) -> dict[str, Any]:
        """All of it, by name, with what the judge makes of real pictures.

        Digits of which there are not two images are left out: they have no distances.
        Where a part is shared, without `frechet_of_train`, which is no floor there.
        """
        per_digit = {}
        for label in range(NUM_CLASSES):
            if (self.labels == label).sum() < 2:
                continue
            sampled, real = self.diversity_of(label)
            per_digit[label] = {
                **_accuracy(self.correct[self.labels == label]),
                "distance_sampled": sampled,
                "distance_real": real,
            }
        return {
            "own_accuracy": self.judge.right.item(),
            **_accuracy(self.correct),
            "per_digit": per_digit,
            "frechet": self.frechet(),
            **self._floor(),
        }

    def _floor(self) -> dict[str, float]:
        return {} if self.shared else {"frechet_of_train": self.judge.frechet_of_train.item()}


def _accuracy(correct: Tensor) -> dict[str, float]:
    """The share p of N that are correct, with its standard error √(p(1 − p) / N)."""
    share = mean_and_error(correct)
    return {"accuracy": share["mean"], "accuracy_standard_error": share["standard_error"]}
