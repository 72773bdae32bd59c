"""Runs of each preset, worked out by hand with a scripted model."""

import json
from types import SimpleNamespace

import pytest

from langgraph_dynrag import AnswerPrompt, Budgets, Reformulation, RetrievalPolicy, Trace, create_dynamic_rag
from langgraph_dynrag.nodes.retrieve import search
from langgraph_dynrag.queries import (
    ExplicitQuestion,
    LastSentence,
    MaskedSentence,
    Question,
    Rewrite,
    SearchTag,
    WithQuestion,
)
from langgraph_dynrag.triggers import AllOf, AnyOf, Entropy, EverySentence, Never, Once, TokenProbability
from rag_backbone.errors import ConfigurationError, NoAnswerError
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

QUESTION = "Who built the Cooper's Bridge?"
PROMPT = AnswerPrompt()
FINAL = said(" So the answer is Aldous Wray.")
JOAN = said(" answer is Joan.")


def run(replies, preset="flare", retriever=None, prompt=PROMPT, **changes):
    model = ScriptedChatModel(replies=replies)
    retriever = retriever or WatchedRetriever()
    graph = create_dynamic_rag(model, retriever, preset=preset, prompt=prompt, **changes)
    return graph.invoke({"question": QUESTION}), model, retriever


def passages_in(messages) -> list[str]:
    return [line.split("] ", 1)[1] for line in messages[-1].content.splitlines() if line.startswith("[")]


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


def test_combined_triggers_need_all_signals_and_refuse_different_units():
    both = AnyOf(TokenProbability(0.5), Entropy(1.0))
    assert both.needs == {"logprob", "entropy"}
    assert str(AllOf(Never(), EverySentence()).unit) == "sentence"
    assert AnyOf(Once(), Never()).before("q").retrieve
    assert not AllOf(Once(), Never()).before("q").retrieve
    with pytest.raises(ConfigurationError, match="two or more"):
        AnyOf(Never())
    from langgraph_dynrag.triggers import EveryNTokens

    with pytest.raises(ConfigurationError, match="16 tokens.*sentence"):
        AnyOf(EverySentence(), EveryNTokens(16))


@pytest.mark.parametrize("kind", [AnyOf, AllOf])
def test_triggers_to_combine_may_be_passed_as_a_list(kind):
    parts = (TokenProbability(0.5), Entropy(1.0))
    for given in (list(parts), parts, (part for part in parts)):
        assert kind(given).parts == parts
    assert repr(kind(list(parts))) == repr(kind(*parts))


@pytest.mark.parametrize("kind", [AnyOf, AllOf])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "was given no trigger"),
        ([[]], "was given no trigger"),
        ([[Never()]], "was given 1 trigger;"),
        (["flare"], r"was given 'flare' \(str\), which is not a trigger"),
        ([Never(), [Never(), Once()]], "which is not a trigger"),
        ([[Never(), None]], r"was given None \(NoneType\)"),
        ([Never, Once], "which is not a trigger"),
    ],
)
def test_invalid_combinations_are_refused_with_the_line_to_write(kind, given, message):
    with pytest.raises(ConfigurationError, match=message) as refused:
        kind(*given)
    assert f"{kind.__name__}(TokenProbability(), Entropy())" in str(refused.value)
    assert "trigger(s)" not in str(refused.value)


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
        retriever=WatchedRetriever(give=lambda q: _found(["pike"]) if "Joan" in q else _found(["bridge", "wray"])),
    )
    known = {"Joan": "pike", "Bridge:": "bridge", "Aldous": "wray"}
    shown = [[known[p.split()[0]] for p in passages_in(call)] for call in model.calls[1:]]
    assert shown == present
    assert out["short_answer"] == "Aldous Wray"


def _found(ids):
    from tests.langgraph_dynrag.scripted import DOCUMENTS

    return [d for i in ids for d in DOCUMENTS if d.id == i]


# ---------------------------------------------------------------------- reformulation


UNSURE = said("It was built by Joan. Then it was", Joan=0.1)
WRITTEN = said(" It was built by Wray. Then it was")


