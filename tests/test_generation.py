"""Samples before a judge: real pictures, shuffled pictures, noise."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution
from torch.nn.utils import parameters_to_vector

from cvae.checkpoint import write_checkpoint
from cvae.data.module import ImageData
from cvae.data.source import MNIST, NUM_CLASSES, Arrays
from cvae.data.views import Label
from cvae.densities import StandardNormal
from cvae.errors import UserError
from cvae.evaluation import judge as judge_module
from cvae.evaluation.drawn import drawn
from cvae.evaluation.generation import Generation, sampled_pictures
from cvae.evaluation.judge import Judge, Recipe, frechet_distance, judge_of, pictures
from cvae.model import ConditionalVAE

SHOWN = 500  # training images of each digit


@pytest.fixture(scope="module")
def judge(judged: Path, arrays: Arrays) -> Judge:
    return judge_of("mnist", arrays, judged / "outputs")


def test_a_judge_tells_digits_apart_and_is_trained_only_once(
    judged: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "_trained", lambda _: pytest.fail("trained again"))
    kept = judge_of("mnist", arrays, judged / "outputs")
    # a sixth of the images, twice, are enough for 0.987, with an error of 0.001 over 10,000
    assert kept.right > 0.98
    assert kept.right == kept.accuracy(pictures(arrays.test_images), arrays.test_labels.long())
    assert kept.frechet_of_train == frechet_distance(
        kept, pictures(arrays.train_images[:10_000]), pictures(arrays.test_images)
    )
    assert not kept.training


def test_a_judge_of_other_files_is_trained_again(
    judged: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {**arrays.record, "t10k-images-idx3-ubyte": "another"}
    monkeypatch.setattr(judge_module, "_trained", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        judge_of("mnist", arrays._replace(record=changed), judged / "outputs")


OTHERS: dict[str, Any] = {
    "epochs": 2,
    "batch": 50,
    "rate": 1e-3,
    "weight_decay": 0.1,
    "smoothing": 0.1,
    "grey": 0.0,
    "degrees": 20.0,
    "shift": 0.2,
    "scale": (0.5, 1.5),
    "seed": 1,
}


def test_each_part_of_the_recipe_makes_another_judge(arrays: Arrays) -> None:
    few = arrays._replace(
        train_images=arrays.train_images[:400], train_labels=arrays.train_labels[:400]
    )
    recipe = replace(judge_module.RECIPE, epochs=1)

    def weights(of: Recipe) -> Tensor:
        return parameters_to_vector(judge_module._trained(few, of).parameters())

    kept = weights(recipe)
    assert torch.equal(weights(recipe), kept)
    assert OTHERS.keys() == asdict(recipe).keys()
    for name, value in OTHERS.items():
        assert not torch.equal(weights(replace(recipe, **{name: value})), kept), name


@pytest.mark.parametrize("name", OTHERS)
def test_a_judge_of_another_recipe_is_trained_again(
    judged: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(judge_module, "_trained", lambda _: 1 / 0)
    other = replace(judge_module.RECIPE, **{name: OTHERS[name]})
    monkeypatch.setattr(judge_module, "RECIPE", other)
    with pytest.raises(ZeroDivisionError):
        judge_of("mnist", arrays, judged / "outputs")


def test_a_file_that_holds_no_judge_is_refused(
    tmp_path: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "_trained", lambda _: pytest.fail("trained instead"))
    path = tmp_path / "judges" / "mnist.ckpt"
    made_from = judge_module._ingredients(arrays)
    write_checkpoint({"made_from": made_from, "state_dict": {"weight": torch.zeros(1)}}, path)
    for _ in range(2):
        with pytest.raises(UserError, match="does not hold a judge: delete it"):
            judge_of("mnist", arrays, tmp_path)
        path.write_bytes(path.read_bytes()[:100])  # cut short


@pytest.mark.slow
def test_the_judge_is_right_on_99_3_percent_of_the_test_images(
    arrays: Arrays, tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    judge = judge_of("mnist", arrays, tmp_path)
    assert judge.right >= 0.993
    thresholded = (pictures(arrays.test_images) > 0.5).float()
    assert judge.accuracy(thresholded, arrays.test_labels.long()) >= 0.993
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws have moved


def test_real_pictures_are_what_was_asked_for_and_shuffled_ones_by_chance(
    judge: Judge, arrays: Arrays
) -> None:
    real, labels = pictures(arrays.test_images), arrays.test_labels.long()
    exact = Generation(judge, real, real, labels)
    assert exact.correct.mean() == judge.accuracy(real, labels)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    chance = Generation(judge, real[order], real, labels)
    # Σ_c p(c)² of the ten classes is 0.1007; the standard error over 10,000 is 0.003
    assert chance.correct.mean().item() == pytest.approx(0.1007, abs=4 * 0.003)


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


def test_the_frechet_distance_is_small_between_real_halves_and_large_to_noise(
    judge: Judge, arrays: Arrays
) -> None:
    real = pictures(arrays.test_images)
    near = frechet_distance(judge, real[:5000], real[5000:])
    noise = torch.rand(5000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(judge, real[:5000], real[:5000]) == pytest.approx(0, abs=1e-3)
    assert 0 < near < frechet_distance(judge, noise, real[5000:]) / 10


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
    """Shows a training image of the digit that x asks for; z chooses which."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        of_digits = [
            pictures(arrays.train_images[arrays.train_labels == digit][:SHOWN])
            for digit in range(NUM_CLASSES)
        ]
        # a parameter, as the device of a model is that of its parameters
        self.images = nn.Parameter(torch.stack(of_digits), requires_grad=False)

    def forward(self, x: Tensor, z: Tensor) -> Distribution:
        chosen = (z.squeeze(-1).sigmoid() * SHOWN).long()
        return Bernoulli(probs=self.images[x.argmax(-1), chosen])


def test_real_images_of_the_digits_asked_for_are_right_and_of_others_by_chance(
    judged: Path, arrays: Arrays, mnist_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if x were ignored: the digits are as frequent, but not where they are asked for."""
    monkeypatch.chdir(judged)
    data = ImageData(MNIST(), Label(), "threshold", batch_size=100, root=mnist_root)
    data.setup()
    examples = data.examples("test")
    model = ConditionalVAE(nn.Identity(), StandardNormal(1), _TrainingImage(arrays), 1)
    order = torch.randperm(len(examples.x), generator=torch.Generator().manual_seed(0))
    right = drawn(data, model, examples, "test", 0, 16)["judge"]
    wrong = drawn(data, model, examples._replace(x=examples.x[order]), "test", 0, 16)["judge"]
    assert right["accuracy"] > 0.9  # the judge itself is right on 0.987 of the test images
    assert min(of_one["accuracy"] for of_one in right["per_digit"].values()) > 0.9
    per_digit = zip(right["per_digit"].values(), examples.labels.bincount(), strict=True)
    for share, count in [(wrong, 10_000), *((of_one, int(size)) for of_one, size in per_digit)]:
        of_binomial = binom(count, share["accuracy"]).std() / count
        assert share["accuracy_standard_error"] == pytest.approx(of_binomial)
    # Σ_c p(c)² of the ten classes is 0.1007; the standard error over 10,000 is 0.003
    assert wrong["accuracy"] == pytest.approx(0.1007, abs=4 * 0.003)
