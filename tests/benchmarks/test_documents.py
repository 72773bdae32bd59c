"""Ways of choosing among retrieved passages, and the benchmark end to end on a tiny model."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.documents import TOGETHER, _lost, main
from benchmarks.parametric_runs import Asked, open_store
from benchmarks.retrieved_cases import PLACES, WAYS, Case, placed, pooled, strangers
from benchmarks.scoring import ratio
from benchmarks.single_hop import Fact
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.placement.ask_router import Answer
from llamaindex_prag.training.warm_up import warm_up
from rag_backbone.loading.causal_lm import CausalLM
from tests.benchmarks.conftest import PLACES as TOWNS

PASSAGES = ("The tower of Vold is old.", "The ferry of Vold was built in 1973.", "Bread is baked in ovens.")


def fact(title, passage, question="When was the ferry built?", answer="1973"):
    return Fact("squad", title, passage, question, (answer,))


def case(right=1, gains=(0.5, 2.0, 3.0), minilm=(0.9, 0.8, 0.1)):
    answers = tuple(Answer(text, gain) for text, gain in zip(("old", "1973", "ovens"), gains, strict=True))
    return Case(fact("Ferries", PASSAGES[right]), PASSAGES, (1.0, 2.0, 0.0), minilm, answers)


def test_each_way_chooses_by_its_own_scores():
    assert {way: case().chosen(way) for way in WAYS} == {
        "bm25": 1,
        "minilm": 0,
        "lexical": 1,  # the words of the question decide
        "texts": 1,
        "always": 1,
        "unsure": 1,
        "ask": 2,  # an adapter that is sure of itself
        "lexical+ask": 1,
    }
    assert [case().f1(way, {}) for way in WAYS] == [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0]


def test_no_adapter_acts_if_no_candidate_names_what_is_asked_for():
    asked = replace(case(), fact=fact("Ferries", PASSAGES[1], "Who sold the lighthouse of Pell in winter?"))
    assert asked.chosen("lexical") is None
    told = {Asked(asked.fact.question): 0.25, Asked(asked.fact.question, PASSAGES): 0.75}
    assert asked.f1("lexical", told) == 0.25
    assert asked.f1("texts", told) == 0.75
    assert asked.chosen("minilm") == 0
    assert asked.chosen("always") is not None
    assert asked.chosen("unsure") == asked.chosen("always")


def test_where_the_base_model_is_sure_its_own_answer_counts():
    sure = replace(case(), sure=True)
    assert sure.chosen("always") == 1
    assert sure.best(2).chosen("unsure") is None
    assert sure.absent(2).f1("unsure", {Asked(sure.fact.question): 0.25}) == 0.25


def test_strangers_are_passages_about_another_subject():
    cases = [replace(case(), fact=fact(title, p)) for title, p in zip("AAB", PASSAGES, strict=True)]
    found = strangers(cases, 1, 0)
    assert [c for c, _ in found] == cases
    assert [others for _, others in found][:2] == [[PASSAGES[2]]] * 2
    assert found[2][1][0] in PASSAGES[:2]
    assert found == strangers(cases, 1, 0)
    ((third, both),) = strangers(cases, 2, 0)
    assert third == cases[2]
    assert set(both) == set(PASSAGES[:2])


def test_candidates_are_cut_to_the_best_and_lack_the_right_passage_where_it_is_absent():
    assert case().right == 1
    assert case().best(1).right is None
    assert case().best(2).passages == PASSAGES[:2]
    assert case().absent(2).passages == (PASSAGES[0], PASSAGES[2])
    assert case().absent(2).answers == (case().answers[0], case().answers[2])
    assert case().absent(2).right is None


@pytest.mark.parametrize(("place", "at"), list(zip(PLACES, [0, 1, 2], strict=True)))
def test_the_right_passage_stands_where_it_should_among_the_texts(place, at):
    found = placed(case(), place)
    assert found.index(PASSAGES[1]) == at
    assert sorted(found) == sorted(PASSAGES)


def test_what_is_lost_where_the_right_passage_is_absent_is_in_points_of_f1():
    question = case().fact.question
    lost = _lost("k2", [(case(), 0.25), (case(right=0), 0.0)], {question: 0.5})
    assert lost["absent_minus_closed_k2"] == pytest.approx(-37.5)
    assert lost["absent_minus_closed_k2_interval"] == pytest.approx([-50, -25])
    assert _lost("k2", [], {}) == {}


def test_the_pool_has_two_subjects_and_questions_take_turns():
    facts = [fact(t, f"{t} {p}", f"{t} {p} {q}?") for t in ("A", "B", "C") for p in range(3) for q in range(4)]
    found = pooled(facts, 4, 10)
    assert {f.passage for f in found} == {"A 0", "A 1", "B 0", "B 1"}
    assert [f.question for f in found[:5]] == ["A 0 0?", "A 1 0?", "B 0 0?", "B 1 0?", "A 0 1?"]
    assert len(found) == 10


def test_a_ratio_is_that_of_the_means_with_an_interval_over_passages():
    value, (low, high) = ratio([1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], list("abcd"))
    assert value == 0.75
    assert 0.2 <= low < 0.75 < high <= 1.0
    assert ratio([0.5, 0.5], [1.0, 1.0], list("ab")) == (0.5, [0.5, 0.5])
    assert np.isnan(ratio([0.0], [0.0], ["a"])[0])


@pytest.mark.slow
def test_a_run_reports_every_way_and_continues_where_it_was_stopped(model, tmp_path):
    paragraphs = [
        {
            "context": f"The ferry of {place} has {60 + i} cabins. She was built in {1970 + i} at the yard in {place}.",
            "qas": [{"question": f"When was the ferry of {place} built?", "answers": [{"text": str(1970 + i)}]}],
        }
        for i, place in enumerate(TOWNS)
    ]
    data = tmp_path / "squad.json"
    articles = [{"title": t, "paragraphs": paragraphs[i : i + 2]} for t, i in (("Ferries", 0), ("Ships", 2))]
    data.write_text(json.dumps({"data": articles}))
    given = ["--model", str(model), "--data", str(data), "--pool", "4", "--questions", "4", "--counts", "1,2"]
    given += ["--change", "epochs=1", "--change", 'acts_from="answer"']
    given += ["--merged", "2", "--context", "2", "--middle", "3", "--texts", "1,2", "--timed", "1"]
    main([*given, "--max-minutes", "0"])
    lm = CausalLM.from_pretrained(str(model), dtype="float32")
    with open_store(lm) as store:
        start = warm_up(lm, store, get_recipe("distill"), [("Who built the bridge?", "a mason")])
    main([*given, "--change", f'start="{start.digest}"', "--out", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "documents.json").read_text())
    assert figures["complete"]
    ways = {(row["way"], row["k"]) for row in figures["rows"]}
    assert {(way, k) for way in ("single", *WAYS) for k in (1, 2)} <= ways
    assert {(way, 2) for way in TOGETHER} <= ways
    assert {("context middle", 2), ("lexical, right passage absent", 2), ("texts, right passage absent", 2)} <= ways
    assert {row["way"]: row["n"] for row in figures["rows"] if row["k"] == 2}["context middle"] == 3
    assert ("context, right passage absent", 2) in ways
    assert {"absent_minus_closed_context_k2", "absent_minus_closed_context_k2_interval"} <= figures.keys()
    assert {"ratio_k2", "ratio_k2_interval", "routed_right_k2", "absent_minus_closed_k2"} <= figures.keys()
    assert figures["first_token_ratio_ask_k2"] > 0
    assert "right passage absent" in (tmp_path / "out" / "documents.md").read_text()
