"""Images in MNIST's format: labels beside them, pixels binarised as the likelihood has it."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from cvae.data.base import NUM_SHOWN, InMemory, dataset
from cvae.data.examples import Examples
from cvae.data.pixels import ONCE, Binarize, binarize, uniform_bytes
from cvae.data.source import NUM_TRAIN, SHAPES, Source
from cvae.data.views import View
from cvae.noise import Stream, generator, rank_slice
from cvae.ranges import Seed, Size, Text


class ImageData(InMemory):
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
        super().__init__(view, batch_size, seed)
        self.source, self.binarize, self.split, self.root = source, binarize, split, root

    @property
    def has_validation(self) -> bool:
        """Whether any image is held out for validation."""
        return self.split == "standard"

    @property
    def num_train(self) -> int:
        """How many training images there are."""
        return NUM_TRAIN if self.has_validation else SHAPES["train-images-idx3-ubyte"][0]

    def prepare_data(self) -> None:
        """Fetch the files, in one process alone."""
        self.source.prepare(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read the files, and make the draws that stay the same for the whole run."""
        if self.datasets:
            return
        arrays = self.source.load(self.root)
        fixed, test = self._fix(arrays.train_images, 0), self._fix(arrays.test_images, 1)
        train = arrays.train_images if self.binarize == "dynamic" else fixed
        labels, count = arrays.train_labels, self.num_train
        self.datasets = {
            "train": dataset(train[:count], labels[:count]),
            "val": dataset(fixed[count:], labels[count:]),
            "test": dataset(test, arrays.test_labels),
        }
        self.check_size()
        first = count if self.has_validation else 0
        self.of_shown = fixed[first:][:NUM_SHOWN], labels[first:][:NUM_SHOWN]
        self.record = arrays.record

    def examples(self, split: str) -> Examples:
        """All of val or test, in memory, with the pixels that are seen there."""
        images, labels, _ = self.datasets[split].tensors
        return Examples(*self.view(images, labels), labels.long())

    def see(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Images and labels, uint8, to x and y through the view."""
        images, labels = tensors
        return self.view(images, labels)

    def redraw(self, tensors: Sequence[Tensor], step: int) -> Sequence[Tensor]:
        """Binarise this rank's images, if that is done anew each time, with the step's draws."""
        images, labels = tensors
        if self.binarize != "dynamic":
            return tensors
        draws = generator(Stream.PIXELS, self.seed, step, device=images.device)
        uniform = uniform_bytes((self.batch_size, *images.shape[1:]), draws)
        return binarize(images, rank_slice(uniform, *self.rank)), labels

    def _fix(self, images: Tensor, part: int) -> Tensor:
        return ONCE[self.binarize](images, generator(Stream.FIXED_PIXELS, part))
