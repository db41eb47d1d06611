"""The ELBO and the log-likelihood with z from the prior, weighed."""

from torch import Tensor

from cvae.errors import UserError
from cvae.latent import reparameterize
from cvae.mixtures import GaussianMixture
from cvae.model import ConditionalVAE
from cvae.objectives.base import TERMS, Terms
from cvae.ranges import Weight


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

    def num_noise(self, epoch: float) -> tuple[int, int]:
        """Two ε."""
        return 2, 0

    def settings(self, epoch: float) -> dict[str, float]:
        """Nothing changes in the course of training."""
        return {}

    def __call__(
        self, model: ConditionalVAE, x: Tensor, y: Tensor, noise: Tensor, epoch: float
    ) -> Terms:
        """The terms of a batch, `from_prior` the second; arguments as in `BetaElbo`.

        Raises:
            UserError: the prior is a mixture.
        """
        elbo = model.elbo(x, y, noise[:1])
        if isinstance(elbo.prior, GaussianMixture):  # through its z gradients have no bound
            raise UserError("objective=hybrid learns through z of its prior: use prior=learned")
        from_prior = model.decoder(x, reparameterize(elbo.prior, noise[1])).log_prob(y)
        hybrid = self.alpha * elbo.elbo + (1 - self.alpha) * from_prior
        return Terms(loss=-hybrid, elbo=elbo, own={"from_prior": from_prior, "hybrid": hybrid})
