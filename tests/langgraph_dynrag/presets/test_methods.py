"""Runs of each preset, worked out by hand with a scripted model."""

import pytest

from langgraph_dynrag import AnswerPrompt, Budgets, Trace, create_dynamic_rag
from langgraph_dynrag.queries import (
    ExplicitQuestion,
    LastSentence,
    MaskedSentence,
    Question,
    Rewrite,
    SearchTag,
    WithQuestion,
)
from langgraph_dynrag.triggers import AllOf, AnyOf, Entropy, EverySentence, TokenProbability
from rag_backbone.errors import NoAnswerError
from tests.langgraph_dynrag.presets.runs import FINAL, PROMPT, QUESTION, documents, passages_in, run
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said


def test_flare_masks_unsure_tokens_and_rewrites_the_sentence():
    out, model, retriever = run(
        [
            said("The bridge was built by Joan Pike. It stands still.", Joan=0.1, Pike=0.5),
            said(" The bridge was built by Aldous Wray. It stands still.", Aldous=0.2),
            FINAL,
        ]
    )
    # theta = 0.8: "Joan" (0.1) triggers retrieval. beta = 0.4: it is left out of the query, "Pike" (0.5) is not.
    assert retriever.queries == [QUESTION, "The bridge was built by Pike."]
    assert out["answer"] == "The bridge was built by Aldous Wray. So the answer is Aldous Wray."
    assert out["short_answer"] == "Aldous Wray"
    # First the initial passages, then those of the query, for the regenerated sentence only, then none.
    first, second, third = (passages_in(call) for call in model.calls)
    assert [p[:6] for p in first] == ["Bridge", "Joan P"]
    assert [p[:6] for p in second] == ["Bridge", "Joan P"]
    assert third == []
    assert "The bridge was built by Aldous Wray." in model.calls[2][-1].content
    assert [s["title"] for s in out["sources"]] == ["Bridge", "Joan Pike"]
    assert [s["number"] for s in out["sources"]] == [1, 2]
    trace = Trace.from_state(out)
    assert trace.counts["discarded_tokens"] == 8
    fired = [t for d in trace.drafts for t in d.tokens if t.fired]
    assert [(t.text, t.fate) for t in fired] == [(" Joan", "discarded")]


def test_flare_accepts_a_sentence_if_every_token_reaches_theta():
    out, _, retriever = run([said("It was built by Wray. So the answer", built=0.8), said(" So the answer is Wray.")])
    assert retriever.queries == [QUESTION]
    assert out["answer"] == "It was built by Wray. So the answer is Wray."


def test_no_retrieval_never_searches_and_needs_no_retriever():
    model = ScriptedChatModel(replies=[said("It was built by Wray. So the answer is Wray.", Wray=0.01)], reports=False)
    out = create_dynamic_rag(model, preset="no_retrieval", prompt=PROMPT).invoke({"question": QUESTION})
    assert out["short_answer"] == "Wray"
    assert out["sources"] == []


def test_single_searches_once_with_the_question():
    out, model, retriever = run([said("It was built by Wray. So the answer is Wray.", Wray=0.01)], "single")
    assert retriever.queries == [QUESTION]
    assert len(passages_in(model.calls[0])) == 2
    assert out["short_answer"] == "Wray"


def test_fixed_sentence_searches_with_every_sentence_and_keeps_it():
    out, model, retriever = run(
        [
            said("The bridge is in Brannoch. It was old"),
            said(" Its mason was Aldous Wray. So the answer"),
            FINAL,
        ],
        "fixed_sentence",
    )
    assert retriever.queries == [QUESTION, "The bridge is in Brannoch.", "Its mason was Aldous Wray."]
    assert out["answer"] == "The bridge is in Brannoch. Its mason was Aldous Wray. So the answer is Aldous Wray."
    assert "Tamsin" in {p.split(":")[0] for p in passages_in(model.calls[1])}
    assert Trace.from_state(out).counts["discarded_tokens"] == 0


def test_fixed_length_searches_with_every_sixteen_tokens():
    words = [f" word{i}" for i in range(40)]
    out, _, retriever = run(
        [
            [(w, 0.9) for w in words[:20]],
            [(w, 0.9) for w in words[16:40]],
            [*[(w, 0.9) for w in words[32:36]], *said(". So the answer is Wray.")],
        ],
        "fixed_length",
        retriever=WatchedRetriever(give=lambda q: WatchedRetriever().invoke("Aldous Wray")),
    )
    assert retriever.queries == [QUESTION, "".join(words[:16]).strip(), "".join(words[16:32]).strip()]
    assert out["answer"].startswith("".join(words[:36]).strip())
    assert out["short_answer"] == "Wray"


