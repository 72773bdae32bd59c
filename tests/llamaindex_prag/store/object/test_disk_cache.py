"""The local cache: its budget, damage, and several processes."""

import hashlib
import os
import threading

import pytest

from llamaindex_prag.store.object.disk_cache import DiskCache
from rag_backbone.errors import ConfigurationError


def content(number, size=100):
    data = bytes([number]) * size
    return hashlib.sha256(data).hexdigest(), data


def test_what_was_used_longest_ago_is_deleted_first(tmp_path):
    cache = DiskCache(tmp_path, 350)
    for number in range(3):
        cache.write(*content(number))
        os.utime(tmp_path / content(number)[0], (number, number))
    assert cache.read(content(0)[0]) == content(0)[1]
    cache.write(*content(3))
    assert cache.read(content(1)[0]) is None
    assert all(cache.read(content(number)[0]) for number in (0, 2, 3))
    assert cache.size() == 300


def test_an_object_larger_than_the_budget_is_not_kept(tmp_path):
    cache = DiskCache(tmp_path, 350)
    cache.write(*content(0))
    cache.write(*content(1, size=351))
    assert cache.size() == 100
    DiskCache(tmp_path / "none", 0).write(*content(0))
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigurationError, match="cache_bytes is -1"):
        DiskCache(tmp_path, -1)


def test_a_damaged_file_is_deleted(tmp_path, caplog):
    cache = DiskCache(tmp_path, 350)
    digest, data = content(0)
    for wrong in (data[:-1], b"x" + data[1:], b""):
        cache.write(digest, data)
        (tmp_path / digest).write_bytes(wrong)
        assert cache.read(digest) is None
        assert not (tmp_path / digest).exists()
    assert "is damaged" in caplog.text


def test_many_writers_stay_within_the_budget(tmp_path):
    def write(first):
        cache = DiskCache(tmp_path, 1000)
        for number in range(first, first + 30):
            cache.write(*content(number))
            found = cache.read(content(number)[0])
            assert found in (None, content(number)[1])

    threads = [threading.Thread(target=write, args=(30 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert DiskCache(tmp_path, 1000).size() <= 1000 + 300  # what the other writers had not finished when it was counted
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file", 1000)
    cache.write(*content(0))
    assert cache.read(content(0)[0]) is None
    assert "cannot be written" in caplog.text
