"""The environment that the stores of a process share: opening, growing maps, transactions and compaction."""

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import lmdb
import numpy as np

from tests.llamaindex_prag.store.made import made_adapter, made_key, made_layout, opened
from tests.llamaindex_prag.store.refused import refuses


def test_lmdb_files_of_other_programs_are_refused(tmp_path):
    for name, table in (("main", None), ("tables", b"meta"), ("other", b"things")):
        with lmdb.open(str(tmp_path / name), max_dbs=2) as env:
            db = env.open_db(table)
            with env.begin(write=True) as transaction:
                transaction.put(b"a", b"b", db=db)
        refuses(tmp_path / name, "not an adapter store")


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


def test_the_map_grows(tmp_path):
    layout = made_layout(layers=2)
    with opened(tmp_path / "store", map_size=1 << 20) as store:
        for i in range(8):
            store.put(made_key(str(i)), made_adapter(i, layout), {})
        stats = store.stats()
        assert stats.map_bytes > 8 * layout.size * 4
        assert stats.value_bytes >= 8 * layout.size * 4
        assert store.verify().ok
    with opened(tmp_path / "store", map_size=1 << 20) as store:
        assert store.verify().checked == 8


def test_threads_read_while_the_map_grows(tmp_path):
    layout = made_layout(layers=1)
    wrong = []
    with opened(tmp_path / "store", map_size=1 << 20) as store:
        store.put(made_key("0"), made_adapter(0, layout), {})
        done = threading.Event()

        def read():
            out = np.empty(layout.size, np.float32)
            while not done.is_set():
                store.read_into(made_key("0"), out)
                if not np.array_equal(out, made_adapter(0, layout).buffer):
                    wrong.append(1)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for i in range(1, 60):
                store.put(made_key(str(i)), made_adapter(i, layout), {})
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert not wrong
        assert store.stats().map_bytes > 1 << 20
        assert len(store) == 60
