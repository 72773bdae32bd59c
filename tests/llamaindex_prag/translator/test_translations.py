"""Tests that translated adapters are read in one pass, merge like trained ones, and are removed with a document."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.adapters.stacking import stacked
from llamaindex_prag.errors import AdapterMissingError, TranslatorError
from llamaindex_prag.llama_index import ParametricLLM, ParametricNodePostprocessor, ParametrizeNodes
from llamaindex_prag.llama_index.markers import marker
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.passages import Passage
from llamaindex_prag.prompts import prompt_ids
from llamaindex_prag.translator.config import TranslatorConfig
from llamaindex_prag.translator.translations import Translations
from llamaindex_prag.translator.translator import Translator
from rag_backbone.engine.requests import Request
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.llama_index.conftest import Fixed
from tests.llamaindex_prag.made import random_values, with_update
from tests.llamaindex_prag.translator.conftest import OTHERS, TRAINED, strong

QUESTION = "Who wrote a letter?"


def answer(model, *texts):
    return model.answer(QUESTION, documents=texts, max_new_tokens=12)


def keep(model, *texts, document=""):
    return model.translations.keep([Passage(t, document=document) for t in texts])


def test_merging_a_translated_and_a_trained_adapter_adds_their_dense_updates(model, translator):
    keep(model, *OTHERS[:1])
    keys = [model.find(TRAINED), model.find(OTHERS[0])]
    assert [k.recipe for k in keys] == [model.recipe.key, translator.fingerprint]
    values = [np.zeros(model.layout.size, np.float32) for _ in keys]
    scales = model.translations.read_many(keys, values)
    dense = with_update(model.lm.model, model.layout, [(v, s / 2) for v, s in zip(values, scales, strict=True)])
    ids = prompt_ids(model.lm.tokenizer, QUESTION)
    found = model.lm.engine.generate(Request(ids, 8, adapters=model.select(keys)))
    with torch.inference_mode():
        for step in found.token_ids[:5]:
            assert step == int(dense(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            ids = [*ids, step]


@pytest.mark.parametrize(("merge", "times"), [("mean", 1), ("score", 1), ("sum", 3)])
def test_the_part_common_to_all_documents_acts_once_unless_updates_are_summed(model, translator, merge, times):
    """Without the documents' own parts, adapters consist of the common part alone."""
    translator.network.gains.data.zero_()
    translator.network.common.data = torch.from_numpy(random_values(model.layout, 3, 0.1))
    keep(model, *OTHERS)

    def update(texts, **options):
        selection = model.select([model.find(text) for text in texts], **options)
        adapter = stacked(model.layout, model.translations, selection)
        return np.concatenate([(b @ a).ravel() for _, a, b in adapter.layout.factors(adapter.buffer)])

    together = update(OTHERS, merge=merge, scores=[3.0, 2.0, 1.0])
    assert np.allclose(together, times * update(OTHERS[:1]), atol=1e-6)
    assert np.abs(together).max() > 1e-3


def test_several_documents_are_translated_in_one_pass(model, translator, monkeypatch):
    keep(model, *OTHERS)
    passes = []
    translate = translator.translate
    monkeypatch.setattr(translator, "translate", lambda kept: passes.append(len(kept)) or translate(kept))
    answer(model, *OTHERS)
    assert passes == [3]


def test_each_translator_reads_a_document_only_once(model, lm, store):
    assert keep(model, *OTHERS) == 3
    assert keep(model, *OTHERS, OTHERS[0]) == 0
    assert Translations(store, strong(lm, seed=1)).keep([Passage(OTHERS[0])]) == 1


def test_a_trained_adapter_takes_precedence_over_a_translated_one(model):
    keep(model, TRAINED)
    assert model.find(TRAINED) == model.key(TRAINED)
    assert model.find(OTHERS[0]) is None


def test_adapters_change_answers_and_depend_on_the_document(model):
    keep(model, *OTHERS)
    answers = [answer(model, text) for text in OTHERS] + [model.answer(QUESTION, max_new_tokens=12)]
    assert len(set(answers)) > 2


def test_a_removed_document_is_no_longer_used_even_if_a_slot_holds_it(model, store):
    keep(model, OTHERS[0], document="notes")
    key = model.find(OTHERS[0])
    answer(model, OTHERS[0])  # fills a slot
    store.remove_document("notes")
    assert model.find(OTHERS[0]) is None
    with pytest.raises(AdapterMissingError, match="was its document removed"):
        model.lm.engine.generate(Request(prompt_ids(model.lm.tokenizer, QUESTION), 4, adapters=model.select([key])))
    assert store.get_json(f"representation/{key.recipe}", text_hash(OTHERS[0])) is None


def test_a_selection_made_before_a_removal_is_rejected_after_it(model, store):
    keep(model, OTHERS[0], document="notes")
    selection = model.select([model.find(OTHERS[0])])
    request = Request(prompt_ids(model.lm.tokenizer, QUESTION), 4, adapters=selection)
    model.lm.engine.generate(request)
    store.remove_document("notes")
    with pytest.raises(AdapterMissingError):
        model.lm.engine.generate(request)


