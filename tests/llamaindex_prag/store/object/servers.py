"""A real S3 server, an emulator of Google's, and a real HTTP proxy that makes requests fail in chosen ways."""

import contextlib
import http.client
import random
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.serving_thread import serving

FAULTS = ("unavailable", "truncated", "shortened", "flipped", "unanswered", "late")
GOOGLE_BUCKET = "a-bucket"


class Proxy(ThreadingHTTPServer):
    """Forwards each request to the server on `port`; `fault` says for each one, by method and path, how it fails.

    unavailable   503, the server does not see the request
    truncated     the connection ends in the middle of the body
    shortened     half of the body, with a matching length
    flipped       one bit of the body is another one
    forbidden     403, the server does not see the request
    exists        412, as if the object existed already; the server does not see the request
    unanswered    the server carries the request out, and the connection ends without an answer
    late          the answer takes longer than the client waits
    """

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = port
        self.amended = lambda body: body
        self.fault = lambda method, path: None
        self.requests = []
        self.wait = 1.5

    def handle_error(self, request, client_address):
        """Clients that gave up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.server.amended(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        fault = self.server.fault(self.command, self.path)
        self.server.requests.append((self.command, self.path, fault))
        if fault == "unavailable":
            self._answer(503, {}, b"<Error><Code>ServiceUnavailable</Code><Message>down</Message></Error>")
            return
        if fault == "forbidden":
            self._answer(403, {}, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
            return
        if fault == "exists":
            self._answer(412, {}, b"conditionNotMet")
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=30)
        with contextlib.closing(connection):
            headers = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content, headers = answer.read(), dict(answer.getheaders())
        if fault == "late":
            time.sleep(self.server.wait)
        if fault == "unanswered":
            self.close_connection = True
        elif fault == "truncated" and content:
            self._answer(answer.status, headers, content, sent=content[: len(content) // 2])
            self.close_connection = True
        elif fault == "shortened":
            self._answer(answer.status, headers, content[: len(content) // 2])
        elif fault == "flipped" and content:
            middle = len(content) // 2
            self._answer(
                answer.status, headers, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        else:
            self._answer(answer.status, headers, content)

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _answer(self, status, headers, content, sent=None):
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if sent is None else sent)

    def log_message(self, *args):
        """Say nothing."""


def proxy_to(port):
    return serving(Proxy(port))


@contextlib.contextmanager
def s3_server():
    """Run a server; yield its port."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


@contextlib.contextmanager
def google_server():
    """Run an emulator of Google Cloud Storage; yield the port of a proxy in front of it."""
    import pytest

    with pytest.MonkeyPatch.context() as patched:
        # gcsfs would ask by gRPC what kind of bucket it is, which the emulator cannot tell.
        patched.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        pytest.importorskip("gcsfs", reason="gcsfs is not installed: make test-gcs")
    from gcp_storage_emulator.server import create_server

    with (
        create_server("127.0.0.1", 0, in_memory=True, default_bucket=GOOGLE_BUCKET) as server,
        proxy_to(server._api._httpd.server_port) as proxy,
    ):
        # Without it, the emulator takes the last byte of a content that ends with "\r" for a part of the boundary.
        proxy.amended = lambda body: body.replace(b"\n--==0==", b"\r\n--==0==")
        yield proxy.server_address[1]


def google_options(port):
    """Return the storage options of an emulator on this machine."""
    return {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon"}


def options(port):
    """Return the storage options of a server on this machine."""
    return {"endpoint_url": f"http://127.0.0.1:{port}", "key": "test", "secret": "test"}


def new_bucket(port):
    """Create a bucket and return its name."""
    import s3fs

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(**options(port), skip_instance_cache=True).mkdir(name)
    return name


def sometimes(share, seed, faults=FAULTS):
    """Return a fault for this share of the requests for a store's objects, at random."""
    rng, lock = random.Random(seed), threading.Lock()

    def fault(method, path):
        with lock:
            found = rng.choice(faults) if rng.random() < share else None
        changed = found in {"shortened", "flipped"}  # what no checksum covers is TCP's to protect
        return None if changed and not ("/objects/" in path or "/log/r-" in path) else found

    return fault
