"""The columns of docs/results.md: what each makes of the records of one row's seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cvae.comparison.table import mean_and_deviation
from cvae.errors import UserError
from cvae.evaluation.baseline import gap_closed
from cvae.evaluation.report import converged
from cvae.files import number_at

Record = Mapping[str, Any]
Column = Callable[[Sequence[Record]], str]


def _mean_of(kept: Sequence[Record], *keys: str) -> float:
    """Mean over seeds of a number that is found in a record by its keys."""
    return mean_and_deviation([number_of(one, keys) for one in kept])[0]


def number_of(record: Record, keys: Sequence[str]) -> float:
    """A number that is found in a record by its keys.

    Raises:
        UserError: there is none.
    """
    source = f"docs/runs: {record['name']}"
    found = number_at(record, keys, source)
    if found is None:
        raise UserError(f"{source} has no number {'/'.join(keys)}")
    return found


def _seeds(form: str, *keys: str) -> Column:
    """Mean over seeds, with their standard deviation if there are several."""

    def column(kept: Sequence[Record]) -> str:
        mean, deviation = mean_and_deviation([number_of(one, keys) for one in kept])
        return f"{mean:{form}}" if deviation is None else f"{mean:{form}} ± {deviation:{form}}"

    return column


def _mean(form: str, *keys: str, per: float = 1) -> Column:
    """Mean over seeds."""
    return lambda kept: format(_mean_of(kept, *keys) / per, form)


def _if_converged(way: str, column: Column, otherwise: Column) -> Column:
    """One column where an estimate has converged for all seeds, another where it has not."""
    names = "mean", "mean_of_repeats"

    def chosen(kept: Sequence[Record]) -> str:
        places = {name: ("evaluation", "nll", way, name) for name in names}
        found = ({name: number_of(one, place) for name, place in places.items()} for one in kept)
        return (column if all(map(converged, found)) else otherwise)(kept)

    return chosen


def _bracketed(way: str, column: Column) -> Column:
    """An estimate of −log p(y|x), in brackets where it has not converged."""
    return _if_converged(way, column, lambda kept: f"({column(kept)})")


def _below(baseline: Sequence[Record], kept: Sequence[Record]) -> str:
    """How much lower −log p(y|x) is than a baseline's, in brackets where one has not converged."""
    if not baseline:
        return ""
    lower = _mean_of(baseline, *NLL) - _mean_of(kept, *NLL)
    return _bracketed("importance", lambda both: f"{lower:.2f}")([*baseline, *kept])


def _closed(baseline: Sequence[Record], kept: Sequence[Record]) -> str:
    """The part of the way from a baseline's GED² to the oracle's."""
    if not baseline:
        return ""
    best = _mean_of(kept, *REFERENCES, "oracle", *GED)
    without, ours = (_mean_of(some, *REFERENCES, *GED) for some in (baseline, kept))
    closed = gap_closed(without, ours, best)
    return "" if closed is None else f"{closed:.0%}"


def _found(kept: Sequence[Record]) -> str:
    """Styles found in the samples, as a part of those that the oracle finds."""
    ours, best = (
        _mean_of(kept, *REFERENCES, *whose, "style_recall", "mean") for whose in ((), ("oracle",))
    )
    return f"{ours / best:.1%}"


ESTIMATE = ("evaluation", "nll", "importance")
NLL = (*ESTIMATE, "mean")
PRIOR = ("evaluation", "nll", "prior")
REFERENCES = ("evaluation", "references")
GED = ("ged2", "mean")
COLUMNS: Mapping[str, Column] = {
    "ours": _bracketed("importance", _seeds(".2f", *NLL)),
    "K": _mean(".0f", "evaluation", "num_samples"),
    "± data": _mean(".2f", *ESTIMATE, "standard_error"),
    "± Monte Carlo": _if_converged(
        "importance", _mean(".3f", *ESTIMATE, "monte_carlo_error"), lambda kept: "–"
    ),
    "at K/10": _mean(".2f", *ESTIMATE, "mean_of_repeats"),
    "effective samples": _mean(".0f", *ESTIMATE, "effective_samples"),
    "by prior sampling": _bracketed("prior", _mean(".2f", *PRIOR, "mean")),
    "ELBO": _mean(".2f", "evaluation", "elbo", "mean"),
    "KL": _mean(".2f", "evaluation", "kl", "mean"),
    "right digit": _mean(".1%", "evaluation", "judge", "accuracy"),
    "active units": _mean(".0f", "evaluation", "latent", "active_units"),
    "GED²": _seeds(".4f", *REFERENCES, *GED),
    "GED² ± data": _mean(".4f", *REFERENCES, "ged2", "standard_error"),
    "with the diagonal": _mean(".4f", *REFERENCES, "ged2_with_diagonal", "mean"),
    "the oracle's": _mean(".4f", *REFERENCES, "oracle", *GED),
    "IoU, matched": _mean(".3f", *REFERENCES, "hungarian_iou", "mean"),
    "styles found": _mean(".3f", *REFERENCES, "style_recall", "mean"),
    "of the oracle's": _found,
    "frequency error": _mean(".3f", *REFERENCES, "styles", "largest_error"),
    "like nobody": _mean(".1%", *REFERENCES, "styles", "none"),
    "Dice": _mean(".3f", *REFERENCES, "majority_dice", "mean"),
    "seeds": lambda kept: str(len(kept)),
    "epochs": _mean(".0f", "metrics", "epochs"),
    "minutes": _mean(".0f", "metrics", "wall_seconds", per=60),
}
AGAINST: Mapping[str, Callable[[Sequence[Record], Sequence[Record]], str]] = {  # a baseline
    "below the baseline": _below,
    "gap closed": _closed,
}
