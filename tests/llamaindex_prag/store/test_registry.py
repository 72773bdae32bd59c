"""The stores of a process share one environment per folder."""

import shutil

import pytest

from llamaindex_prag.errors import StoreError
from tests.llamaindex_prag.store.made import made_adapter, made_key, opened


def test_two_handles_in_a_process_share_the_files(tmp_path):
    with opened(tmp_path / "store") as first, opened(tmp_path / "../" / tmp_path.name / "store") as second:
        first.put(made_key(), made_adapter(), {})
        assert made_key() in second
        first.close()
        assert second.get(made_key()) is not None
        with pytest.raises(StoreError, match="was closed; open it again"):
            first.get(made_key())


def test_a_read_only_handle_does_not_block_a_writing_one(tmp_path):
    opened(tmp_path / "store").close()
    with opened(tmp_path / "store", readonly=True) as reader, opened(tmp_path / "store") as writer:
        writer.put(made_key(), made_adapter(), {})
        assert made_key() in reader
        for forbidden in (
            lambda: reader.put(made_key(), made_adapter(), {}),
            lambda: reader.remove(made_key()),
            lambda: reader.own("a", []),
            lambda: reader.put_json("a", "b", 1),
            reader.gc,
        ):
            with pytest.raises(StoreError, match="readonly=True"):
                forbidden()
        assert made_key() in writer


def test_a_folder_that_was_deleted_and_recreated_is_another_store(tmp_path):

    old = opened(tmp_path / "store")
    old.put(made_key(), made_adapter(), {})
    shutil.rmtree(tmp_path / "store")
    with opened(tmp_path / "store") as new:
        assert len(new) == 0
    old.close()
