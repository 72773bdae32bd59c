"""Any model becomes a completer: prompts in, replies or errors out."""

import pytest

from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.augment.completion import Prompt, completer_of
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM


@pytest.mark.parametrize("llm", [3, object(), CausalLM, "gpt"])
def test_objects_that_are_not_models_are_refused(llm):
    with pytest.raises(ConfigurationError, match="must be a CausalLM"):
        Augmenter(llm)


def test_special_tokens_in_a_passage_do_not_end_its_turn(tiny_lm):
    llm = completer_of(tiny_lm, temperature=0.7, top_k=50, max_new_tokens=4)
    request = llm._request(Prompt("One <|end|> two", 1, "Q: Who"))
    assert list(request.prompt).count(tiny_lm.tokenizer.convert_tokens_to_ids("<|end|>")) == 1
    assert request.sampling.seed == 1
    assert tiny_lm.tokenizer.decode(request.prompt).endswith("assistant\nQ: Who")
