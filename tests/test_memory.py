"""Freed memory is kept: what is allocated again causes no page faults."""

import ctypes
import subprocess
import sys

import pytest

from cvae import memory

GLIBC = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
# 40 MiB is more than glibc ever learns to keep by itself
COUNT = """
import resource
import runpy
import sys

import torch

keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]


def use(times, growth):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for time in range(times):
        torch.empty(10 * 2**20 + growth * time).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def page_faults():
    use(40, 0)  # until the heap has room for it whatever small things lie between
    use(5, 2**14)
    # the same size fits a hole that is there; one that grows needs the heap's end, untrimmed
    return use(10, 0), use(10, 2**14)


without = page_faults()
keep_freed_memory()
print(*without, *page_faults())
"""


@pytest.mark.skipif(not GLIBC, reason="mallopt is glibc's")
def test_memory_that_is_used_again_causes_no_page_faults() -> None:
    command = [
        sys.executable,
        "-c",
        COUNT,
        memory.__file__,
    ]  # by path: without the package's imports
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    without, growing_without, kept, growing = (int(number) for number in output.split())
    # 40 MiB are 20 huge pages or 10240 small ones, ten times; kept, they are there already
    assert min(without, growing_without) >= 10 * 20
    assert kept < without / 20
    assert growing < growing_without / 20


ESTIMATE = """
import resource

import torch

from cvae.densities import BernoulliHead
from cvae.evaluation.evidence import estimate, from_posterior
from cvae.memory import keep_freed_memory
from cvae.models import fixed_prior, vae
from cvae.networks import MLP


def peak(examples):
    estimate(from_posterior, model, y[:examples, :0], y[:examples], num_samples=500)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


torch.set_num_threads(2)
keep_freed_memory()
y = torch.zeros(6000, 784)
model = vae((0,), (784,), MLP([8], "tanh"), fixed_prior, BernoulliHead(), 50)
print(peak(1000), peak(6000))
"""


@pytest.mark.slow
@pytest.mark.skipif(not GLIBC, reason="mallopt is glibc's, and elsewhere the unit is another")
def test_an_estimate_takes_as_much_memory_for_many_examples_as_for_few() -> None:
    """The results of a chunk must not take the place of the next one's logits, which are 8 MB."""
    command = [sys.executable, "-c", ESTIMATE]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    few, many = (int(number) for number in output.split())  # KiB
    # 10 MiB were seen, and 430 when each of the 1000 further chunks left its results there
    assert many - few < 150 * 1024


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    def refuse(name: str | None) -> None:
        raise AssertionError("a library was opened")

    monkeypatch.setattr(memory.sys, "platform", platform)
    monkeypatch.setattr(memory.ctypes, "CDLL", refuse)
    memory.keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())  # has no mallopt
    memory.keep_freed_memory()
