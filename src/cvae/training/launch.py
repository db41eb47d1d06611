"""Start a run's training in this process, or in a child for each of several.

Lightning would start further processes by running the command line again, Hydra's sweep and all.
Here the parent has the config and the folder, and torchrun starts a worker a process on these.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from cvae.allowed import packages
from cvae.build import build
from cvae.data.base import InMemory
from cvae.errors import Interrupted, UserError
from cvae.run import Run
from cvae.run_folder import resume_command
from cvae.training.beside import THREADS
from cvae.training.checks import check_trainer
from cvae.training.fit import fit, quieten
from cvae.training.signals import wait_for
from cvae.training.slurm import requeue

# What an outer launcher may have left behind, and a child's own launcher sets.
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch(run: Run) -> dict[str, Any]:
    """Train a run in as many processes as its trainer asks for.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: the config cannot be used, or a process failed.
    """
    try:
        return _launch(run)
    except Interrupted as interruption:
        if interruption.signum == signal.SIGUSR1 and is_first_process():
            requeue()
        hint = "nothing to go on from yet"
        if run.checkpoint("last").is_file():
            hint = f"{resume_command(run.folder)} goes on from the last checkpoint"
        raise Interrupted(interruption.signum, hint) from interruption


def _launch(run: Run) -> dict[str, Any]:
    quieten()
    check_trainer(run.config)
    if is_one_of_several():
        return fit(run)
    # Lightning itself says how many devices its many ways of asking for them come to.
    trainer = build(run.config["trainer"], "trainer", logger=False, enable_checkpointing=False)
    if trainer.num_nodes > 1:
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: start the command on each machine, "
            "with torchrun or srun"
        )
    if trainer.num_devices == 1:
        return fit(run)
    _train_in_children(run, trainer.num_devices)
    results: dict[str, Any] = json.loads(run.metrics.read_text())
    return results


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that torchrun or srun may have started."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    return int(rank) == 0


def is_one_of_several() -> bool:
    """Whether torchrun or srun started this process as one of several."""
    in_slurm = SLURMEnvironment.detect() and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return in_slurm or TorchElasticEnvironment.detect()


def _train_in_children(run: Run, processes: int) -> None:
    run.build_model()  # a mistake is told once here, not by each process
    data: InMemory = run.part(InMemory, "data")
    data.prepare_data()
    data.setup()
    data.check_division(processes)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith("SLURM_")
    }
    threads = max(1, torch.get_num_threads() // processes)
    environment |= dict.fromkeys(THREADS, str(threads))
    run.failure.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cvae.training.agent", str(processes), str(run.folder)]
    config = json.dumps(run.config)  # which may differ from the folder's, in a progress bar
    with subprocess.Popen(
        [*command, config, *packages()],
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as agent:
        status = wait_for(
            agent
        )  # torchrun passes a signal on; the workers write a checkpoint and end
    if status:
        raise UserError(_take(run.failure) or f"training ended with status {status}")


def _take(note: Path) -> str:
    """A note's text; the note is gone then."""
    text = note.read_text() if note.is_file() else ""
    note.unlink(missing_ok=True)
    return text
