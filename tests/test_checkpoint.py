"""Checkpoint files: what may be in them, and what is left of their writing."""

import errno
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from cvae.checkpoint import read_checkpoint, write_checkpoint
from cvae.errors import UserError
from cvae.files import remove_leftovers, write_atomically
from cvae.training.checkpoints import CheckpointFiles

CONTENT: dict[str, Any] = {
    "state_dict": OrderedDict(weight=torch.arange(6.0).view(2, 3)),
    "epoch": 3,
    "loops": {"name": "fit", "parts": [1, 2.5, None, True, (1, 2)]},
}

SPARSE = torch.sparse_coo_tensor(size=(1_000_000, 1_000_000), check_invariants=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "last.ckpt"


def assert_refused(path: Path, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refusal:
        read_checkpoint(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_written_is_read(path: Path) -> None:
    write_checkpoint(CONTENT, path)
    content = read_checkpoint(path)
    assert torch.equal(content["state_dict"].pop("weight"), CONTENT["state_dict"]["weight"])
    assert content == {**CONTENT, "state_dict": {}}


def test_views_and_shared_weights_are_read(path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    state = {
        "weight": weight,
        "tied": weight,
        "row": weight[1],
        "turned": weight.T,
        "one": 3 * weight[0, 1],
    }
    write_checkpoint({"state_dict": state}, path)
    for name, tensor in read_checkpoint(path)["state_dict"].items():
        assert torch.equal(tensor, state[name])


def test_a_missing_file_is_named(path: Path) -> None:
    assert_refused(path, "does not exist")


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(path: Path, kept: float) -> None:
    write_checkpoint(CONTENT, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert_refused(path, "damaged or not a checkpoint")


def test_the_remedy_is_the_other_checkpoint(path: Path) -> None:
    path.write_bytes(b"")
    assert_refused(path, re.escape("): train the run again in another folder"))
    best = path.with_name("best.ckpt")
    write_checkpoint(CONTENT, best)
    assert_refused(path, f"copy {best} over it, or train")


def test_a_copy_of_the_last_checkpoint_is_not_the_best(path: Path) -> None:
    write_checkpoint(CONTENT, path)
    best = path.with_name("best.ckpt")
    best.write_bytes(b"")
    assert_refused(
        best, f"remove it and metrics.json, then python -m cvae.resume {path.parents[1]} ends"
    )


def test_a_file_that_cannot_be_read_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_bytes(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    write_checkpoint(CONTENT, path)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(PermissionError):
        read_checkpoint(path)


def test_a_file_of_the_old_format_is_refused(path: Path) -> None:
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)
    assert_refused(path, "not a zip file")


def test_a_file_that_unpacks_to_more_is_refused(path: Path) -> None:
    write_checkpoint({"state_dict": {"weight": torch.zeros(1_000_000)}}, path)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert path.stat().st_size < 100_000
    assert_refused(path, "unpacks to more than its own size")


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        pytest.param(torch.zeros(1).expand(10**12), r"\(10{12},\) without its data", id="stride 0"),
        pytest.param(torch.empty(10**12, device="meta"), r"\(10{12},\) that is not", id="meta"),
        pytest.param(SPARSE, r"\(10{6}, 10{6}\) that is not plain", id="sparse"),
    ],
)
@pytest.mark.parametrize("place", ["state_dict", "deep"])
def test_a_tensor_without_its_data_is_refused(
    path: Path, place: str, tensor: Any, reason: str
) -> None:
    deep = [{"more": (tensor,)}] if place == "deep" else []
    weights = {"weight": tensor} if place == "state_dict" else {}
    torch.save({"state_dict": weights, "callbacks": deep}, path)
    assert_refused(path, reason)


def test_what_refers_to_itself_is_read_in_a_moment(path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    doubled: list[Any] = [torch.zeros(1)]
    for _ in range(60):
        doubled = [doubled, doubled]
    torch.save({"state_dict": {}, "callbacks": [endless, doubled]}, path)
    assert read_checkpoint(path)["state_dict"] == {}


def test_a_tensor_without_its_data_is_found_among_references(path: Path) -> None:
    doubled: list[Any] = [torch.zeros(1).expand(1000)]
    for _ in range(60):
        doubled = [doubled, doubled]
    torch.save({"state_dict": {}, "callbacks": doubled}, path)
    assert_refused(path, "1000.*without its data")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": [torch.zeros(1)]}])
def test_what_has_no_weights_is_not_a_checkpoint(path: Path, content: Any) -> None:
    torch.save(content, path)
    assert_refused(path, "has no state_dict")


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = ["file", ".hidden", ".other.tmp", ".file.12.tmp", "file.12.0123abcd.tmp"]
    for name in (*kept, ".file.12.0123abcd.tmp", ".a.b.ckpt.4711.deadbeef.tmp"):
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_what_a_killed_write_leaves_is_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.replace", lambda *_: None)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    write_atomically(tmp_path / "last.ckpt", b"content")
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_has_no_leftovers(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "nowhere")


def test_a_callback_that_saves_by_itself_through_lightning_can(tmp_path: Path) -> None:
    path = tmp_path / "own.ckpt"
    CheckpointFiles().save_checkpoint({"epoch": 1}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
