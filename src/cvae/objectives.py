"""What training minimises: a number an example, made from the model's own terms."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from cvae.errors import UserError
from cvae.latent import reparameterize
from cvae.mixtures import GaussianMixture
from cvae.model import ConditionalVAE, Elbo
from cvae.ranges import NonNegative, Size, Weight

TERMS = ("elbo", "reconstruction", "kl", "loss")


class Terms(NamedTuple):
    """One evaluation of an objective, in nats.

    Attributes:
        loss: what is minimised, (B,).
        elbo: the ELBO's terms at β = 1.
        own: further numbers an example, (B,), that an objective has, by name.
    """

    loss: Tensor
    elbo: Elbo
    own: Mapping[str, Tensor] = {}

    def by_name(self) -> dict[str, Tensor]:
        """The terms that are one number an example, (B,), by the names they are logged under."""
        elbo = self.elbo
        values = (elbo.elbo, elbo.reconstruction, elbo.kl, self.loss)
        return {**dict(zip(TERMS, values, strict=True)), **self.own}


@runtime_checkable
class Objective(Protocol):
    """What the training code asks of an objective.

    Attributes:
        num_samples: how many z it draws for an example.
        terms: the names of its terms.
        monitor: the term that says which weights are best; it grows as the model gets better.
        warmup_epochs: during which that term may fall without meaning anything.
    """

    num_samples: int
    terms: tuple[str, ...]
    monitor: str
    warmup_epochs: float

    def settings(self, epoch: float) -> dict[str, float]:
        """What changes in the course of training, to be logged, after so many epochs."""
        ...

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The terms of a batch; arguments as in `BetaElbo`."""
        ...


class BetaElbo:
    """loss = −reconstruction + β Σ_d max(kl_d, λ).

    With β = 1 and λ = 0 the negative ELBO. β rises linearly from 0 to its value over the warm-up.
    λ is the free bits of each latent dimension, taken example by example, so that the loss of an
    example does not depend on its neighbours or on how a batch is divided among processes
    (Kingma et al. 2016, arXiv:1606.04934, eq. 15, takes the mean over the batch inside the max).

    Args:
        beta: weight of the KL term after the warm-up (Higgins et al. 2017).
        warmup_epochs: epochs over which β rises from 0.
        free_bits: λ, nats a latent dimension.
    """

    num_samples = 1
    terms: tuple[str, ...] = TERMS
    monitor = "elbo"

    def __init__(
        self,
        beta: NonNegative = 1.0,
        warmup_epochs: NonNegative = 0.0,
        free_bits: NonNegative = 0.0,
    ) -> None:
        self.beta, self.warmup_epochs, self.free_bits = beta, warmup_epochs, free_bits

    def beta_at(self, epoch: float) -> float:
        """β after so many epochs, a fraction of one included."""
        if epoch >= self.warmup_epochs:
            return self.beta
        return self.beta * epoch / self.warmup_epochs

    def settings(self, epoch: float) -> dict[str, float]:
        """The β of this moment."""
        return {"beta": self.beta_at(epoch)}

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The loss and the ELBO's terms of a batch.

        Args:
            model: the composition.
            x: the condition, (B, …).
            y: what is modelled, (B, …).
            noise: standard-normal ε, (num_samples, B, d).
            epoch: epochs trained so far, a fraction included.
        """
        elbo = model.elbo(x, y, noise)
        if self.free_bits and isinstance(elbo.prior, GaussianMixture):
            raise UserError(
                "objective.free_bits is for a KL in closed form, which a mixture has not: use "
                "objective.free_bits=0, or prior=learned"
            )
        kl = elbo.kl_per_dimension
        penalty = torch.clamp(kl, min=self.free_bits).sum(-1) if self.free_bits else kl.sum(-1)
        return Terms(loss=self.beta_at(epoch) * penalty - elbo.reconstruction, elbo=elbo)


class Iwae:
    """loss = −log 1/K Σ_k w_k, the importance weighted bound with w = p(y|x,z) p(z|x) / q(z|x,y).

    It rises with K from the ELBO (K = 1) to log p(y|x), and lets q be less simple than it looks.
    A step takes K times the decoder's work; one sample is enough for a warm-up. The gradient is
    Σ_k w̃_k ∇ log w_k with w̃ = w / Σ w, and most of the work is in it: with `num_backward` it is
    estimated without bias from so few of the samples, drawn as w̃ has them, and the K pass through
    the decoder forward alone.
    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8 and 14, and the end of section 3, where one
    sample is drawn.

    Args:
        num_samples: K after the warm-up.
        warmup_epochs: epochs with one sample.
        num_backward: how many of them the gradient is taken of; None for all.
    """

    terms: tuple[str, ...] = (*TERMS, "iwae")
    monitor = "iwae"

    def __init__(
        self,
        num_samples: Size = 5,
        warmup_epochs: NonNegative = 0.0,
        num_backward: Size | None = None,
    ) -> None:
        self.k, self.warmup_epochs, self.num_backward = num_samples, warmup_epochs, num_backward
        self.num_samples = num_samples + (num_backward is not None)  # one more ε to draw with

    def samples_at(self, epoch: float) -> int:
        """K after so many epochs."""
        return 1 if epoch < self.warmup_epochs else self.k

    def settings(self, epoch: float) -> dict[str, float]:
        """The K of this moment."""
        return {"num_samples": self.samples_at(epoch)}

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The terms of a batch, `iwae` the bound; arguments as in `BetaElbo`."""
        samples = noise[: self.samples_at(epoch)]
        few = self.num_backward
        if few is None or few >= len(samples) or not torch.is_grad_enabled():
            elbo = model.elbo(x, y, samples)
            bound = elbo.importance_bound
            return Terms(loss=-bound, elbo=elbo, own={"iwae": bound})
        with torch.no_grad():
            elbo = model.elbo(x, y, samples)
            bound = elbo.importance_bound
            uniform = torch.special.ndtr(noise[-1, :, 0])
            chosen = resample(elbo.log_weights, uniform, few)
            samples = samples.gather(0, chosen.unsqueeze(-1).expand(-1, -1, samples.shape[-1]))
        log_weights = model.elbo(x, y, samples).log_weights.mean(0)
        loss = log_weights.detach() - bound - log_weights  # −bound, with the gradient of the few
        return Terms(loss=loss, elbo=elbo, own={"iwae": bound})


