"""`python -m cvae.visualize FOLDER…`: what finished runs draw, and where their z are.

Written into the run's folder `pictures/` and, for TensorBoard, below `tensorboard/pictures/` (the
same, and the projector with 2,000 posterior means, each as its image), over those of before:

  conditions                    samples: a condition a column, one noise a row
  posterior_and_prior           images beside what is made of z read from them, and from x alone
  traversals                    the dimensions of z that say most, moved through their prior
  interpolation_within_class    from one image to another, x kept
  interpolation_across_classes  from one image to another of another class, x mixed along
  interpolation_of_conditions   from one condition to the next with the same noise
  manifold                      if z has two dimensions: all of it
  posterior_means               a point an image, over the prior's contours
  styles                        if several annotators drew y: where z of the prior draws like whom
  kl, aggregate                 how much each dimension says, and its posterior against its prior

`latents.npz` holds, for further analysis, an array a name: posterior_mean, posterior_scale,
prior_mean and prior_scale, (N, d) each, of q(z|x,y) and p(z|x), kl_per_dimension, (N, d), and
label, (N,), the class (the digit; the annotator who drew y), in the order of the data's files. With
prior=mixture prior_mean and prior_scale are (N, M, d), beside prior_log_weight, (N, M). With
--split val all of it is of the validation images: pictures_val/ and so on.
"""

import logging
from collections.abc import Mapping

from tqdm import tqdm

from cvae.command import run_command
from cvae.evaluation.data import split_of
from cvae.files import npz, write_atomically
from cvae.finished import arguments_over_runs, for_each_run, read, with_split
from cvae.pictures.board import show
from cvae.pictures.gallery import PICTURES, drawn, left_out
from cvae.pictures.subject import Subject
from cvae.run import Run
from cvae.runs import find_all

log = logging.getLogger(__name__)


def visualize(run: Run, seed: int, split: str = "test", root: str | None = None) -> list[str]:
    """Write pictures of a run's model into its folder, and the latents that they are of.

    Args:
        run: trained.
        seed: of the noise, and of which examples are shown.
        split: test, or val.
        root: where the data's files are now, if not where the run had them.

    Returns:
        The names of what was written, in the run's folder.

    Raises:
        UserError: the folder holds no trained model, or another one when all is drawn, the data
            are not those of its training, or there is no such split.
    """
    check_unchanged = run.unchanged()
    model = run.load_model()
    data, examples = split_of(run, split, root)
    subject = Subject(model, data.view, examples, seed)
    missing = left_out(subject)
    if told := _told(missing):
        log.info("left out: %s", told)
    total = len(PICTURES) - len(missing)
    pictures = dict(tqdm(drawn(subject), total=total, desc="pictures", unit="picture"))
    files = {run.pictures(split) / f"{name}.png": content for name, content in pictures.items()}
    if model.latent_dim:
        arrays = {"label": examples.labels, **subject.latents.arrays()}
        files[run.latents(split)] = npz(arrays)
    check_unchanged()
    for path, content in files.items():
        write_atomically(path, content)
    show(run.board(split), pictures, subject)
    return [str(path.relative_to(run.folder)) for path in files]


def _told(missing: Mapping[str, str]) -> str:
    """Names with one reason together, of those that have one."""
    names: dict[str, list[str]] = {}
    for name, reason in missing.items():
        names.setdefault(reason, []).append(name)
    given = ((reason, those) for reason, those in names.items() if reason)
    return "; ".join(f"{', '.join(those)} ({reason})" for reason, those in given)


def main() -> None:
    """Read the command line."""
    parser = arguments_over_runs("cvae.visualize", __doc__)
    with_split(parser)
    arguments = read(parser)

    def visualized(run: Run) -> str:
        names = visualize(run, arguments.seed, arguments.split, arguments.data_root)
        return f"{run.config['name']}: {', '.join(names)}"

    for_each_run(find_all(arguments.folders), "visualizing", visualized)


if __name__ == "__main__":
    run_command(main)
