"""The order in which a split's examples are taken, and by which process."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from cvae.noise import Stream, generator, rank_slice


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

    def __init__(self, size: int, batch_size: int, rank: int, world_size: int) -> None:
        self.batches = torch.split(torch.arange(rank, size, world_size), batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)
