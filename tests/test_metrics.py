from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch

from cvae.metrics import Moments

UNEVEN = [0, 1, 8, 108, 350, 500]


def updated(values: np.ndarray, limits: Sequence[int]) -> Moments:
    metric = Moments(values.shape[1:])
    for start, stop in pairwise(limits):
        metric.update(torch.tensor(values[start:stop]))
    return metric


def check(metric: Moments, values: np.ndarray) -> None:
    result = metric.compute()
    expected = {
        "mean": values.mean(0),
        "variance": values.var(0),
        "standard_error": values.std(0) / len(values) ** 0.5,
        "count": float(len(values)),
    }
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name].shape == np.shape(value)
        # float64, and a mean that is not far from zero beside the standard deviation
        np.testing.assert_allclose(result[name].numpy(), value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (1,)], ids=["number", "vector", "one"])
def test_moments_are_numpys_over_uneven_batches(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(1, 2, (500, *shape))
    metric = updated(values, UNEVEN)
    check(metric, values)
    check(metric, values)  # as torchmetrics remembers it
    check(deepcopy(metric), values)


@pytest.mark.parametrize("shape", [(), (3,)], ids=["number", "vector"])
def test_states_of_two_processes_add_up(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(-1, 3, (500, *shape))
    first, second = updated(values[:150], [0, 100, 150]), updated(values[150:], [0, 350])
    for name, reduction in first._reductions.items():
        both = torch.stack([getattr(first, name), getattr(second, name)])
        setattr(first, name, reduction(both))
    check(first, values)


def test_float32_values_are_summed_in_float64() -> None:
    values = torch.full((1000,), 0.1)
    metric = Moments()
    for _ in range(100):
        metric.update(values)
    mean = float(metric.compute()["mean"])
    # summed in float32, 100,000 terms would lose 1e-6 and more
    assert mean == pytest.approx(float(values[0].double()), rel=1e-12)


def test_variance_of_equal_values_is_zero_not_negative() -> None:
    metric = Moments((2,))
    for _ in range(7):
        metric.update(torch.tensor([[1 / 3, -1e3]] * 11))
    result = metric.compute()
    assert (result["variance"] >= 0).all()
    # the rounding of mean² in float64
    assert (result["standard_error"] < 1e-5).all()


def test_reset_forgets() -> None:
    values = np.random.default_rng(2).normal(size=(500, 2))
    metric = updated(values + 5, UNEVEN)
    metric.reset()
    metric.update(torch.tensor(values))
    check(metric, values)
