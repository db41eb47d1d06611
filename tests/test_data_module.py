from itertools import chain, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from cvae.data.batches import OrderedBatches, ShuffledBatches
from cvae.data.examples import Batch
from cvae.data.module import ImageData
from cvae.data.pixels import Binarize
from cvae.data.source import MNIST, Arrays
from cvae.data.views import Label
from cvae.errors import UserError

MODES = get_args(Binarize)


class Loaded(MNIST):
    """MNIST read from the disk once for all tests."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        self.arrays = arrays

    def load(self, root: str | None) -> Arrays:
        return self.arrays


@pytest.fixture(scope="module")
def source(mnist_root: str) -> Loaded:
    return Loaded(MNIST().load(mnist_root))


def make(source: MNIST, binarize: Binarize = "dynamic", **options: Any) -> ImageData:
    data = ImageData(source, Label(), binarize, **{"batch_size": 100, **options})
    data.setup()
    return data


def attach(
    data: ImageData, step: int = 0, rank: int = 0, world_size: int = 1, training: bool = True
) -> ImageData:
    """Let the data see what Lightning's trainer would show in this moment."""
    moment = {"training": training, "global_step": step}
    data.trainer = SimpleNamespace(**moment, global_rank=rank, world_size=world_size)  # type: ignore[assignment]
    return data


def first_training_batch(data: ImageData) -> Batch:
    return data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)


def held_out(data: ImageData, split: str) -> Batch:
    """All of validation or test, in the order of its positions, as the model would see it."""
    attach(data, training=False)
    loader = data.test_dataloader() if split == "test" else data.val_dataloader()[0]
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def test_the_standard_split_keeps_the_last_10000_training_images_for_validation(
    source: Loaded,
) -> None:
    data = make(source, "none")
    assert {name: len(part) for name, part in data.datasets.items()} == {
        "train": 50_000,
        "val": 10_000,
        "test": 10_000,
    }
    expected = {
        "train": (source.arrays.train_images[:50_000], source.arrays.train_labels[:50_000]),
        "val": (source.arrays.train_images[50_000:], source.arrays.train_labels[50_000:]),
        "test": (source.arrays.test_images, source.arrays.test_labels),
    }
    for name, (images, labels) in expected.items():
        assert torch.equal(data.datasets[name].tensors[0], images)
        assert torch.equal(data.datasets[name].tensors[1], labels)


def test_the_full_split_has_no_validation(source: Loaded) -> None:
    data = make(source, "none", split="full")
    assert not data.has_validation
    assert data.val_dataloader() == []
    assert len(data.datasets["train"]) == 60_000
    assert len(data.datasets["test"]) == 10_000
    x, y = data.shown(torch.device("cpu"))
    assert x.argmax(dim=1).tolist() == source.arrays.train_labels[:10].tolist()
    assert torch.equal(y[:, 0], source.arrays.train_images[:10].float() / 255)


def test_the_split_does_not_depend_on_the_seed(source: Loaded) -> None:
    first, second = make(source, seed=1), make(source, seed=2)
    for split in ("train", "val", "test"):
        labels = [data.datasets[split].tensors[1] for data in (first, second)]
        assert torch.equal(*labels)
    assert torch.equal(first.datasets["train"].tensors[0], second.datasets["train"].tensors[0])


@pytest.mark.parametrize("binarize", ["dynamic", "static"])
def test_what_is_held_out_has_the_same_pixels_in_every_run(
    source: Loaded, binarize: Binarize
) -> None:
    first, second = make(source, binarize, seed=1), make(source, binarize, seed=2)
    torch.manual_seed(77)
    attach(second, step=5)
    first_training_batch(second)
    for split in ("val", "test"):
        before, after = held_out(first, split), held_out(second, split)
        assert torch.equal(before.y, after.y)
        assert torch.equal(before.y, held_out(first, split).y)
        assert torch.equal(before.position, torch.arange(10_000))


def test_dynamic_and_static_runs_are_scored_on_the_same_pixels(source: Loaded) -> None:
    dynamic, static = make(source, "dynamic"), make(source, "static")
    for split in ("val", "test"):
        assert torch.equal(held_out(dynamic, split).y, held_out(static, split).y)


@pytest.mark.parametrize("binarize", MODES)
def test_pixels_are_0_or_1_unless_they_are_to_be_grey(source: Loaded, binarize: Binarize) -> None:
    data = make(source, binarize)
    batches = {split: held_out(data, split) for split in ("val", "test")}
    batches["train"] = first_training_batch(attach(data))
    for split, batch in batches.items():
        labels = data.datasets[split].tensors[1][batch.position]
        assert torch.equal(batch.x.argmax(dim=1), labels)
        if binarize == "none":
            grey = data.datasets[split].tensors[0][batch.position]
            assert torch.equal(batch.y[:, 0], grey.float() / 255)
            assert len(batch.y.unique()) > 200
        else:
            assert batch.y.unique().tolist() == [0, 1]


