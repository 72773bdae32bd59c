"""The hidden states of documents are those of the model."""

import pytest
import torch

from llamaindex_prag.translator.document_reader import DocumentReader
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.translator.made import tiny_lm
from tests.tiny import tiny_gemma3, tiny_llama, tiny_qwen2, tiny_tokenizer


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2, tiny_gemma3])
def test_document_states_equal_the_models_hidden_states_even_when_batched_or_read_in_pieces(make):
    lm = tiny_lm(make)
    texts = ["In 1954 the river rose.", "The bridge was built by an engineer, and nobody came back to the town." * 2]
    reader = DocumentReader(lm.engine, (0, 2, len(lm.model.get_decoder().layers)), window=24, tokens_at_once=60)
    for text, states in zip(texts, reader.states(texts), strict=True):
        ids = tiny_tokenizer()(text).input_ids
        expected = []
        for i in range(0, len(ids), 24):
            with torch.no_grad():
                found = lm.model(input_ids=torch.tensor([ids[i : i + 24]]), output_hidden_states=True).hidden_states
            expected.append(torch.stack([found[n][0] for n in (1, 3, len(found) - 1)], 1))
        assert states.shape[0] == len(ids)
        # transformers records the last layer's output after the norm, the reader before it.
        assert torch.allclose(states[:, [0, 2]], torch.cat(expected)[:, [0, 2]], atol=1e-4)


def test_layers_that_the_model_does_not_have_are_rejected():
    with pytest.raises(ConfigurationError, match="the model has 3 layers"):
        DocumentReader(tiny_lm().engine, (4,))
