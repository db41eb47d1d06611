"""The LightningDataModule: whole batches of bytes from memory, made into x and y on the device."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from cvae.data.pixels import ONCE, Binarize, binarize, uniform_bytes
from cvae.data.source import SHAPES, Source
from cvae.data.views import View
from cvae.errors import UserError
from cvae.noise import Stream, generator, rank_slice
from cvae.ranges import Seed, Size, Text

NUM_TRAIN = 50_000  # of the standard split; the other 10,000 training images are for validation
EVALUATION_BATCH = 500
NUM_SHOWN = 10
MOST = 10_000  # images in floating point at once


class Batch(NamedTuple):
    """The condition x (B, …), the modelled y (B, …), and each example's position in its split."""

    x: Tensor
    y: Tensor
    position: Tensor


class Examples(NamedTuple):
    """A whole split: conditions x (N, …), modelled y (N, …), labels (N,), in the files' order."""

    x: Tensor
    y: Tensor
    labels: Tensor


class ShuffledBatches(Sampler[Tensor]):
    """Index tensors of this rank's share of each global batch, in an order that (seed, epoch) fix.

    The examples that do not fill a last batch are left for another epoch's order.

    Attributes:
        first: the batch that the next iteration begins with; 0 unless an epoch is resumed.
        given: how many batches of the epoch are done with.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first, self.given = 0, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(self.size, generator=generator(Stream.ORDER, self.seed, self.epoch))
        batches = torch.split(order, self.batch_size)[: len(self)]
        self.given, self.first = self.first, 0
        for batch in batches[self.given :]:
            self.given += 1
            yield rank_slice(batch, self.rank, self.world_size)


class OrderedBatches(Sampler[Tensor]):
    """Index tensors that give each example to exactly one rank, none twice, none padded."""

    def __init__(self, size: int, rank: int, world_size: int) -> None:
        self.batches = torch.split(torch.arange(rank, size, world_size), EVALUATION_BATCH)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)


class ImageData(LightningDataModule):
    """Images in MNIST's format, split into train, validation and test, seen through a view.

    Args:
        source: which data set.
        view: what is x and what is y.
        binarize: dynamic (a fresh draw at each access), static (one draw, the same in every run),
            threshold (above one half), none (grey).
        batch_size: examples of a training step, over all processes together.
        split: standard (50,000 train, 10,000 validation) or full (60,000 train, no validation).
        seed: of the order of the examples and of the draws of training.
        root: a folder of IDX files; None fetches the official ones into data/.
    """

    def __init__(
        self,
        source: Source,
        view: View,
        binarize: Binarize,
        batch_size: Size,
        split: Literal["standard", "full"] = "standard",
        seed: Seed = 0,
        root: Text | None = None,
    ) -> None:
        super().__init__()
        self.source, self.view, self.binarize, self.root = source, view, binarize, root
        self.batch_size, self.split, self.seed = batch_size, split, seed
        self.datasets: dict[str, TensorDataset] = {}
        self.record: dict[str, str] = {}
        self._first = 0  # batch of the first epoch to come

    @property
    def has_validation(self) -> bool:
        """Whether any image is held out for validation."""
        return self.split == "standard"

    def prepare_data(self) -> None:
        """Fetch the files, in one process alone."""
        self.source.prepare(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read the files, and make the draws that stay the same for the whole run."""
        if self.datasets:
            return
        arrays = self.source.load(self.root)
        num_train = NUM_TRAIN if self.has_validation else len(arrays.train_images)
        if self.batch_size > num_train:
            raise UserError(f"data.batch_size={self.batch_size} is more than {num_train} examples")
        fixed, test = self._fix(arrays.train_images, 0), self._fix(arrays.test_images, 1)
        train = arrays.train_images if self.binarize == "dynamic" else fixed
        self.datasets = {
            "train": _dataset(train[:num_train], arrays.train_labels[:num_train]),
            "val": _dataset(fixed[num_train:], arrays.train_labels[num_train:]),
            "test": _dataset(test, arrays.test_labels),
        }
        first = num_train if self.has_validation else 0
        self._shown = fixed[first:][:NUM_SHOWN], arrays.train_labels[first:][:NUM_SHOWN]
        self.record = arrays.record

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: the place in the epoch, and the hashes of the files."""
        assert self.trainer is not None
        given = self.order.given
        return {
            "given": given if given < self.trainer.num_training_batches else 0,
            "hashes": {name: self.record[name] for name in SHAPES},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's place, with the files that it was made from.

        Raises:
            UserError: a file has been altered since.
        """
        for name, digest in state_dict["hashes"].items():
            if self.record[name] != digest:
                raise UserError(
                    f"{self.record['folder']}/{name} has changed since the run began: put the file "
                    "back that it was trained on, or start a new run"
                )
        self._first = state_dict["given"]

    def check_division(self, world_size: int) -> None:
        """Refuse a global batch that does not divide evenly among the processes.

        Raises:
            UserError: naming the size and a number that it should be a multiple of.
        """
        if self.batch_size % world_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is the size over all processes and "
                f"cannot be divided evenly among {world_size}: choose a multiple of {world_size}"
            )

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        rank, world_size = self._rank()
        self.check_division(world_size)
        train = self.datasets["train"]
        self.order = ShuffledBatches(len(train), self.batch_size, self.seed, rank, world_size)
        self.order.first = self._first
        return DataLoader(train, batch_size=None, sampler=self.order)

    def val_dataloader(self) -> list[DataLoader[tuple[Tensor, ...]]]:
        return [self._evaluation_loader("val")] if self.has_validation else []

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._evaluation_loader("test")

    def examples(self, split: str) -> Examples:
        """All of train, val or test, in memory, with the pixels that validation and test see."""
        images, labels, _ = self.datasets[split].tensors
        return Examples(*self.view(images, labels), labels.long())

    def mean(self) -> Tensor:
        """The mean y of the training data, (*y_shape)."""
        images, labels, _ = self.datasets["train"].tensors
        total = torch.zeros(self.view.y_shape, dtype=torch.float64)
        for part in zip(images.split(MOST), labels.split(MOST), strict=True):
            total += self.view(*part)[1].sum(0, dtype=torch.float64)
        return (total / len(images)).float()

    def shown(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """x and y of the ten examples that pictures show: of validation, or else of training."""
        images, labels = self._shown
        return self.view(images.to(device), labels.to(device))

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> Batch:
        """uint8 images, labels and positions on the device, to x and y through the view."""
        images, labels, position = batch
        if self.trainer is not None and self.trainer.training and self.binarize == "dynamic":
            images = self._draw(images, self.trainer.global_step)
        return Batch(*self.view(images, labels), position)

    def _draw(self, images: Tensor, step: int) -> Tensor:
        """Binarise this rank's images with its share of the step's global draws."""
        rank, world_size = self._rank()
        pixels = generator(Stream.PIXELS, self.seed, step, device=images.device)
        uniform = uniform_bytes((self.batch_size, *images.shape[1:]), pixels)
        return binarize(images, rank_slice(uniform, rank, world_size))

    def _fix(self, images: Tensor, part: int) -> Tensor:
        return ONCE[self.binarize](images, generator(Stream.FIXED_PIXELS, part))

    def _evaluation_loader(self, split: str) -> DataLoader[tuple[Tensor, ...]]:
        dataset = self.datasets[split]
        order = OrderedBatches(len(dataset), *self._rank())
        return DataLoader(dataset, batch_size=None, sampler=order)

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def _dataset(images: Tensor, labels: Tensor) -> TensorDataset:
    return TensorDataset(images, labels, torch.arange(len(images)))
