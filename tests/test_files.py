import errno
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvae.errors import UserError
from cvae.files import write_atomically


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_makes_the_folder_and_replaces_the_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file"
    write_atomically(target, b"first")
    write_atomically(target, b"second, longer")
    assert target.read_bytes() == b"second, longer"
    assert entries(target.parent) == ["file"]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    write_atomically(tmp_path / "file", b"content")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "other")]
    assert modes[0] == modes[1], "others who share the folder could not read it"


def full_disk(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_what_is_to_be_done_before_is_done_between_the_write_and_the_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, calls = tmp_path / "file", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *given: (calls.append("written"), fsync(*given)))
    monkeypatch.setattr(os, "replace", lambda *given: (calls.append("replaced"), replace(*given)))
    write_atomically(target, b"content", before=lambda: calls.append("before"))
    assert calls == ["written", "before", "replaced"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [full_disk, interrupt])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fault: Callable[..., None]
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, call, fault)
    expected = UserError if fault is full_disk else KeyboardInterrupt
    with pytest.raises(expected) as failure:
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert entries(tmp_path) == ["file"]
    if fault is full_disk:
        assert str(target) in str(failure.value)
        assert "space" in str(failure.value)
        assert "\n" not in str(failure.value)


def test_a_disk_that_fills_up_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """A limit of the operating system on the size of files stands in for the disk's."""
    target = tmp_path / "file"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match="could not be written"):
            write_atomically(target, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"a file where the folder should be")
    target = tmp_path / "taken" / "file"
    with pytest.raises(UserError, match="could not be written") as refusal:
        write_atomically(target, b"content")
    assert str(target) in str(refusal.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="could not be written"):
        write_atomically(tmp_path / "file", b"content")
    assert entries(tmp_path) == []


def test_a_kill_in_the_middle_leaves_no_partial_file(tmp_path: Path) -> None:
    target, old, new = tmp_path / "file", b"old" * 1000, b"new" * 1000
    target.write_bytes(old)
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from cvae.files import write_atomically\n"
        "os.fsync = lambda _: (print('writing', flush=True), time.sleep(60))\n"
        "write_atomically(Path(sys.argv[1]), b'new' * 1000)\n"
    )
    command = [sys.executable, "-c", script, target]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.kill()
    assert target.read_bytes() == old
    write_atomically(target, new)
    assert target.read_bytes() == new


def test_two_processes_that_write_at_once_leave_a_whole_file(tmp_path: Path) -> None:
    target, size = tmp_path / "file", 300_000
    script = (
        "import sys, time; from pathlib import Path\n"
        "from cvae.files import write_atomically\n"
        "print('ready', flush=True); sys.stdin.readline(); end = time.monotonic() + 0.5\n"
        "while time.monotonic() < end:\n"
        f"    write_atomically(Path(sys.argv[1]), sys.argv[2].encode() * {size})\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, target, letter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for letter in "ab"
    ]
    seen = set()
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        while any(writer.poll() is None for writer in writers):
            if target.exists():
                seen.add(target.read_bytes())
            time.sleep(0.001)
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {b"a" * size, b"b" * size}
    assert entries(tmp_path) == ["file"]
