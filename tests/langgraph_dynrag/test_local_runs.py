"""The graph with a real (tiny, random) model: signals, token-exact continuation, and the tokens of forward passes."""

import numpy as np
import pytest
import torch
from langchain_core.messages import AIMessage

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, Trace, create_dynamic_rag, create_nodes
from langgraph_dynrag.drafts.draft import AloneAttention, Draft, DraftView
from langgraph_dynrag.presets.methods import get_preset
from langgraph_dynrag.queries import QFS, Question
from langgraph_dynrag.triggers import ETC, RIND, EveryNTokens, Never
from rag_backbone.engine.requests import Request
from rag_backbone.loading.causal_lm import CausalLM
from rag_backbone.text.units import sentences
from tests.langgraph_dynrag.running import step
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever
from tests.tiny import tiny_llama, tiny_llama_of_lines, tiny_tokenizer

QUESTION = "Who built the bridge in the capital?"
PROMPT = AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())


@pytest.fixture
def chat_of_lines():
    return LocalChatModel.from_causal_lm(CausalLM(tiny_llama_of_lines(), tiny_tokenizer(), name="tiny"))


def eager_attention(chat, ids):
    chat.lm.model.set_attn_implementation("eager")
    with torch.inference_mode():
        out = chat.lm.model(torch.tensor([ids]), output_attentions=True)
    chat.lm.model.set_attn_implementation("sdpa")
    return out.attentions[-1][0].numpy(), out.logits[0].float()


def test_rind_scores_match_a_separate_eager_forward_pass(chat):
    nodes = create_nodes(chat, WatchedRetriever(), preset="dragin", prompt=PROMPT, trigger=RIND(0.0), lookahead=40)
    state = step(nodes, {"question": QUESTION}, "begin", "generate", "monitor")
    draft = Draft.from_state(state["draft"])
    verdict = state["verdict"]
    judged = state["judged"]
    prompt = chat.encode([*PROMPT.messages(QUESTION, ()), AIMessage("")]).ids
    attention, logits = eager_attention(chat, prompt + list(draft.token_ids))
    logprobs = torch.log_softmax(logits, -1)
    checked = 0
    for t, score in enumerate(verdict["scores"]):
        row = logprobs[len(prompt) + t - 1]
        entropy = -(row.exp() * row).sum().item()
        later = attention[:, len(prompt) + t + 1 : len(prompt) + judged, len(prompt) + t]
        a = later.max(axis=1).mean() if later.shape[1] else 0.0
        if score is not None:
            assert score == pytest.approx(entropy * a, abs=1e-3)
            checked += 1
    assert checked > 0


def test_the_query_matches_a_separate_eager_forward_pass(chat):
    nodes = create_nodes(chat, WatchedRetriever(), preset="dragin", prompt=PROMPT, trigger=RIND(0.0), lookahead=40)
    state = step(nodes, {"question": QUESTION}, "begin", "generate", "monitor")
    draft = Draft.from_state(state["draft"])
    position = state["verdict"]["position"]
    encoded = chat.encode([*PROMPT.messages(QUESTION, ()), AIMessage("")])
    attention, _ = eager_attention(chat, encoded.ids + list(draft.token_ids))
    row = attention[:, len(encoded.ids) + position].mean(0)
    where = encoded.text.rindex(QUESTION)
    sums = {}
    for word in ("built", "bridge", "capital"):
        start = where + QUESTION.index(word)
        sums[word] = sum(row[i] for i, s in enumerate(encoded.spans) if s.start < start + len(word) and s.end > start)
    best = max(sums, key=sums.get)
    one = create_nodes(
        chat, WatchedRetriever(), preset="dragin", prompt=PROMPT, trigger=RIND(0.0), lookahead=40, query=_qfs(1)
    )
    query = step(one, {"question": QUESTION}, "begin", "generate", "monitor")["queries"][0]
    words_before = draft[:position].words
    if query not in words_before:
        assert query == best
    all_words = state["queries"][0].split()
    assert [w for w in all_words if w in sums] == ["built", "bridge", "capital"]