def test_blank_passages_are_rejected_before_anything_is_stored(model):
    with pytest.raises(ConfigurationError, match="is blank"):
        keep(model, OTHERS[0], " ")
    assert model.find(OTHERS[0]) is None


def test_a_translator_with_another_recipe_is_rejected(lm, store):
    other = Translator(lm, TranslatorConfig.of(lm, "shared", width=16, heads=2))
    with pytest.raises(ConfigurationError, match="Use recipe='distill'"):
        ParametricModel(lm, store, recipe="prag", translator=other)


def test_one_model_in_memory_has_one_translator(model, lm, store, translator):
    assert ParametricModel.of(lm, store, recipe="prag", max_adapters=3, translator=translator) is model
    with pytest.raises(ConfigurationError, match="translator"):
        ParametricModel.of(lm, store, recipe="prag", max_adapters=3)


# ------------------------------------------------------------------ LlamaIndex


@pytest.fixture
def llm(model, lm, store, translator):
    return ParametricLLM(lm=lm, store=store, recipe="prag", max_adapters=3, max_new_tokens=12, translator=translator)


def engine(llm, *texts, **options):
    nodes = [NodeWithScore(node=TextNode(text=t, id_=t[:10]), score=0.5) for t in texts]
    post = ParametricNodePostprocessor(llm=llm, **{"missing": "translate", "route": "retrieval", **options})
    return RetrieverQueryEngine.from_args(Fixed(nodes=nodes), llm=llm, node_postprocessors=[post])


def test_a_query_translates_missing_adapters_and_adds_no_passage_to_the_prompt(llm, model, monkeypatch):
    prompts = []
    admit = model.lm.engine._admit
    monkeypatch.setattr(model.lm.engine, "_admit", lambda request: prompts.append(request) or admit(request))
    response = engine(llm, OTHERS[0], TRAINED, max_active=2).query(QUESTION)
    (request,) = prompts
    assert list(request.prompt) == prompt_ids(model.lm.tokenizer, QUESTION)
    assert {k.text for k in request.adapters.keys} == {text_hash(OTHERS[0]), text_hash(TRAINED)}
    assert [n.node.text for n in response.source_nodes] == [OTHERS[0], TRAINED]
    assert model.find(OTHERS[0]).recipe == model.translator_key


def test_the_prompt_length_does_not_depend_on_how_much_is_retrieved(llm, model, monkeypatch):
    lengths = []
    admit = model.lm.engine._admit
    monkeypatch.setattr(model.lm.engine, "_admit", lambda r: lengths.append(len(r.prompt)) or admit(r))
    for k in (1, 2, 3):
        engine(llm, *OTHERS[:k]).query(QUESTION)
    assert len(set(lengths)) == 1


def test_concurrent_queries_each_use_their_own_documents(llm):
    expected = {text: str(engine(llm, text).query(QUESTION)) for text in OTHERS}
    assert len(set(expected.values())) > 1
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda t: (t, str(engine(llm, t).query(QUESTION))), OTHERS * 4))
    assert all(expected[t] == a for t, a in found)

    async def together():
        return await asyncio.gather(*[engine(llm, t).aquery(QUESTION) for t in OTHERS])

    assert [str(r) for r in asyncio.run(together())] == [expected[t] for t in OTHERS]


def test_ingestion_stores_representations_and_removes_those_of_dropped_passages(llm, model):
    transform = ParametrizeNodes(llm=llm, how="translate", progress=False)

    def ingest(text):
        IngestionPipeline(transformations=[transform], disable_cache=True).run(
            documents=[Document(text=text, id_="notes")]
        )

    ingest(OTHERS[0])
    assert model.find(OTHERS[0]).recipe == model.translator_key
    ingest(OTHERS[1])
    assert model.find(OTHERS[0]) is None
    assert model.find(OTHERS[1]) is not None


def test_translating_without_a_translator_is_rejected_with_the_argument_to_pass(lm, store):
    llm = ParametricLLM(lm=lm, store=store, recipe="prag")
    with pytest.raises(ConfigurationError, match=r"ParametricLLM\(translator="):
        ParametricNodePostprocessor(llm=llm, missing="translate")
    with pytest.raises(ConfigurationError, match=r"ParametricLLM\(translator="):
        ParametrizeNodes(llm=llm, how="translate")


def test_a_translator_is_loaded_from_its_folder(lm, store, translator, tmp_path, monkeypatch):
    translator.save(tmp_path / "translator")
    llm = ParametricLLM(lm=lm, store=store, recipe="prag", translator=tmp_path / "translator")
    assert llm.model.translator_key == translator.fingerprint
    with pytest.raises(TranslatorError, match="there is no translator"):
        ParametricLLM(lm=lm, store=store, recipe="prag", translator=tmp_path / "none")
    monkeypatch.setattr(CausalLM, "from_pretrained", lambda name: pytest.fail(f"{name} was loaded"))
    with pytest.raises(TranslatorError, match="No translator is shipped"):
        ParametricLLM(lm="embedded", translator="embedded")


def test_a_marker_of_another_translator_is_rejected(llm, lm):
    stranger = strong(lm, seed=5).key(OTHERS[0])
    with pytest.raises(AdapterError, match="another model or recipe"):
        llm.complete(f"{marker(stranger)} {QUESTION}")