def test_any_part_of_a_preset_can_be_replaced():
    _, _, retriever = run(
        [said("It was built by Joan. Then it was", Joan=0.3), said(" It was built by Wray. Then it was"), FINAL],
        trigger=TokenProbability(0.5),
        query=WithQuestion(LastSentence()),
        initial_retrieval=False,
    )
    assert retriever.queries == [f"{QUESTION} It was built by Joan."]


def test_entropy_from_reported_alternatives_is_a_lower_bound():
    # p = 0.5, one alternative of 0.25, and a remainder of 0.25: H = 0.5 ln 2 + 2 * 0.25 ln 4 = 1.04 nats.
    out, _, retriever = run(
        [said("It was built by Joan. Then it was", Joan=0.5), said(" It was built by Wray. Then it was"), FINAL],
        trigger=Entropy(1.0),
        query=Question(),
        initial_retrieval=False,
    )
    assert len(retriever.queries) == 1
    verdict = Trace.from_state(out).drafts[0].verdict
    assert verdict["score"] == pytest.approx(1.0397, abs=1e-3)
    assert verdict["position"] == 4


@pytest.mark.parametrize(("combine", "searches"), [(AnyOf, 1), (AllOf, 0)])
def test_triggers_can_be_combined(combine, searches):
    trigger = combine(TokenProbability(0.5), Entropy(5.0))
    replies = [said("It was built by Joan. Then it was", Joan=0.3), said(" It was built by Wray. Then it was"), FINAL]
    if not searches:
        replies = [said("It was built by Joan. Then it was", Joan=0.3), FINAL]
    _, _, retriever = run(replies, trigger=trigger, query=Question(), initial_retrieval=False)
    assert len(retriever.queries) == searches


# ---------------------------------------------------------------------- queries that ask the model


def test_explicit_questions_ask_for_each_unsure_span():
    out, model, retriever = run(
        [
            said("The mason Joan Pike built it in the year 1066. It is old", Joan=0.1, Pike=0.2, **{"1066": 0.3}),
            said("Which mason built it?"),
            said("In which year was it built?\nI hope this helps."),
            said(" The mason Aldous Wray built it in 1541. It is old"),
            FINAL,
        ],
        query=ExplicitQuestion(0.4),
        initial_retrieval=False,
    )
    # "Joan Pike" is one span, "1066" another, six tokens later.
    assert 'the answer is exactly "Joan Pike"' in model.calls[1][0].content
    assert 'the answer is exactly "1066"' in model.calls[2][0].content
    assert retriever.queries == ["Which mason built it?", "In which year was it built?"]
    assert out["short_answer"] == "Aldous Wray"


def test_replies_that_are_not_questions_leave_the_sentence_as_the_query():
    _, _, retriever = run(
        [
            said("It was built by Joan. Then it was", Joan=0.3),
            said("Joan built it."),
            said(" It was Wray. Then it was"),
            FINAL,
        ],
        query=ExplicitQuestion(0.4),
        initial_retrieval=False,
    )
    assert retriever.queries == ["It was built by Joan."]


def test_a_rewritten_query_is_cleaned_and_an_overlong_one_replaced_by_the_question():
    replies = [
        said("It was Joan. Then it was", Joan=0.3),
        [('Query: "mason of the bridge"\nBecause', 0.9)],
        said(" It was Wray. Then it was"),
        FINAL,
    ]
    _, _, retriever = run(replies, query=Rewrite(), initial_retrieval=False)
    assert retriever.queries == ["mason of the bridge"]
    replies[1] = [("word " * 40, 0.9)]
    _, _, retriever = run(replies, query=Rewrite(), initial_retrieval=False)
    assert retriever.queries == [QUESTION]


def test_a_search_tag_is_the_query():
    _, _, retriever = run(
        [said("It is old. Then it was"), FINAL],
        trigger=EverySentence(),
        query=SearchTag(),
        initial_retrieval=False,
        budgets=Budgets(retrievals=1),
    )
    assert retriever.queries == ["It is old."]
    _, _, retriever = run(
        [[("It was [Search(the mason (Brannoch))] Joan.", 0.9), *said(" Then it was")], FINAL],
        trigger=EverySentence(),
        query=SearchTag(),
        initial_retrieval=False,
        budgets=Budgets(retrievals=1),
    )
    assert retriever.queries == ["the mason (Brannoch)"]


