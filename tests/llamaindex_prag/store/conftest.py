"""Fixtures: a new store of each kind, and the folder of a closed one with four adapters."""

import uuid

import pytest

from tests.llamaindex_prag.store.made import made_adapter, made_key, made_layout, opened, shared
from tests.llamaindex_prag.store.object.servers import GOOGLE_BUCKET, google_options, google_server


@pytest.fixture
def folder(tmp_path):
    with opened(tmp_path / "store") as store:
        for i in range(4):
            store.put(made_key(str(i)), made_adapter(i, made_layout(1)), {})
    return tmp_path / "store"


@pytest.fixture(scope="session")
def google_port():
    with google_server() as port:
        yield port


@pytest.fixture(params=["folder", "memory://", "file://", pytest.param("gs://", marks=pytest.mark.gcs)])
def store(request, tmp_path):
    if request.param == "folder":
        made = opened(tmp_path / "store")
    elif request.param == "gs://":
        there = google_options(request.getfixturevalue("google_port"))
        where = f"gs://{GOOGLE_BUCKET}/{uuid.uuid4().hex}"
        made = shared(where, storage_options=there, cache=tmp_path / "cache")
    else:
        where = f"memory://{uuid.uuid4().hex}" if request.param == "memory://" else f"file://{tmp_path}/store"
        made = shared(where, cache=tmp_path / "cache")
    with made as store:
        yield store
