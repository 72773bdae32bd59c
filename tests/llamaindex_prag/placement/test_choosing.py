"""Choosing among documents by a router, in the plain Python entry: `ParametricModel.answer(route=...)`."""

import copy
import pickle
from functools import partial

import pytest

from llamaindex_prag.adapters.adapter import Adapter, AdapterKey, text_hash
from llamaindex_prag.adapters.bank import AdapterBank
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.errors import AdapterMissingError
from llamaindex_prag.parametric_answer import ParametricAnswer
from llamaindex_prag.placement import service
from llamaindex_prag.placement.ask_router import AskedAdapters
from llamaindex_prag.placement.candidate import Candidate
from llamaindex_prag.placement.choosing import choose_documents
from llamaindex_prag.placement.lexical_router import LexicalRouter
from llamaindex_prag.placement.unsure_router import UnsureRouter
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.made import random_model, random_values

QUESTION = "When was the ferry of Vold built?"
DOCUMENTS = ["The tower of Vold is old.", "Bread is baked in ovens.", "The ferry of Vold was built in 1973."]


@pytest.fixture
def model(tmp_path):
    with random_model(tmp_path, 0.1) as made:
        for i, text in enumerate(DOCUMENTS):
            made.store.put(made.key(text), Adapter(made.layout, random_values(made.layout, 10 + i, 0.1), 2.0), {})
        yield made


def alone(model, i):
    return model.answer(QUESTION, documents=[DOCUMENTS[i]])


def test_by_retrieval_scores_the_best_acts_or_the_first_without_scores(model):
    found = model.answer(QUESTION, documents=DOCUMENTS, route="retrieval", scores=[0.1, 0.9, 0.3])
    assert found == alone(model, 1)
    assert (found.used, found.scores) == ((1,), (0.1, 0.9, 0.3))
    assert found.why == "the best of 3 by route='retrieval'"
    assert model.answer(QUESTION, documents=DOCUMENTS, route="retrieval").used == (0,)


def test_by_words_the_document_that_names_what_is_asked_for_acts(model):
    found = model.answer(QUESTION, documents=DOCUMENTS, route="lexical", scores=[0.5, 0.4, 0.5])
    assert (found.used, str(found)) == ((2,), alone(model, 2))
    candidates = [Candidate("", text, score=s) for text, s in zip(DOCUMENTS, [0.5, 0.4, 0.5], strict=True)]
    assert found.scores == LexicalRouter().scores(QUESTION, candidates, [None] * 3).scores


def test_the_document_whose_adapter_gains_most_acts(model):
    keys = [model.key(text) for text in DOCUMENTS]
    gains = [answer.gain for answer in AskedAdapters(model).answers(QUESTION, keys)]
    found = model.answer(QUESTION, documents=DOCUMENTS, route="ask")
    assert found.scores == pytest.approx(gains, abs=1e-3)
    assert found.used == (gains.index(max(gains)),)
    assert model.answer(QUESTION, documents=keys, route="ask") == found


def test_where_the_model_is_sure_of_its_own_answer_none_acts(model, monkeypatch):
    scores = [0.5, 0.4, 0.5]
    unsure = model.answer(QUESTION, documents=DOCUMENTS, route="unsure", scores=scores)
    assert unsure == model.answer(QUESTION, documents=DOCUMENTS, route="lexical", scores=scores)
    assert unsure.used == (2,)
    monkeypatch.setattr(service, "UnsureRouter", partial(UnsureRouter, bound=1e-300))
    found = model.answer(QUESTION, documents=DOCUMENTS, route="unsure", scores=scores)
    assert (found, found.used) == (model.answer(QUESTION), ())
    assert "the model is sure of its own answer" in found.why
    with pytest.raises(ConfigurationError, match="route is 'unsure'; known: retrieval, lexical, ask"):
        service.router_named("unsure", model)  # retrieved passages would be in the prompt


def test_if_no_adapter_gains_none_acts_and_the_answer_says_why(model):
    for i, text in enumerate(DOCUMENTS):
        silent = Adapter(model.layout, 0 * random_values(model.layout, i), 2.0)
        model.store.put(model.key(text), silent, {})
    found = model.answer(QUESTION, documents=DOCUMENTS, route="ask")
    assert found == model.answer(QUESTION)
    assert found.used == ()
    assert "no adapter answers" in found.why


def test_several_chosen_documents_are_merged_or_mixed_with_their_own_scores(model):
    scores = [0.9, 0.1, 0.5]
    for strategy in ({"merge": "score"}, {"ensemble": "mixture"}):
        found = model.answer(QUESTION, documents=DOCUMENTS, route="retrieval", scores=scores, max_active=2, **strategy)
        assert found.used == (0, 2)
        assert found == model.answer(QUESTION, documents=[DOCUMENTS[0], DOCUMENTS[2]], scores=[0.9, 0.5], **strategy)


def test_without_a_route_all_documents_act(model):
    found = model.answer(QUESTION, documents=DOCUMENTS)
    assert (found.used, found.scores, found.why) == ((0, 1, 2), (), "")
    assert model.answer(QUESTION).used == ()


@pytest.mark.parametrize("route", ["retrieval", "lexical", "unsure", "ask"])
def test_without_documents_the_base_model_answers(model, route):
    found = model.answer(QUESTION, route=route)
    assert (found, found.used, found.why) == (model.answer(QUESTION), (), "there are no documents")


