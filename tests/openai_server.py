"""A small HTTP server on the loopback interface that speaks OpenAI's protocol and misbehaves on demand.

Its replies are a function of the request, chosen by the test. A `Fault` applies once, to the next request to its path.
"""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

Token = tuple[str, float] | tuple[str, float, int]
"""Text, probability and, for text completions, the token id."""
Says = Callable[[dict[str, Any]], Sequence[Token]]


@dataclass(frozen=True)
class Fault:
    """A failure of one request."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "out of order"
    after: int | None = None
    """Number of tokens streamed before `then` happens."""
    then: Literal["reset", "stop", "garbage", "error", "hang"] = "reset"
    body: str | None = None
    """Body sent instead of an answer."""
    seconds: float = 0.0
    """Delay before anything is sent; for `hang`, before the rest is sent."""
    path: str = "/completions"


class Thought(str):
    """Text of a reasoning token that is sent in a separate field."""

    __slots__ = ()


class Refused(Exception):
    """The server answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class OpenAIServer:
    """Chat and text completions, models, and vLLM's runtime LoRA API.

    Args:
        says: Maps a request to the tokens of the reply.
        model: The only model apart from loaded adapters.
        continues: When a last message of the assistant is continued: with vLLM's flags, always (llama.cpp), never, or
            `strict` (never, and unknown fields are refused).
        logprobs: Whether log-probabilities are reported.
        holds: Whether to hold text back like vLLM if a request has stop strings: one character less than the longest
            stop string, until the end.
        most: Maximum number of reported alternatives.
        refuse_more: Whether to refuse requests for more than `most` alternatives.
        window: Context window in the list of models; None to omit it.
        tokenizer: Tokenizer behind `/tokenize`.
        thinks: Reasoning before every reply to a new message.
        thinks_in: Where reasoning is sent: between `<think>` and `</think>`, with the closing mark only, with the
            opening mark only (never closed), or as `reasoning_content`.
        usage: Whether token counts are reported; for streams, only if `stream_options` asks for them.
        fails: Returns the fault of the n-th completion request.
        refuses_usage: Whether requests with `stream_options` are refused.
        cached: Number of prompt tokens reported as cached.
    """

    def __init__(
        self,
        says: Says,
        *,
        model: str = "base",
        continues: Literal["flags", "always", "never", "strict"] = "flags",
        logprobs: bool = True,
        holds: bool = False,
        most: int = 20,
        refuse_more: bool = False,
        window: int | None = None,
        tokenizer: Any = None,
        thinks: str = "",
        thinks_in: Literal["tags", "closing", "unclosed", "field"] = "tags",
        usage: bool = True,
        fails: Callable[[int], Fault | None] = lambda number: None,
        refuses_usage: bool = False,
        cached: int = 0,
    ) -> None:
        self.says, self.model, self.continues = says, model, continues
        self.logprobs, self.most, self.refuse_more, self.window = logprobs, most, refuse_more, window
        self.tokenizer, self.holds = tokenizer, holds
        self.thinks, self.thinks_in, self.usage, self.fails = thinks, thinks_in, usage, fails
        self.refuses_usage, self.cached = refuses_usage, cached
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.faults: list[Fault] = []
        self.adapters: dict[str, str] = {}
        self.left = 0
        """Number of streams that the client closed before their end."""
        self._lock = threading.Lock()
        self._http: _Http | None = None
        self.connections: set[socket.socket] = set()
        self.port = 0

    def start(self) -> "OpenAIServer":
        outer = self

        class Handler(_Handler):
            server_state = outer

        self._http = _Http(("127.0.0.1", self.port), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop like a dying process: open connections are lost too."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            for connection in list(self.connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._http = None

    def __enter__(self) -> "OpenAIServer":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, path: str = "/chat/completions") -> list[dict[str, Any]]:
        """Return the requests to `path` except probes of the server's capabilities."""
        return [body for where, body in self.requests if where == path and not _finds_out(body)]

    def probes(self) -> list[dict[str, Any]]:
        """Return the requests that probe the server's capabilities."""
        return [body for where, body in self.requests if where == "/models" or _finds_out(body)]

    # ------------------------------------------------------------------------------------------------------ answers

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            for i, fault in enumerate(self.faults):
                if fault.path in path:
                    return self.faults.pop(i)
        chats = sum(1 for where, _ in self.requests if where == "/chat/completions")
        return self.fails(chats) if path.endswith("/completions") else None

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/models":
            cards = [{"id": self.model, "object": "model", "created": 0, "owned_by": "tests"}]
            if self.window:
                cards[0]["max_model_len"] = self.window
            loaded = [{**cards[0], "id": n, "root": p, "parent": self.model} for n, p in self.adapters.items()]
            return {"object": "list", "data": cards + loaded}
        if path == "/load_lora_adapter":
            return self._load(body)
        if path == "/unload_lora_adapter":
            if self.adapters.pop(body["lora_name"], None) is None:
                raise Refused(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
            return {"text": f"Success: LoRA adapter '{body['lora_name']}' removed successfully."}
        if path == "/tokenize" and self.tokenizer is not None:
            return {"tokens": list(self.tokenizer(body["prompt"], add_special_tokens=False).input_ids)}
        raise Refused(404, f"no such path {path}")

    def _load(self, body: dict[str, Any]) -> dict[str, Any]:
        name, path = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        try:
            json.loads(Path(path, "adapter_config.json").read_bytes())
        except OSError as error:
            raise Refused(404, f"Loading lora {name} failed: No adapter found for {path}") from error
        self.adapters[name] = path
        return {"text": f"Success: LoRA adapter '{name}' added successfully."}

    def tokens(self, path: str, body: dict[str, Any]) -> list[Token]:
        if body["model"] != self.model and body["model"] not in self.adapters:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        extra = {"continue_final_message", "add_generation_prompt"} & set(body)
        if extra and self.continues == "strict":
            raise Refused(400, f"Unrecognized request argument supplied: {min(extra)}")
        if self.refuses_usage and "stream_options" in body:
            raise Refused(400, "Unrecognized request argument supplied: stream_options")
        wanted = body.get("top_logprobs") or (body.get("logprobs") if path == "/completions" else 0) or 0
        if self.refuse_more and wanted > self.most:
            raise Refused(400, f"top_logprobs is {wanted}; at most {self.most}")
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        says = self.says(body)
        if _finds_out(body):
            says = [(p, 0.9) for p in ("Yes", ".")]
        # A request for token ids is not cut at stop strings, so that the client's search for them is tested.
        stop = () if body.get("return_token_ids") else body.get("stop") or ()
        return _stopped([*self._thoughts(body), *says], stop)[:limit]

    def _thoughts(self, body: dict[str, Any]) -> list[Token]:
        if not self.thinks or ("messages" in body and self.open_answer(body) is not None):
            return []
        words = [(piece, 0.2) for piece in re.findall(r"\s*\w+|\s*[^\w\s]|\s+", self.thinks)]
        if self.thinks_in == "field":
            return [(Thought(piece), p) for piece, p in words]
        opening = [] if self.thinks_in == "closing" else [("<th", 0.9), ("ink>\n", 0.9)]
        return [*opening, *words, *([] if self.thinks_in == "unclosed" else [("\n</thi", 0.9), ("nk>\n\n", 0.9)])]

    def open_answer(self, body: dict[str, Any]) -> str | None:
        """Return the assistant's text that the request continues; None if it asks for a new message."""
        last = body["messages"][-1]
        if last["role"] != "assistant" or self.continues in ("never", "strict"):
            return None
        flagged = body.get("continue_final_message") and body.get("add_generation_prompt") is False
        return str(last["content"]) if flagged or self.continues == "always" else None

    def prompt_tokens(self, body: dict[str, Any]) -> int:
        if "messages" not in body:
            prompt = body["prompt"]
            return len(prompt) if isinstance(prompt, list) else len(_words(prompt))
        # Like most templates: three tokens open a message, two close it.
        counted = sum(5 + len(_words(m["content"])) for m in body["messages"])
        return counted - 2 if self.open_answer(body) is not None else counted + 3

    def used(self, body: dict[str, Any], tokens: Sequence[Token]) -> dict[str, Any]:
        prompt = self.prompt_tokens(body)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": len(tokens),
            "total_tokens": prompt + len(tokens),
            "prompt_tokens_details": {"cached_tokens": self.cached} if self.cached else None,
        }

    def entry(self, token: Token, body: dict[str, Any]) -> dict[str, Any]:
        import math

        text, p = token[:2]
        others = [] if p >= 1 else [(f"other{i}", (1 - p) / 2 / 2**i) for i in range(25)]
        best = sorted([(text, p), *others], key=lambda t: -t[1])[: min(body.get("top_logprobs") or 0, self.most)]
        told = [{"token": t, "logprob": math.log(q), "bytes": list(t.encode())} for t, q in best]
        return {"token": text, "logprob": math.log(p), "bytes": list(text.encode()), "top_logprobs": told}


