"""The importance weighted bound, and its gradient from a few of its samples."""

import torch
from torch import Tensor

from cvae.model import ConditionalVAE
from cvae.objectives.base import TERMS, Terms
from cvae.ranges import NonNegative, Size


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
