from collections.abc import Callable
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from ambiguous import Pixels, ambiguous, joined, mask, overlap, sets, updated
from cvae.errors import UserError
from cvae.masks import iou
from cvae.spread import Spread, _slots, energy_distance, majority_dice, matched_iou, oracle
from cvae.styles import style_recall

NUMBERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "GED with diagonal": partial(energy_distance, diagonal=True),
    "GED without": partial(energy_distance, diagonal=False),
    "Hungarian": matched_iou,
    "Dice": majority_dice,
    "recall": style_recall,
}
Masks, Weights = list[Pixels], list[float]


def brute_ged(samples: Masks, references: Masks, weights: Weights, diagonal: bool) -> float:
    cross = own = truth = 0.0
    num = len(samples)
    for i, s in enumerate(samples):
        for y, p in zip(references, weights, strict=True):
            cross += p * (1 - overlap(s, y)) / num
        for j, other in enumerate(samples):
            if diagonal:
                own += (1 - overlap(s, other)) / num**2
            elif i != j:
                own += (1 - overlap(s, other)) / (num * (num - 1))
    for y, p in zip(references, weights, strict=True):
        for other, q in zip(references, weights, strict=True):
            truth += p * q * (1 - overlap(y, other))
    return 2 * cross - own - truth


def brute_slots(weights: Weights, num: int) -> list[int]:
    counts = [int(num * p + 1e-6) for p in weights]
    while sum(counts) < num:
        left = [round(num * p - count, 6) for p, count in zip(weights, counts, strict=True)]
        counts[left.index(max(left))] += 1
    return [a for a, count in enumerate(counts) for _ in range(count)]


def brute_matched(samples: Masks, references: Masks, weights: Weights) -> float:
    slots = brute_slots(weights, len(samples))
    return max(
        sum(overlap(s, references[a]) for s, a in zip(samples, order, strict=True)) / len(samples)
        for order in permutations(slots)
    )


def brute_dice(samples: Masks, references: Masks, weights: Weights) -> float:
    ours = {p for p in range(9) if sum(p in s for s in samples) > len(samples) / 2}
    votes = [sum(w for y, w in zip(references, weights, strict=True) if p in y) for p in range(9)]
    theirs = {p for p, vote in enumerate(votes) if vote > 0.5}
    return 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 1.0


BRUTE = {
    "GED with diagonal": partial(brute_ged, diagonal=True),
    "GED without": partial(brute_ged, diagonal=False),
    "Hungarian": brute_matched,
    "Dice": brute_dice,
}


@pytest.mark.parametrize("name", BRUTE)
def test_numbers_are_those_of_plain_loops(name: str) -> None:
    function, brute = NUMBERS[name], BRUTE[name]
    samples, references, probabilities = ambiguous()
    found = function(samples[:, :, None], references, probabilities)  # samples with a channel
    examples = zip(sets(samples), sets(references), probabilities.tolist(), strict=True)
    wanted = [brute(*example) for example in examples]
    assert found.shape == (14,)
    assert found.dtype == torch.float64
    assert len(set(wanted)) > 4
    # probabilities in float32 add up to one within 1e-7
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_iou_is_of_all_pairs() -> None:
    samples, references, _ = ambiguous()
    found = iou(samples, references)
    for row, ours, theirs in zip(found, sets(samples), sets(references), strict=True):
        assert row.tolist() == [[overlap(s, y) for y in theirs] for s in ours]
    assert found[5, 0].tolist() == [1.0] * 4  # of empty masks


def test_iou_counts_exactly_where_16_bits_are_asked_for() -> None:
    many, fewer = torch.ones(1, 1, 64, 64, dtype=torch.bool), torch.ones(1, 1, 64, 64).bool()
    fewer[..., 0, 0] = False
    with torch.autocast("cpu", torch.bfloat16):
        assert iou(many, fewer).item() == 4095 / 4096


def test_grey_masks_are_refused() -> None:
    with pytest.raises(TypeError, match="masks are boolean"):
        iou(torch.rand(1, 2, 3, 3), torch.ones(1, 2, 3, 3).bool())


def hand() -> tuple[Tensor, Tensor, Tensor]:
    """Two samples and two references without a common pixel; of the samples one is right."""
    left, right, other = mask("#.", ".."), mask("..", ".#"), mask(".#", "..")
    return torch.stack([left, other])[None], torch.stack([left, right])[None], torch.ones(1, 2) / 2


@pytest.mark.parametrize(("diagonal", "wanted"), [(True, 1.5 - 0.5 - 0.5), (False, 1.5 - 1 - 0.5)])
def test_ged_by_hand(diagonal: bool, wanted: float) -> None:
    assert energy_distance(*hand(), diagonal).item() == pytest.approx(wanted, abs=1e-12)