def _qfs(n):
    from langgraph_dynrag.queries import QFS

    return QFS(n)


def test_recomputed_attention_gives_the_same_verdict(chat):
    nodes = create_nodes(chat, WatchedRetriever(), preset="dragin", prompt=PROMPT, trigger=RIND(0.0), lookahead=40)
    drafted = step(nodes, {"question": QUESTION}, "begin", "generate")
    assert drafted["attention"] is not None
    kept = step(nodes, drafted, "monitor")
    lost = step(nodes, {**drafted, "attention": None}, "monitor")
    assert lost["queries"] == kept["queries"]
    assert lost["verdict"]["position"] == kept["verdict"]["position"]
    pairs = zip(lost["verdict"]["scores"], kept["verdict"]["scores"], strict=True)
    assert all((a is None) == (b is None) and (a is None or a == pytest.approx(b, abs=1e-3)) for a, b in pairs)


@pytest.mark.parametrize("unit", ["sentence", "tokens", "all"])
def test_judging_without_retrieval_changes_no_token_and_decodes_none_twice(chat, unit):
    trigger = {"sentence": RIND(1e9), "tokens": _Quiet(7), "all": Never()}[unit]
    options = {
        "prompt": PROMPT,
        "budgets": Budgets(tokens=60),
        "lookahead": 60,
        "trigger": trigger,
        "query": Question(),
    }
    graph = create_dynamic_rag(chat, WatchedRetriever(), preset="dragin", **options)
    out = graph.invoke({"question": QUESTION})
    prompt = chat.encode([*PROMPT.messages(QUESTION, ()), AIMessage("")]).ids
    fresh = CausalLM(tiny_llama(), tiny_tokenizer()).engine.generate(Request(prompt, 60))
    assert out["answer"] == fresh.text.strip()
    drafts = Trace.from_state(out).drafts
    forward = sum(d.cost["forward_tokens"] for d in drafts)
    # Every token is computed in one forward pass; the last token of each draft waits for the next draft.
    assert forward <= len(prompt) + len(fresh.steps) + len(drafts)


class _Quiet(EveryNTokens):
    """Judges every `n` tokens and never retrieves."""

    def judge(self, view):
        return Never().judge(view)


def test_the_fixed_prefix_is_not_recomputed_after_a_retrieval(chat):
    """The text before the passages stays in the prefix cache; passages, question and answer are new."""
    options = {"prompt": PROMPT, "trigger": RIND(0.0), "lookahead": 40, "budgets": Budgets(tokens=60, retrievals=1)}
    nodes = create_nodes(chat, WatchedRetriever(give=DOCUMENTS[:1]), preset="dragin", **options)
    state = step(nodes, {"question": QUESTION}, "begin", "generate", "monitor", "retrieve", "reformulate", "resume")
    assert state["evidence"]
    fixed = len(chat.encode(PROMPT.messages("", ())[:-1]).ids)
    before = chat.lm.engine.counts
    state = step(nodes, state, "generate")
    work = chat.lm.engine.counts - before
    task_prompt = chat.encode(
        [
            *PROMPT.messages(QUESTION, state["evidence"]),
            AIMessage("", response_metadata={"dynprag": {"token_ids": state["token_ids"]}}),
        ]
    ).ids
    tokens = state["draft"]["token_ids"]
    assert work.cached_tokens >= fixed - 8  # the generation prompt differs in a few tokens
    assert work.forward_tokens <= len(task_prompt) - work.cached_tokens + len(tokens) + 1
    fresh = CausalLM(tiny_llama(), tiny_tokenizer()).engine.generate(Request(task_prompt, len(tokens)))
    assert fresh.token_ids == tokens


