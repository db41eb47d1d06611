"""Each case in a process of its own, since torch's operators are declared once in a process."""

import subprocess
import sys
from pathlib import Path

import pytest

from cvae import compat

DRIVER = """
import importlib.util, sys

sys.path.insert(0, sys.argv[2])
spec = importlib.util.spec_from_file_location("compat", sys.argv[1])
compat = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compat)
print("declared", compat.import_torchvision())
print("again", compat.import_torchvision())

import torch, torchvision

print("from", torchvision.__file__)
if hasattr(torchvision, "_meta_registrations"):
    boxes = torch.zeros(3, 5, device="meta")
    for operator in (torch.ops.torchvision.nms, torch.ops.torchvision.qnms):
        print("fake", operator(boxes[:, :4], boxes[:, 4], 0.5).dtype)
"""
REGISTRATIONS = """
import torch

@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold):
    return dets.new_empty(len(dets), dtype=torch.long)

@torch.library.register_fake("torchvision::qnms")
def meta_qnms(dets, scores, iou_threshold):
    return meta_nms(dets, scores, iou_threshold)
"""
FAILS_ONCE = """
import sys

if not hasattr(sys, "tried"):
    sys.tried = True
    raise RuntimeError("operator torchvision::roi_align does not exist")
"""


def imported(folder: Path, **files: str) -> subprocess.CompletedProcess[str]:
    """Run the driver beside a torchvision that is made of these files."""
    package = folder / "torchvision"
    package.mkdir()
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-c", DRIVER, str(compat.__file__), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_torchvision_without_its_operators_is_healed(tmp_path: Path) -> None:
    broken = {
        "__init__": "from torchvision import _meta_registrations",
        "_meta_registrations": REGISTRATIONS,
    }
    result = imported(tmp_path, **broken)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "declared True"
    assert lines[1] == "again False"
    assert str(tmp_path) in lines[2]
    assert lines[3:] == ["fake torch.int64"] * 2


def test_a_working_torchvision_is_left_alone(tmp_path: Path) -> None:
    result = imported(tmp_path, __init__="")
    assert result.stderr == ""
    assert result.stdout.splitlines()[:2] == ["declared False", "again False"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (FAILS_ONCE, "RuntimeError"),
        ("import a_module_that_is_missing", "ModuleNotFoundError"),
        ("raise RuntimeError('operator torchvision::nms does not exist')", "RuntimeError"),
    ],
    ids=["another operator", "missing module", "declaring does not help"],
)
def test_any_other_failure_is_raised(tmp_path: Path, source: str, error: str) -> None:
    result = imported(tmp_path, __init__=source)
    assert result.returncode != 0
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith(error)