def test_a_route_among_more_documents_than_a_call_may_use_chooses_one(model):
    assert model.max_adapters == 3
    assert model.answer(QUESTION, documents=[*DOCUMENTS, "text 0"], route="lexical").used == (2,)


WAYS = [{"merge": "sum"}, {"ensemble": "product"}, {"route": "ask", "max_active": 2}]
WAYS += [{"route": route} for route in ("lexical", "unsure")]


@pytest.mark.parametrize("way", WAYS)
def test_more_documents_than_slots_give_the_same_answer(model, way):
    expected = model.answer(QUESTION, documents=DOCUMENTS, **way)
    model.bank = AdapterBank(model.lm.model, model.layout, model.store, max_adapters=3, slots=1)
    model.attach().lm.engine.prefixes.clear()
    found = model.answer(QUESTION, documents=DOCUMENTS, **way)
    assert (found, found.used) == (expected, expected.used)
    assert found.scores == pytest.approx(expected.scores, abs=1e-3)


@pytest.mark.parametrize("way", [*WAYS[:2], {"merge": "score", "scores": [1.0] * 4}])
def test_more_documents_than_a_call_may_use_are_refused(model, way):
    with pytest.raises(AdapterError, match="4 adapters were selected; the bank has room for 3"):
        model.answer(QUESTION, documents=[*DOCUMENTS, "text 0"], **way)


@pytest.mark.parametrize("way", WAYS)
def test_a_text_that_is_given_twice_acts_once(model, way):
    once = model.answer(QUESTION, documents=DOCUMENTS[1:], **way)
    twice = model.answer(QUESTION, documents=[*DOCUMENTS[1:], DOCUMENTS[2]], **way)
    assert twice == once
    assert {i % 2 for i in twice.used} == {i % 2 for i in once.used} or len(once.used) == 1
    assert (1 in twice.used) == (2 in twice.used)  # both are the document that acts, or neither is


@pytest.mark.parametrize("way", [{}, *WAYS[:3]])
def test_adapters_of_another_recipe_are_refused(model, way):
    other = AdapterKey(model.store.model, get_recipe("prag", rank=1).key, text_hash(DOCUMENTS[0]))
    foreign = AdapterKey("b" * 64, model.recipe.key, text_hash(DOCUMENTS[0]))
    for stranger in (other, foreign):
        with pytest.raises(AdapterError, match="1 of 2 documents are adapters of another model or recipe"):
            model.answer(QUESTION, documents=[stranger, DOCUMENTS[1]], **way)
        with pytest.raises(AdapterError, match="two recipes are never mixed"):
            model.to_peft([stranger])


@pytest.mark.parametrize(
    "question", ["沃尔德的渡轮是什么时候建造的?", "Когда был построен паром?", "Qui bâtit le bac ?"]
)
def test_a_question_in_another_language_is_answered_without_adapters_and_says_why(model, question):
    found = model.answer(question, documents=DOCUMENTS, passages=DOCUMENTS, route="lexical", scores=[0.1, 0.2, 0.3])
    assert found.used == ()
    assert found == model.answer(question, passages=DOCUMENTS)
    assert "no passage has a word in common with the question" in found.why
    assert model.answer(question, documents=DOCUMENTS, route="retrieval", scores=[0.1, 0.2, 0.3]).used == (2,)


def test_if_no_document_names_what_is_asked_for_none_acts(model):
    question = "Which captain painted the lamps of the ferry?"
    found = model.answer(question, documents=DOCUMENTS, passages=DOCUMENTS, route="lexical")
    assert found.used == ()
    assert "answers the question with a probability of" in found.why


def test_an_answer_is_its_text_wherever_it_goes():
    answer = ParametricAnswer("1973", used=(2,), scores=(0.1, None, 2.0), why="asked")
    for same in (copy.copy(answer), copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert same == "1973"
        assert (same.used, same.scores, same.why) == (answer.used, answer.scores, answer.why)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"route": "bm25"}, ConfigurationError, "route is 'bm25'.*known: retrieval, "),
        ({"route": "lexical", "scores": [1.0]}, AdapterError, "1 scores for 3 documents"),
        ({"route": "lexical", "max_active": 4}, ConfigurationError, "max_active is 4; it must be from 1 to 3"),
        ({"route": "lexical", "max_active": 0}, ConfigurationError, "max_active is 0"),
        ({"max_active": 2}, ConfigurationError, "there is no route, so all documents act"),
    ],
)
def test_what_does_not_fit_is_refused(model, options, error, message):
    with pytest.raises(error, match=message):
        model.answer(QUESTION, documents=DOCUMENTS, **options)


def test_documents_without_text_question_or_adapter_are_refused(model):
    keys = [model.key(text) for text in DOCUMENTS]
    with pytest.raises(ConfigurationError, match="route='lexical' compares the question with the documents' texts"):
        model.answer(QUESTION, documents=keys, route="lexical")
    with pytest.raises(ConfigurationError, match="the question is blank"):
        choose_documents(model, " ", DOCUMENTS, keys, route="ask")
    with pytest.raises(AdapterMissingError):
        model.answer(QUESTION, documents=["The ferry was built by nobody."], route="lexical")
