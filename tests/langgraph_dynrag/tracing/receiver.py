"""An HTTP server that takes traces as LangSmith and OTLP receivers do, and keeps what arrived."""

import gzip
import json
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.serving_thread import serving

LANGSMITH = {
    "version": "0",
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "size_limit": 100,
        "size_limit_bytes": 20_000_000,
        "scale_up_nthreads_limit": 1,
        "scale_up_qsize_trigger": 1000,
        "scale_down_nempty_trigger": 4,
    },
}
"""What LangSmith's client asks for first, at `/info`: how runs are to be sent."""


class Receiver(ThreadingHTTPServer):
    """Answers every request with success; `requests` are (path, headers, body)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self):
        """Return the OTLP spans that arrived: name and attributes."""
        found = []
        for path, _, body in self.requests:
            if path.endswith("/v1/traces"):
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    found += [span for scope in resource.scope_spans for span in scope.spans]
        return [(span.name, {a.key: _plain(a.value) for a in span.attributes}) for span in found]

    def runs(self):
        """Return the runs that arrived as LangSmith's client sends them: fields by id, from creations and updates."""
        found = {}
        for path, headers, body in self.requests:
            if path.endswith("/runs/multipart"):
                head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
                for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
                    _, run, *field = part.get_param("name", header="Content-Disposition").split(".")
                    content = json.loads(part.get_payload(decode=True))
                    found.setdefault(run, {}).update({field[0]: content} if field else content)
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(LANGSMITH)

    def do_POST(self):
        body = (
            self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else _chunked(self)
        )
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append((self.path, dict(self.headers), body))
        self._answer({})

    do_PATCH = do_POST

    def _answer(self, told):
        content = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        """Say nothing."""


def receiving():
    return serving(Receiver())


def _chunked(handler):
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def _plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return getattr(value, kind)
