"""Configs of several versions made comparable: a key that came later, at its default."""

import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from cvae.allowed import ALLOWED
from cvae.build import mappings
from cvae.config import Config


def completed(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Copies of configs in which objects also have the arguments that others of their class name.

    They are at the class's default: a run of a version that did not know an argument was built
    with that. Nothing is imported for classes of a user's own package, which stay as they are.
    """
    copies = [deepcopy(dict(config)) for config in configs]
    found = [node for copy in copies for _, node in mappings(copy, "") if isinstance(node, dict)]
    nodes = [node for node in found if str(node.get("_target_")) in ALLOWED]
    names: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        names[node["_target_"]].update(node)
    for node in nodes:
        if missing := names[node["_target_"]] - node.keys():
            node.update(_defaults(node["_target_"], missing))
    return copies


def _defaults(target: str, names: set[str]) -> dict[str, Any]:
    """Those of some arguments that have one."""
    parameters = inspect.signature(pkgutil.resolve_name(target)).parameters
    defaults = {name: parameters[name].default for name in names & parameters.keys()}
    return {
        name: list(value) if isinstance(value, tuple) else value  # as a config writes it
        for name, value in defaults.items()
        if value is not inspect.Parameter.empty
    }
