"""The state of a server, and its answer to each request."""

import json
import re
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from tests.openai_server.http_server import Handler, HTTPServer
from tests.openai_server.replies import Fault, Refused, Says, Thought, Token


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
        self._http: HTTPServer | None = None
        self.connections: set[socket.socket] = set()
        self.port = 0

    def start(self) -> "OpenAIServer":
        outer = self

        class Bound(Handler):
            server_state = outer

        self._http = HTTPServer(("127.0.0.1", self.port), Bound)
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


def _finds_out(body: dict[str, Any]) -> bool:
    return bool(body.get("messages")) and body["messages"][0]["content"] == "Say yes."


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)
