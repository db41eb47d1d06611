"""The rows about references, in the table that an evaluation prints."""

from collections.abc import Callable, Mapping
from typing import Any

Row = tuple[str, str, str]
Show = Callable[[Mapping[str, Any]], str]  # one of the numbers against references
SPREAD = (  # of samples against the references
    ("GED²", "ged2", 4),
    ("GED² with the diagonal", "ged2_with_diagonal", 4),
    ("IoU, matched one to one", "hungarian_iou", 3),
    ("styles found", "style_recall", 3),
    ("Dice of the majorities", "majority_dice", 3),
)
WITHOUT_Z = {"without z": "baseline"}
OTHERS = {
    **WITHOUT_Z,
    "with y drawn from p(y|x,z)": "drawn",
    "with z from q(z|x,y)": "posterior",
    "samples of the references themselves": "oracle",
}


def rows_of_references(numbers: Mapping[str, Any]) -> list[Row]:
    """How samples spread, and beside it how the others do that were measured."""
    return [*_spread(numbers), *_gap(numbers), *_styles(numbers)]


def _spread(numbers: Mapping[str, Any]) -> list[Row]:
    samples = f"{numbers['num_samples']} samples"
    shown = {f"{name}, {samples}": _mean_and_error(key, digits) for name, key, digits in SPREAD}
    return [(name, show(numbers), _beside(numbers, show)) for name, show in shown.items()]


def _gap(numbers: Mapping[str, Any]) -> list[Row]:
    """A row where there is a baseline."""
    if "gap_closed" not in numbers:
        return []
    closed = numbers["gap_closed"]
    way = "of the gap from without z to samples of the references themselves"
    return [("GED² gap closed", "–" if closed is None else f"{closed:.1%}", way)]


def _styles(numbers: Mapping[str, Any]) -> list[Row]:
    answers = zip(numbers["annotators"], numbers["styles"]["expected"], strict=True)
    shown = [
        (f"drawn like {name}", _observed(place), f"the annotator answers {expected:.2%}", WITHOUT_Z)
        for place, (name, expected) in enumerate(answers)
    ]
    shown.append(("drawn like nobody", _nobody, f"IoU {numbers['style_iou']} or less", OTHERS))
    rows = [
        (name, show(numbers), _listed(said, _beside(numbers, show, others)))
        for name, show, said, others in shown
    ]
    return [
        *rows,
        ("largest error of a frequency", _worst(numbers), _beside(numbers, _worst)),
    ]


def _mean_and_error(key: str, digits: int) -> Show:
    return lambda numbers: (
        f"{numbers[key]['mean']:.{digits}f} ± {numbers[key]['standard_error']:.{digits}f}"
    )


def _observed(place: int) -> Show:
    return lambda numbers: share(
        *(numbers["styles"][name][place] for name in ("observed", "observed_standard_error"))
    )


def _nobody(numbers: Mapping[str, Any]) -> str:
    return share(numbers["styles"]["none"], numbers["styles"]["none_standard_error"])


def _worst(numbers: Mapping[str, Any]) -> str:
    return f"{numbers['styles']['largest_error']:.3f}"


def _beside(numbers: Mapping[str, Any], show: Show, others: Mapping[str, str] = OTHERS) -> str:
    """What is shown of the others that there are."""
    found = {said: numbers[whose] for said, whose in others.items() if whose in numbers}
    return _listed(*(f"{said} {show(of)}" for said, of in found.items()))


def _listed(*remarks: str) -> str:
    return ", ".join(filter(None, remarks))


def share(mean: float, error: float) -> str:
    """A part of all, with its standard error."""
    return f"{mean:.2%} ± {error:.2%}"
