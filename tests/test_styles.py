import numpy as np
import pytest
import torch
from torch import Tensor

from ambiguous import A, N, ambiguous, joined, mask, overlap, sets, updated
from cvae.errors import UserError
from cvae.spread import oracle
from cvae.styles import (
    STYLE_IOU,
    StyleFrequencies,
    nearest,
    shares,
    style_recall,
    styles,
)

THRESHOLDS = [0.0, STYLE_IOU, 0.8]


def brute_nearest(samples: Tensor, references: Tensor, threshold: float) -> list[list[list[int]]]:
    """The nearest references of each sample, all of those that are as near."""
    found = []
    for ours, theirs in zip(sets(samples), sets(references), strict=True):
        overlaps = [[overlap(s, y) for y in theirs] for s in ours]
        found.append(
            [
                [a for a, value in enumerate(row) if value == max(row) and value > threshold]
                for row in overlaps
            ]
        )
    return found


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_style_is_the_nearest_reference_ties_to_the_first(threshold: float) -> None:
    samples, references, _ = ambiguous()
    near = brute_nearest(samples, references, threshold)
    wanted = [[(found or [-1])[0] for found in row] for row in near]
    found = styles(samples[:, :, None], references, threshold)
    assert found.dtype == torch.int64
    assert found.tolist() == wanted
    assert any(len(found) > 1 for row in near for found in row)
    assert {0, 2, 3} <= {style for row in wanted for style in row}


def test_an_iou_of_one_half_is_not_enough() -> None:
    references = torch.stack([mask("##.."), mask("...#")])[None]
    samples = torch.stack([mask("#..."), mask("##.."), mask("#..#")])[None]
    assert styles(samples, references).tolist() == [[-1, 0, -1]]
    assert styles(samples, references, 0.49).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_recall_is_that_of_plain_loops(threshold: float) -> None:
    samples, references, probabilities = ambiguous()
    wanted = []
    near = brute_nearest(samples, references, threshold)
    for row, weights in zip(near, probabilities.tolist(), strict=True):
        possible = {a for a, p in enumerate(weights) if p > 0}
        wanted.append(len(possible & {a for found in row for a in found}) / len(possible))
    found = style_recall(samples, references, probabilities, threshold)
    assert found.tolist() == wanted
    assert len(set(wanted)) > 2


def test_recall_by_hand() -> None:
    first, second = mask("##", ".."), mask("..", "##")
    references, samples = torch.stack([first, first, second])[None], first[None, None]
    even = torch.ones(1, 3) / 3
    assert style_recall(samples, references, even, STYLE_IOU).item() == 2 / 3  # the same mask twice
    without = torch.tensor([[0.0, 0.5, 0.5]])
    assert style_recall(samples, references, without, STYLE_IOU).item() == 0.5
    assert style_recall(samples, references, torch.eye(3)[2:], STYLE_IOU).item() == 0.0


def test_the_threshold_is_handed_on() -> None:
    batch = torch.stack([mask("#...")])[None], torch.stack([mask("##..")])[None], torch.ones(1, 1)
    for threshold, wanted in ((0.5, 0.0), (0.4, 1.0)):
        recall = style_recall(*batch, threshold)
        frequencies = updated(StyleFrequencies(threshold, 1), batch, [1]).compute()
        assert recall.item() == wanted
        assert frequencies["observed"] == wanted


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_shares_are_those_of_plain_loops(threshold: float) -> None:
    samples, references, probabilities = ambiguous()
    share, none = shares(samples, references, probabilities, threshold)
    near = brute_nearest(samples, references, threshold)
    for b, weights in enumerate(probabilities.double().tolist()):
        wanted = [0.0] * A
        for found in near[b]:
            total = sum(weights[a] for a in found)
            for a in found:
                wanted[a] += (weights[a] / total if total else 1 / len(found)) / N
        np.testing.assert_allclose(share[b], wanted, atol=1e-12)
        assert none[b].item() == pytest.approx(near[b].count([]) / N, abs=1e-12)
    np.testing.assert_allclose(share.sum(1) + none, 1.0, atol=1e-12)


def test_impossible_references_that_tie_are_drawn_equally_often() -> None:
    references = torch.stack([mask("#."), mask("#."), mask(".#")])[None]
    samples, weights = mask("#.")[None, None], torch.tensor([[0.0, 0.0, 1.0]])
    share, none = shares(samples, references, weights, STYLE_IOU)
    assert share.tolist() == [[0.5, 0.5, 0.0]]
    assert none.tolist() == [0.0]
    assert nearest(samples, references, STYLE_IOU).tolist() == [[[True, True, False]]]


