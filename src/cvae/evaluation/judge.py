"""A small classifier that says which digit a picture shows."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from cvae.checkpoint import read_checkpoint, write_checkpoint
from cvae.data.source import NUM_CLASSES, SHAPES, Arrays
from cvae.errors import UserError
from cvae.evaluation.judge_training import RECIPE, Recipe, trained
from cvae.runs import OUTPUTS

log = logging.getLogger(__name__)
NUM_FEATURES = 64
NO_JUDGE = "{} does not hold a judge: delete it to train a new one"
PART = 500  # pictures at a time where nothing is learned


class Features(nn.Sequential):
    """Layers to features; torchmetrics asks how many."""

    num_features: int = NUM_FEATURES


class Judge(nn.Module):
    """Convolutions from pictures (B, 1, 28, 28) in [0, 1] to the logits of their class, (B, 10).

    Attributes:
        features: the layers before the last, to what the classes are told apart by, (B, 64).
        right: the share of the grey test images that it takes for what they are.
        frechet_of_train: between as many training images and the test images: what real pictures
            come to that hold nothing of the ones they are compared with.
    """

    right: Tensor
    frechet_of_train: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = Features(
            *_block(1, 32, kernel=5, stride=2),
            *_block(32, 64, kernel=3, stride=1),
            nn.MaxPool2d(2),
            *_block(64, 128, kernel=3, stride=1),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128 * 9, NUM_FEATURES),
            nn.BatchNorm1d(NUM_FEATURES),
            nn.ReLU(),
        )
        self.classes = nn.Linear(NUM_FEATURES, NUM_CLASSES)
        for name in ("right", "frechet_of_train"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.classes(self.features(pictures))

    @torch.inference_mode()
    def classify(self, pictures: Tensor) -> Tensor:
        """The most likely class of each picture, (N,), in pieces that bound the memory."""
        return torch.cat([self(part).argmax(-1) for part in pictures.split(PART)])

    def correct(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """1 for each picture that it takes for what it is, 0 for others, (N,)."""
        return (self.classify(pictures) == labels).double()


def pictures(images: Tensor) -> Tensor:
    """uint8 images (N, 28, 28) as pictures (N, 1, 28, 28) in [0, 1]."""
    return images.unsqueeze(1).float() / 255


def judge_of(name: str, arrays: Arrays, outputs: Path = OUTPUTS, recipe: Recipe = RECIPE) -> Judge:
    """The judge of a data set, in evaluation mode.

    Trained once, on the training images alone, and kept under `outputs/judges/NAME.ckpt`; another
    takes its place there when the data, the recipe or the layers are others.

    Args:
        name: of the data set.
        arrays: the data set.
        outputs: where it is kept.
        recipe: of its training.

    Raises:
        UserError: the file there is not a judge's.
    """
    path = outputs / "judges" / f"{name}.ckpt"
    kept, made_from = _read(path), _made_from(arrays, recipe)
    if kept.get("made_from") != made_from:
        log.info("training a judge of %s, which is kept in %s", name, path)
        images, labels = pictures(arrays.train_images), arrays.train_labels.long()
        judge = trained(Judge, images, labels, recipe).eval()
        _judge_itself(judge, arrays)
        write_checkpoint({"state_dict": judge.state_dict(), "made_from": made_from}, path)
        return judge
    judge = _untrained()
    try:
        judge.load_state_dict(kept["state_dict"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(NO_JUDGE.format(path)) from error
    return judge.eval()


def _made_from(arrays: Arrays, recipe: Recipe) -> dict[str, str]:
    """What a judge is made from: with any other it would be another."""
    files = {file: arrays.record[file] for file in SHAPES}
    return {"layers": str(_untrained()), "recipe": str(recipe), **files}


def _untrained() -> Judge:
    """A judge whose weights are of no use yet, for which nobody else's draws move."""
    with torch.random.fork_rng():
        return Judge()


def _read(path: Path) -> Mapping[str, Any]:
    """What is kept in a judge's file; nothing if there is none."""
    try:
        return read_checkpoint(path) if path.is_file() else {}
    except UserError as error:
        raise UserError(NO_JUDGE.format(path)) from error


def _judge_itself(judge: Judge, arrays: Arrays) -> None:
    train, test = pictures(arrays.train_images), pictures(arrays.test_images)
    judge.right.fill_(judge.correct(test, arrays.test_labels.long()).mean())
    judge.frechet_of_train.fill_(frechet_distance(judge, train[: len(test)], test))


def _block(channels: int, wanted: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, wanted, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(wanted),
        nn.ReLU(),
    ]


@torch.inference_mode()
def frechet_distance(judge: Judge, some: Tensor, others: Tensor) -> float:
    """|μ − μ'|² + tr(Σ + Σ' − 2(ΣΣ')^½) of the judge's features of two sets of pictures.

    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6, whose Inception network knows no digits.
    """
    metric = FrechetInceptionDistance(feature=judge.features)
    for images, real in ((some, False), (others, True)):
        for part in images.split(PART):
            metric.update(part, real=real)
    return metric.compute().item()
