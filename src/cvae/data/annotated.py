"""Images of which several annotators drew a mask each: training sees one of them at a time."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cvae.data.base import NUM_SHOWN, InMemory, dataset
from cvae.data.examples import Examples
from cvae.data.splits import PARTS, Split, Splits
from cvae.data.views import View
from cvae.errors import UserError
from cvae.noise import Stream, categorical, generator, rank_slice
from cvae.ranges import Seed, Size, Text

log = logging.getLogger(__name__)


@runtime_checkable
class AnnotatedSource(Protocol):
    """Where images and references come from."""

    def has_validation(self, root: str | None) -> bool:
        """Whether there is a val."""
        ...

    def prepare(self, root: str | None) -> None:
        """Fetch what is missing."""
        ...

    def load(self, root: str | None) -> Splits:
        """All of it; raises `UserError` if it is not there, or not as it should be."""
        ...


class AnnotatedData(InMemory):
    """x is an image, y what one of several annotators drew of it.

    A training step draws who answers, with the annotators' probabilities. Validation and test have
    one draw that is the same in every run, and all references beside it.

    Args:
        source: of images and references.
        view: what is x and what is y.
        batch_size: examples of a training step, over all processes together.
        seed: of the order of the examples and of the draws of training.
        root: a folder of files; None lets the source choose.
    """

    def __init__(
        self,
        source: AnnotatedSource,
        view: View,
        batch_size: Size,
        seed: Seed = 0,
        root: Text | None = None,
    ) -> None:
        super().__init__(view, batch_size, seed)
        self.source, self.root = source, root
        self.names: Sequence[str] = ()

    @property
    def has_validation(self) -> bool:
        """Whether anything is held out for validation."""
        return self.source.has_validation(self.root)

    def prepare_data(self) -> None:
        """Fetch the files, in one process alone."""
        self.source.prepare(self.root)

    def setup(self, stage: str | None = None) -> None:
        """Read the files, and draw who answers in validation and test."""
        if self.datasets:
            return
        splits, self.names, self.record = self.source.load(self.root)
        for name, split in splits.items():
            self._check_shape(name, split)
            draws = generator(Stream.FIXED_ANSWER, PARTS.index(name))
            uniform = torch.rand(len(split.images), generator=draws)
            self.datasets[name] = dataset(*split, categorical(split.probabilities, uniform))
        self.check_size()
        *shown, _ = self.datasets["val" if self.has_validation else "train"][:NUM_SHOWN]
        self.of_shown = shown

    def examples(self, split: str) -> Examples:
        """All of val or test, in memory, with the annotators who answer there."""
        *tensors, _ = self.datasets[split].tensors
        _, references, _, answers = tensors
        return Examples(*self.see(tensors), answers, self.names, references.unsqueeze(2))

    def probabilities(self, split: str) -> Tensor:
        """How often each annotator answers, (N, A)."""
        return self.datasets[split].tensors[2]

    def see(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Images, and what the annotators who answer drew, to x and y through the view."""
        images, references, _, answers = tensors
        return self.view(
            images, references[torch.arange(len(answers), device=answers.device), answers]
        )

    def redraw(self, tensors: Sequence[Tensor], step: int) -> Sequence[Tensor]:
        """Let annotators answer by this rank's share of the step's global draws."""
        images, references, probabilities, _ = tensors
        draws = generator(Stream.ANSWER, self.seed, step, device=images.device)
        uniform = torch.rand(self.batch_size, device=images.device, generator=draws)
        answers = categorical(probabilities, rank_slice(uniform, *self.rank))
        return images, references, probabilities, answers

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: what all data keep there, and the hash of what was made of files."""
        return {**super().state_dict(), "made": self.record.get("made")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's place, and tell if computing makes other bytes now.

        Rounding alone may do that, in one pixel of a million: no reason to refuse the run.

        Raises:
            UserError: a file has been altered since, or has come or gone.
        """
        super().load_state_dict(state_dict)
        kept, found = state_dict.get("made"), self.record.get("made")
        if kept and kept != found:
            log.warning(
                "the images and masks made here are not, to the last bit, those that the run began "
                "with: numpy, scipy or torch has another version, or the processor is another kind"
            )

    def _check_shape(self, name: str, split: Split) -> None:
        if tuple(split.images.shape[1:]) != tuple(self.view.x_shape):
            channels, *sides = split.images.shape[1:]
            raise UserError(
                f"the images of {name} have {'x'.join(map(str, sides))} pixels in {channels} "
                f"channel(s): give data.view.shape=[{channels},{','.join(map(str, sides))}], the "
                "shape of those of all splits"
            )
