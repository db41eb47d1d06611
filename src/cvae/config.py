"""A run's config: plain values with all that a run needs, and nothing that it does not know."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cvae.build import check_targets
from cvae.errors import UserError
from cvae.ranges import Name, Node, PartialNode, Seed, check_values

Config = Mapping[str, Any]
SHORTHAND = "_shorthand_"
ROOT: Config = {
    "name": Name,
    "seed": Seed,
    "compile": bool,
    "data": Node,
    "network": Node,
    "likelihood": Node,
    "prior": PartialNode,
    "model": Node,
    "objective": Node,
    "optimizer": Node,
    "schedule": Node,
    "trainer": Node,
    "logger": Node,
    "checkpoint": Node,
    "callbacks": dict[str, Any],
}


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed config as a run's folder holds it: resolved, without the shorthands.

    A node's `_shorthand_` lists keys that other keys take their values from, so that the command
    line may say `data.observed=2` for `data.view.observed=2`.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    nodes = (node for node in resolved.values() if isinstance(node, dict))
    for node in nodes:
        for key in node.pop(SHORTHAND, ()):
            node.pop(key)
    return {str(key): value for key, value in resolved.items()}


def check_config(config: Config) -> None:
    """Refuse what is no run's config, or names anything that is not on the list of `allowed`.

    Raises:
        UserError: naming the place.
    """
    check_targets(config)
    check_values(ROOT, config)
    if missing := ROOT.keys() - config.keys():
        raise UserError(f"the config has no {', '.join(sorted(missing))}")
    callbacks = config["callbacks"]
    check_values(dict.fromkeys(callbacks, Node), callbacks, "callbacks")


def parse(text: bytes, source: str) -> Any:
    """Plain values from YAML; nothing in it is built, resolved, or repeated by reference.

    Raises:
        UserError: it is not YAML, or asks for any of these.
    """
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):  # a few lines of them unfold to gigabytes
                raise UserError(f"{source}: *{event.anchor} repeats a part, write it out")
        return OmegaConf.to_container(OmegaConf.load(BytesIO(text)), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: not YAML of plain values ({reason})") from error


def key_of(word: str) -> str:
    """The key of a command line's KEY=VALUE, which Hydra lets begin with one + or two."""
    return word.partition("=")[0].lstrip("+")