def knowing(text: str, server: Callable[[], OpenAIServer], **probabilities: float) -> Says:
    """Create a model that knows one text and continues it from wherever the answer so far stops."""
    pieces = re.findall(r"\s*\w+|\s*[^\w\s]", text)
    tokens = [(p, probabilities.get(re.sub(r"\W", "", p), 0.95)) for p in pieces]

    def says(body: dict[str, Any]) -> list[Token]:
        begun = server().open_answer(body)
        if begun is None:
            asked = body["messages"][-1]["content"]
            begun = asked.partition("without repeating any of it:\n")[2]
        done = "".join(begun.split())
        written = ""
        for i, (piece, _) in enumerate(tokens):
            if len(written) >= len(done):
                first = tokens[i]
                fresh = server().open_answer(body) is None
                return [(first[0].lstrip() if fresh else first[0], first[1]), *tokens[i + 1 :]]
            written += piece.strip()
        return []

    return says


@contextmanager
def serving(text: str, **options: Any) -> Iterator[OpenAIServer]:
    """Run a server whose model knows one text; float options are the probabilities of its words."""
    words = {k: v for k, v in options.items() if isinstance(v, float)}
    rest = {k: v for k, v in options.items() if not isinstance(v, float)}
    made: list[OpenAIServer] = []
    with OpenAIServer(knowing(text, lambda: made[0], **words), **rest) as server:
        made.append(server)
        yield server


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore disconnecting clients, which are part of the tests."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server_state: OpenAIServer
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


