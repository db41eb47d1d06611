"""The floating-point operations of products, counted by hand, and their rate."""

from threading import Barrier, local
from typing import Any
from weakref import ref

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cvae.densities import BernoulliHead
from cvae.evaluation import bounds as bounds_module
from cvae.evaluation import products
from cvae.evaluation.products import Products
from cvae.models import conditional_vae, learned_prior
from cvae.networks import MLP, Conv, Networks, UNet

K, B, D = 3, 4, 5
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_decoders_products_by_hand() -> None:
    """The part of x (B, 6) once, the part of z (K, B, 5) and the rest for each sample."""
    network = MLP([16, 12], "tanh").decoder([(6,), (D,)], (1, 7))
    x, z = torch.randn(B, 6), torch.randn(K, B, D)
    expected = 2 * B * 6 * 12 + 2 * K * B * (D * 12 + 12 * 16 + 16 * 7)
    assert Products(lambda: network(x, z)).flops == expected


def test_a_convolutions_products_by_hand() -> None:
    """Each of 6 × 4 × 4 outputs sums 2 × 3 × 3 products; transposed, each input does."""
    down, up = nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.ConvTranspose2d(2, 6, 4, 2, 1)
    image = torch.randn(B, 2, 8, 8)
    assert Products(lambda: down(image)).flops == 2 * B * (6 * 4 * 4) * (2 * 3 * 3)
    assert Products(lambda: up(image)).flops == 2 * B * (2 * 8 * 8) * (6 * 4 * 4)


@pytest.mark.parametrize(
    ("networks", "x_shape"),
    [
        (MLP([16, 12], "tanh"), (6,)),
        (Conv([4, 6], [16], "silu"), (6,)),
        (UNet([4, 6], [16], "silu"), (2, 8, 8)),
    ],
    ids=["mlp", "conv", "unet"],
)
def test_no_product_of_a_model_is_forgotten(networks: Networks, x_shape: tuple[int, ...]) -> None:
    model = conditional_vae(x_shape, (1, 8, 8), networks, learned_prior, BernoulliHead(), D)
    x, y, noise = torch.randn(B, *x_shape), torch.rand(B, 1, 8, 8).round(), torch.randn(K, B, D)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.elbo(x, y, noise)
    assert Products(lambda: model.elbo(x, y, noise)).flops == counter.get_total_flops() > 0


def test_only_what_is_in_the_list_is_counted() -> None:
    matrix, vector = torch.randn(8, 8), torch.randn(8)
    calls = [
        lambda: matrix * matrix,
        lambda: matrix.tanh().sum(),
        lambda: torch.mv(matrix, vector),  # a product, of a kind that no network here has
        lambda: torch.dot(vector, vector),
    ]
    assert [Products(call).flops for call in calls] == [0] * 4
    assert Products(lambda: [matrix @ matrix, *(call() for call in calls)]).flops == 2 * 8**3


def test_the_products_alone_are_repeated_and_their_rate_is_flops_by_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    matrix = torch.randn(32, 32)

    def call() -> None:
        calls.append(1)
        matrix @ matrix

    counted = Products(call)
    clock = iter([10.0, 10.1, 10.6, 11.25])
    monkeypatch.setattr(products, "now", lambda device: next(clock))
    # after 0.1 and 0.6 seconds it goes on, after 1.25 it has repeated them twice
    assert counted.rate(CPU) == pytest.approx(2 * 2 * 32**3 / 1.25)
    assert calls == [1]


def test_a_call_that_takes_longer_than_the_clock_wants_is_repeated_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 7.0, 9.0])
    monkeypatch.setattr(products, "now", lambda device: next(clock))
    matrix = torch.randn(16, 16)
    assert Products(lambda: matrix @ matrix).rate(CPU) == pytest.approx(2 * 16**3 / 9)


def test_each_thread_repeats_the_products_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both, own = Barrier(2, timeout=60), local()

    def clock(device: torch.device) -> float:
        """For each thread; none goes on without the other."""
        both.wait()
        own.readings = getattr(own, "readings", 0) + 1
        return (10.0, 10.1, 10.6, 11.25)[own.readings - 1]

    matrix = torch.randn(32, 32)
    counted = Products(lambda: matrix @ matrix)
    monkeypatch.setattr(products, "now", clock)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rate = counted.rate(CPU)
    finally:
        torch.set_num_threads(threads)
    assert rate == pytest.approx(2 * 2 * 2 * 32**3 / 1.25)


def test_the_share_is_that_of_the_mean_of_the_rates_before_and_after_the_sampling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, estimate, rates = [], bounds_module.estimate, iter([1e9, 4e9])

    held: list[ref[Products]] = []

    def measured(counted: Products, device: torch.device) -> float:
        done.append("rate")
        held.append(ref(counted))
        return next(rates)

    def estimated(weigh: Any, *rest: Any) -> Any:
        done.append(weigh.__name__)
        assert not any(products() for products in held)  # nor what they remember of a chunk
        return estimate(weigh, *rest)

    monkeypatch.setattr(Products, "rate", measured)
    monkeypatch.setattr(bounds_module, "estimate", estimated)
    networks = MLP([16, 12], "tanh")
    model = conditional_vae((6,), (7,), networks, learned_prior, BernoulliHead(), D)
    x, y = torch.randn(B, 6), torch.rand(B, 7).round()
    speed = bounds_module.bounds(model, x, y, torch.zeros(B), 10, 0)["speed"]
    assert done == ["rate", "from_posterior", "rate", "from_prior"]
    assert speed["gflops_of_products"] == 2.5
    assert speed["share"] == pytest.approx(speed["gflops"] / 2.5)
