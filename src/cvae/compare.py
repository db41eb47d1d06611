"""`python -m cvae.compare FOLDER …`: a table of runs, averaged over seeds, and their curves."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cvae.command import run_command
from cvae.comparison.curves import draw
from cvae.comparison.groups import Comparison
from cvae.comparison.rows import read_row
from cvae.comparison.sizes import draw_sizes, swept_key
from cvae.comparison.table import as_csv, averages, table, title
from cvae.comparison.table import runs as table_of_runs
from cvae.errors import UserError
from cvae.files import write_atomically
from cvae.finished import read
from cvae.jobs import failures, is_refused
from cvae.runs import OUTPUTS, find_all

PICTURE = "comparison.png"
SIZES = "sizes.png"


def compare(names: Sequence[str], keys: Sequence[str], out: Path) -> str:
    """Compare runs and write the comparison as Markdown, CSV and PNG.

    Where the runs differ in a number, such as the latent size, a picture shows the results
    against it.

    Args:
        names: of runs' folders, or of folders with runs below them.
        keys: of the config, to group the runs by; if none are given, all that differ.
        out: the folder to write into.

    Returns:
        The table in plain text, with its notes and where it was written.

    Raises:
        UserError: a name stands for no run, a key for nothing in their configs, a file of a run is
            malformed, or the folder cannot be written.
    """
    failed = failures(names)
    resolved = {folder.resolve() for folder in failed}
    found = find_all([name for name in names if not is_refused(name)])
    if not (found or failed):
        raise UserError(f"{', '.join(names)}: no job of the sweep began")
    runs = [run for run in found if run.folder.resolve() not in resolved]
    comparison = Comparison([read_row(run) for run in runs], keys, failed)
    key = swept_key(comparison)
    drawn = {
        (SIZES, f"results against {key}"): draw_sizes(comparison, key) if key else None,
        (PICTURE, "learning curves"): draw(comparison),
    }
    pictures = {place: content for place, content in drawn.items() if content}
    links = [f"![{shown}]({name})" for name, shown in pictures]
    contents = {
        "averages.csv": averages(comparison).encode(),
        "comparison.csv": as_csv(comparison).encode(),
        "comparison.md": _markdown(comparison, links).encode(),
        **{name: content for (name, _), content in pictures.items()},
    }
    stale = [name for name, _ in drawn.keys() - pictures.keys() if _shown_before(out, name)]
    for name in stale:
        (out / name).unlink(missing_ok=True)
    for name, content in contents.items():
        write_atomically(out / name, content)
    written = [f"written: {out / name}" for name in reversed(contents)]
    plain = [title(comparison), "", table(comparison, "simple"), "", *comparison.notes(), *written]
    return "\n".join(plain)


def _shown_before(out: Path, picture: str) -> bool:
    """Whether a comparison that was written there has such a picture."""
    page = out / "comparison.md"
    return page.is_file() and f"]({picture})" in page.read_text(errors="replace")


def _markdown(comparison: Comparison, pictures: Sequence[str]) -> str:
    heading = title(comparison)
    parts = [
        "# Comparison",
        f"{heading[0].upper()}{heading[1:]}.",
        table(comparison, "github"),
        "\n".join(f"- {note}" for note in comparison.notes()),
        *pictures,
        "## Runs",
        table_of_runs(comparison, "github"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _default_out(names: Sequence[str]) -> Path:
    """The folder that holds the runs, if one was named, or else a new one."""
    if len(names) == 1 and names[0] != "latest" and not Path(names[0], "config.yaml").is_file():
        return Path(names[0])
    return OUTPUTS / "comparisons" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m cvae.compare", description=__doc__)
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="a run's folder, a folder with runs below it such as a sweep's, or latest",
    )
    parser.add_argument(
        "--group-by",
        default="",
        metavar="KEY,KEY",
        help="keys or groups of the config, for example model,optimizer.lr; "
        "all that differ but for seeds, if not given",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for comparison.md, .csv and .png; if not given, the folder with the runs, "
        "or a new one below outputs/comparisons",
    )
    arguments = read(parser)
    keys = [key.strip() for key in arguments.group_by.split(",") if key.strip()]
    out = arguments.out or _default_out(arguments.folders)
    print(compare(arguments.folders, keys, out))


if __name__ == "__main__":
    run_command(main)
