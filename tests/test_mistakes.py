"""Wrong command lines, each with the words of the one line that answers it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import TINY
from warm import Command, Warm

Resume = Callable[..., Command]
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
AS_A_USER = """
import ctypes
version_3, no_capabilities = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(version_3, no_capabilities) == 0
"""  # what root may do more than others, such as read any file
# In braces: an empty folder, a file, data cut short, a run that is finished, one only begun.

NAMES = [
    ("model=unknown", "model=unknown: 'unknown' is not one of cvae_fixed_prior, cvae_learned"),
    ("model=vea", "model=vea: 'vea' is not one of cvae_fixed_prior, cvae_learned_prior, det"),
    ("model=", "model=: '' is not one of cvae_fixed_prior, cvae_learned_prior, det"),
    ("model=null", "model=null"),
    ("network=cnn", "network=cnn: 'cnn' is not one of conv, mlp, unet"),
    (
        "likelihood=foo",
        "likelihood=foo: 'foo' is not one of bernoulli, continuous_bernoulli, gauss",
    ),
    ("optimizer=sgd", "optimizer=sgd: 'sgd' is not one of adam"),
    ("trainer=tpu", "trainer=tpu: 'tpu' is not one of cpu, ddp_cpu, gpu, multi_gpu, multi_node"),
    ("callbacks=foo", "callbacks=foo: 'foo' is not one of default, early_stopping, start_at_mean"),
    ("callbacks=null", "callbacks=null"),
    (
        "experiment=foo",
        "experiment=foo: 'foo' is not one of annotators, blog_cvae, blog_vae, iwae_paper, iwae_",
    ),
    ("data=quadrants data.observed=4", "data.view.observed=4: Input should be 1, 2 or 3"),
    ("data=quadrants network=conv", "network=conv draws images, and here y is a vector"),
    (
        "network=unet",
        "network=unet draws y from an image x of its height and width, and here",
    ),
    ("model=probabilistic_unet", "use network=mlp or network=conv, or data=annotators"),
    ("data=quadrants network=unet", "network=unet draws y from an image x of its height and width"),
    ("data=quadrants network=unet model=deterministic", "network=unet draws images, and here y is"),
    ("model=deterministic prior=learned", "model=deterministic has no z"),
    ("model.guess=3", "model.guess=3: Input should be a valid boolean, or a valid string"),
    ("model.guess=nowhere", "nowhere is not a run's folder: it has no config.yaml"),
    ("model.guess=latest", "latest is not a run's folder: it has no config.yaml"),
    ("objective=hybrid objective.alpha=2", "objective.alpha=2: Input should be less than or"),
    ("hydra/launcher=foo", "hydra/launcher=foo: 'foo' is not one of basic"),
    ("modle=vae", "did you mean model?"),
    ("+modle=3", "did you mean model?"),
    ("unknown=1", "unknown: 'unknown' is not one of allow, callbacks, checkpoint"),
    ("+unknown=1", "unknown: 'unknown' is not one of callbacks, checkpoint, "),
    (
        "model.latnt_dim=3",
        "model.latnt_dim: 'latnt_dim' is not one of guess, latent_dim; did you mean lat",
    ),
    ("model.latent_dim.x=3", "model.latent_dim.x: 'x' does not exist"),
    ("+data.view.digits=3", "data.view.digits: 'digits' does not exist"),
    ("+optimizer.momentum=0.9", "optimizer.momentum: 'momentum' is not one of amsgrad, betas, eps"),
    ("trainer.max_epoch=3", "did you mean max_epochs?"),
    ("+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches: 'accumulate_grad_"),
    (
        "+trainer.fast_dev_run=true",
        "trainer.fast_dev_run: 'fast_dev_run' is not one of accelerator",
    ),
    ("+logger.sub_dir=a", "logger.sub_dir: 'sub_dir' is not one of default_hp_metric"),
    ("hydra.foo=1", "hydra.foo: 'foo' is not one of callbacks"),
    ("+callbacks.foo=1", "callbacks.foo=1: Input should be a valid dictionary"),
    ("+callbacks.foo.a=1", "callbacks.foo={'a': 1}: its _target_ is missing"),
    ("callbacks.pictures=null", "callbacks.pictures=null: Input should be a valid dictionary"),
    ("~model._target_", "model={'latent_dim': 64, 'guess': False}: its _target_ is missing"),
    ("~seed", "'seed' not found"),
    ("~callbacks", "the config has no callbacks"),
    ("+model=vae", "Multiple values for model"),
    ("+seed=3", "An item is already at 'seed'"),
]
SYNTAX = [
    ("model", "model: not KEY=VALUE"),
    ("=3", "=3"),
    ("model.latent_dim=[1", "model.latent_dim=[1: not KEY=VALUE, or a value that needs quotes"),
    ("model.latent_dim=1,2", "To sweep over it, add --multirun"),
    ("model.latent_dim=${foo}", "model.latent_dim: Interpolation key 'foo' not found"),
]
VALUES = [
    ("model.latent_dim=", "model.latent_dim=: Input should be a valid integer"),
    ("model.latent_dim=abc", "model.latent_dim=abc: Input should be a valid integer"),
    ("model.latent_dim=0", "model.latent_dim=0: Input should be greater than 0"),
    ("model.latent_dim=1.5", "model.latent_dim=1.5: Input should be a valid integer"),
    ("model.latent_dim=1e99", "model.latent_dim=1e+99: Input should be a valid integer"),
    ("model.latent_dim=99999999999", "model: "),  # more memory than there is
    ("network.hidden=[]", "network.hidden=[]: List should have at least 1 item"),
    ("network.hidden=[8,-4]", "network.hidden=[8, -4]: Input should be greater than 0"),
    ("network.activation=foo", "network.activation=foo: Input should be 'relu', 'silu', 'gelu' or"),
    ("optimizer.lr=fast", "optimizer.lr=fast: Input should be a valid number"),
    ("optimizer.lr=-1", "optimizer.lr=-1: Input should be greater than or equal to 0"),
    ("optimizer.lr=nan", "optimizer.lr=nan: Input should be a finite number"),
    ("optimizer.lr=inf", "optimizer.lr=inf: Input should be a finite number"),
    ("+optimizer.betas=[0.9]", "optimizer.betas=[0.9]: List should have at least 2 items"),
    ("objective.beta=-1", "objective.beta=-1: Input should be greater than or equal to 0"),
    ("schedule=cosine schedule.warmup=2", "schedule.warmup=2: Input should be less than 1"),
    ("checkpoint.every_minutes=0", "checkpoint.every_minutes=0: Input should be greater than 0"),
    ("callbacks.pictures.every_epochs=0", "callbacks.pictures.every_epochs=0: Input should be gr"),
    ("seed=-1", "seed=-1: Input should be greater than or equal to 0"),
    ("seed=abc", "seed=abc: Input should be a valid integer"),
    ("seed=5000000000", "seed=5000000000: Input should be less than 4294967296"),
    ("name=", "name=: a word, or words with / between"),
    ("name=../../x", "name=../../x: a word, or words with / between"),
    ("name='a\nb'", "name=a b: a word, or words with / between"),
]
DATA = [
    ("data.root=/nowhere", "/nowhere has no train-images-idx3-ubyte or train-images-idx3-ubyte.gz"),
    ("data.root=", "data.root="),
    ("data.root={file}", "{file} has no train-images-idx3-ubyte"),
    ("data.root={cut}", "{cut}/train-images-idx3-ubyte: not an IDX file"),
    ("data.root=7", "data.root=7: Input should be a valid string"),
    ("data.batch_size=-1", "data.batch_size=-1: Input should be greater than 0"),
    ("data.batch_size=50001", "data.batch_size=50001 is more than 50000 examples"),
    ("data.split=foo", "data.split=foo: Input should be 'standard' or 'full'"),
    ("data.binarize=sometimes", "data.binarize=sometimes: Input should be 'dynamic', 'static', "),
    ("data=annotators data.binarize=static", "data.binarize: 'binarize' is not one of annotators"),
    ("data=references data.binarize=none", "data.binarize: 'binarize' is not one of batch_size"),
    ("data.view=null", "data.view=null: Input should be an instance of View"),
]
TRAINER = [
    (
        "trainer.devices=0",
        "trainer.devices=0: Input should be -1 or 'auto', or a valid list, or gr",
    ),
    (
        "trainer.devices=abc",
        "trainer.devices=abc: Input should be -1 or 'auto', or a valid integer",
    ),
    ("trainer.num_nodes=0", "trainer.num_nodes=0: Input should be greater than 0"),
    (
        "trainer.num_nodes=2",
        "trainer.num_nodes=2: start the command on each machine, with torchrun",
    ),
    ("trainer.accelerator=foo", "trainer.accelerator=foo: Input should be 'auto', 'cpu', 'gpu'"),
    ("trainer=gpu", "trainer.accelerator=gpu: no GPU"),
    ("trainer.strategy=foo", "trainer.strategy=foo: Input should be 'auto', 'ddp' or"),
    (
        "trainer.precision=bf16-true",
        "trainer.precision=bf16-true: Input should be '32-true', 'bf16",
    ),
    ("trainer.max_epochs=-5", "trainer.max_epochs=-5: Input should be -1, or greater than or equ"),
    ("trainer.max_epochs=0", "nothing was trained: give trainer.max_epochs"),
    ("trainer.max_epochs=-1", "give trainer.max_epochs or max_steps"),
    ("trainer.max_epochs=null", "trainer.max_epochs=null: Input should be -1, or a valid integer"),
    ("trainer.max_steps=0", "trainer.max_steps=0: Input should be -1, or greater than 0"),
    ("trainer.max_time=foo", "trainer.max_time=foo: DD:HH:MM:SS is expected"),
    ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch=0: Input should be gr"),
    (
        "trainer.val_check_interval=7.5",
        "trainer.val_check_interval=7.5: Input should be a valid in",
    ),
    ("~trainer.max_epochs", "the config has no trainer.max_epochs"),
    ("trainer.val_check_interval=1000", "trainer.val_check_interval=1000 is more than the 20 bat"),
    ("trainer.limit_train_batches=2.5", "trainer.limit_train_batches=2.5: Input should be a valid"),
    ("trainer.limit_val_batches=-1", "trainer.limit_val_batches=-1: Input should be 0, or greater"),
    ("trainer.limit_test_batches=0", "trainer.limit_test_batches=0: Input should be greater than"),
    ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1: Input should be greater than"),
    ("trainer.gradient_clip_algorithm=foo", "trainer.gradient_clip_algorithm=foo: Input should be"),
    (
        "trainer.deterministic=maybe",
        "trainer.deterministic=maybe: Input should be 'warn', or a val",
    ),
]
CONTRADICTIONS = [
    ("model=vae prior=learned", "or model=cvae_learned_prior"),
    ("model=gsnn prior=mixture", "model=gsnn learns through z of its prior"),
    ("prior=mixture objective.free_bits=0.1", "kl_balance are for a KL in closed form"),
    ("objective=iwae objective.num_backward=8", "has to be below objective.num_samples=8"),
    ("prior=fixed objective.kl_balance=0.8", "objective.kl_balance is for a prior that learns"),
    ("prior=mixture objective=hybrid", "objective=hybrid learns through z of its prior"),
    ("network=conv network.channels=[8,8,8]", "give fewer channels"),
    ("likelihood=gaussian likelihood.min_scale=2", "min_scale=2 has to be below max_scale=1.0"),
    ("trainer=ddp_cpu data.batch_size=65", "choose a multiple of 2"),
    ("trainer=multi_node trainer.accelerator=cpu trainer.devices=1", "with torchrun or srun"),
    ("trainer.precision=16-mixed", "is for GPUs: give trainer.precision=bf16-mixed"),
    (
        "trainer.gradient_clip_val=50 trainer.precision=bf16-mixed",
        "trainer.gradient_clip_val with trainer.precision=bf16-mixed needs a run with",
    ),
    (
        "objective=iwae objective.num_samples=10000000000",
        "not enough memory: train with a smaller data.batch_size, network or num_samples",
    ),
    ("trainer.max_epochs=-1 trainer.max_time=00:00:01:00", "give trainer.max_epochs or"),
    ("callbacks=early_stopping data.split=full", "needs validation data"),
]
PLACES = [
    ("hydra.run.dir=", "hydra.run.dir=: the name of a folder is missing"),
    ("hydra.run.dir={file}/run", "{file}/run: Not a directory"),
    ("hydra.run.dir=/proc/run", "/proc/run: "),
    ("hydra.run.dir={finished}", "holds a run: choose another hydra.run.dir, or go on with"),
    ("model._target_=os.system", "model._target_=os.system is not on the list"),
    ("model._target_=cvae.networks.MLP", "model.latent_dim: 'latent_dim' is not one of activation"),
    ("allow=no_such_package", "allow=no_such_package: ModuleNotFoundError"),
    ("allow=7", "allow=7: the name of one package is expected"),
    ("allow=[os,sys]", "allow=['os', 'sys']: the name of one package is expected"),
]
RESUMPTIONS = [
    ("{empty}/missing", "is not a run's folder: it has no config.yaml"),
    ("{empty}", "is not a run's folder: it has no config.yaml"),
    ("{file}", "is not a run's folder: it has no config.yaml"),
    ("latest", "no run with a checkpoint below"),
    ("{begun}", "nothing to go on from, start the run again"),
    ("{finished}", "is finished: trainer.max_epochs=NUMBER trains it for longer"),
    ("{finished} model.latent_dim=3", "model.latent_dim=3: a run goes on with its own config"),
    ("{finished} trainer", "trainer: a run goes on with its own config"),
    ("{finished} trainer.max_epoch=9", "trainer.max_epoch: 'max_epoch' is not one of"),
    ("{finished} trainer.max_epochs=abc", "trainer.max_epochs=abc: Input should be -1, or a valid"),
    ("{finished} trainer.max_epochs=4,5", "trainer.max_epochs=4,5: one value is expected"),
    ("{finished} trainer.max_epochs=[1", "trainer.max_epochs=[1: not KEY=VALUE, or a value"),
    ("{finished} trainer.max_epochs=", "trainer.max_epochs=: Input should be -1, or a valid"),
    ("{finished} trainer._target_=os.system", "trainer._target_=os.system: a run goes on with its"),
    ("{finished} trainer.max_epochs=9 trainer.devices=[0", "trainer.devices=[0: not KEY=VALUE, or"),
    ("{finished} trainer.accelerator=gpu", "trainer.accelerator=gpu: no GPU"),
    ("{finished} --allow no_such_package", "allow=no_such_package: ModuleNotFoundError"),
]
USAGE = [
    ("cvae.train --foo", "unrecognized arguments: --foo"),
    ("cvae.train --cfg foo", "invalid choice: 'foo' (choose from"),
    ("cvae.resume", "the following arguments are required: folder"),
    ("cvae.resume {finished} --allow", "argument --allow: expected one argument"),
    ("cvae.resume {finished} --foo", "unrecognized arguments: --foo"),
]


@pytest.fixture(scope="module")
def places(
    reference: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """What the cases name in braces."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name in ("empty", "cut", "begun"):
        (folder / name).mkdir()
    (folder / "file").write_text("text")
    (folder / "cut" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    shutil.copytree(reference(), folder / "finished")
    shutil.copy(folder / "finished" / "config.yaml", folder / "begun")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("words", "line"), NAMES + SYNTAX + VALUES + DATA + TRAINER + CONTRADICTIONS + PLACES
)
def test_a_mistake_ends_with_a_line_that_says_what_to_change(
    warm: Warm, mnist_root: str, places: dict[str, Path], tmp_path: Path, words: str, line: str
) -> None:
    given = fill(words, places).split(" ")
    keys = {word.partition("=")[0].lstrip("+") for word in given}
    usual = [*TINY, f"data.root={mnist_root}"]
    # a key given twice has a line of its own
    arguments = [*(word for word in usual if word.partition("=")[0] not in keys), *given]
    if "hydra.run.dir" not in words:
        arguments.append(f"hydra.run.dir={tmp_path}")
    before = contents(places["finished"])
    command = warm.start("cvae.train", *arguments, cwd=tmp_path, **NO_GPU).wait()
    assert command.status == 1, command.output
    assert_one_line(command.output, fill(line, places))
    assert not (tmp_path / "metrics.json").exists()
    assert contents(places["finished"]) == before


