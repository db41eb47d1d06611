"""`python -m cvae.train`: compose a config with Hydra, train it, test it, leave a run's folder."""

import logging
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cvae.errors import UserError
from cvae.run import Run
from cvae.training.launch import is_first_process, launch

log = logging.getLogger(__name__)
_PACKAGED = Path(__file__).parent / "conf"  # in an installed wheel
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"
failures: list[str] = []


def train(config: DictConfig, folder: Path) -> float | None:
    """Train a composed config in a folder.

    Returns:
        The best validation metric that the objective looks at, in nats; None without validation.

    Raises:
        UserError: the config or the data cannot be used.
    """
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    run = Run(folder, {str(key): value for key, value in plain.items()})
    first = is_first_process()
    if first:
        run.claim()
    try:
        results: dict[str, Any] = launch(run)
    finally:
        if first:
            run.release()
    best: float | None = results["best"]
    return best


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(config: DictConfig) -> float | None:
    """Hydra's entry; in a sweep a job that fails is noted and does not stop the others."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        return train(config, folder)
    except UserError as error:
        if hydra_config.mode is RunMode.RUN:
            raise CompactHydraException(f"error: {error}") from error
        log.error("job %s failed: %s", hydra_config.job.num, error)
    except Exception:
        if hydra_config.mode is RunMode.RUN:
            raise
        log.exception("job %s failed", hydra_config.job.num)
    failures.append(str(folder))
    return None


if __name__ == "__main__":
    main()
    if failures:
        jobs = "job" if len(failures) == 1 else "jobs"
        sys.exit(f"{len(failures)} {jobs} of the sweep failed: {', '.join(failures)}")
