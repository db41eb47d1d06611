"""From plain config to objects: only what is on the list, only values of the declared types."""

import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, get_type_hints

from cvae.allowed import fault_of, is_allowed
from cvae.errors import UserError
from cvae.options import OPTIONS
from cvae.ranges import check_values

NOTATION = ("_target_", "_partial_")


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


def check_targets(node: Any, path: str = "") -> None:
    """Refuse a config that names anything that is not on the list, at whatever depth.

    Raises:
        UserError: naming the place and the target.
    """
    for place, mapping in mappings(node, path):
        if "_target_" in mapping and not is_allowed(mapping["_target_"]):
            raise UserError(
                f"{_join(place, '_target_')}={mapping['_target_']} is not on the list of "
                f"cvae.allowed{fault_of(mapping['_target_'])}; a class of your own package comes "
                "with allow=PACKAGE in training, and with --allow PACKAGE in the other commands"
            )


def check_arguments(node: Any, path: str = "") -> None:
    """Refuse a config with a key or a plain value that what it describes cannot take.

    Nothing is built; `build` goes on to check arguments that are objects themselves.

    Raises:
        UserError: naming the key, the value and what it should be.
    """
    check_targets(node, path)
    for place, mapping in mappings(node, path):
        if "_target_" in mapping:
            plain = {key: value for key, value in mapping.items() if not _describes(value)}
            check_values(_hints(mapping), _without_notation(plain), place)


def _build(node: Any, path: str, given: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_build(value, f"{path}[{position}]", {}) for position, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    arguments = {
        key: _build(value, _join(path, key), {}) for key, value in _without_notation(node).items()
    }
    if "_target_" not in node:
        return arguments
    if twice := arguments.keys() & given.keys():
        raise UserError(f"{path}.{min(twice)}: set by the program, leave it out of the config")
    check_values(_hints(node), arguments, path)
    waits = node.get("_partial_", False)
    if not isinstance(waits, bool):
        raise UserError(f"{path}._partial_={waits}: true or false is expected")
    target = pkgutil.resolve_name(node["_target_"])
    try:
        make = partial(partial, target) if waits else target
        return make(**arguments, **given)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor raises, it is the config that it refuses
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error


def _hints(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names and types of what a node's target takes from config.

    Raises:
        UserError: a type of it is not there.
    """
    if node["_target_"] in OPTIONS:
        return OPTIONS[node["_target_"]]
    target = pkgutil.resolve_name(node["_target_"])
    constructor = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    try:
        types = get_type_hints(inspect.unwrap(constructor), include_extras=True)
    except NameError as error:
        raise UserError(
            f"{node['_target_']} has an annotation that cannot be read ({error}): import what it "
            "names outside of `if TYPE_CHECKING:`"
        ) from error
    return {
        name: types.get(name, Any)
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def mappings(node: Any, path: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every mapping in a tree of config with its place, the outer before the inner."""
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            yield from mappings(value, _join(path, key))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from mappings(value, f"{path}[{position}]")


def _describes(value: Any) -> bool:
    """Whether an object is to be built somewhere in a value."""
    return any("_target_" in mapping for _, mapping in mappings(value, ""))


def _without_notation(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in NOTATION}


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