def test_a_query_that_finds_nothing_is_rewritten_and_recorded():
    out, model, retriever = run(
        [UNSURE, said("first other query"), said("second other query"), said(" stood. So the answer"), JOAN],
        retriever=WatchedRetriever(give=[]),
        initial_retrieval=False,
        reformulation=Reformulation(max_rewrites=2),
    )
    assert retriever.queries == ["It was built by .", "first other query", "second other query"]
    assert '"first other query"' in model.calls[2][0].content
    # There is no evidence to rewrite the sentence with, so it stays as it was.
    assert out["answer"] == "It was built by Joan. Then it stood. So the answer is Joan."
    events = [e for e in out["trace"] if e["type"] == "reformulation"]
    assert [e["problem"] for e in events] == ["nothing found"] * 3
    assert events[-1]["outcome"] == "nothing found"
    assert Trace.from_state(out).counts["rewrites"] == 2


def test_a_rewritten_query_that_was_already_searched_is_replaced_by_the_question():
    _, _, retriever = run(
        [UNSURE, said("It was built by ."), said(" So the answer is Joan.")],
        retriever=WatchedRetriever(give=[]),
        initial_retrieval=False,
        query=MaskedSentence(0.4),
        reformulation=Reformulation(max_rewrites=1),
    )
    assert retriever.queries == ["It was built by .", QUESTION]


def test_low_scores_count_as_nothing_found_but_missing_scores_do_not():
    def scored(score):
        def give(_query):
            found = _found(["bridge"])
            found[0].metadata = {"title": "Bridge"} | ({} if score is None else {"score": score})
            return found

        return WatchedRetriever(give=give)

    for score, outcome in ((0.1, "nothing found"), (0.9, "evidence"), (None, "evidence")):
        out, _, _ = run(
            [UNSURE, said(" So the answer is X.")] if outcome == "nothing found" else [UNSURE, WRITTEN, FINAL],
            retriever=scored(score),
            initial_retrieval=False,
            reformulation=Reformulation(min_score=0.5),
        )
        assert next(e for e in out["trace"] if e["type"] == "reformulation")["outcome"] == outcome


@pytest.mark.parametrize("repeats", ["use", "skip"])
def test_passages_already_in_the_prompt_are_used_or_skipped(repeats):
    same = WatchedRetriever(give=lambda _q: _found(["bridge", "wray"]))
    replies = [UNSURE, WRITTEN, FINAL] if repeats == "use" else [UNSURE, FINAL]
    out, _, _ = run(replies, retriever=same, evidence_life="replaced", reformulation=Reformulation(repeats=repeats))
    events = [e for e in out["trace"] if e["type"] == "reformulation"]
    assert [e["problem"] for e in events] == [None, "nothing new"]
    assert out["answer"].startswith("It was built by Wray." if repeats == "use" else "It was built by Joan.")
    assert Trace.from_state(out).counts["nothing_new"] == 1


def test_a_repeated_query_is_detected():
    out, _, retriever = run(
        [UNSURE, WRITTEN, UNSURE, said("another way to ask"), WRITTEN, FINAL],
        initial_retrieval=False,
        query=LastSentence(),
        reformulation=Reformulation(max_rewrites=1),
    )
    problems = [e["problem"] for e in out["trace"] if e["type"] == "reformulation"]
    assert problems[0] is None
    assert "same query" in problems
    assert "another way to ask" in retriever.queries


# ---------------------------------------------------------------------- budgets


def test_the_retrieval_budget_ends_retrieval_but_not_the_answer():
    out, _, retriever = run(
        [UNSURE, WRITTEN, said(" Its mason was Joan. So the answer", Joan=0.1), said(" answer is Aldous Wray.")],
        initial_retrieval=False,
        budgets=Budgets(retrievals=1),
    )
    assert len(retriever.queries) == 1
    assert out["short_answer"] == "Aldous Wray"
    assert [e["which"] for e in out["trace"] if e["type"] == "budget"] == ["retrievals"]


