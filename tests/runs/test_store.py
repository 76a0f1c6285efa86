"""Locks of a store, and what is cleared away in it."""

import errno

import pytest

from bnft.common import files
from bnft.common.errors import InputError
from bnft.runs.store import Store


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(InputError, match="must be on a file system with locks"),
        Store(tmp_path).locked("a", stop, stop),
    ):
        pass


def stop() -> None:
    pytest.fail("nobody holds the lock")


def test_what_a_killed_write_left_behind_is_cleared_away(tmp_path):
    folder = Store(tmp_path).run("normal-0123456789")
    below = folder.path / "evaluation" / "0123456789" / f".cascade.safetensors.1{files.TEMPORARY}"
    here = folder.path / f".history.jsonl.1{files.TEMPORARY}"
    for leftover in (below, here):
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.write_bytes(b"half")
    (folder.path / "config.yaml").write_text("run: {}")
    files.remove_temporary(folder.path)
    assert [file.name for file in folder.path.rglob("*") if file.is_file()] == ["config.yaml"]
