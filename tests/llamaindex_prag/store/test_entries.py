"""The contents of a store's tables: names, JSON, description, and what a removal takes along."""

import lmdb
import pytest

from tests.llamaindex_prag.store.refused import refuses


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
