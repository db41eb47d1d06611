"""The evidence of models for which it is known: in closed form, or by quadrature."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from cvae.data.source import MNIST
from cvae.densities import BernoulliHead, StandardNormal
from cvae.errors import UserError
from cvae.evaluation import evidence as evidence_module
from cvae.evaluation.evidence import REPEATS, Weigh, estimate, from_posterior, from_prior
from cvae.evaluation.nll import Evidence
from cvae.model import ConditionalVAE
from cvae.models import conditional_vae, learned_prior
from cvae.networks import MLP
from linear_gaussian import (
    PRIORS,
    SHIFT,
    STRETCH,
    D,
    X,
    double,
    evidence,
    linear_gaussian,
    normal,
    with_wrong_posterior,
)

N = 6


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=PRIORS)
def model(request: pytest.FixtureRequest) -> ConditionalVAE:
    return linear_gaussian(request.param)


@torch.no_grad()
def drawn_from(model: ConditionalVAE, n: int = N) -> tuple[Tensor, Tensor]:
    """Examples that the model itself makes: for others p(z|x) is a hopeless proposal."""
    x = double(n, X)
    return x, model.sample(x, double(n, D)).sample()


def nll(model: ConditionalVAE, x: Tensor, y: Tensor) -> Tensor:
    return -evidence(model, x, y)


def variance_of_weights() -> float:
    """Var_q[w] / p(y|x)² for the wrong posterior: (∫ p² / q)^D − 1 for unit p and shifted q.

    ∫ N(0, 1)² / N(m, s²) = s² / √(2s² − 1) · exp(m² / (2s² − 1)), by completing the square.
    """
    wide = 2 * STRETCH**2 - 1
    return (STRETCH**2 / math.sqrt(wide) * math.exp(SHIFT**2 / wide)) ** D - 1


def test_under_the_exact_posterior_ten_samples_give_the_evidence(model: ConditionalVAE) -> None:
    x, y = drawn_from(model)
    found = estimate(from_posterior, model, x, y, num_samples=REPEATS)
    assert found.num_samples == REPEATS
    # every weight is the evidence; float64 throughout
    torch.testing.assert_close(found.nll, nll(model, x, y), rtol=0, atol=1e-9)
    assert found.mean == pytest.approx(float(nll(model, x, y).mean()), abs=1e-9)
    assert found.mean_of_repeats == pytest.approx(found.mean, abs=1e-9)
    assert found.monte_carlo_error < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_under_another_posterior_the_estimate_is_within_its_error(
    model: ConditionalVAE, seed: int
) -> None:
    x, y = drawn_from(model)
    wrong = with_wrong_posterior(model)
    found = estimate(from_posterior, wrong, x, y, num_samples=20_000, seed=seed)
    assert found.monte_carlo_error < 0.01
    # 4 errors, known from ten repeats, are exceeded three times in a thousand
    assert abs(found.mean - float(nll(model, x, y).mean())) < 4 * found.monte_carlo_error


@pytest.mark.parametrize("seed", range(3))
def test_from_the_prior_it_is_the_same_evidence(model: ConditionalVAE, seed: int) -> None:
    x, y = drawn_from(model)
    found = estimate(from_prior, model, x, y, num_samples=50_000, seed=seed)
    assert found.monte_carlo_error < 0.02
    assert abs(found.mean - float(nll(model, x, y).mean())) < 4 * found.monte_carlo_error


def rise(found: Evidence) -> tuple[float, float]:
    """From the estimate of K samples to that of K/R of them on average, and its standard error.

    The same draws are in both, so it hardly varies.
    """
    gaps = -found.log_means.mean(0) - found.nll
    return float(gaps.mean()), float(gaps.std()) / math.sqrt(len(gaps))


def expected_rise(k: int) -> float:
    """R − 1 times the bias E[−log mean of w] − nll ≈ Var[w] / (2 K p(y|x)²), the delta method."""
    return (REPEATS - 1) * variance_of_weights() / (2 * k)


def next_term(k: int) -> float:
    """R² − 1 times what that leaves out of the bias, (3σ⁴ / 4 − μ₃ / 3) / K² or 0.3 / K²."""
    return 0.3 * (REPEATS**2 - 1) / k**2


def apart(k: int, error: float) -> float:
    """How far two rises have to be apart for no estimate to be near both.

    Near is within 4 standard errors and the next term, and that on either side.
    """
    return 2 * (4 * error + next_term(k))


def test_the_bias_falls_as_one_over_k(model: ConditionalVAE) -> None:
    x, y = drawn_from(model)
    copies, few, many = 500, 200, 2000
    wrong, data = with_wrong_posterior(model), (x.repeat(copies, 1), y.repeat(copies, 1))
    rises = {k: rise(estimate(from_posterior, wrong, *data, num_samples=k)) for k in (few, many)}
    for k, (found, error) in rises.items():
        assert abs(found - expected_rise(k)) < 4 * error + next_term(k), k
        # an estimate without a bias, itself 4 errors off, would still be outside of that
        assert expected_rise(k) > apart(k, error), k
    # and so would a bias that is right for few samples, but for the next term, and falls as 1/K²:
    # of what it is for few, (few/many)² is left, few/many of what is expected
    assert expected_rise(many) * (1 - few / many) > apart(many, rises[many][1])


def test_the_estimate_from_fewer_samples_is_higher_by_the_bias_of_fewer() -> None:
    model = linear_gaussian("learned")
    x, y = drawn_from(model)
    copies = 500
    many = x.repeat(copies, 1), y.repeat(copies, 1)
    found = estimate(from_posterior, with_wrong_posterior(model), *many, num_samples=1000)
    # Jensen's inequality, whatever the draws
    assert found.mean_of_repeats > found.mean
    tolerance = 4 * rise(found)[1] + next_term(1000)
    assert found.mean_of_repeats - found.mean == pytest.approx(expected_rise(1000), abs=tolerance)


def test_the_monte_carlo_error_is_the_spread_over_seeds() -> None:
    model = linear_gaussian("learned")
    x, y = drawn_from(model, 10)
    wrong, k = with_wrong_posterior(model), 1000
    found = [estimate(from_posterior, wrong, x, y, k, seed) for seed in range(100)]
    means = torch.tensor([one.mean for one in found])
    reported = torch.tensor([one.monte_carlo_error for one in found]).square().mean().sqrt()
    # a spread of 100 draws is known to 7%, the reported errors' mean to 3%
    assert float(means.std()) == pytest.approx(float(reported), rel=0.25)
    # the delta method: Var[w] / (K N), less sure by 1/K
    known = math.sqrt(variance_of_weights() / (k * 10))
    assert float(reported) == pytest.approx(known, rel=0.1)


def test_weights_with_another_prior_are_found_out() -> None:
    right = linear_gaussian("learned")
    x, y = drawn_from(right)
    wrong = ConditionalVAE(right.encoder, StandardNormal(D), right.decoder, D)
    found = estimate(from_posterior, wrong, x, y, num_samples=10_000)
    off = abs(found.mean - float(nll(right, x, y).mean()))
    assert off > 0.1
    assert off > 20 * found.monte_carlo_error


def test_the_reconstruction_is_what_the_evidence_leaves_to_the_kl(model: ConditionalVAE) -> None:
    x, y = drawn_from(model)
    found = estimate(from_posterior, model, x, y, num_samples=10_000)
    terms = model.elbo(x, y, double(1000, N, D))
    error = terms.log_likelihood.std(0) / math.sqrt(10_000)
    # log p(y|x) = E_q[log p(y|x,z)] − KL, q being exact; 5 standard errors
    off = found.reconstruction + nll(model, x, y) - terms.kl
    assert (off.abs() < 5 * error).all()


class Told(nn.Module):
    """Stands in for a model; only its latent size is asked for."""

    latent_dim = 2


def counting(seen: Tensor, sizes: list[int]) -> Weigh:
    """Weights exp(x / 10) whatever z, and a tally of the z of each example x."""

    def weigh(model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        assert torch.equal(y, -x)
        assert noise.shape == (len(noise), len(x), 2)
        seen[x.long()] += len(noise)
        sizes.append(noise.shape[0] * noise.shape[1])
        return (x + 0.5).expand(len(noise), -1), (x / 10).expand(len(noise), -1)

    return weigh


@pytest.mark.parametrize("rows", [1, 3, 5, 10, 11, 35, 10_000])
@pytest.mark.parametrize("k", [10, 50, 70])
def test_every_example_gets_k_samples_whatever_fits_at_once(
    monkeypatch: pytest.MonkeyPatch, rows: int, k: int
) -> None:
    monkeypatch.setattr(evidence_module, "ROWS", rows)
    seen, sizes, told = torch.zeros(7, dtype=torch.long), [], []
    x = torch.arange(7.0)
    weigh = counting(seen, sizes)
    found = estimate(weigh, Told(), x, -x, k, advance=told.append)
    assert (seen == k).all()
    assert sum(told) == sum(sizes) == 7 * k
    assert max(sizes) <= rows
    assert found.log_means.shape == (REPEATS, 7)
    # a mean of equal weights; float32 x / 10
    torch.testing.assert_close(found.nll, -x.double() / 10, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.reconstruction, x.double() + 0.5, rtol=0, atol=1e-6)


def test_the_number_of_threads_changes_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "ROWS", 10)
    model, found = linear_gaussian("learned"), []
    data = drawn_from(model)
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
        found.append(estimate(from_posterior, model, *data, num_samples=50))
    for other in found[1:]:
        assert torch.equal(other.log_means, found[0].log_means)
        assert torch.equal(other.log_squares, found[0].log_squares)
        assert torch.equal(other.reconstruction, found[0].reconstruction)


def test_a_caller_may_be_in_inference_mode() -> None:
    model = linear_gaussian("learned")
    data = drawn_from(model)
    outside = estimate(from_posterior, model, *data, num_samples=20)
    with torch.inference_mode():  # which the threads that fill the numbers are not in
        inside = estimate(from_posterior, model, *data, num_samples=20)
    assert torch.equal(inside.log_means, outside.log_means)
    assert torch.equal(inside.reconstruction, outside.reconstruction)


def test_what_goes_wrong_in_a_part_ends_the_whole_and_gives_the_threads_back() -> None:
    def weigh(*_: object) -> tuple[Tensor, Tensor]:
        raise UserError("in a thread")

    model, threads = linear_gaussian("learned"), torch.get_num_threads()
    with pytest.raises(UserError, match="in a thread"):
        estimate(weigh, model, *drawn_from(model), num_samples=50)
    assert torch.get_num_threads() == threads


def test_chunks_have_noise_of_their_own_and_a_seed_says_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence_module, "ROWS", 10)
    model = linear_gaussian("learned")
    x, y = (part[:1].repeat(7, 1) for part in drawn_from(model))
    wrong = with_wrong_posterior(model)
    first, again, other = (
        estimate(from_posterior, wrong, x, y, num_samples=50, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(first.log_means, again.log_means)
    assert torch.equal(first.reconstruction, again.reconstruction)
    assert (first.log_means != other.log_means).all()
    # seven copies of one example, two to a chunk, ten repeats each
    assert len(first.log_means.unique()) == 7 * REPEATS


@pytest.mark.parametrize("k", [0, 1, 9, 11, 5005, -10])
def test_samples_that_cannot_be_divided_are_refused(k: int) -> None:
    model = linear_gaussian("fixed")
    with pytest.raises(UserError, match="give 10 or a multiple of it"):
        estimate(from_posterior, model, *drawn_from(model), num_samples=k)


def test_the_standard_error_is_the_textbooks() -> None:
    """Four examples of 1, 2, 3 and 6 nats: a variance of 3.5 about their mean of 3."""
    log_means = -torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64).expand(REPEATS, 4)
    found = Evidence(log_means, 2 * log_means, torch.zeros(4), num_samples=REPEATS)
    assert found.mean == pytest.approx(3, abs=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(3.5 / 4), abs=1e-12)
    assert found.monte_carlo_error == pytest.approx(0, abs=1e-12)


def test_the_monte_carlo_error_by_hand() -> None:
    """Two repeats of weights 1 and e: each estimate leaves the other out, 0 and −1 nats."""
    log_means = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = Evidence(log_means, 2 * log_means, torch.zeros(1), num_samples=2)
    assert found.mean == pytest.approx(-math.log((1 + math.e) / 2), abs=1e-12)
    assert found.mean_of_repeats == pytest.approx(-0.5, abs=1e-12)
    # √(1/2 · (¼ + ¼))
    assert found.monte_carlo_error == pytest.approx(0.5, abs=1e-12)


def test_the_effective_samples_are_all_for_equal_weights_and_one_for_a_single() -> None:
    model = linear_gaussian("learned")
    exact = estimate(from_posterior, model, *drawn_from(model), num_samples=200)
    torch.testing.assert_close(
        exact.effective_samples, torch.full_like(exact.effective_samples, 200), rtol=1e-6, atol=0
    )
    # of two repeats with ten samples each, one has a sample of weight e^50
    log_means = torch.tensor([[50 - math.log(10)], [0.0]], dtype=torch.float64)
    log_squares = torch.tensor([[100.0], [math.log(10)]], dtype=torch.float64)
    alone = Evidence(log_means, log_squares, torch.zeros(1), num_samples=20)
    torch.testing.assert_close(alone.effective_samples.item(), 1.0)


def test_the_effective_samples_are_those_of_theory(model: ConditionalVAE) -> None:
    """K p(y|x)² / E_q[w²] in the limit of many samples."""
    x, y = drawn_from(model)
    found = estimate(from_posterior, with_wrong_posterior(model), x, y, num_samples=20_000)
    expected = torch.full_like(found.nll, 20_000 / (1 + variance_of_weights()))
    # five times the 0.4% by which it varies from example to example
    torch.testing.assert_close(found.effective_samples, expected, rtol=0.02, atol=0)


DIGITS, EACH = (2, 7), 10
FINE = 0.1  # between the points of the grid in z, for posteriors at least twice as wide
REACH = 6  # standard deviations from either mean; beyond is 1e-8 of a Gaussian


class Wider(nn.Module):
    """q(z|x,y) at twice its width: what was never trained on ten thousand z is too sure of them.

    The evidence does not depend on q, and with tails heavier than the posterior's the error does
    not hang on a few weights.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, y: Tensor) -> Distribution:
        posterior = self.encoder(x, y)
        return normal(posterior.mean, 2 * posterior.stddev)


