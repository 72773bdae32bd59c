"""Tests that export folders are written atomically and not deleted while a server may need them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.serving.exports import ExportFolders
from llamaindex_prag.serving.merging import merged
from llamaindex_prag.store.peft_folder import import_peft
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.serving.conftest import TEXTS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def make(local, store):
    return lambda i=0: merged(store, ActiveAdapters.of([local.key(TEXTS[i])]))


def aged(folders, name, seconds):
    at = time.time() - seconds
    os.utime(folders.root / name, (at, at))


def test_a_folder_is_written_once_and_holds_the_adapter(tmp_path, local, make):
    folders = ExportFolders(tmp_path / "out")
    made = []

    def counted():
        made.append(1)
        return make()

    first, second = folders.write("a", counted, "base"), folders.write("a", counted, "base")
    assert (first, len(made)) == (second, 1)
    assert (import_peft(first, local.layout).buffer == make().buffer).all()
    (first / "adapter_model.safetensors").unlink()  # as if deleted by hand
    folders.write("a", counted, "base")
    assert len(made) == 2


def test_the_least_recently_used_folders_are_deleted_unless_registered_or_recent(tmp_path, make):
    folders = ExportFolders(tmp_path, keep=2, grace=60)
    for name, age in (("a", 500), ("b", 400), ("c", 300), ("d", 200), ("e", 100)):
        folders.write(name, make, "base")
        aged(folders, name, age)
    folders.touch("a")
    assert folders.names() == ["b", "c", "d", "e", "a"]
    assert folders.delete_old(lambda: {"c"}) == ["b", "d"]
    assert folders.names() == ["c", "e", "a"]
    folders.touch("c")
    aged(folders, "e", 30)  # in excess of the two to keep, but used half a minute ago
    assert folders.names() == ["e", "a", "c"]
    assert folders.delete_old(lambda: pytest.fail("nothing to ask for")) == []
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".b")]


def test_keep_must_be_at_least_one_and_touching_a_deleted_folder_is_not_an_error(tmp_path):
    ExportFolders(tmp_path).touch("gone")  # was deleted
    with pytest.raises(ConfigurationError, match="keep is 0"):
        ExportFolders(tmp_path, keep=0)


def test_processes_that_write_the_same_folder_concurrently_leave_it_intact(tmp_path, local, make):
    adapter = make()
    np.save(tmp_path / "values.npy", adapter.buffer)
    code = [sys.executable, "-m", "tests.llamaindex_prag.serving.writer", str(tmp_path / "out")]
    told = [str(tmp_path / "values.npy"), json.dumps(adapter.layout.to_dict())]
    workers = [subprocess.Popen([*code, *told], cwd=ROOT) for _ in range(2)]
    assert [worker.wait(600) for worker in workers] == [0, 0]
    for i in range(5):
        assert (import_peft(tmp_path / "out" / f"n{i}", local.layout).buffer == adapter.buffer).all()
