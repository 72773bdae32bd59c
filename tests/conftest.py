"""What all tests share: tiny random models, and the embedded one."""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads that wait for each other in a loop take the cores from the other worker's.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from hypothesis import settings

from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer

# The workers of pytest-xdist share the cores.
torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))

# Two busy cores can take any time over one example; that is no failure.
settings.register_profile("dynprag", deadline=None)
settings.load_profile("dynprag")


@pytest.fixture(scope="session", autouse=True)
def _one_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _unknown_endpoints():
    """Servers of tests come and go, and a port that was one's is another's later."""
    yield
    if (endpoint := sys.modules.get("langgraph_dynrag.generators.endpoint")) is not None:
        endpoint.forget_endpoints()


@pytest.fixture(scope="session")
def tiny_lm() -> CausalLM:
    """A random Llama of two layers with a real, small tokenizer; greedy, float32."""
    return CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny")


@pytest.fixture(scope="session")
def embedded_lm() -> CausalLM:
    return CausalLM.from_pretrained("embedded", device="cpu", dtype="float32")
