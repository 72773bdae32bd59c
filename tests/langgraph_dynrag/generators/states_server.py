"""A server of hidden states that computes those of the tiny model, as vLLM with the connector would."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from safetensors.numpy import save_file

from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer

LAYERS = (0, 1)


class StatesServer(BaseHTTPRequestHandler):
    """Text completions of vLLM with `vllm_hidden_states.HiddenStateFiles`, as far as the client uses them."""

    lm = CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")
    folder = None
    name = None
    """What to answer instead of the file's name."""
    writes = True
    asked: list = []  # noqa: RUF012

    def do_GET(self):
        self._answer({"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "t"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        last, name = body["kv_transfer_params"]["dynprag_states"], f"{len(self.asked):032x}"
        with torch.no_grad():
            made = self.lm.model(torch.tensor([body["prompt"]]), output_hidden_states=True).hidden_states
        states = torch.stack([made[layer + 1][0, -last:] for layer in LAYERS], 1).contiguous().numpy()
        about = {"layers": "0,1", "depth": "2", "eos": str(self.lm.tokenizer.eos_token_id)}
        choice = {"index": 0, "text": "", "finish_reason": "length"}
        given = {} if self.name == "none" else {"kv_transfer_params": {"dynprag_states": self.name or name}}
        self._answer(
            {"id": "1", "object": "text_completion", "created": 0, "model": "tiny", "choices": [choice], **given}
        )
        if self.writes:  # after the answer, as vLLM does
            unfinished = self.folder / f"{name}.unfinished"
            save_file({"states": states}, unfinished, metadata=about)
            unfinished.replace(self.folder / f"{name}.safetensors")

    def _answer(self, reply):
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def serving_states(folder) -> Iterator[tuple[type[StatesServer], str]]:
    """Yield a server's state and its address."""

    class Handler(StatesServer):
        asked: list = []  # noqa: RUF012

    Handler.folder = folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Handler, f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()