def resample(log_weights: Tensor, uniform: Tensor, count: int) -> Tensor:
    """Indices drawn as often as weights have them: k comes up `count`·w_k / Σ w times on average.

    Systematic resampling: one uniform number sets an even comb of `count` teeth over the
    cumulated weights, so that k never comes up a whole time more or less than that.
    Source: Kitagawa 1996, "Monte Carlo filter and smoother", appendix.

    Args:
        log_weights: log w, (K, B).
        uniform: in [0, 1], (B,).
        count: how many.

    Returns:
        (count, B).
    """
    teeth = torch.arange(count, device=uniform.device).unsqueeze(-1)
    ends = log_weights.softmax(0).cumsum(0).T.contiguous()
    drawn = torch.searchsorted(ends, ((teeth + uniform) / count).T.contiguous())
    return drawn.T.clamp(max=len(log_weights) - 1)  # the last end is 1 but for rounding


class Hybrid:
    """loss = −(α·ELBO + (1 − α)·E_p[log p(y|x,z)]), the second with z from the prior p(z|x).

    At the time of use z comes from the prior, and the ELBO alone trains the decoder on z from q.
    Source: Sohn et al. 2015, section 4.2, where the second term is L_GSNN.

    Args:
        alpha: α, from 0 to 1.
    """

    num_samples = 2  # one from each
    terms: tuple[str, ...] = (*TERMS, "from_prior", "hybrid")
    monitor = "hybrid"
    warmup_epochs = 0.0

    def __init__(self, alpha: Weight = 0.5) -> None:
        self.alpha = alpha

    def settings(self, epoch: float) -> dict[str, float]:
        """Nothing changes in the course of training."""
        return {}

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The terms of a batch, `from_prior` the second; arguments as in `BetaElbo`."""
        elbo = model.elbo(x, y, noise[:1])
        if isinstance(elbo.prior, GaussianMixture):  # through its z gradients have no bound
            raise UserError("objective=hybrid learns through z of its prior: use prior=learned")
        from_prior = model.decoder(x, reparameterize(elbo.prior, noise[1])).log_prob(y)
        hybrid = self.alpha * elbo.elbo + (1 - self.alpha) * from_prior
        return Terms(loss=-hybrid, elbo=elbo, own={"from_prior": from_prior, "hybrid": hybrid})
