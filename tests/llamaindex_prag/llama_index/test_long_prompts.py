"""Tests of texts that LlamaIndex's tokenizer counts as shorter than the model's: queries are answered, cuts logged."""

import asyncio

import pytest
from llama_index.core import PromptTemplate, Settings
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.llms import ChatMessage
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from llamaindex_prag.llama_index import ParametricNodePostprocessor
from llamaindex_prag.llama_index.long_prompts import _cut
from rag_backbone.errors import AdapterError
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.llama_index.conftest import TEXTS, Fixed
from tests.tiny import tiny_llama, tiny_tokenizer

WINDOW = 1024
QUESTION = "Who wrote a letter?"
MODES = ["compact", "refine", "tree_summarize", "accumulate", "compact_accumulate", "simple_summarize"]
LANGUAGES = {
    "Thai": "ผู้ดูแลประภาคารเขียนจดหมายถึงพี่ชายของเธอในเมืองหลวงเมื่อฤดูหนาวปีนั้น",
    "Chinese": "灯塔看守人在那年冬天给她在首都的哥哥写了一封信。",
    "Hindi": "उस सर्दी में प्रकाशस्तंभ के रखवाले ने राजधानी में अपने भाई को एक पत्र लिखा। ",
    "German": "Die Leuchtturmwärterin schrieb ihrem Bruder in der Hauptstadt einen ausführlichen Brief. ",
}


@pytest.fixture
def lm():
    return CausalLM(tiny_llama(max_position_embeddings=WINDOW), tiny_tokenizer(), name="tiny")


