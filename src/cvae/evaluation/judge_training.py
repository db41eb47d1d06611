"""How a judge learns to tell digits apart."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.transforms import RandomAffine
from tqdm import tqdm

from cvae.noise import Stream, generator

Layers = TypeVar("Layers", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """How a judge is trained.

    Attributes:
        steps: of the optimizer; these are six times over all images of MNIST.
        batch: images of a step.
        rate: the largest learning rate of the cycle.
        weight_decay: of AdamW.
        smoothing: of the labels.
        grey: the share of the images that stay grey; the others are thresholded.
        degrees: an image is turned by as many at most, either way.
        shift: an image is moved by this part of its side at most, each way.
        scale: the least and the largest that an image is scaled by.
        seed: of the weights, the order, the moves and the thresholded ones.
    """

    steps: int = 3600
    batch: int = 100
    rate: float = 3e-3
    weight_decay: float = 0.01
    smoothing: float = 0.05
    grey: float = 0.5
    degrees: float = 10
    shift: float = 0.08
    scale: tuple[float, float] = (0.9, 1.1)
    seed: int = 0


RECIPE = Recipe()


def trained(
    untrained: Callable[[], Layers], pictures: Tensor, labels: Tensor, recipe: Recipe
) -> Layers:
    """A judge trained on grey and on thresholded pictures, each batch moved and turned a little.

    Both kinds, because the pictures of a model of 0/1 pixels lie between the two.

    Args:
        untrained: makes a judge, with weights of torch's own generator.
        pictures: (N, 1, 28, 28) in [0, 1].
        labels: their classes, (N,).
        recipe: of the training.
    """
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        judge = untrained()
        optimizer = torch.optim.AdamW(
            judge.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, fused=True
        )
        schedule = OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=recipe.steps)
        move = RandomAffine(recipe.degrees, (recipe.shift, recipe.shift), recipe.scale)
        order = islice(_batches(len(pictures), recipe), recipe.steps)
        for chosen in tqdm(order, total=recipe.steps, desc="judge", leave=False):
            batch = pictures[chosen]
            grey = torch.rand(len(batch), 1, 1, 1) < recipe.grey
            batch = move(torch.where(grey, batch, (batch > 0.5).float()))
            loss = F.cross_entropy(judge(batch), labels[chosen], label_smoothing=recipe.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge


def _batches(size: int, recipe: Recipe) -> Iterator[Tensor]:
    """The images of each step, all of them in turn before any comes again, without end."""
    draws = generator(Stream.ORDER, recipe.seed)
    while True:
        order = torch.randperm(size, generator=draws)
        yield from order.split(recipe.batch)[: size // recipe.batch]
