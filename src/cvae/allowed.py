"""What a config may name.

A run's folder may come from anywhere, so nothing that its config names is built unless its exact
name stands below. Prefixes would not do: `torch.optim.lr_scheduler.os.system` is os.system.
"""

import importlib
import pkgutil
from types import FunctionType
from typing import Any

from cvae.errors import UserError

ALLOWED = frozenset(
    {
        "cvae.data.annotated.AnnotatedData",
        "cvae.data.annotators.Annotators",
        "cvae.data.folder.ReferenceFolder",
        "cvae.data.module.ImageData",
        "cvae.data.source.FashionMNIST",
        "cvae.data.source.MNIST",
        "cvae.data.views.Label",
        "cvae.data.views.Quadrants",
        "cvae.data.views.Segmentation",
        "cvae.densities.BernoulliHead",
        "cvae.densities.ContinuousBernoulliHead",
        "cvae.densities.GaussianHead",
        "cvae.models.conditional_vae",
        "cvae.models.deterministic",
        "cvae.models.fixed_prior",
        "cvae.models.gsnn",
        "cvae.models.learned_prior",
        "cvae.models.mixture_prior",
        "cvae.models.vae",
        "cvae.networks.Conv",
        "cvae.networks.MLP",
        "cvae.networks.UNet",
        "cvae.objectives.BetaElbo",
        "cvae.objectives.Hybrid",
        "cvae.objectives.Iwae",
        "cvae.training.callbacks.EarlyStopping",
        "cvae.training.callbacks.Pictures",
        "cvae.training.callbacks.StartAtMean",
        "cvae.training.checkpoints.Checkpoints",
        "cvae.training.schedules.Constant",
        "cvae.training.schedules.Cosine",
        "lightning.pytorch.Trainer",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "torch.optim.Adam",
    }
)
_packages: set[str] = set()  # the user's own


def allow(package: str) -> None:
    """Let configs name the classes and functions of a package of the user's own.

    Only a command line may ask for this. The package is imported, and what it takes from other
    packages stays off the list.

    Raises:
        UserError: there is no such package, or it cannot be imported.
    """
    if not all(part.isidentifier() for part in str(package).split(".")):
        raise UserError(f"allow={package}: the name of one package is expected")
    try:
        importlib.import_module(package)
    except Exception as error:  # of whatever the package does when it is imported
        raise UserError(f"allow={package}: {type(error).__name__}: {error}") from error
    _packages.add(package)


def packages() -> list[str]:
    """The user's own packages, for a process that this one starts."""
    return sorted(_packages)


def is_allowed(target: Any) -> bool:
    """Whether a config may name it."""
    return isinstance(target, str) and (
        target in ALLOWED or any(_is_of(p, target) for p in _packages)
    )


def fault_of(target: Any) -> str:
    """What keeps an admitted package from having it, in parentheses; nothing if nothing does."""
    if not any(str(target).startswith(f"{package}.") for package in _packages):
        return ""  # to look would run what nobody admitted
    try:
        pkgutil.resolve_name(target)
    except Exception as error:
        fault = error
        try:  # of a module whose own imports fail, only this tells of them
            importlib.import_module(target.rpartition(".")[0])
        except Exception as error:
            fault = error
        return f" ({type(fault).__name__}: {' '.join(str(fault).split())})"
    return ""


def _is_of(package: str, target: str) -> bool:
    """Whether it is a class or function that the package defines, not a road through it.

    `my_package.os.system` is posix.system; `my_package.Popen` is subprocess.Popen.
    """
    if not target.startswith(f"{package}."):
        return False
    try:
        found = pkgutil.resolve_name(target)
    except Exception:  # of whatever its module does when it is imported
        return False
    home = f"{getattr(found, '__module__', '')}."
    return isinstance(found, type | FunctionType) and home.startswith(f"{package}.")
