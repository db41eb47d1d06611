"""What training minimises: a number an example, made from the model's own terms."""

from cvae.objectives.base import TERMS, Objective, Terms
from cvae.objectives.elbo import BetaElbo, balanced_kl
from cvae.objectives.hybrid import Hybrid
from cvae.objectives.iwae import Iwae, resample

__all__ = ["TERMS", "BetaElbo", "Hybrid", "Iwae", "Objective", "Terms", "balanced_kl", "resample"]
