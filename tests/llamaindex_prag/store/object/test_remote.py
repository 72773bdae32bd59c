"""Objects behind a URL: a real S3 server, through a proxy that makes requests fail."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from llamaindex_prag.errors import AdapterDamagedError, StoreError
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.store.made import made_adapter, made_key, shared
from tests.llamaindex_prag.store.object.servers import FAULTS, options


def once(fault, *, method="GET", part=""):
    """Let one request of the method to this part of the store fail."""
    left = [fault]
    return lambda m, path: left.pop() if left and m == method and part in path else None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_fails_once_is_made_again(through_proxy, proxy, fault):
    with through_proxy() as store:
        store.put(made_key(), made_adapter(), {}, owners=["d"])
    with through_proxy(readonly=True) as store:
        proxy.fault = once(fault, part="/objects/")
        np.testing.assert_array_equal(store.get(made_key()).buffer, made_adapter().buffer)
        assert fault in [seen for _, _, seen in proxy.requests]


@pytest.mark.parametrize("part", ["/objects/", "/log/"])
@pytest.mark.parametrize("fault", ["unavailable", "unanswered"])
def test_a_write_that_fails_once_is_made_again(through_proxy, proxy, fault, part):
    with through_proxy() as store:
        proxy.fault = once(fault, method="PUT", part=part)
        store.put(made_key(), made_adapter(), {}, owners=["d"])
        assert fault in [seen for _, _, seen in proxy.requests]
    with through_proxy(readonly=True) as store:
        assert store.keys() == [made_key()]
        assert store.verify().ok


def test_a_server_that_stays_away_is_named_after_the_last_attempt(through_proxy, proxy):
    with through_proxy(attempts=2) as store:
        proxy.requests.clear()
        proxy.fault = lambda method, path: "unavailable"
        with pytest.raises(StoreError, match=r"s3://bucket-\w+/store/log could not be listed in 2 attempts: .*"):
            store.keys()
        assert len(proxy.requests) == 2
        with pytest.raises(StoreError, match="in 2 attempts"):
            store.put(made_key(), made_adapter(), {})
        proxy.fault = lambda method, path: None
        assert store.keys() == []


@pytest.mark.parametrize("fault", ["shortened", "flipped"])
def test_an_object_that_is_damaged_on_its_way_several_times_is_read_again(through_proxy, proxy, fault):
    with through_proxy() as store:
        store.put(made_key(), made_adapter(), {})
    damaged = itertools.count()
    proxy.fault = lambda method, path: fault if "/log/r-" in path and next(damaged) < 3 else None
    with through_proxy(readonly=True) as store:
        assert store.keys() == [made_key()]
    assert next(damaged) > 3


@pytest.mark.parametrize("fault", ["shortened", "flipped"])
def test_an_object_that_stays_damaged_is_refused_by_name(through_proxy, proxy, fault):
    with through_proxy() as store:
        store.put(made_key(), made_adapter(), {})
    with through_proxy(readonly=True) as store:
        proxy.fault = lambda method, path: fault if "/objects/" in path else None
        with pytest.raises(
            AdapterDamagedError, match=rf"{made_key().text[:12]}.*s3://.*/objects/\w+-\d+-\w+ is damaged"
        ):
            store.get(made_key())
        proxy.fault = lambda method, path: fault if "/log/r-" in path else None
        with pytest.raises(AdapterDamagedError, match=r"/log/r-\w+-\d+-\w+ is damaged.*read 4 times"):
            through_proxy(readonly=True).keys()
        proxy.fault = lambda method, path: None
        assert store.get(made_key()) is not None


def test_permission_to_write_is_checked_when_a_store_is_opened(through_proxy, proxy):
    through_proxy().close()
    proxy.fault = lambda method, path: "forbidden" if method == "PUT" else None
    with pytest.raises(
        StoreError, match=r"/store/probe/\w+ cannot be written: these credentials, or this user, may not"
    ):
        through_proxy()
    assert through_proxy(readonly=True).keys() == []


def test_the_probe_leaves_nothing_behind(through_proxy, hosts, tmp_path):
    hosts().close()
    assert [p.name for p in (tmp_path / "store").rglob("*") if p.is_file()] == ["format.json"]


def test_wrong_addresses_are_named(s3_port, bucket, tmp_path):
    there = options(s3_port)
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/a/.* bucket does not exist: is the address right\?"):
        shared("s3://no-such-bucket/a", storage_options=there)
    with pytest.raises(StoreError, match=r"in 1 attempts: EndpointConnectionError"):
        shared(f"s3://{bucket}/a", storage_options=there | {"endpoint_url": "http://127.0.0.1:9"}, attempts=1)
    for url in ("s3://", "adapters", "file:///"):
        with pytest.raises(ConfigurationError, match="is not the URL of a folder"):
            shared(url)
    for url in ("file://adapters/a", "local://adapters", "file://localhost/srv/adapters"):
        with pytest.raises(ConfigurationError, match=f"'{url}' is a relative path; give an absolute one"):
            shared(url)
    with pytest.raises(ConfigurationError, match="Protocol not known: nothing"):
        shared("nothing://a/b")
    with pytest.raises(ConfigurationError, match="attempts is 0"):
        shared(f"file://{tmp_path}/store", attempts=0)
    with pytest.raises(ConfigurationError, match="removal_delay is -1"):
        shared(f"file://{tmp_path}/store", removal_delay=-1)


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(ConfigurationError, match="has a password for 'me'.* give it in storage_options") as caught:
        shared("sftp://me:much-too-open@host/adapters")
    assert "much-too-open" not in str(caught.value)


def test_missing_credentials_are_named(s3_port, bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="there are no credentials for it"):
        shared(f"s3://{bucket}/a", storage_options={"endpoint_url": options(s3_port)["endpoint_url"]})


def test_a_missing_package_is_named():
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from llamaindex_prag.store import ObjectStore\n"
        "try: ObjectStore('s3://bucket/store', model='m')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said.startswith("MissingExtraError s3://bucket/store needs")
    assert "pip install 'dynprag[objectstore]'" in said
