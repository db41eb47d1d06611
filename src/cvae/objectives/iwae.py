"""The importance weighted bound, and its gradient from a few of its samples."""

import torch
from torch import Tensor

from cvae.errors import UserError
from cvae.model import ConditionalVAE
from cvae.noise import categorical
from cvae.objectives.base import TERMS, Terms
from cvae.ranges import NonNegative, Size

BELOW_ONE = 1 - 2**-24  # a float32 may round Φ(ε) to 1, and no cumulated weight is above that


class Iwae:
    """loss = −log 1/K Σ_k w_k, the importance weighted bound with w = p(y|x,z) p(z|x) / q(z|x,y).

    It rises with K from the ELBO (K = 1) to log p(y|x), and lets q be less simple than it looks.
    A step takes K times the decoder's work, which a warm-up with one sample saves.

    The gradient is −Σ_k r_k ∇ log w_k with r = w / Σ w. With `num_backward` = m it is estimated,
    without bias, by −1/m Σ_j ∇ log w_j over m samples, among which k is m r_k times on average:
    the K pass through the model without a gradient, and the m once more with theirs. That saves
    up to two thirds of a step where the decoder's work on z is most of it and m is small beside K,
    costs variance, and makes a step of a U-Net slower, whose work is on x.
    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8 and 14, and the end of section 3, which
    proposes m = 1; `resample` draws them.

    Args:
        num_samples: K after the warm-up.
        warmup_epochs: epochs that train with one sample; validation has K, and its full cost,
            throughout.
        num_backward: m, fewer than K; None takes the gradient of all.

    Raises:
        UserError: m is not below K.
    """

    terms: tuple[str, ...] = (*TERMS, "iwae")
    monitor = "iwae"

    def __init__(
        self,
        num_samples: Size = 5,
        warmup_epochs: NonNegative = 0.0,
        num_backward: Size | None = None,
    ) -> None:
        if num_backward is not None and num_backward >= num_samples:
            raise UserError(
                f"objective.num_backward={num_backward} has to be below objective.num_samples="
                f"{num_samples}: null takes the gradient of all"
            )
        self.num_samples, self.warmup_epochs = num_samples, warmup_epochs
        self.num_backward = num_backward

    def samples_at(self, epoch: float) -> int:
        """K after so many epochs."""
        return 1 if epoch < self.warmup_epochs else self.num_samples

    def num_noise(self, epoch: float) -> tuple[int, int]:
        """ε for K of z, and one more to draw those of the gradient with."""
        samples = self.samples_at(epoch)
        return samples, int(samples > 1 and self.num_backward is not None)

    def settings(self, epoch: float) -> dict[str, float]:
        """The K of this moment."""
        return {"num_samples": self.samples_at(epoch)}

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The terms of a batch, `iwae` the bound.

        Arguments as in `BetaElbo`. There are as many samples as ε, so validation has K of them in
        the warm-up too, and its numbers before and after can be compared. A spare ε behind K is
        what the few are drawn with, by the first number of each example.
        """
        samples, spare = noise[: self.num_samples], noise[self.num_samples :]
        few = self.num_backward
        if few is None or not (len(spare) and torch.is_grad_enabled() and model.latent_dim):
            elbo = model.elbo(x, y, samples)
            bound = elbo.importance_bound
            return Terms(loss=-bound, elbo=elbo, own={"iwae": bound})
        with torch.no_grad():
            elbo = model.elbo(x, y, samples)
            uniform = torch.special.ndtr(spare[0, :, 0])
            chosen = resample(elbo.log_weights, uniform, few).unsqueeze(-1)
        # where a caller's autocast keeps rounded weights, some versions of torch would hand these
        # on without their gradient
        torch.clear_autocast_cache()
        again = model.elbo(x, y, samples.gather(0, chosen.expand(-1, -1, model.latent_dim)))
        bound, log_weight = elbo.importance_bound, again.log_weights.mean(0)
        # the bound's value, the few samples' gradient
        return Terms((log_weight.detach() - log_weight) - bound, elbo, {"iwae": bound})


def resample(log_weights: Tensor, uniform: Tensor, count: int) -> Tensor:
    """Indices drawn with replacement: k comes up m w_k / Σ w times on average.

    Systematic resampling: one uniform number sets an even comb of m teeth over the cumulated
    weights, so that k comes up less than one time more or less often than that.
    Source: Kitagawa 1996, doi:10.2307/1390750, appendix.

    Args:
        log_weights: log w, up to a constant, (K, B).
        uniform: in [0, 1], (B,).
        count: m.

    Returns:
        (m, B).
    """
    offset = uniform.double().clamp(max=BELOW_ONE)
    teeth = torch.arange(count, device=uniform.device).unsqueeze(-1)
    return categorical(log_weights.double().softmax(0).T, (teeth + offset) / count)