@pytest.fixture(scope="module")
def trained(mnist_root: str) -> tuple[ConditionalVAE, Tensor, Tensor]:
    """A CVAE with a learned prior and z of 2, and ten images each of two digits."""
    torch.manual_seed(0)
    arrays = MNIST().load(mnist_root)
    model = conditional_vae((10,), (784,), MLP([64], "tanh"), learned_prior, BernoulliHead(), 2)
    images = (arrays.train_images[:500].flatten(1) > 127).float()
    labels = F.one_hot(arrays.train_labels[:500].long(), 10).float()
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(800):
        rows = torch.randint(len(images), (100,))
        adam.zero_grad()
        (-model.elbo(labels[rows], images[rows]).elbo).mean().backward()
        adam.step()
    picked = torch.cat([labels[:, digit].nonzero()[:EACH, 0] for digit in DIGITS])
    wider = ConditionalVAE(Wider(model.encoder), model.prior, model.decoder, 2)
    return wider, labels[picked], images[picked]


@torch.no_grad()
def by_quadrature(model: ConditionalVAE, x: Tensor, y: Tensor) -> Tensor:
    """log ∫ p(y|x,z) p(z|x) dz for images of one x, on a grid and on one of half its fineness.

    A Riemann sum from the decoder's logits on, in float64 and without the densities' own formulas.
    """
    densities = model.prior(x[:1]), model.encoder(x, y)
    low = torch.cat([p.mean - REACH * p.stddev for p in densities]).amin(0).tolist()
    high = torch.cat([p.mean + REACH * p.stddev for p in densities]).amax(0).tolist()
    axes = [torch.arange(start, stop, FINE) for start, stop in zip(low, high, strict=True)]
    z = torch.cartesian_prod(*axes)
    parts = []
    for part in z.split(4096):
        logits = model.decoder(x[:1], part.unsqueeze(1)).base_dist.logits.squeeze(1)
        normaliser = F.softplus(logits).sum(-1, keepdim=True, dtype=torch.float64)
        parts.append((logits @ y.T).double() - normaliser)
    mean, scale = densities[0].mean.double(), densities[0].stddev.double()
    squares = ((z - mean) / scale).square().sum(-1, keepdim=True)
    log_prior = -squares / 2 - scale.log().sum() - math.log(2 * math.pi)
    joint = (torch.cat(parts) + log_prior).unflatten(0, [len(axis) for axis in axes])
    return torch.stack(
        [
            joint[::every, ::every].flatten(0, 1).logsumexp(0) + 2 * math.log(FINE * every)
            for every in (1, 2)
        ]
    )


