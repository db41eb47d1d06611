"""From plain config to objects: only what is on the list, only values of the declared types.

A run's folder may come from anywhere, so nothing that its config names is built unless its exact
name stands below. Prefixes would not do: `torch.optim.lr_scheduler.os.system` is os.system.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from cvae.errors import UserError

ALLOWED = frozenset(
    {
        "cvae.data.module.ImageData",
        "cvae.data.source.FashionMNIST",
        "cvae.data.source.MNIST",
        "cvae.data.views.Label",
        "cvae.densities.BernoulliHead",
        "cvae.densities.ContinuousBernoulliHead",
        "cvae.densities.GaussianHead",
        "cvae.models.conditional_vae",
        "cvae.models.fixed_prior",
        "cvae.models.learned_prior",
        "cvae.models.vae",
        "cvae.networks.Conv",
        "cvae.networks.MLP",
        "cvae.objectives.BetaElbo",
        "cvae.training.callbacks.EarlyStopping",
        "cvae.training.callbacks.Pictures",
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
        UserError: there is no such package.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"allow={package}: {error}") from error
    _packages.add(package)


def packages() -> list[str]:
    """The user's own packages, for a process that this one starts."""
    return sorted(_packages)


def _is_allowed(target: Any) -> bool:
    if not isinstance(target, str):
        return False
    if target in ALLOWED:
        return True
    if not any(target.startswith(f"{package}.") for package in _packages):
        return False
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return False
    # its own name, not a road through it: my_package.os.system is posix.system
    return f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}" == target


def build(node: Mapping[str, Any], path: str, **given: Any) -> Any:
    """Build the object that a plain config describes, after checking the whole of it.

    `_target_` names what is called, every other key is an argument, built first where it has a
    `_target_` itself; `_partial_: true` gives a function that waits for its other arguments. This
    is Hydra's notation; its own `instantiate` would resolve interpolations once more, after the
    check.

    Args:
        node: plain, resolved config.
        path: where it stands in the config, for messages.
        given: arguments that config cannot hold.

    Raises:
        UserError: a target is not on the list, a value is not of the declared type or range, or
            the object refuses its arguments.
    """
    check_targets(node, path)
    return _build(node, path, given)


def check_targets(node: Any, path: str) -> None:
    """Refuse a config that names anything that is not on the list, at whatever depth.

    Raises:
        UserError: naming the place and the target.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_", "")
        if "_target_" in node and not _is_allowed(target):
            raise UserError(
                f"{path}._target_={target} is not on the list of {__name__}; a class of your own "
                "package comes with allow=PACKAGE"
            )
        for key, value in node.items():
            check_targets(value, f"{path}.{key}")
    elif isinstance(node, list):
        for position, value in enumerate(node):
            check_targets(value, f"{path}[{position}]")


def _build(node: Any, path: str, given: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_build(value, f"{path}[{position}]", {}) for position, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    arguments = {
        key: _build(value, f"{path}.{key}", {})
        for key, value in node.items()
        if key not in ("_target_", "_partial_")
    }
    if "_target_" not in node:
        return arguments
    target = pkgutil.resolve_name(node["_target_"])
    check_types(target, arguments, path)
    if twice := arguments.keys() & given.keys():
        raise UserError(f"{path}.{min(twice)}: set by the program, leave it out of the config")
    waits = node.get("_partial_", False)
    if not isinstance(waits, bool):
        raise UserError(f"{path}._partial_={waits}: true or false is expected")
    try:
        make = partial(partial, target) if waits else target
        return make(**arguments, **given)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor raises, it is the config that it refuses
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error


def check_types(target: Callable[..., Any], arguments: Mapping[str, Any], path: str) -> None:
    """Compare values with the annotations of what they are passed to, ranges included.

    Raises:
        UserError: naming the key, the value and what it should be.
    """
    constructor = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    hints = get_type_hints(inspect.unwrap(constructor), include_extras=True)
    hints.pop("return", None)
    for key, value in arguments.items():
        if key not in hints:
            raise UserError(f"{path}.{key}: {target.__qualname__} has no such argument")
        adapter = TypeAdapter(hints[key], config=ConfigDict(arbitrary_types_allowed=True))
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            reasons = {detail["msg"] for detail in error.errors()}
            raise UserError(f"{path}.{key}={value}: {', or '.join(sorted(reasons))}") from error
