"""One of several processes that train a run: `torchrun … -m cvae.training.worker FOLDER`."""

import logging
import os
import sys

from cvae.errors import UserError
from cvae.run import Run
from cvae.training.fit import fit


def main() -> None:
    """Train the run in the folder; only the first process speaks."""
    run = Run(sys.argv[1])
    if os.environ["RANK"] == "0":
        logging.basicConfig(
            level=logging.INFO,
            format="[%(asctime)s][%(name)s][%(levelname)s] - %(message)s",
            handlers=[
                logging.StreamHandler(sys.stdout),
                logging.FileHandler(run.folder / "train.log"),
            ],
        )
    try:
        fit(run)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
