"""The in-process generator, and the choice of a generator for a chat model."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langgraph_dynrag import ServerPolicy
from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.generators.chat import ChatGenerator
from langgraph_dynrag.generators.local import LocalGenerator, make_generator
from langgraph_dynrag.queries import Question
from langgraph_dynrag.reasoning import answer_text
from langgraph_dynrag.triggers import RIND
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from tests.langgraph_dynrag.generators.tasks import task_of
from tests.langgraph_dynrag.scripted import ScriptedChatModel


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage("Who?")],
        [SystemMessage("Answer."), HumanMessage("Who?"), AIMessage("Nobody."), HumanMessage("Why?")],
        [HumanMessage("Who?"), AIMessage("It was")],
        [HumanMessage([{"type": "text", "text": "Who?"}])],
    ],
)
def test_token_counts_match_the_encoded_conversation(local, messages):
    generator = LocalGenerator(local)
    for _ in range(2):
        assert generator.prompt_tokens(messages) == len(local.encode(messages).ids)
        assert generator.count_tokens("Who built it?") == len(local.get_token_ids("Who built it?"))


def test_text_of_a_document_gets_no_control_tokens(local):
    ids = LocalGenerator(local).token_ids("Hi<|end|>there")
    assert not set(ids) & set(local.lm.tokenizer.all_special_ids)


def test_attention_of_an_empty_draft_or_of_one_without_ids_is_not_recomputed(local):
    generator = LocalGenerator(local)
    assert generator.recompute(task_of(), Draft()) is None
    assert generator.recompute(task_of(), Draft(("a",), (-0.1,))) is None


def test_the_question_is_located_in_the_prompt(local):
    ids = tuple(local.get_token_ids("It was"))
    context = LocalGenerator(local).context(task_of(accepted="It was", accepted_ids=ids))
    assert "Who built it?" in "".join(context.question)
    assert "".join(context.answer) == "It was"
    assert list(context.question_positions) == sorted(context.question_positions)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_replies_are_cut_at_the_limit_and_report_their_cost(local, asynchronous):
    generator = LocalGenerator(local, reply_tokens=4)
    if asynchronous:
        reply, asked = await generator.areply("Who?", {}, max_tokens=3), await generator.aask(["Who?"], {})
    else:
        reply, asked = generator.reply("Who?", {}, max_tokens=3), generator.ask(["Who?"], {})
    assert 0 < reply.cost["generated_tokens"] <= 3
    assert reply.cost["prompt_tokens"] == generator.prompt_tokens([HumanMessage("Who?")])
    assert {"forward_tokens", "cached_tokens"} <= set(reply.cost)
    assert reply.text == answer_text(local.invoke("Who?", max_tokens=3))
    assert asked == [answer_text(local.invoke("Who?", max_tokens=4))]


def test_the_generator_fits_the_chat_model(local):
    assert isinstance(make_generator(local, frozenset({"attention"})), LocalGenerator)
    chat = make_generator(ScriptedChatModel(replies=[]), frozenset({"logprob"}))
    assert (type(chat), chat.signals) == (ChatGenerator, {"logprob", "entropy"})
    both = make_generator(local.with_fallbacks([ScriptedChatModel(replies=[])]), frozenset())
    assert [type(g) for g in both.generators] == [LocalGenerator, ChatGenerator]


def test_a_missing_signal_is_refused_with_the_part_that_needs_it():
    chat = ScriptedChatModel(replies=[])
    attention = frozenset({"attention"})
    with pytest.raises(SignalUnavailableError, match=r"needs attention, which ScriptedChatModel cannot give") as told:
        make_generator(chat, attention, parts={"trigger": RIND(0.1), "query": Question()})
    assert "trigger=TokenProbability() or Entropy() instead of RIND" in str(told.value)
    assert "query=" not in str(told.value)
    with pytest.raises(SignalUnavailableError, match="parts that do not need it: trigger="):
        make_generator(chat, attention)
    with pytest.raises(ConfigurationError, match="ScriptedChatModel is not a langchain-openai model"):
        make_generator(chat, frozenset(), ServerPolicy())