def test_processes_started_from_outside_need_one_folder(warm: Warm, tmp_path: Path) -> None:
    command = warm.start("cvae.train", *TINY, cwd=tmp_path, TORCHELASTIC_RUN_ID="job").wait()
    assert command.status == 1
    assert_one_line(command.output, "give hydra.run.dir=FOLDER, or trainer=multi_node")


@pytest.mark.parametrize(("words", "line"), RESUMPTIONS)
def test_a_mistaken_resumption_leaves_the_folder_as_it_was(
    resume: Resume, places: dict[str, Path], words: str, line: str
) -> None:
    before = contents(places["finished"])
    folder, *changes = fill(words, places).split(" ")
    command = resume(folder, *changes, cwd=places["empty"], **NO_GPU)
    assert command.status == 1
    assert_one_line(command.output, line)
    assert contents(places["finished"]) == before


@pytest.mark.skipif(sys.platform != "linux", reason="root may read everything")
@pytest.mark.parametrize(
    ("closed", "words", "line"),
    [
        ("run", "cvae.resume {run}", "/run: Permission denied: let this user read it"),
        (
            "run/checkpoints/last.ckpt",
            "cvae.resume {run} trainer.max_epochs=4",
            "/last.ckpt: Permission denied: let this user read it",
        ),
        (
            "data/train-images-idx3-ubyte",
            "cvae.train data.root={data}",
            "could not be read (Permission denied): mend it, or name another folder, in",
        ),
        (
            "data",
            "cvae.train hydra.run.dir={data}/run",
            "/data/run: Permission denied: choose a folder that can be written",
        ),
    ],
)
def test_what_may_not_be_read_or_written_is_told_apart(
    warm: Warm, places: dict[str, Path], tmp_path: Path, closed: str, words: str, line: str
) -> None:
    here = {"run": shutil.copytree(places["finished"], tmp_path / "run"), "data": tmp_path / "data"}
    shutil.copytree(places["cut"], here["data"])
    (tmp_path / closed).chmod(0o500 if closed == "data" else 0)
    command = warm.start(*fill(words, here).split(" "), cwd=tmp_path, before=AS_A_USER).wait()
    (tmp_path / closed).chmod(0o700)  # for pytest, which removes it
    assert command.status == 1, command.output
    assert_one_line(command.output, line)