def _stopped(tokens: list[Token], stop: Sequence[str]) -> list[Token]:
    """Return the tokens before a stop string, which real servers also search for in reasoning."""
    text = "".join(t[0] for t in tokens)
    end = min((at for s in stop if (at := text.find(s)) >= 0), default=None)
    if end is None:
        return tokens  # including trailing tokens without text
    kept: list[Token] = []
    for token in tokens:
        if end <= 0:
            break
        kept.append((type(token[0])(token[0][:end]), *token[1:]))
        end -= len(token[0])
    return kept


def beginning_again(text: str, **probabilities: float) -> Says:
    """Create a model that writes its whole answer at every request, whatever is already written."""
    tokens = [(p, probabilities.get(re.sub(r"\W", "", p), 0.95)) for p in re.findall(r"\s*\w+|\s*[^\w\s]", text)]
    return lambda body: tokens


def _held(tokens: list[Token], characters: int) -> list[Token]:
    """Return the tokens, each with the text that is sent along with it; the last one includes the rest."""
    texts, written, sent = [], "", 0
    for i, token in enumerate(tokens, 1):
        written += token[0]
        end = max(sent, len(written) - (characters if i < len(tokens) else 0))
        texts.append(written[sent:end])
        sent = end
    return [(text, *token[1:]) for text, token in zip(texts, tokens, strict=True)]


def _finds_out(body: dict[str, Any]) -> bool:
    return bool(body.get("messages")) and body["messages"][0]["content"] == "Say yes."


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)
