"""Fixtures: a tiny model with random adapters, a server that computes with those it has loaded, and its client.

The server does not use a bank: it reads a PEFT folder and adds the dense product of its factors to the weights.
"""

import math

import pytest

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.serving.served_model import ServedModel
from llamaindex_prag.store.peft_folder import import_peft
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.made import random_values, with_update
from tests.openai_server import OpenAIServer

QUESTION = "Who built the bridge?"
TEXTS = [f"The bridge number {i} was built by engineer {i} in the year {1900 + i}." for i in range(6)]


@pytest.fixture
def local(lm, store):
    made = ParametricModel.of(lm, store, recipe="prag", max_adapters=3)
    for i, text in enumerate(TEXTS):
        store.put(made.key(text), Adapter(made.layout, random_values(made.layout, i, 0.1), 2.0), {})
    return made


@pytest.fixture
def server(lm, local):
    """Serve the tiny model as `base`, and adapters from their folders, which are read at each request."""

    def says(body):
        folder = running.adapters.get(body["model"])
        model = lm.model
        if folder is not None:
            adapter = import_peft(folder, local.layout)
            model = with_update(lm.model, adapter.layout, [(adapter.buffer, adapter.scale)])
        sampling = Sampling(temperature=body.get("temperature", 1.0), seed=body.get("seed"))
        request = Request(body["prompt"], body["max_tokens"], stop=body.get("stop") or (), sampling=sampling)
        found = CausalLM(model, lm.tokenizer, name="copy").engine.generate(request)
        return [(step.text, math.exp(step.logprob), step.token_id) for step in found.steps]

    running = OpenAIServer(says, tokenizer=lm.tokenizer, window=2048)
    with running:
        yield running


@pytest.fixture
def served(server, lm, store, tmp_path):
    return ServedModel(server.url, store, lm=lm, recipe="prag", max_adapters=3, folder=tmp_path / "out", keep=2)


def ids(lm, text=QUESTION):
    return list(lm.tokenizer(text).input_ids)


def both(model, lm, numbers, **options):
    """Build a request that both the local and the served model can take."""
    selection = model.select([model.key(TEXTS[i]) for i in numbers], **options)
    return Request(ids(lm), 12, adapters=selection)


def request_name(served, request):
    with served.name_of(request.adapters) as name:
        return name