def of_each(found: Evidence) -> Tensor:
    """The Monte Carlo error of every example alone."""
    columns = found.log_means.split(1, 1)
    return torch.tensor(
        [Evidence(column, column, torch.zeros(1), REPEATS).monte_carlo_error for column in columns]
    )


def test_the_evidence_of_a_trained_model_is_its_integral_over_z(
    trained: tuple[ConditionalVAE, Tensor, Tensor],
) -> None:
    model, x, y = trained
    groups = zip(x.split(EACH), y.split(EACH), strict=True)
    truth, coarse = torch.cat([by_quadrature(model, *group) for group in groups], 1)
    # the grid is fine enough where one of half its fineness would do
    torch.testing.assert_close(coarse, truth, rtol=0, atol=1e-3)

    found = estimate(from_posterior, model, x, y, num_samples=80_000)
    off, errors = (found.nll + truth).abs(), of_each(found)
    # 4 errors, themselves known from ten repeats
    assert (off < (4 * errors).clamp(min=0.01)).all()
    assert abs(found.mean + float(truth.mean())) < 0.01
    assert found.monte_carlo_error < 0.0025  # so that 0.01 means something

    other = ConditionalVAE(model.encoder, StandardNormal(2), model.decoder, 2)
    wrong = estimate(from_posterior, other, x, y, num_samples=1000)
    assert abs(wrong.mean + float(truth.mean())) > 0.1
    assert ((wrong.nll + truth).abs() > 0.02).float().mean() > 0.8


def test_the_priors_estimate_of_a_trained_model_is_the_integral_too(
    trained: tuple[ConditionalVAE, Tensor, Tensor],
) -> None:
    model, x, y = (part[:EACH] if isinstance(part, Tensor) else part for part in trained)
    truth, _ = by_quadrature(model, x, y)
    found = estimate(from_prior, model, x, y, num_samples=20_000)
    assert found.monte_carlo_error < 0.05
    assert abs(found.mean + float(truth.mean())) < 4 * found.monte_carlo_error
