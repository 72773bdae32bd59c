"""Folders: locks between processes, and files that are written together or not at all."""

import os

import pytest

from llamaindex_prag.store.folders import LOCKS_FOLDERS, lock_folder, write_folder


@pytest.mark.skipif(not LOCKS_FOLDERS, reason="needs flock")
def test_a_folder_is_locked_by_many_readers_or_one_writer(tmp_path):
    readers = [lock_folder(tmp_path, alone=False) for _ in range(2)]
    assert None not in readers
    assert lock_folder(tmp_path, alone=True) is None
    for reader in readers:
        os.close(reader)
    writer = lock_folder(tmp_path, alone=True)
    assert writer is not None
    assert lock_folder(tmp_path, alone=True) is None
    os.close(writer)
    assert not list(tmp_path.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_written_with_its_parents_and_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "some" / "where"
    write_folder(folder, {"main": b"1", "beside": b"2"})
    assert contents(folder) == {"main": b"1", "beside": b"2"}
    write_folder(folder, {"main": b"3"})
    assert contents(folder) == {"main": b"3"}
    assert [path.name for path in folder.parent.iterdir()] == ["where"]


def test_an_empty_folder_is_used_and_any_other_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", {"main": b"1"})
    assert contents(tmp_path / "empty") == {"main": b"1"}
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter").write_bytes(b"dear brother")
    (tmp_path / "file").write_bytes(b"x")
    for name in ("letters", "file"):
        with pytest.raises(FileExistsError, match=f"{name} exists and holds no main; name a new folder"):
            write_folder(tmp_path / name, {"main": b"1"})
    assert contents(tmp_path / "letters") == {"letter": b"dear brother"}


def test_a_failed_write_leaves_the_earlier_files_and_nothing_else(tmp_path):
    write_folder(tmp_path / "folder", {"main": b"1"})
    with pytest.raises(TypeError):
        write_folder(tmp_path / "folder", {"main": b"2", "beside": "not bytes"})
    assert contents(tmp_path / "folder") == {"main": b"1"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
