"""Programs that train the same nets, and the matrix products that none of them can do without.

The nets are a plain VAE's, 784-512-512 with z of 256; a step draws fresh binary pixels and fresh
noise and ends with a fused Adam. Each contender returns the seconds that its steps took.
"""

import tempfile
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import hydra
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from cvae.config import Config, plain
from cvae.data.pixels import binarize, uniform_bytes
from cvae.data.source import MNIST
from cvae.data.views import Label
from cvae.densities import BernoulliHead
from cvae.evaluation.products import now
from cvae.model import ConditionalVAE
from cvae.models import fixed_prior, vae
from cvae.networks import MLP
from cvae.objectives import BetaElbo, Terms
from cvae.run import Run
from cvae.train import CONF
from cvae.training.compilation import compile_objective, compiler_errors
from cvae.training.fit import fit

PIXELS, HIDDEN, LATENT, RATE = 784, [512, 512], 256, 1e-3
Evaluate = Callable[[ConditionalVAE, Tensor, Tensor, Tensor, float], Terms]


def cvae(batch_size: int, steps: int, device: torch.device) -> float:
    """What `cvae.train` does, with its bar, TensorBoard and callbacks.

    The clock is that of the run's `images_per_second`: it starts with the epoch and stops with its
    last step, where the callbacks after the recorder are still to come. So the epoch's end, with
    validation, row, pictures and checkpoint, is left out, as is the test; the others have none.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, config(batch_size, steps, device))
        run.begin()
        speed: float = fit(run)["images_per_second"]
    return steps * batch_size / speed


def config(batch_size: int, steps: int, device: torch.device) -> Config:
    """Of a run that trains the nets for one epoch of so many steps."""
    overrides = [
        "name=benchmark",
        "model=vae",
        f"network.hidden={HIDDEN}",
        f"model.latent_dim={LATENT}",
        f"optimizer.lr={RATE}",
        f"data.batch_size={batch_size}",
        f"trainer.accelerator={_accelerator(device)}",
        f"trainer.limit_train_batches={steps}",
        f"trainer.max_steps={steps}",
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1",
    ]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        values = plain(hydra.compose("train", overrides))
    del values["allow"]
    return values


def bare(batch_size: int, steps: int, device: torch.device) -> float:
    """The same model, objective and draws in a plain loop over tensors in memory."""
    return _loop(BetaElbo(), batch_size, steps, device)


def compiled(batch_size: int, steps: int, device: torch.device) -> float:
    """The plain loop under `torch.compile`, the time to compile left out."""
    objective = compile_objective(BetaElbo())
    with compiler_errors():
        _loop(objective, batch_size, 3, device)
    return _loop(objective, batch_size, steps, device)


def _loop(objective: Evaluate, batch_size: int, steps: int, device: torch.device) -> float:
    arrays = MNIST().load(None)
    images, labels = arrays.train_images.to(device), arrays.train_labels.to(device)
    model, view = nets().to(device), Label()
    optimizer = adam(model)
    draws = torch.Generator(device).manual_seed(0)
    started = now(device)
    for order in islice(_orders(len(images), batch_size), steps):
        index = order.to(device)
        pixels = binarize(images[index], uniform_bytes((batch_size, 28, 28), draws))
        noise = torch.randn((1, batch_size, LATENT), device=device, generator=draws)
        x, y = view(pixels, labels[index])
        loss = objective(model, x, y, noise, 0.0).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return now(device) - started


def usual(batch_size: int, steps: int, device: torch.device) -> float:
    """Lightning over torchvision's data set, one image at a time."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "MNIST", "raw")  # where torchvision looks
        raw.parent.mkdir()
        raw.symlink_to(MNIST().folder(None).resolve())
        pixels = transforms.Compose([transforms.ToTensor(), torch.bernoulli])
        images = datasets.MNIST(folder, transform=pixels)
        module = Usual()
        trainer = Trainer(
            accelerator=_accelerator(device),
            devices=1,
            max_steps=steps,
            default_root_dir=folder,
            enable_model_summary=False,
            enable_checkpointing=False,  # its time is no training step's
        )
        trainer.fit(module, DataLoader(images, batch_size, shuffle=True, drop_last=True))
    return module.seconds


class Usual(LightningModule):
    """A LightningModule as tutorials write it, with the terms in bar and TensorBoard."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.objective = nets(), BetaElbo()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        y, labels = batch
        noise = torch.randn((1, len(y), LATENT), device=y.device)
        terms = self.objective(self.model, F.one_hot(labels, 10).float(), y, noise, 0.0)
        means = {name: value.mean() for name, value in terms.by_name().items()}
        self.log_dict(means, prog_bar=True)
        return means["loss"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adam(self.model)

    def on_train_start(self) -> None:
        self.started = now(self.device)

    def on_train_end(self) -> None:
        self.seconds = now(self.device) - self.started


def floor(batch_size: int, steps: int, device: torch.device) -> float:
    """The matrix products of the step: forward, and backward for weights and for inputs."""
    encoder, decoder = [PIXELS, *HIDDEN, 2 * LATENT], [LATENT, *HIDDEN[::-1], PIXELS]
    layers = []
    for inputs, outputs in (*pairwise(encoder), *pairwise(decoder)):
        weight = torch.randn(outputs, inputs, device=device)
        given, result = (torch.randn(batch_size, size, device=device) for size in (inputs, outputs))
        layers.append((given, weight, result, torch.empty_like(weight), torch.empty_like(given)))
    started = now(device)
    for _ in range(steps):
        for position, (given, weight, result, grad_weight, grad_given) in enumerate(layers):
            torch.mm(given, weight.t(), out=result)
            torch.mm(result.t(), given, out=grad_weight)
            if position > 0:  # the pixels need no gradient
                torch.mm(result, weight, out=grad_given)
    return now(device) - started


def nets() -> ConditionalVAE:
    """The plain VAE of all contenders, with fresh weights."""
    networks = MLP(HIDDEN, "relu")
    return vae((10,), (1, 28, 28), networks, fixed_prior, BernoulliHead(), LATENT)


def adam(model: ConditionalVAE) -> torch.optim.Optimizer:
    """The optimizer of all contenders."""
    return torch.optim.Adam(model.parameters(), lr=RATE, fused=True)


def _orders(size: int, batch_size: int) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(size).split(batch_size)[: size // batch_size]


def _accelerator(device: torch.device) -> str:
    return "gpu" if device.type == "cuda" else "cpu"