def test_matching_by_hand_uses_each_reference_once() -> None:
    samples, references, probabilities = hand()
    assert matched_iou(samples, references, probabilities).item() == 0.5
    twice = samples[:, [0, 0]]
    assert matched_iou(twice, references, probabilities).item() == 0.5
    assert matched_iou(twice, references, torch.tensor([[1.0, 0.0]])).item() == 1.0


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ([0.5, 0.5, 0.0], [0, 0, 0, 1, 1]),  # equal remainders: the first
        ([0.0, 0.5, 0.5], [1, 1, 1, 2, 2]),
        ([0.1, 0.2, 0.7], [0, 1, 2, 2, 2]),  # remainders 0.5, 0 and 0.5
        ([0.7, 0.0, 0.3], [0, 0, 0, 0, 2]),
        ([0.2, 0.2, 0.6], [0, 1, 2, 2, 2]),
        ([0.0, 0.0, 1.0], [2, 2, 2, 2, 2]),
        ([1 / 3, 1 / 3, 1 / 3], [0, 0, 1, 1, 2]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slots_by_largest_remainder(
    weights: Weights, wanted: list[int], dtype: torch.dtype
) -> None:
    assert _slots(torch.tensor([weights], dtype=dtype), 5).tolist() == [wanted]


def test_dice_by_hand() -> None:
    full, half, none = mask("##", "##"), mask("##", ".."), mask("..", "..")
    references, even = torch.stack([full, half, none])[None], torch.tensor([[0.5, 0.0, 0.5]])
    assert majority_dice(none[None, None], references, even).item() == 1.0  # ½ is no majority
    assert majority_dice(torch.stack([full, none])[None], references, even).item() == 1.0
    assert majority_dice(full[None, None], references, even).item() == 0.0
    most = torch.tensor([[0.4, 0.2, 0.4]])
    assert majority_dice(full[None, None], references, most).item() == pytest.approx(2 * 2 / 6)


def test_one_half_from_float32_is_no_majority() -> None:
    references = torch.stack([mask("#"), mask("#"), mask("#"), mask(".")])[None]
    weights = torch.tensor([[0.3, 0.1, 0.1, 0.5]])
    assert weights.double()[:, :3].sum() > 0.5
    assert majority_dice(mask(".")[None, None], references, weights).item() == 1.0


@pytest.mark.parametrize("name", NUMBERS)
def test_moments_of_uneven_batches_and_two_processes(name: str) -> None:
    batch = ambiguous(1)
    number = NUMBERS[name]
    values = number(*batch).numpy()
    assert values.std() > 0
    wanted = [values.mean(), values.std() / 14**0.5, 14]
    first = updated(Spread(number), [tensor[:10] for tensor in batch], [1, 6, 3])
    second = updated(Spread(number), [tensor[10:] for tensor in batch], [4])
    for result in (updated(Spread(number), batch, [3, 0, 10, 1]).compute(), joined(first, second)):
        found = [float(result[key]) for key in ("mean", "standard_error", "count")]
        np.testing.assert_allclose(found, wanted, rtol=1e-7)


def test_a_single_sample_has_no_pair() -> None:
    samples, references, probabilities = ambiguous()
    alone = samples[:, :1]
    with pytest.raises(UserError, match="needs 2 samples"):
        energy_distance(alone, references, probabilities, diagonal=False)
    assert energy_distance(alone, references, probabilities, diagonal=True).isfinite().all()


def test_what_the_oracle_reaches() -> None:
    """0 without the diagonal; E d(Y, Y') / N with it, because a sample is near itself."""
    _, references, probabilities = (torch.cat([tensor] * 1000) for tensor in ambiguous(2))
    draws, num = torch.Generator().manual_seed(0), 4
    samples = oracle(references, probabilities, num, draws)
    weights = probabilities.double()
    spread = torch.einsum("ba,bac,bc->b", weights, 1 - iou(references, references), weights)
    for diagonal, wanted in ((False, 0.0), (True, float(spread.mean()) / num)):
        metric = Spread(partial(energy_distance, diagonal=diagonal))
        metric.update(samples, references, probabilities)
        result = metric.compute()
        error = float(result["standard_error"])
        assert error < 0.05 * float(spread.mean()) / num
        assert abs(float(result["mean"]) - wanted) < 4 * error


def test_the_oracle_draws_each_reference_as_often_as_it_should() -> None:
    references = torch.eye(3, dtype=torch.bool).reshape(1, 3, 1, 3).expand(2, -1, -1, -1)
    probabilities = torch.tensor([[0.2, 0.0, 0.8], [0.0, 1.0, 0.0]])
    num = 10_000
    samples = oracle(references, probabilities, num, torch.Generator().manual_seed(0))
    assert samples.shape == (2, num, 1, 3)
    assert samples.dtype == torch.bool
    frequencies = samples.double().mean(1)[:, 0]
    # 4 standard errors of a frequency of 0.2; what is impossible or certain is exact
    np.testing.assert_allclose(frequencies[0], [0.2, 0.0, 0.8], atol=4 * (0.16 / num) ** 0.5)
    assert frequencies[0, 1] == 0
    assert frequencies[1].tolist() == [0, 1, 0]


def test_the_oracle_repeats_itself_by_its_generator() -> None:
    _, references, probabilities = ambiguous()
    first, again, other = (
        oracle(references, probabilities, 8, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
