"""The HTTP side of the server: whole and streamed responses, and failures in the middle of them."""

import json
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.openai_server.replies import Fault, Refused, Thought, Token

if TYPE_CHECKING:
    from tests.openai_server.server import OpenAIServer


class HTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore disconnecting clients, which are part of the tests."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server_state: "OpenAIServer"
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server_state.connections.add(self.connection)

    def finish(self) -> None:
        self.server_state.connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self._serve(json.loads(self.rfile.read(size) or b"{}"))

    def _serve(self, body: dict[str, Any]) -> None:
        state, path = self.server_state, self.path.removeprefix("/v1")
        state.requests.append((path, body))
        fault = state.fault(path)
        if fault is not None and fault.after is None:
            time.sleep(fault.seconds)
            if fault.body is not None:
                return self._send(fault.status, fault.body.encode(), {"Content-Type": "text/html", **fault.headers})
            if fault.status != 200:
                return self._error(fault.status, fault.message, fault.headers)
        try:
            if not path.endswith("/completions"):
                return self._json(state.answer(path, body))
            tokens = state.tokens(path, body)
            return self._stream(path, body, tokens, fault) if body.get("stream") else self._whole(path, body, tokens)
        except Refused as error:
            return self._error(error.status, str(error), {})

    def _error(self, status: int, message: str, headers: dict[str, str]) -> None:
        told = {"error": {"message": message, "type": "Error", "code": status}}
        self._send(status, json.dumps(told).encode(), {"Content-Type": "application/json", **headers})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _choice(self, path: str, body: dict[str, Any], tokens: list[Token], key: str) -> dict[str, Any]:
        text = "".join(t[0] for t in tokens if not isinstance(t[0], Thought))
        thoughts = "".join(t[0] for t in tokens if isinstance(t[0], Thought))
        asked = body.get("logprobs") and self.server_state.logprobs
        if path == "/completions":
            return {"index": 0, "text": text, "finish_reason": None, **_completed(tokens, asked)}
        said = {"role": "assistant", "content": text, **({"reasoning_content": thoughts} if thoughts else {})}
        entries = {"content": [self.server_state.entry(t, body) for t in tokens]} if asked else None
        return {"index": 0, key: said, "logprobs": entries, "finish_reason": None}

    def _whole(self, path: str, body: dict[str, Any], tokens: list[Token]) -> None:
        state = self.server_state
        cut = len(tokens) >= (body.get("max_completion_tokens") or body.get("max_tokens") or 16)
        choice = {**self._choice(path, body, tokens, "message"), "finish_reason": "length" if cut else "stop"}
        self._json(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [choice],
                "usage": state.used(body, tokens) if state.usage else None,
            }
        )

    def _stream(self, path: str, body: dict[str, Any], tokens: list[Token], fault: Fault | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        base = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
        if self.server_state.holds and body.get("stop"):
            tokens = _held(tokens, max(map(len, body["stop"])) - 1)
        try:
            for i, token in enumerate(tokens):
                if fault is not None and fault.after == i and self._breaks(fault):
                    return
                self._event({**base, "choices": [self._choice(path, body, [token], "delta")]})
            limit = body.get("max_completion_tokens") or body.get("max_tokens") or 0
            ended = "length" if len(tokens) >= limit > 0 else "stop"
            self._event({**base, "choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": ended}]})
            if (body.get("stream_options") or {}).get("include_usage") and self.server_state.usage:
                self._event({**base, "choices": [], "usage": self.server_state.used(body, tokens)})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except OSError:
            self.server_state.left += 1
            self.close_connection = True

    def _breaks(self, fault: Fault) -> bool:
        """Apply the fault in the middle of a stream and return whether nothing follows."""
        self.close_connection = True
        if fault.then == "hang":
            time.sleep(fault.seconds)
            return False
        if fault.then == "garbage":
            self._chunk(b'data: {"choices": [{"del\xff\n\n')
        elif fault.then == "error":
            self._event({"error": {"message": "EngineCore encountered an issue", "code": 500}})
        if fault.then != "reset":
            self._chunk(b"")
        return True

    def _event(self, value: Any) -> None:
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):X}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()


def _completed(tokens: list[Token], asked: Any) -> dict[str, Any]:
    """Return token ids and log-probabilities as vLLM reports them for a text completion."""
    import math

    if not all(len(t) == 3 for t in tokens):
        return {"logprobs": None}
    names = [f"token_id:{t[2]}" for t in tokens]
    told = [math.log(t[1]) for t in tokens]
    each = [{name: p} for name, p in zip(names, told, strict=True)]
    found = {"tokens": names, "token_logprobs": told, "top_logprobs": each, "text_offset": []}
    return {"logprobs": found if asked else None, "token_ids": [t[2] for t in tokens]}


def _held(tokens: list[Token], characters: int) -> list[Token]:
    """Return the tokens, each with the text that is sent along with it; the last one includes the rest."""
    texts, written, sent = [], "", 0
    for i, token in enumerate(tokens, 1):
        written += token[0]
        end = max(sent, len(written) - (characters if i < len(tokens) else 0))
        texts.append(written[sent:end])
        sent = end
    return [(text, *token[1:]) for text, token in zip(texts, tokens, strict=True)]
