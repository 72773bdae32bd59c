"""Fixtures for all tests: a tiny random model and the embedded one."""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads that spin while they wait take the cores from those of other workers.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from hypothesis import settings

from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer

# The workers of pytest-xdist share the cores.
torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

# On two busy cores a single example can take arbitrarily long, which is not a failure.
settings.register_profile("dynprag", deadline=None)
settings.load_profile("dynprag")


@pytest.fixture(scope="session", autouse=True)
def _one_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _unknown_endpoints():
    """Forget endpoints after each test: test servers come and go, and a port may be reused by another server."""
    yield
    if (endpoint := sys.modules.get("langgraph_dynrag.generators.endpoint")) is not None:
        endpoint.forget_endpoints()


@pytest.fixture(scope="session")
def tiny_lm() -> CausalLM:
    """A random Llama of three layers with a real, small tokenizer; greedy, float32."""
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture(scope="session")
def embedded_lm() -> CausalLM:
    return CausalLM.from_pretrained("embedded", device="cpu", dtype="float32")