@pytest.mark.parametrize(("words", "line"), USAGE)
def test_flags_that_do_not_exist_end_with_the_usage(
    warm: Warm, places: dict[str, Path], words: str, line: str
) -> None:
    command = warm.start(*fill(words, places).split(" ")).wait()
    assert command.status == 2
    assert line in command.output.splitlines()[-1]
    assert "Traceback" not in command.output


@pytest.mark.parametrize("module", ["cvae.train", "cvae.resume"])
def test_help_shows_what_can_be_asked_for(warm: Warm, module: str) -> None:
    command = warm.start(module, "--help").wait()
    assert command.status == 0
    assert f"python -m {module}" in command.output
    assert "trainer.max_epochs=" in command.output


def test_the_line_is_on_the_standard_error_and_the_traceback_there_for_the_asking(
    train: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    words = (*TINY, "model.latent_dim=0", f"hydra.run.dir={tmp_path}")
    result = train(*words)
    assert (result.returncode, result.stdout) == (1, "")
    assert_one_line(result.stderr, "model.latent_dim=0: Input should be greater than 0")
    asked = train(*words, HYDRA_FULL_ERROR="1")
    assert asked.returncode == 1
    assert "Traceback" in asked.stderr


def fill(text: str, places: dict[str, Path]) -> str:
    for name, path in places.items():
        text = text.replace(f"{{{name}}}", str(path))
    return text


def contents(folder: Path) -> dict[Path, bytes]:
    """All that a folder holds but its log."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "train.log")
    return {path: path.read_bytes() for path in files}


def assert_one_line(output: str, words: str) -> None:
    told = [line for line in output.splitlines() if "][INFO] " not in line]
    assert len(told) == 1, output
    assert "][ERROR] " in told[0]
    assert words in told[0]


@pytest.mark.parametrize(
    ("word", "extra"),
    [
        ("hydra/launcher=joblib", "joblib"),
        ("hydra/launcher=submitit_slurm", "submitit"),
        ("hydra/sweeper=optuna", "optuna"),
    ],
)
def test_what_is_not_installed_is_named(warm: Warm, tmp_path: Path, word: str, extra: str) -> None:
    without = "import sys; sys.modules['hydra_plugins'] = None"
    command = warm.start("cvae.train", "-m", word, cwd=tmp_path, before=without).wait()
    assert command.status == 1
    assert_one_line(command.output, f"{extra} is not installed: pip install -c constraints.txt -e")