@pytest.mark.parametrize("binarize", ["static", "threshold"])
def test_training_pixels_that_are_fixed_are_the_same_at_each_access(
    source: Loaded, binarize: Binarize
) -> None:
    first = first_training_batch(attach(make(source, binarize), step=0))
    later = first_training_batch(attach(make(source, binarize), step=9))
    assert torch.equal(first.position, later.position)
    assert torch.equal(first.y, later.y)


def test_dynamic_training_pixels_depend_on_seed_and_step_alone(source: Loaded) -> None:
    runs = [make(source, seed=0), make(source, seed=1)]
    batch = next(iter(runs[0].train_dataloader()))

    def draw(seed: int, step: int) -> Tensor:
        torch.manual_seed(step)
        return attach(runs[seed], step).on_after_batch_transfer(batch, 0).y

    draws = {key: draw(*key) for key in product((0, 1), (0, 1, 2))}
    for (first, y), (second, other) in product(draws.items(), repeat=2):
        assert torch.equal(y, other) == (first == second)
    runs[1] = make(source, seed=1)
    assert torch.equal(draw(1, 2), draws[1, 2])


def test_dynamic_pixels_are_ink_as_often_as_they_are_grey(source: Loaded) -> None:
    data, steps = make(source), 200
    batch = next(iter(data.train_dataloader()))
    images = batch[0]
    ink = torch.zeros(images.shape)
    for step in range(steps):
        ink += attach(data, step).on_after_batch_transfer(batch, 0).y[:, 0]
    assert (ink[images == 0] == 0).all()
    assert (ink[images == 255] == steps).all()
    totals = torch.zeros(256).index_add(0, images.flatten().long(), ink.flatten())
    draws = steps * torch.bincount(images.flatten().long(), minlength=256)
    probability = torch.arange(256) / 255
    error = (totals - draws * probability).abs()
    # The draws of one grey value number thousands, and the largest of 254 deviations passes
    # 5 standard errors in one seed out of 7,000.
    assert (draws[1:255] > 1000).all()
    assert (error <= 5 * (draws * probability * (1 - probability)).sqrt()).all()


@pytest.mark.parametrize("split", ["standard", "full"])
def test_the_mean_is_of_all_training_images_and_of_no_other(
    source: Loaded, split: Literal["standard", "full"]
) -> None:
    images = source.arrays.train_images[: 50_000 if split == "standard" else 60_000]
    expected = images.double().mean(0, keepdim=True) / 255
    torch.testing.assert_close(make(source, split=split).mean(), expected.float())


def test_the_mean_of_fixed_pixels_is_their_own(source: Loaded) -> None:
    mean = make(source, "threshold").mean()
    expected = (source.arrays.train_images[:50_000] > 127).double().mean(0, keepdim=True)
    torch.testing.assert_close(mean, expected.float())


def test_the_first_ten_held_out_images_are_the_ones_to_show(source: Loaded) -> None:
    data = make(source)
    x, y = data.shown(torch.device("cpu"))
    val = held_out(data, "val")
    assert torch.equal(x, val.x[:10])
    assert torch.equal(y, val.y[:10])


def shuffled(
    epoch: int = 0, seed: int = 0, rank: int = 0, world_size: int = 1, size: int = 1003
) -> list[list[int]]:
    batches = ShuffledBatches(size, 60, seed, rank, world_size)
    batches.set_epoch(epoch)
    assert len(batches) == len(list(batches)) == size // 60
    return [batch.tolist() for batch in batches]


def test_an_epoch_of_shuffled_batches_has_each_example_at_most_once() -> None:
    batches = shuffled()
    seen = [position for batch in batches for position in batch]
    assert {len(batch) for batch in batches} == {60}
    assert len(set(seen)) == len(seen) == 960
    assert set(seen) <= set(range(1003))
    assert seen != sorted(seen)
    whole = [position for batch in shuffled(size=960) for position in batch]
    assert sorted(whole) == list(range(960))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {key: shuffled(*key) for key in product((0, 1, 2), (0, 1, 2))}
    torch.manual_seed(5)
    for (first, order), (second, other) in product(orders.items(), repeat=2):
        assert (order == other) == (first == second)
    assert shuffled(1, 2) == orders[1, 2]


def test_the_examples_left_over_differ_from_epoch_to_epoch() -> None:
    seen = {position for epoch in range(8) for batch in shuffled(epoch) for position in batch}
    # One of 1003 examples is left out eight times in a row in one seed out of 10^8.
    assert seen == set(range(1003))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_shuffled_shares_together_are_the_batches_of_one_process(world_size: int) -> None:
    shares = [shuffled(3, 4, rank, world_size) for rank in range(world_size)]
    assert {len(part) for share in shares for part in share} == {60 // world_size}
    together = [list(chain(*parts)) for parts in zip(*shares, strict=True)]
    assert together == shuffled(3, 4)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [10_000, 1001, 8])