def brute_frequencies(batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, np.ndarray]:
    share, none = (t.numpy() for t in shares(*batch, STYLE_IOU))
    weights = batch[2].double().numpy()
    edges = [0.0, 0.2, 0.4, 0.6, 0.8, 1.1]
    counts = np.zeros((weights.shape[1], 5))
    expected, observed = np.full_like(counts, np.nan), np.full_like(counts, np.nan)
    for a in range(len(counts)):
        for k in range(5):
            chosen = (weights[:, a] >= edges[k]) & (weights[:, a] < edges[k + 1])
            counts[a, k] = chosen.sum()
            if chosen.any():
                expected[a, k] = weights[chosen, a].mean()
                observed[a, k] = share[chosen, a].mean()
    return {
        "expected": weights.mean(0),
        "observed": share.mean(0),
        "observed_standard_error": share.std(0) / len(share) ** 0.5,
        "none": none.mean(),
        "none_standard_error": none.std() / len(none) ** 0.5,
        "counts": counts,
        "expected_per_bin": expected,
        "observed_per_bin": observed,
        "largest_error": np.nanmax(np.abs(observed - expected)),
    }


@pytest.mark.parametrize("num_styles", [A, 1])
def test_frequencies_over_uneven_batches_and_two_processes(num_styles: int) -> None:
    samples, references, probabilities = ambiguous(3)
    batch = samples, references[:, :num_styles], probabilities[:, :num_styles]
    wanted = brute_frequencies(batch)
    assert (wanted["counts"] == 0).any()
    whole, first, second = (StyleFrequencies(STYLE_IOU, num_styles) for _ in range(3))
    updated(whole, batch, [3, 0, 10, 1])
    updated(first, [t[:10] for t in batch], [1, 9])
    updated(second, [t[10:] for t in batch], [4])
    for result in (whole.compute(), joined(first, second)):
        assert result.keys() == wanted.keys()
        for name, value in wanted.items():
            assert result[name].dtype == torch.float64
            assert result[name].shape == np.shape(value)
            np.testing.assert_allclose(result[name], value, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bin_begins_at_its_edge(dtype: torch.dtype) -> None:
    references = torch.eye(6, dtype=torch.bool)[None]
    # what arithmetic makes of 0, 0.2, … 1
    edges = torch.tensor([[0, 1 - 0.8, 0.7 - 0.3, 0.7 - 0.1, 0.9 - 0.1, 1]], dtype=dtype)
    metric = StyleFrequencies(STYLE_IOU, 6)
    metric.update(references, references, edges)
    assert metric.compute()["counts"].argmax(1).tolist() == [0, 1, 2, 3, 4, 4]


def frequencies_of(wrong: int) -> dict[str, Tensor]:
    """Of 990 examples of one style with p = 1, and some with p = 0 that are drawn all the same."""
    own, other = mask("#."), mask(".#")
    num = 990 + wrong
    references = torch.stack([own, other]).expand(num, -1, -1, -1)
    probabilities = torch.tensor([[1.0, 0.0]] * 990 + [[0.0, 1.0]] * wrong)
    metric = StyleFrequencies(STYLE_IOU, 2)
    metric.update(references[:, :1], references, probabilities)
    return metric.compute()


@pytest.mark.parametrize(("wrong", "error"), [(0, 0.0), (9, 0.0), (10, 1.0)])
def test_bins_of_few_examples_are_not_judged(wrong: int, error: float) -> None:
    result = frequencies_of(wrong)
    assert result["largest_error"].item() == error
    assert result["observed"].tolist() == [1.0, 0.0]
    assert result["counts"][0].tolist() == [wrong, 0, 0, 0, 990]


def test_the_oracle_is_calibrated_though_references_are_the_same() -> None:
    references = torch.stack([mask("#.."), mask("#.."), mask("..#")]).expand(2000, -1, -1, -1)
    probabilities = torch.tensor([[0.1, 0.5, 0.4]]).expand(2000, -1)
    samples = oracle(references, probabilities, 8, torch.Generator().manual_seed(0))
    result = updated(StyleFrequencies(STYLE_IOU, 3), (samples, references, probabilities), [2000])
    # 4 standard errors of 16,000 draws with probability 0.4
    assert 0 < result.compute()["largest_error"] < 4 * (0.24 / 16_000) ** 0.5


def test_another_number_of_references_is_refused() -> None:
    samples, references, probabilities = ambiguous()
    metric = StyleFrequencies(STYLE_IOU, A)
    with pytest.raises(UserError, match="num_styles=4"):
        metric.update(samples, references[:, :1], probabilities[:, :1])
