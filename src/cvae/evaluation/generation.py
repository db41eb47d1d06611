"""What a model draws from its prior: is it what was asked for, how varied, how like the data."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cvae.data.source import NUM_CLASSES
from cvae.data.views import View
from cvae.evaluation.judge import Judge, frechet_distance
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator

BATCH = 500
COMPARED = 500  # pictures of each class whose distances are taken


@torch.inference_mode()
def sampled_pictures(model: ConditionalVAE, view: View, x: Tensor, seed: int = 0) -> Tensor:
    """One sample for each condition, as a picture: the mean of p(y|x,z) for z from p(z|x).

    Args:
        model: the composition, on the device of x.
        view: puts x and y together.
        x: the conditions, (N, …).
        seed: of z.

    Returns:
        (N, 1, H, W) in [0, 1], on the CPU.
    """
    draws, drawn = generator(Stream.GENERATION, seed, device=x.device), []
    for some in x.split(BATCH):
        noise = torch.randn((len(some), model.latent_dim), device=x.device, generator=draws)
        drawn.append(view.picture(some, model.sample(some, noise).mean).clamp(0, 1).cpu())
    return torch.cat(drawn)


@dataclass(frozen=True)
class Generation:
    """Sampled pictures against real ones of the same classes, seen by a judge.

    Attributes:
        judge: the classifier.
        sampled: pictures that the model drew, (N, 1, H, W).
        real: pictures of the data, (N, 1, H, W).
        labels: the class of both, (N,).
    """

    judge: Judge
    sampled: Tensor
    real: Tensor
    labels: Tensor

    @cached_property
    def correct(self) -> Tensor:
        """Which of the sampled pictures the judge takes for what was asked for, (N,)."""
        return (self.judge.classify(self.sampled) == self.labels).double()

    def accuracy_of(self, label: int) -> float:
        """The share that is correct of one class."""
        return self.correct[self.labels == label].mean().item()

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
        """All of it, by name, with what the judge makes of real pictures."""
        per_digit = {}
        for label in range(NUM_CLASSES):
            sampled, real = self.diversity_of(label)
            per_digit[label] = {
                "accuracy": self.accuracy_of(label),
                "distance_sampled": sampled,
                "distance_real": real,
            }
        return {
            "own_accuracy": self.judge.right.item(),
            "accuracy": self.correct.mean().item(),
            "per_digit": per_digit,
            "frechet": self.frechet(),
            "frechet_of_train": self.judge.frechet_of_train.item(),
        }
