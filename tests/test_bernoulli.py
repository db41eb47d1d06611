"""The faster log-probability is torch's own, in value and in gradient."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent
from torch.nn import functional as F

from cvae.bernoulli import BLOCK, LARGEST_FACTOR, bernoulli_log_prob

# primes on both sides of the largest factor, and sizes that factors divide in several ways
EVENTS = [(1,), (7,), (97,), (101,), (784,), (1, 28, 28), (2, 3, 4, 5)]
SPREADS = [0.1, 3.0, 30.0]
EXTREMES = [-1000.0, -104.0, -88.0, -50.0, -1e-6, 0.0, 1e-6, 50.0, 88.0, 104.0, 1000.0]
# of the largest partial sum; float64's rounding, and float32's, times some tens of additions
ROUNDING = {torch.float64: 1e-14, torch.float32: 2e-6}

every_event = pytest.mark.parametrize("event", EVENTS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", ROUNDING, ids=str)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def reference(logits: Tensor, y: Tensor, event_ndim: int) -> Tensor:
    logits, y = torch.broadcast_tensors(logits.double(), y.double())
    losses = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    return -losses.sum(tuple(range(-event_ndim, 0)))


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    scale = max(1.0, float(expected.abs().max()))
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=ROUNDING[dtype] * scale)


def pixels(kind: str, *shape: int) -> Tensor:
    return torch.rand(shape).round() if kind == "binary" else torch.rand(shape)


@every_event
@every_dtype
@pytest.mark.parametrize("kind", ["binary", "grey"])
@pytest.mark.parametrize("spread", SPREADS)
def test_value_is_the_cross_entropy(
    event: tuple[int, ...], dtype: torch.dtype, kind: str, spread: float
) -> None:
    logits = spread * torch.randn(6, *event, dtype=dtype)
    y = pixels(kind, 6, *event).to(dtype)
    actual = bernoulli_log_prob(logits, y, len(event))
    assert actual.shape == (6,)
    assert_close(actual, reference(logits, y, len(event)), dtype)


@every_dtype
def test_value_is_torchs_distribution(dtype: torch.dtype) -> None:
    logits, y = 4 * torch.randn(5, 2, 9, dtype=dtype), pixels("binary", 5, 2, 9).to(dtype)
    expected = Independent(Bernoulli(logits=logits.double()), 2).log_prob(y.double())
    assert_close(bernoulli_log_prob(logits, y, 2), expected, dtype)


@every_dtype
@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("logit", EXTREMES)
def test_every_extreme_alone(logit: float, y: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[logit]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[y]], dtype=dtype)
    actual = bernoulli_log_prob(logits, target, 1)
    actual.sum().backward()
    assert actual.isfinite().all()
    assert_close(actual.detach(), reference(logits.detach(), target, 1), dtype)
    assert_close(logits.grad, target.double() - logits.detach().double().sigmoid(), dtype)


@every_dtype
@pytest.mark.parametrize("size", [97, 100, 101, 784, 10_000])
def test_a_product_of_halves_does_not_underflow(size: int, dtype: torch.dtype) -> None:
    """All logits 0, the smallest product there is: each pixel costs log 2."""
    value = bernoulli_log_prob(torch.zeros(size, dtype=dtype), torch.ones(size, dtype=dtype), 1)
    assert_close(value, torch.tensor(-size * math.log(2), dtype=torch.float64), dtype)
    assert torch.finfo(torch.float32).tiny < 2.0**-LARGEST_FACTOR


@pytest.mark.parametrize("spread", [5.0, 50.0, 1000.0])
def test_a_good_reconstruction_loses_no_digits_to_its_sure_pixels(spread: float) -> None:
    """The sum of |l| is thousands of times what is left of it when almost all pixels are right."""
    logits = spread * (1 + torch.rand(20, 784))
    y = pixels("binary", 20, 784)
    right = torch.where(torch.rand(20, 784) < 0.999, 1.0, -1.0)
    logits = logits * (2 * y - 1) * right
    # a σ(|l|) near one is rounded by 2⁻²⁵ on average zero, 784 times; the rest is relative
    torch.testing.assert_close(
        bernoulli_log_prob(logits, y, 1).double(), reference(logits, y, 1), rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("samples", [3, BLOCK // (6 * 4 * 5)])  # in one block, and in more
def test_one_y_serves_many_samples(samples: int) -> None:
    logits, y = 3 * torch.randn(2, samples, 6, 4, 5), pixels("binary", 6, 4, 5)
    actual = bernoulli_log_prob(logits, y, 2)
    assert actual.shape == (2, samples, 6)
    single = torch.stack([bernoulli_log_prob(part, y, 2) for part in logits.flatten(0, 1)])
    assert_close(actual.flatten(0, 1), single.double(), torch.float32)
    assert_close(actual, reference(logits, y, 2), torch.float32)


@pytest.mark.parametrize("shape", [(4, 7), (3, 1, 7), (1, 4, 7)], ids=str)
@pytest.mark.parametrize("of_y", [(4, 7), (3, 4, 7), (1, 1, 7)], ids=str)
def test_the_shapes_broadcast(shape: tuple[int, ...], of_y: tuple[int, ...]) -> None:
    logits, y = 3 * torch.randn(shape), pixels("binary", *of_y)
    assert_close(bernoulli_log_prob(logits, y, 1), reference(logits, y, 1), torch.float32)


@every_event
@pytest.mark.parametrize("kind", ["binary", "grey"])
@pytest.mark.parametrize("leading", [(), (3,)], ids=str)
def test_gradient_is_torchs(event: tuple[int, ...], kind: str, leading: tuple[int, ...]) -> None:
    logits = 5 * torch.randn(*leading, 4, *event, dtype=torch.float64)
    y, weights = pixels(kind, 4, *event).double(), torch.randn(*leading, 4, dtype=torch.float64)
    gradients = []
    for log_prob in (bernoulli_log_prob, reference):
        leaf = logits.clone().requires_grad_()
        (weights * log_prob(leaf, y, len(event))).sum().backward()
        gradients.append(leaf.grad)
    assert_close(gradients[0], gradients[1], torch.float64)


@pytest.mark.parametrize("size", [7, 101, 105])
def test_gradient_is_that_of_finite_differences(size: int) -> None:
    logits = torch.randn(2, 3, size, dtype=torch.float64).requires_grad_()
    y = pixels("grey", 3, size).double()
    assert torch.autograd.gradcheck(lambda leaf: bernoulli_log_prob(leaf, y, 1), [logits])


def test_the_arguments_are_left_as_they_were() -> None:
    logits, y = torch.randn(4, 98), pixels("binary", 4, 98)
    before = logits.clone(), y.clone()
    bernoulli_log_prob(logits, y, 1)
    assert torch.equal(logits, before[0])
    assert torch.equal(y, before[1])


# torch's own tracer makes an instance of torch.autograd.Function
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiles_into_one_graph() -> None:
    logits, y = 3 * torch.randn(2, 4, 98), pixels("binary", 4, 98)
    # traces forward and backward as compile=true does, without a C++ compiler at the end
    compiled = torch.compile(bernoulli_log_prob, backend="aot_eager", fullgraph=True)
    found = []
    for log_prob in (bernoulli_log_prob, compiled):
        leaf = logits.clone().requires_grad_()
        value = log_prob(leaf, y, 1)
        value.sum().backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(found[1], found[0])
