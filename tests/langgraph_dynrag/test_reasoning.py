"""Separating reasoning from the answer, whatever its format and however it is split into chunks."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, create_dynamic_rag
from langgraph_dynrag.agents.judged_answer import read_answer
from langgraph_dynrag.chat_model.chat_template import encode_chat, message_text
from langgraph_dynrag.drafts.tasks import Reply
from langgraph_dynrag.reasoning import MARKS, ReasoningSplitter, answer_text, reasoning_of, split_reasoning
from langgraph_dynrag.trace.trace import Trace
from langgraph_dynrag.triggers import EverySentence, Never, TokenProbability
from rag_backbone.errors import NoAnswerError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said
from tests.tiny import tiny_llama, tiny_tokenizer

TEXT = {"type": "text", "text": "So the answer is Aldous Wray."}
ANSWER = "So the answer is Aldous Wray."


def in_pieces(text, length, *, opened=False):
    splitter, out = ReasoningSplitter(opened=opened), []
    for at in range(0, len(text), length):
        more, recalled = splitter.push([(text[at : at + length], at)])
        out = more if recalled else out + more
    more, recalled = splitter.finish()
    return "".join(piece for piece, _ in (more if recalled else out + more)), splitter.text.strip()


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
def test_all_marks_are_recognised_however_they_are_split(marks, length):
    text = f"\n{marks.opening}Who?\n\nWray, I think.{marks.closing}\n\n{ANSWER}"
    assert in_pieces(text, length) == (ANSWER, "Who?\n\nWray, I think.")
    assert in_pieces(text.upper(), length) == (ANSWER.upper(), "WHO?\n\nWRAY, I THINK.")
    assert in_pieces(f"{marks.opening}Who?\n\nWray", length) == ("", "Who?\n\nWray")


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (f"Who? Wray.\n</think>\n\n{ANSWER}", ANSWER),  # the prompt opened the block
        (f"<think></think>{ANSWER}", ANSWER),
        (f"<think>a</think>\n<think>b</think>\n{ANSWER}", ANSWER),
        (f"Sure. <think>a</think>\n{ANSWER}", f"Sure. {ANSWER}"),
        (f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}", ANSWER),
        ("The <think> tag opens it, and </think> closes it.", "The <think> tag opens it, and </think> closes it."),
        ("Write `</think>` at its end.", "Write `</think>` at its end."),
        ("If a < b and c > d, then <b>a</b>.", "If a < b and c > d, then <b>a</b>."),
        (" Wray built it", " Wray built it"),
    ],
)
def test_reasoning_and_text_are_told_apart(text, answer, length):
    assert in_pieces(text, length)[0] == answer


@given(st.text(alphabet="ab </>think\n[]", max_size=40), st.integers(1, 5))
def test_chunk_sizes_do_not_change_the_result(text, length):
    assert in_pieces(text, length) == in_pieces(text, 1)


@given(st.lists(st.sampled_from(["a", "", " <", "<", "</", "x[", "think", "</th", "ink", "\u25c1", "."]), max_size=12))
def test_a_token_that_might_start_a_mark_is_passed_on_once_and_whole(pieces):
    assume(not any(mark in "".join(pieces) for marks in MARKS for mark in marks))
    splitter = ReasoningSplitter()
    passed = []
    for token in enumerate(pieces):
        passed += splitter.push([token[::-1]])[0]
    passed += splitter.finish()[0]
    assert passed == [(piece, at) for at, piece in enumerate(pieces)]


@given(st.text(alphabet="abc .\n", max_size=30), st.text(alphabet="abc .\n", max_size=30), st.integers(1, 6))
def test_no_character_of_an_answer_is_lost(thoughts, answer, length):
    assert in_pieces(f"<think>{thoughts}</think>{answer}", length) == (answer.lstrip(), thoughts.strip())


@pytest.mark.parametrize(
    "message",
    [
        AIMessage(ANSWER, additional_kwargs={"reasoning_content": "Hm."}),  # DeepSeek, vLLM, Ollama
        AIMessage(ANSWER, additional_kwargs={"reasoning": "Hm."}),
        AIMessage(ANSWER, additional_kwargs={"reasoning": {"summary": [{"type": "summary_text", "text": "Hm."}]}}),
        AIMessage(ANSWER, additional_kwargs={"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]}),
        AIMessage([{"type": "thinking", "thinking": "Hm.", "signature": "x"}, TEXT]),
        AIMessage([{"type": "reasoning", "summary": [{"text": "Hm."}]}, TEXT]),
        AIMessage([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, TEXT]),
        AIMessage([{"type": "reasoning_content", "reasoning_content": {"text": "Hm."}}, TEXT]),
        AIMessage([{"type": "redacted_thinking", "data": "x"}, TEXT]),
        AIMessage(f"<think>Hm.</think>\n\n{ANSWER}"),
    ],
)
def test_an_answer_is_read_without_its_reasoning(message):
    assert answer_text(message) == ANSWER
    assert Reply.of(message).text == ANSWER
    result = read_answer(message, [HumanMessage("Who?")], EverySentence(), frozenset())
    assert result.draft.text == ANSWER
    assert ANSWER in message_text(message)
    if "redacted" not in str(message.content):
        assert result.reasoning == "Hm."
        assert result.cost["reasoning_tokens"] > 0
        assert (reasoning_of(message) or split_reasoning(message.content).reasoning) == "Hm."


def entries(*tokens):
    return [{"token": t, "logprob": -1.0 - i, "top_logprobs": []} for i, t in enumerate(tokens)]


@pytest.mark.parametrize("content", ["It was Wray.", "\n\nIt was Wray."])
def test_log_probabilities_of_reasoning_are_not_taken_for_those_of_the_answer(content):
    tokens = ("<think>", "It", " was", " hm", "</think>", "\n\n", "It", " was", " Wray", ".", "<|end|>")
    message = AIMessage(content, response_metadata={"logprobs": {"content": entries(*tokens)}})
    draft = read_answer(message, [HumanMessage("Who?")], TokenProbability(0.5), frozenset({"logprob"})).draft
    known = dict(zip(draft.pieces, draft.logprobs, strict=True))
    assert draft.text.strip() == "It was Wray."
    assert (known[" Wray"], known["."]) == (-9.0, -10.0)


class Thinker(ScriptedChatModel):
    """Streams its replies; those that start with `~` are reasoning tokens in a separate field."""

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in super()._stream(messages, stop, run_manager, **kwargs):
            if str(chunk.message.content).startswith("~"):
                thought = {"reasoning_content": chunk.message.content[1:]}
                message = AIMessageChunk(content="", additional_kwargs=thought)
                yield ChatGenerationChunk(message=message, generation_info=chunk.generation_info)
            else:
                yield chunk


THOUGHTS = {
    "tags": said("<think> Who? It may be Joan.\n\n I am unsure.</think>\n\n", Joan=0.01, unsure=0.01),
    "field": [(f"~{t}", p) for t, p in said("Who? It may be Joan.\n\n I am unsure.", Joan=0.01, unsure=0.01)],
}


def run(replies, model=Thinker, **options):
    retriever = WatchedRetriever()
    chat = model(replies=replies)
    chosen = {"preset": "flare", "trigger": TokenProbability(0.5), "initial_retrieval": False, **options}
    graph = create_dynamic_rag(chat, retriever, prompt=AnswerPrompt(), **chosen)
    return graph.invoke({"question": "Who built the bridge?"}), chat, retriever


@pytest.mark.parametrize("kind", THOUGHTS)
def test_reasoning_is_neither_answer_nor_judged_nor_searched_with_but_shown(kind):
    out, chat, retriever = run([[*THOUGHTS[kind], *said(ANSWER)]])
    assert out["answer"] == ANSWER
    assert retriever.queries == []
    assert out["messages"][-1].content == ANSWER
    thoughts = [e for e in out["trace"] if e["type"] == "reasoning"]
    assert "Joan" in thoughts[0]["text"]
    assert thoughts[0]["tokens"] > 5
    trace = Trace.from_state(out)
    assert trace.counts["reasoning_tokens"] == thoughts[0]["tokens"]
    assert "reasoned (" in str(trace)
    assert "may be Joan" in str(trace)
    assert "may be Joan" in trace._repr_html_()
    assert "stop" not in chat.options[0]


@pytest.mark.parametrize("kind", THOUGHTS)
def test_reasoning_does_not_count_as_answer_text(kind):
    out, _, _ = run([[*THOUGHTS[kind], *said(ANSWER)]], budgets=Budgets(tokens=64))
    assert sum(e["tokens"] for e in out["trace"] if e["type"] == "accepted") == len(said(ANSWER))


@pytest.mark.parametrize("kind", THOUGHTS)
def test_a_reply_cut_within_its_reasoning_is_requested_again_with_more_room(kind):
    out, chat, _ = run([THOUGHTS[kind] * 10, [*THOUGHTS[kind], *said(ANSWER)]], lookahead=8)
    assert out["answer"] == ANSWER
    told = [e for e in out["trace"] if e["type"] == "no_text"]
    assert [(e["problem"], e["outcome"]) for e in told] == [("only reasoning", "asked again")]
    first, second = (o["max_tokens"] for o in chat.options[:2])
    assert first == 8
    assert second > 1000


@pytest.mark.parametrize("kind", THOUGHTS)
def test_reasoning_without_an_answer_raises_an_error_that_names_the_budget(kind):
    endless = THOUGHTS["tags"][:-2] if kind == "tags" else THOUGHTS["field"]
    with pytest.raises(NoAnswerError, match=r"tokens of reasoning.*reasoning_tokens"):
        run([endless] * 10)


def test_a_reply_is_abandoned_when_its_reasoning_exceeds_the_budget():
    endless = said("<think>" + " hm" * 500)
    with pytest.raises(NoAnswerError):
        run([endless] * 10, budgets=Budgets(reasoning_tokens=50, fruitless_replies=1), lookahead=16)


@pytest.mark.parametrize("blanks", ["\n\n", "\n", " \n \n", "\n\n\n\n"])
def test_a_reply_with_leading_blank_lines_loses_nothing(blanks):
    out, _, _ = run([[(blanks, 0.9), *said(ANSWER)]])
    assert out["answer"] == ANSWER


def test_a_stop_string_still_ends_the_answer():
    out, _, _ = run([said("<think> a\n\n b</think>\n\nSo the answer is Wray.\n\nQuestion: Who else?")])
    assert out["answer"] == "So the answer is Wray."


def test_an_empty_reply_is_recorded_and_requested_again():
    out, chat, _ = run([[], said(ANSWER)])
    assert out["answer"] == ANSWER
    assert [e["problem"] for e in out["trace"] if e["type"] == "no_text"] == ["no text"]
    assert len(chat.calls) == 2


def test_a_missing_short_answer_is_recorded_and_the_phrase_is_removed():
    out, _, _ = run([said("It was built by Wray."), [], [], []], preset="no_retrieval", trigger=Never())
    assert out["answer"] == "It was built by Wray."
    told = [(e["problem"], e["outcome"]) for e in out["trace"] if e["type"] == "no_text"]
    assert told[-1] == ("no short answer", "the text before it is the answer")


THINKING_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n<think>\n{% endif %}"
)


def test_an_open_answer_is_not_placed_in_the_block_that_the_template_opens():
    tokenizer = tiny_tokenizer().__class__(tokenizer_object=tiny_tokenizer()._tokenizer)
    tokenizer.chat_template = THINKING_TEMPLATE
    question = HumanMessage("Who?")
    assert encode_chat(tokenizer, [question]).text.endswith("<think>\n")
    for answer in ("", "It was"):
        assert encode_chat(tokenizer, [question, AIMessage(answer)]).text.endswith("<think>\n\n</think>\n\n")
    own = AIMessage("I wonder.</think>It was")
    assert encode_chat(tokenizer, [question, own]).text.endswith("<think>\n")


@pytest.mark.parametrize("preset", ["no_retrieval", "flare", "dragin"])
def test_a_local_model_answers_when_the_reasoning_budget_is_used_up(preset):
    tokenizer = tiny_tokenizer().__class__(
        tokenizer_object=tiny_tokenizer()._tokenizer, pad_token="<|pad|>", bos_token="<|start|>", eos_token="<|end|>"
    )
    tokenizer.chat_template = THINKING_TEMPLATE
    chat = LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tokenizer))
    budgets = Budgets(tokens=30, reasoning_tokens=40)
    prompt = AnswerPrompt(instructions="Answer.")
    graph = create_dynamic_rag(chat, WatchedRetriever(), preset=preset, prompt=prompt, budgets=budgets)
    out = graph.invoke({"question": "Who?"})
    # A random model never ends its reasoning; once the budget is used up, the block is closed for it.
    assert [e["tokens"] for e in out["trace"] if e["type"] == "reasoning"] == [pytest.approx(41, abs=2)]
    assert out["answer"]
    thoughts = next(e["text"] for e in out["trace"] if e["type"] == "reasoning")
    assert thoughts[:20] not in out["answer"]
