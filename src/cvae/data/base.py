"""What all data have in common: whole batches of bytes from memory, made into x and y."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from cvae.data.batches import OrderedBatches, ShuffledBatches
from cvae.data.examples import Batch, Examples
from cvae.data.record import hashes
from cvae.data.views import View
from cvae.errors import UserError
from cvae.memory import at_once

EVALUATION_BATCH = 500  # images of 28×28
NUM_SHOWN = 10
MOST = 10_000  # images of 28×28 in floating point at once


class InMemory(LightningDataModule, ABC):
    """Examples of bytes in memory, split into train, validation and test, seen through a view.

    Args:
        view: what is x and what is y.
        batch_size: examples of a training step, over all processes together.
        seed: of the order of the examples and of the draws of training.

    Attributes:
        datasets: the tensors of train, val and test, and the positions (N,); filled by `setup`.
        record: what the data are, with a hash of each file; filled by `setup`.
        of_shown: the tensors of the examples that pictures show, of validation or else of training,
            as validation sees them; filled by `setup`.
    """

    of_shown: Sequence[Tensor]

    def __init__(self, view: View, batch_size: int, seed: int) -> None:
        super().__init__()
        self.view, self.batch_size, self.seed = view, batch_size, seed
        self.datasets: dict[str, TensorDataset] = {}
        self.record: dict[str, str] = {}
        self._first = 0  # batch of the first epoch to come

    @property
    @abstractmethod
    def has_validation(self) -> bool:
        """Whether anything is held out for validation."""

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read the files, and make the draws that stay the same for the whole run."""

    @abstractmethod
    def see(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """x and y of some examples, from their tensors in `datasets`."""

    @abstractmethod
    def redraw(self, tensors: Sequence[Tensor], step: int) -> Sequence[Tensor]:
        """The tensors of this rank's training batch, with what is drawn afresh at each step."""

    @abstractmethod
    def examples(self, split: str) -> Examples:
        """All of val or test, in memory, as it is seen there; train has draws of each step."""

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each file."""
        return hashes(self.record)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: the place in the epoch, and the hashes of the files."""
        assert self.trainer is not None
        given = self.order.given
        return {
            "given": given if given < self.trainer.num_training_batches else 0,
            "hashes": self.hashes,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's place, with the files that it was made from.

        Raises:
            UserError: a file has been altered since, or has come or gone.
        """
        kept, found = state_dict["hashes"], self.hashes
        for name in kept | found:
            if kept.get(name) != found.get(name):
                place = Path(self.record.get("folder", ""), name)
                raise UserError(
                    f"{place} has changed since the run began: put the file "
                    "back that it was trained on, or start a new run"
                )
        self._first = state_dict["given"]

    def check_size(self) -> None:
        """Refuse a batch of more than all training examples.

        Raises:
            UserError: naming both.
        """
        if self.batch_size > (examples := len(self.datasets["train"])):
            raise UserError(
                f"data.batch_size={self.batch_size} is more than {examples} examples: give fewer"
            )

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
        rank, world_size = self.rank
        self.check_division(world_size)
        train = self.datasets["train"]
        self.order = ShuffledBatches(len(train), self.batch_size, self.seed, rank, world_size)
        self.order.first = self._first
        return DataLoader(train, batch_size=None, sampler=self.order)

    def val_dataloader(self) -> list[DataLoader[tuple[Tensor, ...]]]:
        return [self._evaluation_loader("val")] if self.has_validation else []

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return self._evaluation_loader("test")

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> Batch:
        """Bytes and positions on the device, to x and y through the view."""
        *tensors, position = batch
        if self.trainer is not None and self.trainer.training:
            return Batch(*self.see(self.redraw(tensors, self.trainer.global_step)), position)
        return Batch(*self.see(tensors), position)

    def mean(self) -> Tensor:
        """The mean y of the training data, (*y_shape)."""
        *tensors, position = self.datasets["train"].tensors
        total = torch.zeros(self.view.y_shape, dtype=torch.float64)
        size = at_once(MOST, prod(self.view.x_shape))
        for part in zip(*(tensor.split(size) for tensor in tensors), strict=True):
            total += self.see(part)[1].sum(0, dtype=torch.float64)
        return (total / len(position)).float()

    def shown(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """x and y of the ten examples that pictures show."""
        return self.see([tensor.to(device) for tensor in self.of_shown])

    @property
    def rank(self) -> tuple[int, int]:
        """Which process this is, and of how many."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _evaluation_loader(self, split: str) -> DataLoader[tuple[Tensor, ...]]:
        dataset = self.datasets[split]
        batch_size = at_once(EVALUATION_BATCH, prod(self.view.y_shape))
        order = OrderedBatches(len(dataset), batch_size, *self.rank)
        return DataLoader(dataset, batch_size=None, sampler=order)


def dataset(*tensors: Tensor) -> TensorDataset:
    """Tensors of N examples each, and the position of each example."""
    return TensorDataset(*tensors, torch.arange(len(tensors[0])))