def test_ordered_batches_give_each_example_to_one_rank(size: int, world_size: int) -> None:
    shares = []
    for rank in range(world_size):
        batches = OrderedBatches(size, 500, rank, world_size)
        assert len(batches) == len(list(batches))
        assert max(len(batch) for batch in batches) <= 500
        shares.append(torch.cat(list(batches)).tolist())
    assert sorted(chain(*shares)) == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_together_train_on_the_pixels_of_one_process(
    source: Loaded, world_size: int
) -> None:
    data = make(source, seed=3)
    single = first_training_batch(attach(data, step=7))
    shares = [first_training_batch(attach(data, 7, rank, world_size)) for rank in range(world_size)]
    for whole, parts in zip(single, zip(*shares, strict=True), strict=True):
        assert {len(part) for part in parts} == {100 // world_size}
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_ranks_together_are_scored_on_the_pixels_of_one_process(
    source: Loaded, split: str
) -> None:
    data = make(source)
    single = held_out(data, split)
    for rank in range(3):
        attach(data, rank=rank, world_size=3, training=False)
        loader = data.test_dataloader() if split == "test" else data.val_dataloader()[0]
        for part in loader:
            batch = data.on_after_batch_transfer(part, 0)
            assert torch.equal(batch.y, single.y[batch.position])
            assert torch.equal(batch.x, single.x[batch.position])


def refused(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as refusal:
        call(*arguments, **options)
    message = str(refusal.value)
    assert "\n" not in message
    return message


def test_a_batch_that_the_processes_cannot_share_is_refused(source: Loaded) -> None:
    data = attach(make(source, "none"), rank=1, world_size=3)
    message = refused(data.train_dataloader)
    assert "data.batch_size=100" in message
    assert "multiple of 3" in message


@pytest.mark.parametrize(("split", "most"), [("standard", 50_000), ("full", 60_000)])
def test_a_batch_larger_than_the_data_is_refused(source: Loaded, split: str, most: int) -> None:
    message = refused(make, source, "none", batch_size=most + 1, split=split)
    assert f"data.batch_size={most + 1}" in message
    assert str(most) in message
    data = make(source, "none", batch_size=most, split=split)
    assert len(data.train_dataloader()) == 1


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    data = ImageData(MNIST(), Label(), "dynamic", 100, root=str(tmp_path))
    data.prepare_data()
    message = refused(data.setup)
    assert str(tmp_path) in message
    assert "data.root" in message


def test_the_record_is_the_one_of_the_source(source: Loaded) -> None:
    assert make(source, "none").record == source.arrays.record


class Spy(LightningModule):
    """Trains one number, and notes the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[Batch]] = {"train": [], "val": [], "test": []}

    def training_step(self, batch: Batch) -> Tensor:
        self.seen["train"].append(batch)
        return self.weight

    def validation_step(self, batch: Batch) -> None:
        self.seen["val"].append(batch)

    def test_step(self, batch: Batch) -> None:
        self.seen["test"].append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def spied(source: Loaded, tmp_path: Path) -> Spy:
    """Two epochs of three training batches and two validation batches, and two of test."""
    torch.manual_seed(0)
    data, spy = make(source, seed=8), Spy()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=3,
        limit_val_batches=2,
        limit_test_batches=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(spy, datamodule=data)
    trainer.test(spy, datamodule=data, verbose=False)
    return spy


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_lightning_gives_the_batches_of_seed_epoch_and_step(source: Loaded, spied: Spy) -> None:
    spy = spied
    assert {split: len(batches) for split, batches in spy.seen.items()} == {
        "train": 6,
        "val": 4,
        "test": 2,
    }
    again = make(source, seed=8)
    order = ShuffledBatches(50_000, 100, 8, 0, 1)
    for epoch in range(2):
        order.set_epoch(epoch)
        for step, position in zip(range(3 * epoch, 3 * epoch + 3), order, strict=False):
            rows = list(again.datasets["train"][position])
            expected = attach(again, step).on_after_batch_transfer(rows, 0)
            for part, whole in zip(spy.seen["train"][step], expected, strict=True):
                assert torch.equal(part, whole)
    for split, batches in {"val": spy.seen["val"], "test": spy.seen["test"]}.items():
        whole = held_out(again, split)
        for batch in batches:
            assert torch.equal(batch.y, whole.y[batch.position])
    assert torch.equal(spy.seen["val"][0].position, torch.arange(500))
    assert torch.equal(spy.seen["val"][0].y, spy.seen["val"][2].y)
