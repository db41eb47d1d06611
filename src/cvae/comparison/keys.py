"""What the configs of runs differ in: dotted keys, and groups by the short name of their target."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from cvae.allowed import ALLOWED
from cvae.comparison.defaults import completed
from cvae.config import Config
from cvae.errors import UserError, unknown

SILENT = (  # what changes no number
    "name",
    "checkpoint.every_minutes",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
REPEATS = (*SILENT, "seed", "data.seed")  # what runs of one experiment may differ in
FOLDERS = {"data.root": None, "model.guess": "FOLDER"}  # may be paths; what stands for any of them
FIRST = ("model", "prior")  # of the columns
ABSENT = ""


def portable(config: Config) -> dict[str, Any]:
    """A config without its paths, which say where something is and not what the run is."""
    copy = deepcopy(dict(config))
    for key, any_path in FOLDERS.items():
        group, _, name = key.partition(".")
        if isinstance(copy.get(group), dict) and isinstance(copy[group].get(name), str):
            copy[group][name] = any_path
    return copy


def repeatable(config: Config) -> dict[str, Any]:
    """A config without what changes no number, the seed kept: equal for a run and its repetition.

    The folder of a first guess stays, as another one holds another network.
    """
    copy = {name: dict(node) if isinstance(node, dict) else node for name, node in config.items()}
    for key in (*SILENT, "data.root"):
        group, _, name = key.rpartition(".")
        (copy[group] if group else copy).pop(name, None)
    return copy


def value_of(config: Config, key: str) -> str:
    """The value of `model.latent_dim`, or the short name of the group `model`, as a text.

    Returns:
        Equal texts for equal values; ABSENT where the config has no such key.
    """
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return ABSENT
        node = node[part]
    return _text(node)


def check_key(key: str, configs: Sequence[Config]) -> None:
    """Refuse a key that none of the configs has.

    Raises:
        UserError: naming what there is in its place, or where a key of the last name stands:
            a command line's `data.style` is `data.source.style` there.
    """
    if not configs:  # all of a sweep failed, which is what there is to be told
        return
    nodes: list[Any] = list(configs)
    parts = key.split(".")
    for depth, part in enumerate(parts):
        mappings = [node for node in nodes if isinstance(node, Mapping)]
        known = {name for mapping in mappings for name in mapping if not name.startswith("_")}
        if part not in known:
            start = "".join(f"{one}." for one in parts[:depth])
            end = "".join(f".{one}" for one in parts[depth:])
            places = {place for config in configs for place, _ in _flatten(config)}
            if long := sorted(p for p in places if p.startswith(start) and p.endswith(end)):
                raise UserError(f"--group-by {key}: in a run's config it is {' or '.join(long)}")
            raise unknown(f"--group-by {key}", part, known)
        nodes = [mapping[part] for mapping in mappings if part in mapping]


def differing(configs: Sequence[Config]) -> list[str]:
    """The keys whose values differ between configs, but for paths and those of a mere repetition.

    What only one choice of a group has, such as the channels of a convolutional network, counts
    only if it differs among the runs of that choice: the group's name says the rest.
    """
    flats = [dict(_flatten(portable(config))) for config in completed(configs)]
    keys = dict.fromkeys(key for flat in flats for key in flat if key not in REPEATS)
    found = [key for key in keys if _differs(key, flats)]
    return sorted(found, key=_place)


def _differs(key: str, flats: Sequence[Mapping[str, str]]) -> bool:
    group = key.rpartition(".")[0]
    while group and not any(group in flat for flat in flats):  # names and values, no choice
        group = group.rpartition(".")[0]
    by_choice: dict[str, set[str]] = defaultdict(set)
    for flat in flats:
        by_choice[flat.get(group, ABSENT)].add(flat.get(key, ABSENT))
    sets = [values for values in by_choice.values() if values != {ABSENT}]
    return len(set().union(*sets)) > 1


def _place(key: str) -> int:
    group = key.partition(".")[0]
    return FIRST.index(group) if group in FIRST else len(FIRST)


def _flatten(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    if "_target_" in node:
        yield path, _text(node)
    for key, value in node.items():
        place = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from _flatten(value, place)
        elif not key.startswith("_"):
            yield place, _text(value)


def _text(value: Any) -> str:
    """As the command line writes it, in one line."""
    if isinstance(value, Mapping):
        target = value.get("_target_")
        if target is None:
            return ", ".join(sorted(value))
        # of other packages the whole: their last parts may be the same
        return str(target).rpartition(".")[2] if target in ALLOWED else str(target)
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are one value
    return " ".join(str(value).split())
