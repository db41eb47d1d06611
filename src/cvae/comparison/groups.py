"""Groups of runs, and what has to be said of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cvae.comparison.defaults import completed
from cvae.comparison.keys import check_key, differing, portable, repeatable, value_of
from cvae.comparison.rows import ORDER, Row
from cvae.config import Config
from cvae.evaluation.report import CONVERGED

WHY_NOT = {
    "density": "the numbers are of different densities",
    "dataset": "the runs are of different data",
    "images": "the runs were tested on different numbers of images",
    "pixels": "the runs model different parts of an image",
    "binarize": "the runs were tested on pixels that were made 0 or 1 in different ways",
}
UNCONVERGED = (
    "in brackets: not converged, from a tenth of the samples −log p(y|x) is more than "
    f"{CONVERGED} nats higher; evaluate with a larger --num-samples"
)


class Group(NamedTuple):
    """Runs that differ in nothing that they are grouped by.

    Attributes:
        values: of the table's first columns.
        rows: the runs, those that are not finished too.
        again: finished runs that count for nothing, each by the folder of the row that it repeats:
            all is the same, the seed too, whatever another machine made of it.
    """

    values: tuple[str, ...]
    rows: list[Row]
    again: list[tuple[Path, Row]]

    @property
    def finished(self) -> list[Row]:
        return [row for row in self.rows if row.finished]

    def add(self, row: Row) -> None:
        """Put a run among the rows, unless one of them is the same."""
        same = (one for one in self.finished if row.finished and _is_repeated(one, row))
        if first := next(same, None):
            self.again.append((first.folder, row))
        else:
            self.rows.append(row)


def _is_repeated(one: Row, other: Row) -> bool:
    return repeatable(one.config) == repeatable(other.config)


class Comparison:
    """Runs in groups.

    Args:
        rows: one a run.
        keys: of the configs, to group by; if none are given, all that differ.
        failed: folders of runs that failed, with why; they are no rows.

    Attributes:
        keys: that the runs are grouped by.
        conditions: columns of what should be the same and is not; grouped by as well.
        metrics: columns of numbers that some run has.
        groups: sorted by their values.

    Raises:
        UserError: no config has a key.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        keys: Sequence[str] = (),
        failed: Mapping[Path, str] = MappingProxyType({}),
    ) -> None:
        configs = completed([row.config for row in rows])
        self.rows = [replace(row, config=config) for row, config in zip(rows, configs, strict=True)]
        self.failed = failed
        for key in keys:
            check_key(key, configs)
        self.keys = list(dict.fromkeys(keys)) or differing(configs) or ["model"]
        finished = [row for row in self.rows if row.finished]
        found = {name: {row.conditions[name] for row in finished} for name in WHY_NOT}
        self.conditions = [name for name in WHY_NOT if len(found[name]) > 1]
        self.metrics = sorted({name for row in finished for name in row.metrics}, key=_order)
        self.groups = self._group(folders=bool(keys))

    def _group(self, folders: bool) -> list[Group]:
        """Put the runs together; folders set them apart only where their key was asked for."""
        groups: dict[tuple[str, ...], Group] = {}
        for row in sorted(self.rows, key=lambda row: -len(row.metrics)):  # those that say most
            config = row.config if folders else portable(row.config)
            values = tuple(value_of(config, key) for key in self.keys)
            if row.finished:
                values += tuple(row.conditions[name] for name in self.conditions)
            else:  # nobody knows its data: it goes with the first of the same config
                same = (other for other in groups if other[: len(values)] == values)
                values = next(same, values)
            groups.setdefault(values, Group(values, [], [])).add(row)
        return sorted(groups.values(), key=lambda group: list(map(_rank, group.values)))

    def _measured(self) -> Iterator[tuple[int, list[Row]]]:
        """Of each group and number: how many runs there are, and those that have it."""
        for group in self.groups:
            for name in self.metrics:
                yield len(group.finished), [r for r in group.finished if name in r.metrics]

    def notes(self) -> list[str]:
        """What a reader of the table has to know, a line each."""
        lines = [f"not comparable: {WHY_NOT[n]} (column {n})" for n in self.conditions]
        mixed = [key for group in self.groups for key in differing(_configs(group))]
        if mixed:
            names = ", ".join(dict.fromkeys(mixed))
            lines.append(f"a line's runs differ in more than their seeds: {names}")
        lines += [
            f"the same run twice, seed too: {first} and {row.folder} (the first counts)"
            for group in self.groups
            for first, row in group.again
        ]
        if any(row.unconverged for group in self.groups for row in group.finished):
            lines.append(UNCONVERGED)
        if any(0 < len(found) < n for n, found in self._measured()):
            lines.append("(k of n): only k of a line's n runs were evaluated, or with that K or N")
        lines += [f"not finished: {row.folder}" for row in self.rows if not row.finished]
        return lines + [f"failed: {folder}: {why}" for folder, why in self.failed.items()]


def _configs(group: Group) -> list[Config]:
    return [row.config for row in group.finished]


def _order(metric: str) -> tuple[int, float]:
    name, _, samples = metric.removesuffix(")").partition(" (")
    return ORDER.index(name), float(samples.partition("=")[2] or 0)


def _rank(value: str) -> tuple[bool, float, str]:
    """Numbers by their size, then words."""
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, value