def test_a_retrieval_budget_of_zero_allows_no_search():
    out, _, retriever = run([UNSURE, FINAL], budgets=Budgets(retrievals=0))
    assert retriever.queries == []
    assert out["short_answer"] == "Aldous Wray"


def test_the_token_budget_forces_the_short_answer():
    out, model, _ = run(
        [said("It was built by the mason of the old town wall"), said(" Aldous Wray.")],
        initial_retrieval=False,
        trigger=Never(),
        budgets=Budgets(tokens=10),
    )
    assert out["answer"] == "It was built by the mason of the old town\nSo the answer is Aldous Wray."
    assert out["short_answer"] == "Aldous Wray"
    assert model.options[0]["max_tokens"] == 10
    assert [e["type"] for e in out["trace"] if e["type"] in ("budget", "closing")] == ["budget", "closing"]


def test_the_time_budget_forces_the_short_answer():
    out, _, _ = run(
        [said(" Aldous Wray.")],
        retriever=WatchedRetriever(delay=0.3),
        budgets=Budgets(seconds=0.2),
    )
    assert out["short_answer"] == "Aldous Wray"
    assert "seconds" in [e.get("which") for e in out["trace"]]


def test_the_budget_of_identical_retrievals_ends_retrieval():
    same = WatchedRetriever(give=lambda _q: _found(["bridge", "wray"]))
    out, _, retriever = run(
        [UNSURE, WRITTEN, UNSURE, FINAL],
        retriever=same,
        evidence_life="replaced",
        budgets=Budgets(identical_retrievals=0),
    )
    assert len(retriever.queries) == 2
    assert [e["which"] for e in out["trace"] if e["type"] == "budget"] == ["identical_retrievals"]
    assert out["short_answer"] == "Aldous Wray"


@pytest.mark.parametrize("limit", [0, 1, 2])
@pytest.mark.parametrize("life", ["sentence", "replaced", "accumulated"])
def test_identical_searches_are_counted_after_their_passages_have_left_the_prompt(life, limit):
    """The question is searched first, then the same unsure sentence again and again, as happens with FLARE."""
    same = WatchedRetriever(give=lambda _q: _found(["bridge"]))
    replies = [UNSURE, UNSURE, UNSURE, UNSURE, UNSURE, FINAL, FINAL, FINAL, FINAL, FINAL]
    out, _, retriever = run(
        replies, retriever=same, evidence_life=life, recheck=True, budgets=Budgets(identical_retrievals=limit)
    )
    identical = [e["identical"] for e in out["trace"] if e["type"] == "retrieval"]
    assert identical.count(True) == limit + 1
    assert identical[-1]
    assert len(retriever.queries) == len(identical) <= limit + 3
    assert [e["which"] for e in out["trace"] if e["type"] == "budget"] == ["identical_retrievals"]
    json.dumps([out["trace"], out["answer"]])


@pytest.mark.parametrize(
    ("query", "identical"),
    [("who built it?", True), ("  WHO\tbuilt  it? ", True), ("\uff37ho built it?", True), ("Who sold it?", False)],
)
def test_searches_are_identical_if_query_or_passages_repeat(query, identical):
    settings = SimpleNamespace(retriever=WatchedRetriever(give=lambda _q: []), k=3, retrieval=RetrievalPolicy())
    first = search({"queries": ["Who built it?"]}, settings, {})
    second = search({"queries": [query], **{n: first[n] for n in ("asked", "seen", "identical")}}, settings, {})
    assert (first["identical"], second["identical"]) == (0, int(identical))
    other = SimpleNamespace(
        retriever=WatchedRetriever(give=lambda _q: _found(["bridge"])), k=3, retrieval=RetrievalPolicy()
    )
    known = search({"queries": [query], "seen": ["bridge"], "asked": [], "identical": 1}, other, {})
    assert known["identical"] == 2
    failing = SimpleNamespace(retriever=WatchedRetriever(give=OSError("down")), k=3, retrieval=RetrievalPolicy())
    assert search({"queries": ["Who built it?"], "asked": ["Who built it?"]}, failing, {})["identical"] == 0


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
