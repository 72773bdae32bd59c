"""Opening anything but an intact store of the right model fails first, with the reason."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import lmdb
import pytest

from llamaindex_prag.errors import StoreError
from llamaindex_prag.store.datafile import check_complete
from tests.llamaindex_prag.store.made import MODEL, OTHER_MODEL, made_adapter, made_key, made_layout, opened


@pytest.fixture
def folder(tmp_path):
    with opened(tmp_path / "store") as store:
        for i in range(4):
            store.put(made_key(str(i)), made_adapter(i, made_layout(1)), {})
    return tmp_path / "store"


def refuses(path, match, **options):
    before = sorted((p.name, p.stat().st_size) for p in path.iterdir()) if path.is_dir() else None
    with pytest.raises(StoreError, match=match):
        opened(path, **options)
    if before is not None:
        assert sorted((p.name, p.stat().st_size) for p in path.iterdir() if p.name != "lock.mdb") == [
            entry for entry in before if entry[0] != "lock.mdb"
        ]


def test_a_store_of_another_model_is_refused(folder):
    refuses(folder, f"fingerprint {MODEL[:12]}.*yours has {OTHER_MODEL[:12]}", model=OTHER_MODEL)
    with opened(folder) as store:
        assert len(store) == 4


def test_only_an_existing_store_can_be_opened_without_a_model(folder, tmp_path):
    with opened(folder, model=None) as store:
        assert store.model == MODEL
    refuses(tmp_path / "new", "give the model's fingerprint", model=None)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("hello")
    refuses(tmp_path / "file", "is a file; a store is a folder")
    refuses(tmp_path / "file" / "below", "cannot be created|is a file")


def test_a_folder_with_other_contents_is_refused(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a letter.txt").write_text("hello")
    refuses(tmp_path / "letters", "not an adapter store: it has no data.mdb, but a letter.txt")


def test_a_file_that_is_not_lmdbs_is_refused(folder):
    (folder / "data.mdb").write_bytes(b"SQLite format 3\0" * 1000)
    refuses(folder, "does not begin like an LMDB file")


def test_lmdb_files_of_other_programs_are_refused(tmp_path):
    for name, table in (("main", None), ("tables", b"meta"), ("other", b"things")):
        with lmdb.open(str(tmp_path / name), max_dbs=2) as env:
            db = env.open_db(table)
            with env.begin(write=True) as transaction:
                transaction.put(b"a", b"b", db=db)
        refuses(tmp_path / name, "not an adapter store")


def described(folder, description):
    with lmdb.open(str(folder), max_dbs=16) as env:
        db = env.open_db(b"meta")
        with env.begin(write=True) as transaction:
            transaction.put(b"format", description, db=db)


def test_a_newer_format_is_refused(folder):
    described(folder, b'{"format": "dynprag adapter store", "version": 2, "tables": "quite other ones"}')
    refuses(folder, "format version 2; this release reads up to 1: upgrade")


@pytest.mark.parametrize("description", [b"{}", b"not json", b'{"format": "another", "version": 1}', b"[]"])
def test_another_description_is_refused(folder, description):
    described(folder, description)
    refuses(folder, "not an adapter store")


@pytest.mark.parametrize("part", [0.001, 0.01, 0.3, 0.6, 0.99])
def test_truncated_files_are_refused(folder, part):
    size = (folder / "data.mdb").stat().st_size
    os.truncate(folder / "data.mdb", int(size * part))
    refuses(folder, "truncated")
    refuses(folder, "truncated", readonly=True)


def test_a_file_that_lacks_only_free_pages_is_complete(folder):
    """LMDB leaves files shorter than their last page number says if the last pages are free."""
    data = folder / "data.mdb"
    with opened(folder) as store:
        for key in store.keys()[:3]:
            store.remove(key)
    complete = []
    for size in range(data.stat().st_size - 4096, 8192, -4096):
        os.truncate(data, size)
        try:
            check_complete(data)
        except StoreError:
            break
        complete.append(size)
        with opened(folder, readonly=True) as store:
            assert store.verify().ok
            assert len(store) == 1
    assert complete


def test_opening_a_missing_store_for_reading_is_refused(tmp_path):
    refuses(tmp_path / "none", "there is no store", readonly=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "empty", "there is no store", readonly=True)


def test_a_store_whose_creator_was_killed_is_created(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/data.mdb").touch()
    (tmp_path / "store/lock.mdb").touch()
    with opened(tmp_path / "store") as store:
        assert len(store) == 0


READ_ONLY = """
import os, sys, tqdm
from llamaindex_prag.store import lmdb_store
from llamaindex_prag.errors import StoreError
from tests.llamaindex_prag.store.made import made_key, opened
if os.getuid() == 0:  # who may write anything
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
for folder in (sys.argv[1], sys.argv[1] + "/new"):
    try:
        opened(folder)
    except StoreError as error:
        print(error)
with opened(sys.argv[1], readonly=True) as store:
    print(len(store), store.verify().ok)
"""


def test_a_read_only_folder_can_be_read_and_the_error_says_how(folder):
    with tempfile.TemporaryDirectory() as outer:
        copy = shutil.copytree(folder, Path(outer, "store"))
        Path(outer).chmod(0o755)
        for path in (*copy.iterdir(), copy):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            command = [sys.executable, "-c", READ_ONLY, str(copy)]
            program = subprocess.run(command, check=False, capture_output=True, text=True)
        finally:
            copy.chmod(0o755)
    assert program.returncode == 0, program.stderr
    first, second, third = program.stdout.splitlines()
    assert "cannot be written by this user; open the store with readonly=True" in first
    assert "cannot be created" in second
    assert third == "4 True"
