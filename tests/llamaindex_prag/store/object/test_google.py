"""A store in an emulator of Google Cloud Storage, through a proxy that makes requests fail."""

import hashlib
import uuid

import numpy as np
import pytest

from llamaindex_prag.errors import StoreError
from llamaindex_prag.store.object.remote import RemoteFiles
from tests.llamaindex_prag.store.made import OTHER_MODEL, made_adapter, made_key, shared
from tests.llamaindex_prag.store.object.servers import GOOGLE_BUCKET, google_options, proxy_to

pytestmark = pytest.mark.gcs


@pytest.fixture
def proxy(google_port):
    with proxy_to(google_port) as server:
        yield server


@pytest.fixture
def opened(proxy, tmp_path):
    """Open one store, each time as another host with a cache of its own."""
    hosts, url = iter(range(100)), f"gs://{GOOGLE_BUCKET}/{uuid.uuid4().hex}"

    def host(**given):
        there = google_options(proxy.server_address[1])
        given = {"timeout": 1.0, "removal_delay": 0.0, "cache": tmp_path / f"cache-{next(hosts)}", **given}
        return shared(given.pop("url", url), storage_options=there, **given)

    return host


def test_hosts_see_each_other_s_adapters_and_removals(opened):
    with opened() as one, opened() as two:
        one.put(made_key(), made_adapter(), {"steps": 4}, owners=["d"])
        np.testing.assert_array_equal(two.get(made_key()).buffer, made_adapter().buffer)
        assert two.verify().ok
        assert two.remove_document("d") == [made_key().text]
        assert made_key() not in one
        assert one.keys() == []


def test_bytes_of_removed_documents_are_deleted_after_the_grace(opened):
    with opened(grace=3600.0) as store:
        store.put(made_key(), made_adapter(), {}, owners=["d"])
        store.remove_document("d")
        assert "1 texts removed less than 3600 s ago" in store.gc().reason
    with opened(grace=0.0) as store:
        assert store.gc().bytes_after == 0


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\0", b"\xff", b""])
def test_content_is_read_as_it_was_written(google_port, end):
    url = f"gs://{GOOGLE_BUCKET}/{uuid.uuid4().hex}"
    files = RemoteFiles(url, google_options(google_port), attempts=1, timeout=30.0)
    content = b"a\rb\r\n\n" + end
    name = f"objects/{hashlib.sha256(content).hexdigest()}"
    files.write(name, content)
    assert files.read(name) == content
    assert files.listed("objects")[name.partition("/")[2]].size == len(content)
    files.delete(name)
    assert files.listed("objects") == {}


@pytest.mark.parametrize("fault", ["unavailable", "truncated", "shortened", "flipped", "unanswered", "late"])
def test_a_request_that_fails_once_is_made_again(opened, proxy, fault):
    with opened() as store:
        store.put(made_key(), made_adapter(), {})
    with opened(readonly=True) as store:
        left = [fault]
        proxy.fault = lambda method, path: left.pop() if left and method == "GET" and "objects%2F" in path else None
        np.testing.assert_array_equal(store.get(made_key()).buffer, made_adapter().buffer)
        assert not left


def test_of_two_hosts_that_create_a_store_one_describes_it(opened, proxy):
    asked = []

    def exists(method, path):
        if method == "POST" and "ifGenerationMatch=0" in path and not asked:
            asked.append(path)
            opened(model=OTHER_MODEL).close()  # the emulator would overwrite what the other host has written
            return "exists"
        return None

    proxy.fault = exists
    with pytest.raises(StoreError, match=f"is for the model with fingerprint {OTHER_MODEL[:12]}"):
        opened()
    assert asked


def test_what_the_server_refuses_is_named(opened, proxy):
    with pytest.raises(StoreError, match=r"gs://no-such-bucket/a/probe/\w+ cannot be written.*: is the address right"):
        opened(url="gs://no-such-bucket/a")
    opened().close()
    proxy.fault = lambda method, path: None if method == "GET" else "forbidden"
    with pytest.raises(StoreError, match="cannot be written: these credentials, or this user, may not do that"):
        opened()
    assert opened(readonly=True).keys() == []
