"""The LightningModule: one step of training, validation and test over any composition."""

import math
from collections.abc import Callable, Iterable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cvae.data.examples import Batch
from cvae.errors import UserError
from cvae.metrics import ACTIVE_UNIT, Moments
from cvae.model import ConditionalVAE
from cvae.noise import Stream, generator, rank_slice
from cvae.objectives import Objective, Terms
from cvae.training.checks import check_interval
from cvae.training.compilation import compile_objective

SPLITS = ("val", "test")


class Training(LightningModule):
    """Trains a model on an objective; logs `val/…` and `test/…`, in nats, averaged over examples.

    Args:
        model: the composition.
        objective: what is minimised.
        optimizer: makes the optimizer from the parameters.
        schedule: from the fraction of training done to the learning rate's factor.
        seed: of the noise of training.
        compiled: whether training steps run under `torch.compile`; validation and test never do.
    """

    def __init__(
        self,
        model: ConditionalVAE,
        objective: Objective,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        schedule: Callable[[float], float],
        seed: int,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.optimizer, self.schedule = optimizer, schedule
        self.seed = seed
        self.train_objective = compile_objective(objective) if compiled else objective
        vectors = ("kl_per_dimension", "posterior_mean")
        self.moments = nn.ModuleDict(
            {name: Moments() for name in objective.terms}
            | {name: Moments((model.latent_dim,)) for name in vectors}
        )
        self._fixed_noise: dict[str, Tensor] = {}
        self.kl_per_dimension = torch.zeros(model.latent_dim)  # at the last validation or test

    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_interval(self.trainer)

    @property
    def batch_size(self) -> int:
        """Examples of a training step, over all processes together: the data's."""
        size: int = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        return size

    @property
    def epochs_done(self) -> float:
        """Epochs trained so far, with the fraction of the present one."""
        return self.global_step / max(1, self.trainer.num_training_batches)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss, (), and `terms`: the means of the objective's terms in their order, (T,), nats.

        Raises:
            UserError: the loss is not finite; nothing has been updated by it.
        """
        noise = self._training_noise(batch.x.device)
        terms = self.train_objective(self.model, batch.x, batch.y, noise, self.epochs_done)
        loss = terms.loss.mean()
        if not math.isfinite(loss.item()):
            raise UserError(self._divergence(terms))
        with torch.no_grad():
            means = torch.stack(list(terms.by_name().values())).mean(-1)
        return {"loss": loss, "terms": means}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_step("test", batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.model.parameters())
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total):
            raise UserError(
                "a schedule needs to know when training ends: give trainer.max_epochs or max_steps"
            )
        schedule = LambdaLR(optimizer, lambda step: self.schedule((step + 1) / total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _training_noise(self, device: torch.device) -> Tensor:
        """This rank's share of the global batch's ε of a step: (num_samples + spare ones, B, d)."""
        latent = generator(Stream.LATENT, self.seed, self.global_step, device=device)
        counts = self.objective.num_noise(self.epochs_done)
        shapes = [(self.batch_size, count, self.model.latent_dim) for count in counts]
        # in turn, so that spare ones leave the samples as they are
        parts = [torch.randn(shape, device=device, generator=latent) for shape in shapes]
        noise = torch.cat(parts, 1)
        return rank_slice(noise, self.global_rank, self.trainer.world_size).transpose(0, 1)

    def _evaluation_noise(self, split: str, position: Tensor) -> Tensor:
        """ε of these examples: drawn once, on the CPU, the same in every run and on every device.

        Returns:
            (num_samples, B, d).
        """
        if split not in self._fixed_noise:
            examples = len(self.trainer.datamodule.datasets[split])  # type: ignore[attr-defined]
            shape = (examples, self.objective.num_samples, self.model.latent_dim)
            fixed = generator(Stream.FIXED_LATENT, SPLITS.index(split))
            self._fixed_noise[split] = torch.randn(shape, generator=fixed)
        return self._fixed_noise[split][position.cpu()].to(position.device).transpose(0, 1)

    def _evaluation_step(self, split: str, batch: Batch) -> None:
        noise = self._evaluation_noise(split, batch.position)
        terms = self.objective(self.model, batch.x, batch.y, noise, self.epochs_done)
        values = terms.by_name()
        values["kl_per_dimension"] = terms.elbo.kl_per_dimension
        values["posterior_mean"] = terms.elbo.posterior.mean
        for name, value in values.items():
            self._moments(name).update(value)

    def _log_evaluation(self, split: str) -> None:
        results = {name: self._moments(name).compute() for name in self.moments}
        for name in self.moments:
            self._moments(name).reset()
        broken = [name for name, value in results.items() if not value["mean"].isfinite().all()]
        if broken:
            raise UserError(
                f"{', '.join(broken)} not finite on the {split} data after epoch "
                f"{self.current_epoch + 1}, step {self.global_step}; the last checkpoint is kept; "
                "try a lower optimizer.lr"
            )
        self.kl_per_dimension = results.pop("kl_per_dimension")["mean"]
        active = results.pop("posterior_mean")["variance"] > ACTIVE_UNIT
        for name, moments in results.items():
            self.log(f"{split}/{name}", moments["mean"])
            self.log(f"{split}/{name}_standard_error", moments["standard_error"], logger=False)
        self.log(f"{split}/active_units", active.sum().double())
        self.log(f"{split}/examples", results["loss"]["count"], logger=False)

    def _divergence(self, terms: Terms) -> str:
        """One line about a loss that is not finite: where it happened and what it came from."""
        values = terms.by_name().items()
        broken = [name for name, value in values if not value.isfinite().all()]
        densities = {"q(z|x,y)": terms.elbo.posterior, "p(z|x)": terms.elbo.prior}
        scales = (
            f"of {name} {density.stddev.detach().log().max().item():.3g}"
            for name, density in densities.items()
            if self.model.latent_dim
        )
        return (
            f"training diverged in epoch {self.current_epoch + 1}, step {self.global_step + 1}: "
            f"{', '.join(broken)} not finite; largest log-scale {', '.join(scales) or '–'}; the "
            "last checkpoint is kept; try a lower optimizer.lr"
        )

    def _moments(self, name: str) -> Moments:
        metric = self.moments[name]
        assert isinstance(metric, Moments)
        return metric
