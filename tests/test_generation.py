"""Samples before a judge: real pictures, shuffled pictures, a model's."""

from pathlib import Path

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution

from cvae.data.module import ImageData
from cvae.data.source import MNIST, NUM_CLASSES, Arrays
from cvae.data.views import Label
from cvae.densities import StandardNormal
from cvae.evaluation import drawn as drawn_module
from cvae.evaluation.drawn import drawn
from cvae.evaluation.generation import Generation, sampled_pictures
from cvae.evaluation.judge import Judge, pictures
from cvae.model import ConditionalVAE
from short_judge import short_judge_of

SHOWN = 500  # training images of each digit


def test_diversity_is_the_mean_distance_of_pairs_within_a_class(
    judge: Judge, arrays: Arrays
) -> None:
    labels = torch.tensor([3] * 3 + [5] * 2)
    real = torch.zeros(5, 1, 28, 28)
    real[1, 0, 0, 0] = 1.0
    real[2, 0, :2, :2] = 1.0
    generation = Generation(judge, torch.zeros(5, 1, 28, 28), real, labels)
    sampled, of_real = generation.diversity_of(3)
    assert sampled == 0.0
    assert of_real == pytest.approx((1 + 2 + 3**0.5) / 3)  # the pairs (0,1), (0,2), (1,2)


class _Stripe(nn.Module):
    """Paints as many rows as the digit that x asks for, shifted by z."""

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        digit = x.argmax(-1)
        rows = (torch.arange(28) < digit.unsqueeze(-1)).float()
        picture = rows.unsqueeze(-1).expand(-1, -1, 28).unsqueeze(1)
        return Bernoulli(probs=picture * z.sigmoid().reshape(-1, 1, 1, 1))


def test_each_condition_gets_a_sample_of_its_own_that_the_seed_fixes() -> None:
    model = ConditionalVAE(nn.Identity(), StandardNormal(1), _Stripe(), 1)
    view = Label()
    x = torch.eye(NUM_CLASSES).repeat(120, 1)  # three batches
    drawn = sampled_pictures(model, view, x, seed=1)
    painted = (drawn[:, 0, :, 0] > 0).sum(-1)
    assert torch.equal(painted, x.argmax(-1))
    ones = drawn[x.argmax(-1) == 1][:, 0, 0, 0]
    assert len(ones.unique()) == 120
    assert torch.equal(drawn, sampled_pictures(model, view, x, seed=1))
    assert not torch.equal(drawn, sampled_pictures(model, view, x, seed=2))


class _TrainingImage(nn.Module):
    """Shows a training image of the digit that x asks for; z chooses which, all as likely."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        of_digits = [
            pictures(arrays.train_images[arrays.train_labels == digit][:SHOWN])
            for digit in range(NUM_CLASSES)
        ]
        # a parameter, as the device of a model is that of its parameters
        self.images = nn.Parameter(torch.stack(of_digits), requires_grad=False)

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        chosen = (torch.special.ndtr(z.squeeze(-1)) * SHOWN).long().clamp(max=SHOWN - 1)
        return Bernoulli(probs=self.images[x.argmax(-1), chosen])


def test_real_images_of_the_digits_asked_for_are_right_and_of_others_by_chance(
    judge: Judge,
    judged: Path,
    arrays: Arrays,
    mnist_root: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if x were ignored: the digits are as frequent, but not where they are asked for."""
    monkeypatch.chdir(judged)
    monkeypatch.setattr(drawn_module, "judge_of", short_judge_of)
    data = ImageData(MNIST(), Label(), "threshold", batch_size=100, root=mnist_root)
    data.setup()
    examples = data.examples("test")
    model = ConditionalVAE(nn.Identity(), StandardNormal(1), _TrainingImage(arrays), 1)
    order = torch.randperm(len(examples.x), generator=torch.Generator().manual_seed(0))
    right = drawn(data, model, examples, "test", 0, 16)["judge"]
    wrong = drawn(data, model, examples._replace(x=examples.x[order]), "test", 0, 16)["judge"]
    sizes = examples.labels.bincount().tolist()
    per_digit = list(zip(right["per_digit"].values(), sizes, strict=True))
    for digit, (of_one, size) in enumerate(per_digit):
        # as often as the judge is right on the images shown, but for a draw in a million
        shown = model.decoder.get_parameter("images")[digit]
        own = judge.correct(shown, torch.full((SHOWN,), digit)).mean()
        low, high = binom(size, own).interval(1 - 1e-6)
        assert low <= round(of_one["accuracy"] * size) <= high, digit
        assert low > size / 2  # far from by chance
    hits = sum(of_one["accuracy"] * size for of_one, size in per_digit)
    assert right["accuracy"] == pytest.approx(hits / 10_000)
    for share, count in [(wrong, 10_000), *per_digit]:
        of_binomial = binom(count, share["accuracy"]).std() / count
        assert share["accuracy_standard_error"] == pytest.approx(of_binomial)
    # Σ_c p(c)² of the ten classes is 0.1007; the standard error over 10,000 is 0.003
    assert wrong["accuracy"] == pytest.approx(0.1007, abs=4 * 0.003)