@pytest.mark.parametrize(
    ("beta", "query"),
    [(0.0, "It was built by Joan Pike."), (0.4, "It was built by Pike."), (0.96, "It was built by Joan Pike.")],
)
def test_masking_keeps_the_whole_sentence_if_nothing_would_remain(beta, query):
    _, _, retriever = run(
        [said("It was built by Joan Pike. Then it was", Joan=0.3, Pike=0.6), said(" It was Wray. Then it was"), FINAL],
        query=MaskedSentence(beta),
        initial_retrieval=False,
    )
    assert retriever.queries == [query]


# ---------------------------------------------------------------------- where generation resumes


@pytest.mark.parametrize(
    ("resume_at", "kept"),
    [
        ("sentence", ""),
        ("token", "It was built by Jo"),
        ("word", "It was built by"),
        ("end", "It was built by Joan."),
    ],
)
def test_the_draft_is_cut_at_resume_at(resume_at, kept):
    draft = [*said("It was built by"), (" Jo", 0.9), ("an", 0.1), (".", 0.9), (" Then", 0.9), (" it", 0.9)]
    _, model, _ = run(
        [draft, said(" done. Next one"), FINAL],
        resume_at=resume_at,
        initial_retrieval=False,
        trigger=TokenProbability(0.5),
    )
    asked = model.calls[1][-1].content
    assert asked.endswith(f"repeating any of it:\n{kept}") if kept else "The answer has been begun" not in asked


def test_a_cut_inside_the_answer_sentence_does_not_end_the_answer():
    out, _, retriever = run(
        [
            said("It is old. So the answer"),
            said(" answer is Joan Pike.", Joan=0.1),
            said(" Aldous Wray."),
        ],
        resume_at="token",
        initial_retrieval=False,
        trigger=TokenProbability(0.5),
    )
    assert out["short_answer"] == "Aldous Wray"
    assert len(retriever.queries) == 1


@pytest.mark.parametrize(
    ("life", "present"),
    [
        ("sentence", [["pike"], []]),
        ("replaced", [["pike"], ["pike"]]),
        ("accumulated", [["bridge", "wray", "pike"]] * 2),
    ],
)
def test_evidence_stays_in_the_prompt_for_its_evidence_life(life, present):
    out, model, _ = run(
        [
            said("The bridge was built by Joan Pike. It stands still.", Joan=0.1),
            said(" It was built by Wray. Then it was"),
            FINAL,
        ],
        evidence_life=life,
        query=MaskedSentence(0.0),
        k=2,
        retriever=WatchedRetriever(
            give=lambda q: documents(["pike"]) if "Joan" in q else documents(["bridge", "wray"])
        ),
    )
    known = {"Joan": "pike", "Bridge:": "bridge", "Aldous": "wray"}
    shown = [[known[p.split()[0]] for p in passages_in(call)] for call in model.calls[1:]]
    assert shown == present
    assert out["short_answer"] == "Aldous Wray"


# ---------------------------------------------------------------------- budgets


def test_a_missing_answer_phrase_is_requested_from_the_model():
    out, model, _ = run([said("It was built by Wray."), said(" Aldous Wray.")], initial_retrieval=False)
    assert out["answer"] == "It was built by Wray. So the answer is Aldous Wray."
    assert model.calls[1][-1].content.endswith("It was built by Wray. So the answer is")


def test_without_an_answer_phrase_the_whole_text_is_the_answer():
    out, _, _ = run([said("It was built by Wray.")], prompt=AnswerPrompt(answer_phrase=None), initial_retrieval=False)
    assert out["answer"] == out["short_answer"] == "It was built by Wray."


def test_empty_replies_raise_after_a_bounded_number_of_attempts():
    with pytest.raises(NoAnswerError, match="wrote no answer text in 3 replies or more"):
        run([[], [], [], []], initial_retrieval=False)


def test_text_after_the_answer_sentence_is_dropped():
    out, _, _ = run(
        [said("It was Wray. So the answer is Aldous Wray. The next question is about rivers.")], preset="no_retrieval"
    )
    assert out["answer"] == "It was Wray. So the answer is Aldous Wray."
