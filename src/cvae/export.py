"""`python -m cvae.export FOLDER…`: finished runs' models as ONNX files and as a page.

Writes into the folder model.onnx and model.int8.onnx, of a model of digits demo.html, which opens
without a server and writes by hand what is typed, and export.json: sizes and fidelity.
"""

import json
import logging
from typing import Any

from cvae.command import run_command
from cvae.errors import UserError
from cvae.evaluation.data import data_of
from cvae.evaluation.judge import judge_of
from cvae.exporting.digits import DigitModel, digit_model
from cvae.exporting.facts import facts
from cvae.exporting.fidelity import Fidelity, table
from cvae.exporting.page import FIRST_TEMPERATURE, page
from cvae.files import write_atomically
from cvae.finished import arguments_over_runs, for_each_run, read
from cvae.run import Run

log = logging.getLogger(__name__)
TOLERANCE = 1e-5  # between a pixel of model.onnx and of PyTorch


def export(run: Run, root: str | None = None) -> dict[str, Any]:
    """Write a run's model in other forms into its folder, when all of them are made and measured.

    Args:
        run: trained.
        root: where the data's files are now, if not where the run had them.

    Returns:
        What `export.json` holds.

    Raises:
        UserError: the folder holds no trained model, the data are not those of its training,
            model.onnx does not compute what PyTorch does, or a package is missing.
    """
    data = data_of(run, root)
    judge = judge_of(data.source.name, data.source.load(data.root))
    fidelity = Fidelity(run.load_model(), data.view, data.examples("test"), judge)
    size = run.checkpoint(run.weights).stat().st_size
    forms: dict[str, Any] = {"checkpoint": {"bytes": size, **fidelity()}}
    results = {"name": run.config["name"], "examples": len(fidelity.examples.x), "forms": forms}
    written = _graphs(fidelity, forms)
    try:
        model = digit_model(fidelity.model, data.view, data.source)
    except UserError as error:
        log.warning("no demo.html: %s", error)
        results["no_page"] = str(error)
        (run.folder / "demo.html").unlink(missing_ok=True)
    else:
        written["demo.html"] = _page(run, model, fidelity, forms)
    written["export.json"] = json.dumps(results, indent=2, allow_nan=False).encode()
    for name, content in written.items():
        write_atomically(run.folder / name, content)
    return results


def _graphs(fidelity: Fidelity, forms: dict[str, Any]) -> dict[str, bytes]:
    """The ONNX files by name, their numbers added to the forms."""
    try:
        from cvae.exporting.graph import Graph, to_int8, to_onnx
    except ModuleNotFoundError as error:  # an extra, which not everybody installs
        raise UserError(
            f"{error.name} is missing: python -m pip install -c constraints.txt -e '.[export]'"
        ) from error
    graph = to_onnx(fidelity.model, fidelity.view.x_shape)
    graphs = {"model.onnx": graph, "model.int8.onnx": to_int8(graph)}
    for name, content in graphs.items():
        forms[name] = {"bytes": len(content), **fidelity(Graph(content))}
    if not (difference := forms["model.onnx"]["max_difference"]) <= TOLERANCE:  # nor is it NaN
        raise UserError(f"model.onnx is {difference:.1e} away from PyTorch: nothing was written")
    return graphs


def _page(run: Run, model: DigitModel, fidelity: Fidelity, forms: dict[str, Any]) -> bytes:
    """The page, its numbers added to the forms."""
    cooler = fidelity.taken(lambda x, noise: model(x, FIRST_TEMPERATURE * noise))
    numbers = {**fidelity(model), "first": {"temperature": FIRST_TEMPERATURE, **cooler}}
    content = page(model, facts(run, forms["checkpoint"], numbers))
    forms["demo.html"] = {"bytes": len(content), **numbers}
    return content


def main() -> None:
    """Read the command line."""
    arguments = read(arguments_over_runs("cvae.export", __doc__))

    def exported(run: Run) -> str:
        results = export(run, arguments.data_root)
        return f"{results['name']}: {table(results)}"

    for_each_run(arguments.folders, "exporting", exported)


if __name__ == "__main__":
    run_command(main)
