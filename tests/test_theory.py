"""Every link of docs/theory.md leads to code and to a test, and no equation is without one."""

import ast
import importlib
import inspect
import pkgutil
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
COVERED = (
    "cvae.model",
    "cvae.objectives",
    "cvae.evaluation.evidence",
    "cvae.evaluation.nll",
)
PLACE = re.compile(r"(?<![\w./])cvae(?:\.\w+)+")
TEST = re.compile(r"tests/\w+\.py(?:::\w+)?")
LINK = re.compile(rf"`code: {PLACE.pattern} · test: {TEST.pattern}(?:, {TEST.pattern})*`")


def faults(text: str) -> list[str]:
    """What is wrong with a document, a line each."""
    places, tests = set(PLACE.findall(text)), set(TEST.findall(text))
    return [
        *(f"no such code: {place}" for place in sorted(places) if not _resolves(place)),
        *(f"no such test: {test}" for test in sorted(tests) if not _is_test(test)),
        *(f"not named: {name}" for name in _public() if not _named(name, places)),
        *_unlinked(text.splitlines()),
    ]


def _resolves(place: str) -> bool:
    try:
        pkgutil.resolve_name(place)
    except (ImportError, AttributeError):
        return False
    return True


def _is_test(name: str) -> bool:
    """Whether the file is there, and a function of that name at its top level."""
    path, _, function = name.partition("::")
    if not (ROOT / path).is_file():
        return False
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return not function or (function.startswith("test_") and function in defined)


def _public() -> list[str]:
    """Functions and classes that the covered modules define."""
    return [
        f"{module}.{name}"
        for module in COVERED
        for name, member in vars(importlib.import_module(module)).items()
        if (inspect.isfunction(member) or inspect.isclass(member))
        and f"{member.__module__}.".startswith(f"{module}.")  # a package shows what is in it
        and not name.startswith("_")
    ]


def _named(name: str, places: set[str]) -> bool:
    return any(f"{place}.".startswith(f"{name}.") for place in places)


def _unlinked(lines: list[str]) -> list[str]:
    """Faults of the order: an equation, and its link before the next equation or heading."""
    marks = []
    for number, line in enumerate(lines, 1):
        if line == "$$":
            marks.append((number, "$$"))
        elif "$$" in line:
            return [f"line {number}: $$ shares its line"]
        elif re.match(r"#+ ", line):
            marks.append((number, "#"))
        elif LINK.fullmatch(line):
            marks.append((number, "link"))
        elif "code:" in line or "· test:" in line:
            return [f"line {number}: not a link"]
    opened, found = False, []
    for (number, kind), (_, following) in pairwise([*marks, (len(lines), "#")]):
        opened = kind == "$$" and not opened
        if opened and following != "$$":
            return [f"line {number}: $$ is not closed"]
        if kind == "$$" and not opened and following != "link":
            found.append(f"line {number}: an equation without a link")
    return found


def test_the_document_has_no_faults() -> None:
    assert faults(TEXT) == []


def test_there_is_something_to_check() -> None:
    equations = TEXT.splitlines().count("$$") // 2
    assert equations >= 15
    assert len(LINK.findall(TEXT)) >= equations
    assert {"cvae.model.ConditionalVAE", "cvae.evaluation.evidence.from_prior"} <= set(_public())
    assert not [name for name in _public() if name.endswith(("UserError", "Tensor", "dataclass"))]


FIRST = next(line for line in TEXT.splitlines() if LINK.fullmatch(line))
EQUATION = "$$\na = b\n$$\n"
BROKEN = {
    "another method": (("ConditionalVAE.elbo", "ConditionalVAE.elbow"), "no such code"),
    "another module": (("cvae.densities.", "cvae.density."), "no such code"),
    "another test": (("::test_kl_is_", "::test_kl_was_"), "no such test"),
    "another file": (("tests/test_densities.py", "tests/test_density.py"), "no such test"),
    "a helper as a test": (("::test_kl_is_the_closed_formula", "::gaussian"), "no such test"),
    "a name left out": (("cvae.objectives.Objective", "the protocol"), "not named"),
    "all names of a class left out": (("nll.Evidence", "evidence.estimate"), "not named"),
    "no link": ((FIRST, ""), "an equation without a link"),
    "a link after the heading": ((FIRST, f"## Heading\n{FIRST}"), "an equation without a link"),
    "a link after an equation": ((FIRST, f"{EQUATION}\n{FIRST}"), "an equation without a link"),
    "an equation at the end": (("## Sources", f"{EQUATION}## Sources"), "without a link"),
    "a link without a test": ((FIRST, FIRST.split(" · ")[0] + "`"), "not a link"),
    "a link to no file of tests": ((FIRST, "`code: cvae.model · test: tests/model`"), "not a link"),
    "a link in a sentence": ((FIRST, f"See {FIRST}"), "not a link"),
    "an open equation": ((FIRST, f"$$\n{FIRST}"), "$$"),
    "an equation within a line": ((FIRST, f"$$a = b$$\n{FIRST}"), "shares its line"),
}


@pytest.mark.parametrize("change", BROKEN)
def test_what_is_broken_is_found(change: str) -> None:
    (old, new), fault = BROKEN[change]
    assert old in TEXT
    assert any(fault in line for line in faults(TEXT.replace(old, new)))