def long(language, characters=1300):
    text = LANGUAGES[language]
    return (text * (characters // len(text) + 1))[:characters]


def engine_of(llm, text, mode="compact", **options):
    retriever = Fixed(nodes=[NodeWithScore(node=TextNode(id_="long", text=text), score=1.0)])
    return RetrieverQueryEngine.from_args(retriever, llm=llm, response_mode=mode, **options)


def squeezed(text):
    return "".join(text.split())


def assert_all_of_it_was_read(calls, text):
    """Check that the prompts together contain the whole text, in order."""
    prompts, rest = [squeezed(prompt) for prompt, _ in calls], squeezed(text)
    for prompt in prompts:
        part = max((n for n in range(len(rest) + 1) if rest[:n] in prompt), default=0)
        rest = rest[part:]
    assert rest == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_long_context_is_read_in_parts_and_logged(llm, calls, caplog, language):
    text = long(language)
    assert len(llm.tokenizer(text)) > WINDOW
    assert len(Settings.tokenizer(text)) < len(llm.tokenizer(text))
    llm.predict(
        PromptTemplate("Read this.\n{context_str}\nQuestion: {query_str}"), context_str=text, query_str=QUESTION
    )
    assert len(calls) > 1
    assert all(QUESTION in prompt for prompt, _ in calls)
    assert all("An earlier answer" in prompt for prompt, _ in calls[1:])
    assert_all_of_it_was_read(calls, text)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"too long for the {WINDOW} of tiny" in caplog.text
    assert "is read in about" in caplog.text
    assert "Settings.tokenizer = llm.tokenizer" in caplog.text


@pytest.mark.parametrize(
    ("mode", "asynchronous"), [*((mode, False) for mode in MODES), ("compact", True), ("accumulate", True)]
)
async def test_every_response_mode_answers_from_a_long_text(llm, calls, mode, asynchronous):
    engine = engine_of(llm, long("Thai", 1000), mode)
    response = await engine.aquery(QUESTION) if asynchronous else await asyncio.to_thread(engine.query, QUESTION)
    assert str(response) != "Empty Response"
    assert len(calls) > 1
    assert all(len(llm.tokenizer(prompt)) < WINDOW for prompt, _ in calls)
    assert all("['" not in prompt for prompt, _ in calls)


@pytest.mark.parametrize("mode", ["compact", "tree_summarize"])
async def test_the_answer_from_the_last_part_is_streamed(llm, calls, mode):
    engine = engine_of(llm, long("Hindi"), mode, streaming=True)
    assert "".join((await asyncio.to_thread(engine.query, QUESTION)).response_gen)
    asked = len(calls)
    assert asked > 1
    answer = await engine.aquery(QUESTION)
    assert [token async for token in answer.response_gen]
    assert len(calls) == 2 * asked


@pytest.mark.parametrize("streaming", [False, True])
def test_chat_engines_answer_from_a_long_text(llm, calls, caplog, streaming):
    retriever = Fixed(nodes=[NodeWithScore(node=TextNode(text=long("Chinese")), score=1.0)])
    engine = ContextChatEngine.from_defaults(retriever, llm=llm, system_prompt="Be brief.")
    for _ in range(2):
        response = engine.stream_chat(QUESTION) if streaming else engine.chat(QUESTION)
        assert "".join(response.response_gen) if streaming else str(response)
    assert len(calls) > 2
    assert all("Be brief." in prompt for prompt, _ in calls)
    assert "is read in about" in caplog.text


def test_the_oldest_turns_of_a_long_conversation_are_left_out_and_logged(llm, calls, caplog):
    history = [ChatMessage(role="system", content="Be brief.")]
    for i in range(16):
        history += [
            ChatMessage(role="user", content=f"{i}: {TEXTS[0]}"),
            ChatMessage(role="assistant", content=TEXTS[1]),
        ]
    assert llm.chat([*history, ChatMessage(content=QUESTION)]).message.content
    ((prompt, _),) = calls
    assert "Be brief." in prompt
    assert QUESTION in prompt
    assert "15: " in prompt
    assert "user\n0: " not in prompt
    assert "of 34 messages, the oldest" in caplog.text


def test_a_system_message_that_is_too_long_loses_its_middle(llm, calls, caplog):
    llm.chat([ChatMessage(role="system", content=f"BEGIN {long('German', 1500)} END"), ChatMessage(content=QUESTION)])
    assert all(piece in calls[0][0] for piece in ("BEGIN", "[...]", "END", QUESTION))
    assert "the middle of a system message" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_any_other_long_prompt_loses_its_middle_and_is_logged(llm, calls, caplog, stream):
    prompt = f"BEGIN {long('German', 2000)} {QUESTION}"
    assert list(llm.stream_complete(prompt)) if stream else llm.complete(prompt).text
    assert all(piece in calls[0][0] for piece in ("BEGIN", "[...]", QUESTION))
    (record,) = caplog.records
    tokens = len(llm.tokenizer(calls[0][0]))
    assert tokens < WINDOW
    assert f"too long for the {WINDOW} of tiny: its middle" in record.getMessage()


def test_a_question_longer_than_the_window_is_rejected(llm, calls):
    question = long("Thai", 1000)
    with pytest.raises(AdapterError, match=r"question has \d+ tokens .* window of tiny has only 1024; ask a shorter"):
        llm.predict(PromptTemplate("{context_str}\n{query_str}"), context_str=TEXTS[0], query_str=question)
    with pytest.raises(AdapterError, match="the question has"):
        llm.chat([ChatMessage(role="system", content="Be brief."), ChatMessage(content=question)])
    post = ParametricNodePostprocessor(llm=llm)
    with pytest.raises(AdapterError, match="the question has"):
        engine_of(llm, TEXTS[0], node_postprocessors=[post]).query("Who? " * 1200)
    assert not calls


def test_adapters_act_on_every_part(llm, calls):
    node = TextNode(text=TEXTS[0])
    post = ParametricNodePostprocessor(llm=llm, injection="combined")
    (found,) = post.postprocess_nodes([NodeWithScore(node=node, score=1.0)])
    context = found.node.get_content(MetadataMode.LLM) + "\n\n" + long("Thai")
    llm.predict(PromptTemplate("{context_str}\n{query_str}"), context_str=context, query_str=QUESTION)
    assert len(calls) > 1
    assert all(selection.keys == calls[0][1].keys and len(selection) == 1 for _, selection in calls)


@pytest.mark.parametrize("name", ["tokenizer", "prompt_helper"])
def test_with_the_models_tokenizer_nothing_has_to_be_cut(llm, calls, caplog, monkeypatch, name):
    if name == "tokenizer":
        monkeypatch.setattr("llama_index.core.global_tokenizer", llm.tokenizer)  # as `Settings.tokenizer = ...` does
    else:
        monkeypatch.setattr(Settings, "_prompt_helper", llm.as_prompt_helper())
    assert str(engine_of(llm, long("Thai"), "tree_summarize").query(QUESTION))
    assert len(calls) > 2
    assert not caplog.records


@pytest.mark.parametrize("language", LANGUAGES)
def test_parts_consist_of_whole_characters_and_add_up_to_the_text(llm, language):
    rest, parts = long(language), []
    while rest:
        part, rest = _cut(llm.model.lm.tokenizer, rest, 40)
        assert len(llm.tokenizer(part)) <= 44
        parts.append(part)
    assert "".join(parts) == long(language)
    assert "�" not in "".join(parts)


def test_a_long_intermediate_answer_is_shortened_and_logged(llm, calls, caplog, monkeypatch):
    answers = iter([long("Hindi"), "brief", "brief", "brief", "brief", "brief"])
    original = type(llm)._complete
    monkeypatch.setattr(
        type(llm), "_complete", lambda self, request: original(self, request).model_copy(update={"text": next(answers)})
    )
    prompt = PromptTemplate("{context_str}\n{existing_answer}\n{query_str}")
    assert llm.predict(prompt, context_str=long("Thai", 800), query_str=QUESTION, existing_answer="none") == "brief"
    assert "leaves no room for the rest of the context" in caplog.text
