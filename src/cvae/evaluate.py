"""`python -m cvae.evaluate FOLDER…`: what finished runs are worth, measured on the test data.

Written into the run's folder: evaluation.json, and some of what cvae.visualize draws. With --split
val it is of the validation images, evaluation_val.json and pictures_val/, and without the numbers
of the judge of digits, which was trained on these images.
"""

import argparse
import json
import platform
from functools import partial
from typing import Any

import torch

from cvae.command import run_command
from cvae.errors import UserError
from cvae.evaluation.baseline import Baseline, check_baseline, read_baseline
from cvae.evaluation.bounds import bounds
from cvae.evaluation.data import split_of
from cvae.evaluation.drawn import drawn
from cvae.evaluation.evidence import check_num_samples
from cvae.evaluation.references import NUM_MASKS, check_num_masks
from cvae.evaluation.report import table
from cvae.files import write_atomically
from cvae.finished import arguments_over_runs, for_each_run, read, show, with_split
from cvae.pictures import gallery
from cvae.pictures.subject import Subject
from cvae.run import Run
from cvae.runs import find, find_all

PICTURED = ("posterior_and_prior", "kl", "aggregate")  # of all that cvae.visualize draws


def evaluate(
    run: Run,
    num_samples: int,
    seed: int,
    device: torch.device,
    split: str = "test",
    root: str | None = None,
    num_masks: int = NUM_MASKS,
    baseline: Baseline | None = None,
) -> dict[str, Any]:
    """Measure a run's model, and write numbers and pictures into its folder.

    Args:
        run: trained.
        num_samples: K of −log p(y|x).
        seed: of all draws.
        device: where.
        split: test, or val to choose between models.
        root: where the data's files are now, if not where the run had them.
        num_masks: of each input, against references.
        baseline: a run without z, to stand beside the numbers against references.

    Returns:
        What `evaluation.json` (of val: `evaluation_val.json`) holds; numbers are in nats.

    Raises:
        UserError: the folder holds no trained model, or another one when all is measured, the data
            are not those of its training or not the baseline's, or K cannot be divided.
    """
    check_unchanged = run.unchanged()
    model = run.load_model().to(device)
    data, examples = split_of(run, split, root)
    if baseline:
        baseline.check_alike(run.folder, data.record, num_masks)
    x, y = examples.x.to(device), examples.y.to(device)
    subject = Subject(model, data.view, examples._replace(x=x, y=y), seed)
    use = subject.latents
    results: dict[str, Any] = {
        "name": run.config["name"],
        "split": split,
        "examples": len(y),
        "weights": run.weights,
        "density": run.density,
        "num_samples": num_samples,
        "seed": seed,
        "device": _name(device),
        **bounds(model, x, y, use.kl_per_dimension.sum(1), num_samples, seed),
        "latent": use.numbers(examples.labels, examples.classes, seed),
        **drawn(data, model, examples, split, seed, num_masks),
        "data": data.record,
    }
    if baseline:
        results["references"] |= baseline.beside(results["references"])
    pictures = dict(gallery.drawn(subject, PICTURED))
    check_unchanged()
    for name, picture in pictures.items():
        write_atomically(run.pictures(split) / f"{name}.png", picture)
    write_atomically(run.evaluation(split), json.dumps(results, indent=2).encode())
    return results


def _parser() -> argparse.ArgumentParser:
    parser = arguments_over_runs("cvae.evaluate", __doc__)
    with_split(parser)
    parser.add_argument(
        "--num-samples",
        type=int,
        default=1000,
        metavar="K",
        help="z for each image in −log p(y|x), a multiple of 10 (default 1000)",
    )
    parser.add_argument(
        "--masks",
        type=int,
        default=NUM_MASKS,
        metavar="N",
        help="of data with several references: masks drawn of each image, 2 or more (default "
        f"{NUM_MASKS}, as Kohl et al. 2018 have)",
    )
    parser.add_argument(
        "--baseline",
        metavar="FOLDER",
        help="of data with several references: an evaluated run of model=deterministic on the same "
        "data, what one gets without z, to stand beside each number and to say how much of its gap "
        "to the oracle in GED² is closed; one of the FOLDERs is evaluated first",
    )
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:1")
    return parser


def main() -> None:
    """Read the command line."""
    arguments = read(_parser())
    device = _device(arguments.device)
    check_num_samples(arguments.num_samples)
    check_num_masks(arguments.masks)
    runs = find_all(arguments.folders)
    measured = (arguments.split, arguments.data_root, arguments.masks)

    def evaluated(run: Run, baseline: Baseline | None = None) -> str:
        results = evaluate(run, arguments.num_samples, arguments.seed, device, *measured, baseline)
        return f"{run.config['name']}: {table(results)}"

    beside: Baseline | None = None
    if arguments.baseline:
        without_z = find(arguments.baseline)
        check_baseline(without_z)
        others = [run for run in runs if not run.folder.samefile(without_z.folder)]
        if others != runs:
            show(without_z, "evaluating", evaluated)
        runs, beside = others, read_baseline(without_z, arguments.split)
    for_each_run(runs, "evaluating", partial(evaluated, baseline=beside))


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def _device(name: str) -> torch.device:
    """The device, if this machine has it.

    Raises:
        UserError: it has not.
    """
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("neither cpu nor cuda")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name}: {reason}: cpu always works") from error
    return device


if __name__ == "__main__":
    run_command(main)