def test_the_reference_bundle_drafts_the_whole_answer_and_attends_to_the_draft_alone(chat):
    graph = create_dynamic_rag(
        chat,
        WatchedRetriever(give=DOCUMENTS[:1]),
        preset=get_preset("dragin", bundle="reference"),
        prompt=PROMPT,
        trigger=RIND(0.0, "reference"),
        budgets=Budgets(tokens=50, retrievals=2),
        lookahead=50,
    )
    out = graph.invoke({"question": QUESTION})
    first = Trace.from_state(out).drafts[0]
    assert len(first.tokens) == 50 or first.ended == "end"
    whole = create_nodes(
        chat, WatchedRetriever(), preset="no_retrieval", prompt=PROMPT, lookahead=50, budgets=Budgets(tokens=50)
    )
    draft = Draft.from_state(step(whole, {"question": QUESTION}, "begin", "generate")["draft"])
    assert first.text == draft.text
    alone, _ = eager_attention(chat, list(draft.token_ids))
    assert alone.max(axis=1).mean(axis=0)[0] == pytest.approx(1.0)  # the first token attends only to itself
    view = DraftView(QUESTION, "", draft, len(draft), attend_alone=lambda *_: AloneAttention(draft.pieces, alone))
    expected = RIND(0.0, "reference").judge(view)
    assert expected.retrieve
    for token, score in zip(first.tokens, expected.scores, strict=True):
        assert token.score == (None if score is None else pytest.approx(score, abs=1e-3))


@pytest.mark.parametrize("preset", ["dragin", "etc"])
def test_the_reference_bundle_keeps_one_sentence_per_retrieval_and_drafts_the_rest_without_passages(
    chat_of_lines, preset
):
    """The published code continues this way after a retrieval."""
    trigger = RIND(0.0, "reference") if preset == "dragin" else ETC(-1e9, "reference")
    graph = create_dynamic_rag(
        chat_of_lines,
        WatchedRetriever(give=DOCUMENTS[:1]),
        preset=get_preset(preset, bundle="reference"),
        prompt=PROMPT,
        trigger=trigger,
        query=Question() if preset == "etc" else QFS(25, "reference"),
        budgets=Budgets(tokens=60, identical_retrievals=99),
        lookahead=60,
    )
    out = graph.invoke({"question": QUESTION})
    drafts = Trace.from_state(out).drafts
    written_with = [d for d in drafts if d.evidence]
    assert len(written_with) >= 2
    for draft in written_with:
        kept = "".join(t.text for t in draft.tokens if t.fate == "accepted")
        assert len(sentences(kept)) == 1
        assert draft.verdict["reason"] == "written with the passages found"
    later = drafts[drafts.index(written_with[0]) + 1 :]
    assert any(d.verdict["retrieve"] and not d.evidence for d in later)
    assert len(Trace.from_state(out).retrievals) == len(written_with)


def test_carried_tokens_have_the_attention_rows_of_a_single_draft(chat_of_lines):
    """A draft that begins with carried tokens has the same attention as one generated in a single call."""
    options = {"prompt": PROMPT, "trigger": RIND(1e9), "lookahead": 60, "budgets": Budgets(tokens=60)}
    nodes = create_nodes(chat_of_lines, WatchedRetriever(), preset="dragin", **options)
    state = step(nodes, {"question": QUESTION}, "begin", "generate", "monitor")
    assert state["stage"] == "drafting"
    carried = len(state["draft"]["pieces"])
    state = step(nodes, state, "generate")
    rows = state["attention"]
    draft = Draft.from_state(state["draft"])
    assert len(rows.mean) == len(draft) + 1
    prompt = chat_of_lines.encode(
        [
            *PROMPT.messages(QUESTION, ()),
            AIMessage("", response_metadata={"dynprag": {"token_ids": state["token_ids"]}}),
        ]
    ).ids
    full, _ = eager_attention(chat_of_lines, prompt + list(draft.token_ids))
    assert carried > 0
    assert rows.start == len(prompt)
    inside = full[:, len(prompt) :, len(prompt) :]
    assert np.abs(rows.within(len(draft)) - inside).max() < 1e-4
    for t in range(len(draft)):
        assert np.abs(rows.of_token(t) - full[:, len(prompt) + t, : len(prompt) + t + 1].mean(0)).max() < 1e-4
