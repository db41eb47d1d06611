"""`python -m cvae.export FOLDER…`: finished runs' models as ONNX files and as a page.

Writes into the folder model.onnx and model.int8.onnx, of a model of digits demo.html, which opens
without a server and writes by hand what is typed, and export.json: sizes and fidelity.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tqdm import tqdm

from cvae.command import run_command
from cvae.data.module import ImageData
from cvae.errors import UserError
from cvae.evaluation.data import data_of
from cvae.evaluation.judge import judge_of
from cvae.exporting.digits import DigitModel, digit_model
from cvae.exporting.facts import facts
from cvae.exporting.fidelity import Fidelity, table
from cvae.exporting.page import FIRST_TEMPERATURE, page
from cvae.files import write_atomically
from cvae.finished import arguments_over_runs, for_each_run, read
from cvae.mixtures import GaussianMixture
from cvae.run import Run
from cvae.run_folder import FORMS, GRAPHS, PAGE
from cvae.runs import find_all

log = logging.getLogger(__name__)
TOLERANCE = 1e-5  # between a pixel of model.onnx and of PyTorch


class Form(NamedTuple):
    """A model in another form: the file, and numbers of its fidelity."""

    content: bytes
    numbers: Mapping[str, Any]


def export(run: Run, root: str | None = None) -> dict[str, Any]:
    """Write a run's model in other forms into its folder, when all of them are made and measured.

    Args:
        run: trained.
        root: where the data's files are now, if not where the run had them.

    Returns:
        What `export.json` holds.

    Raises:
        UserError: the folder holds no trained model, or another one when all is made, the data are
            not those of its training, its prior is a mixture, model.onnx does not compute what
            PyTorch does, or a package is missing.
    """
    _check_packages()  # before the data are read, and a judge perhaps trained
    data = data_of(run, root)
    if not isinstance(data, ImageData):
        raise UserError(
            f"{run.folder} draws no digits, and what its exported forms are worth is said by a "
            "judge of digits"
        )
    check_unchanged = run.unchanged()
    trained, examples = run.load_model(), data.examples("test")
    if isinstance(trained.prior(examples.x[:1]), GaussianMixture):
        raise UserError(
            f"{run.folder} has prior=mixture, whose z are searched for, which is no graph for "
            "ONNX: export a run with prior=learned or prior=fixed"
        )
    judge = judge_of(data.source.name, data.source.load(data.root))
    fidelity = Fidelity(trained, data.view, examples, judge)
    checkpoint = fidelity.taken()
    results = {"name": run.config["name"], "examples": len(fidelity.examples.x)}
    model: DigitModel | None = None
    try:
        model = digit_model(fidelity.model, data.view, data.source)
    except UserError as error:
        log.warning("no %s: %s", PAGE, error)
        results["no_page"] = str(error)
    size = run.checkpoint(run.weights).stat().st_size
    results["forms"] = {"checkpoint": {"bytes": size, **checkpoint}}
    made = _forms(run, fidelity, checkpoint, model)
    total = len(GRAPHS) + (model is not None)
    forms = dict(tqdm(made, total=total, desc="forms", unit="form"))
    for name, form in forms.items():
        results["forms"][name] = {"bytes": len(form.content), **form.numbers}
    check_unchanged()
    _write(run, forms, results)
    return results


def _check_packages() -> None:
    try:
        import cvae.exporting.graph  # noqa: F401
    except ModuleNotFoundError as error:  # an extra, which not everybody installs
        raise UserError(
            f"{error.name} is missing: python -m pip install -c constraints.txt -e '.[export]'"
        ) from error


def _forms(
    run: Run, fidelity: Fidelity, checkpoint: Mapping[str, float], model: DigitModel | None
) -> Iterator[tuple[str, Form]]:
    """The files by name, as they are made."""
    from cvae.exporting.graph import Graph, to_int8, to_onnx

    exact = to_onnx(fidelity.model, fidelity.view.x_shape)
    numbers = fidelity(Graph(exact))
    if not numbers["max_difference"] <= TOLERANCE:  # nor is it NaN
        away = f"{numbers['max_difference']:.1e} away from PyTorch"
        raise UserError(f"{GRAPHS[0]} is {away}: nothing was written")
    yield GRAPHS[0], Form(exact, numbers)
    int8 = to_int8(exact)
    yield GRAPHS[1], Form(int8, fidelity(Graph(int8)))
    if model is not None:
        cooler = fidelity.taken(lambda x, noise: model(x, FIRST_TEMPERATURE * noise))
        own = {**fidelity(model), "first": {"temperature": FIRST_TEMPERATURE, **cooler}}
        yield PAGE, Form(page(model, facts(run, checkpoint, own)), own)


def _write(run: Run, forms: Mapping[str, Form], results: Mapping[str, Any]) -> None:
    if PAGE not in forms:
        (run.folder / PAGE).unlink(missing_ok=True)  # of other weights
    for name, form in forms.items():
        write_atomically(run.folder / name, form.content)
    content = json.dumps(results, indent=2, allow_nan=False)
    write_atomically(run.folder / FORMS, content.encode())


def main() -> None:
    """Read the command line."""
    arguments = read(arguments_over_runs("cvae.export", __doc__))

    def exported(run: Run) -> str:
        results = export(run, arguments.data_root)
        return f"{results['name']}: {table(results)}"

    for_each_run(find_all(arguments.folders), "exporting", exported)


if __name__ == "__main__":
    run_command(main)
