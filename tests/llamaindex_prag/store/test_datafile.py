"""Files that LMDB must not open are refused, and complete ones that look short are not."""

import os

import pytest

from llamaindex_prag.errors import StoreError
from llamaindex_prag.store.datafile import check_complete
from tests.llamaindex_prag.store.made import opened
from tests.llamaindex_prag.store.refused import refuses


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
