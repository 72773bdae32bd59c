"""Checks that a store cannot be opened, and that trying changes nothing."""

import pytest

from llamaindex_prag.errors import StoreError
from tests.llamaindex_prag.store.made import opened


def refuses(path, match, **options):
    before = sorted((p.name, p.stat().st_size) for p in path.iterdir()) if path.is_dir() else None
    with pytest.raises(StoreError, match=match):
        opened(path, **options)
    if before is not None:
        assert sorted((p.name, p.stat().st_size) for p in path.iterdir() if p.name != "lock.mdb") == [
            entry for entry in before if entry[0] != "lock.mdb"
        ]
