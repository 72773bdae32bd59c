"""A real S3 server, and a real HTTP proxy in front of it that makes requests fail in chosen ways."""

import contextlib
import http.client
import random
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("unavailable", "truncated", "shortened", "flipped", "unanswered", "late")


class Proxy(ThreadingHTTPServer):
    """Forwards each request to the server on `port`; `fault` says for each one, by method and path, how it fails.

    unavailable   503, the server does not see the request
    truncated     the connection ends in the middle of the body
    shortened     half of the body, with a matching length
    flipped       one bit of the body is another one
    forbidden     403, the server does not see the request
    unanswered    the server carries the request out, and the connection ends without an answer
    late          the answer takes longer than the client waits
    """

    daemon_threads = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = port
        self.fault = lambda method, path: None
        self.requests = []
        self.wait = 1.5

    def handle_error(self, request, client_address):
        """Clients that gave up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault(self.command, self.path)
        self.server.requests.append((self.command, self.path, fault))
        if fault == "unavailable":
            self._answer(503, {}, b"<Error><Code>ServiceUnavailable</Code><Message>down</Message></Error>")
            return
        if fault == "forbidden":
            self._answer(403, {}, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=30)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, dict(self.headers))
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


@contextlib.contextmanager
def proxy_to(port):
    server = Proxy(port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
