"""Fixtures: a real S3 server, a bucket, and a proxy that makes requests fail."""

import pytest

from tests.llamaindex_prag.store.made import shared
from tests.llamaindex_prag.store.object.servers import new_bucket, options, proxy_to, s3_server


@pytest.fixture(scope="session")
def s3_port():
    with s3_server() as port:
        yield port


@pytest.fixture
def bucket(s3_port):
    return new_bucket(s3_port)


@pytest.fixture
def proxy(s3_port):
    with proxy_to(s3_port) as server:
        yield server


@pytest.fixture
def through_proxy(bucket, proxy, tmp_path):
    """Open a store in the bucket through the proxy, each time as another host with a cache of its own."""
    hosts = iter(range(100))

    def opened(**given):
        given = {"timeout": 1.0, "removal_delay": 0.0, "cache": tmp_path / f"cache-{next(hosts)}", **given}
        return shared(f"s3://{bucket}/store", storage_options=options(proxy.server_address[1]), **given)

    return opened


@pytest.fixture
def hosts(tmp_path):
    """Open one store in a shared folder, each time as another host with a cache of its own."""
    numbers = iter(range(100))

    def opened(**given):
        given = {"removal_delay": 0.0, "cache": tmp_path / f"cache-{next(numbers)}", **given}
        return shared(f"file://{tmp_path}/store", **given)

    return opened
