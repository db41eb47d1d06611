"""The data that a finished run was trained on, read again."""

from cvae.build import build
from cvae.checkpoint import read_checkpoint
from cvae.data.base import InMemory
from cvae.data.examples import Examples
from cvae.errors import UserError
from cvae.run import Run


def data_of(run: Run, root: str | None = None) -> InMemory:
    """A run's data, read.

    Args:
        run: trained.
        root: where the files are now, if not where the run had them.

    Raises:
        UserError: a file has been altered since the run was trained, or which data these were is
            not in its checkpoint.
    """
    config = run.config["data"]
    data: InMemory = build(config if root is None else {**config, "root": root}, "data")
    data.prepare_data()
    data.setup()
    path = run.checkpoint(run.weights)
    record = read_checkpoint(path).get(type(data).__qualname__)
    if not isinstance(record, dict) or not _tells_the_data(record.get("hashes")):
        raise UserError(f"{path} does not say which data it was trained on")
    data.load_state_dict({**record, "given": 0})  # its place in training does not matter here
    return data


def _tells_the_data(hashes: object) -> bool:
    named = isinstance(hashes, dict) and all(isinstance(name, str) for name in hashes)
    return named and bool(hashes)


def split_of(run: Run, split: str, root: str | None = None) -> tuple[InMemory, Examples]:
    """A run's data, and the examples of its test or val.

    Args:
        run: trained.
        split: test or val.
        root: where the files are now, if not where the run had them.

    Raises:
        UserError: a file has been altered since the run was trained, or it had no such split.
    """
    data = data_of(run, root)
    if split == "val" and not data.has_validation:
        raise UserError(f"{run.folder} has no validation data: there is no --split val")
    return data, data.examples(split)
