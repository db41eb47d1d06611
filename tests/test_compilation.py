"""`compile=true` changes the time of a step and nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from folders import results
from warm import Command

Begin = Callable[..., Command]


@pytest.mark.slow
def test_a_compiled_run_is_the_run_that_is_not(begin: Begin, tmp_path: Path) -> None:
    warm_up = "objective.warmup_epochs=2"  # β changes at every step
    found = []
    for word in ("false", "true"):
        command = begin(tmp_path / word, f"compile={word}", warm_up).wait()
        assert command.status == 0, command.output
        found.append(results(tmp_path / word))
    for name in ("test/elbo", "test/reconstruction", "test/kl", "val/elbo"):
        # sixty steps of float32 sums in another order
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-4), name


def test_without_a_compiler_it_says_why_not(begin: Begin, tmp_path: Path) -> None:
    no_compiler = """
import torch._inductor.config
torch._inductor.config.cpp.cxx = (None, "/nonexistent/g++")
"""
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}  # an empty one
    command = begin(tmp_path, "compile=true", before=no_compiler, **cache).wait()
    assert command.status == 1
    line = command.error
    assert "compile=true does not work here" in line
    assert "No working C++ compiler" in line
    assert "leave it out" in line
