"""A generator for any chat model: what it probes, how it asks the model to go on, and what it cannot give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langgraph_dynrag.drafts.draft import Draft, Unit
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.generators.chat import ChatGenerator, retried, unstreamed
from rag_backbone.errors import SignalUnavailableError
from tests.langgraph_dynrag.generators.tasks import task_of
from tests.langgraph_dynrag.scripted import ScriptedChatModel, said

PROBED = frozenset({"logprob", "entropy"})


class Refusing(ScriptedChatModel):
    """Refuses every call."""

    def _generate(self, *args, **kwargs):
        raise ValueError("logprobs is not supported")


def test_a_model_is_probed_only_if_log_probabilities_are_needed():
    assert ChatGenerator.probed(Refusing(replies=[]), frozenset()).signals == frozenset()
    assert ChatGenerator.probed(ScriptedChatModel(replies=[]), frozenset({"logprob"})).signals == PROBED
    with pytest.raises(SignalUnavailableError, match=r"Refusing refused .*logprobs is not supported.*Use a model that"):
        ChatGenerator.probed(Refusing(replies=[]), frozenset({"logprob"}))
    with pytest.raises(SignalUnavailableError, match="ScriptedChatModel reports no log-probabilities"):
        ChatGenerator.probed(ScriptedChatModel(replies=[], reports=False), frozenset({"entropy"}))


@given(st.text())
def test_token_counts_are_positive_and_grow_with_the_text(text):
    generator = ChatGenerator(ScriptedChatModel(replies=[]), frozenset())
    assert 1 <= generator.count_tokens(text) <= generator.count_tokens(text + "abc")
    messages = [SystemMessage(text), HumanMessage("Who?")]
    assert generator.prompt_tokens(messages) > generator.prompt_tokens(messages[1:])
    assert generator.token_ids(text) is None


def test_the_context_window_is_that_of_the_model_profile():
    known = ScriptedChatModel(replies=[], profile={"max_input_tokens": 4096})
    assert ChatGenerator(known, frozenset()).context_window == 4096
    assert ChatGenerator(ScriptedChatModel(replies=[]), frozenset()).context_window is None


def test_a_begun_answer_is_continued_by_an_instruction():
    generator = ChatGenerator(ScriptedChatModel(replies=[]), frozenset())
    begun = task_of(accepted="It was", carried=Draft((" Joan",), (-0.1,)))
    messages, extra, seam = generator.continued(begun)
    assert messages[-1].content.startswith("Who built it?\n\nThe answer has been begun.")
    assert messages[-1].content.endswith("without repeating any of it:\nIt was Joan")
    assert (extra, seam.written, seam.reply) == ({}, "It was Joan", "answers")
    assert generator.continued(task_of())[0] == task_of().messages


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_draft_ends_with_its_unit(asynchronous):
    model = ScriptedChatModel(replies=[said("It was Joan. Then she left. And so on.")])
    generator = ChatGenerator(model, PROBED)
    task = task_of(unit=Unit("sentence"), needs=PROBED, opens=False)
    draft = generator.adraft(task, {}, None) if asynchronous else generator.draft(task, {}, None)
    result = await draft if asynchronous else draft
    assert result.draft.text.startswith("It was Joan.")
    assert result.draft.ended == "unit"
    assert len(result.draft.logprobs) == len(result.draft.entropies) == len(result.draft)
    assert model.options[0]["max_tokens"] >= task.limit
    assert model.options[0]["top_logprobs"] == 5


def test_only_needed_signals_and_the_seed_are_requested():
    model = ScriptedChatModel(replies=[said("Joan.")] * 2)
    generator = ChatGenerator(model, PROBED, top_logprobs=7)
    generator.draft(task_of(opens=False), {}, None)
    generator.draft(task_of(opens=False, needs=frozenset({"logprob"}), seed=3), {}, None)
    assert "logprobs" not in model.options[0]
    assert "seed" not in model.options[0]
    assert (model.options[1]["logprobs"], model.options[1]["seed"]) == (True, 3)
    assert "top_logprobs" not in model.options[1]


def test_a_bound_limit_on_tokens_is_not_exceeded():
    model = ScriptedChatModel(replies=[said("It was Joan Pike, a mason.")] * 2)
    generator = ChatGenerator(model.bind(max_tokens=3), frozenset())
    assert len(generator.draft(task_of(opens=False), {}, None).draft) == 3
    generator.reply("Who?", {}, max_tokens=9)
    assert [o["max_tokens"] for o in model.options] == [3, 3]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_instructions_are_answered_in_a_conversation_of_their_own(asynchronous):
    model = ScriptedChatModel(replies=[said("One."), said("Two three.")])
    generator = ChatGenerator(model, frozenset())
    if asynchronous:
        told = await generator.aask(["First?"], {})
        reply = await generator.areply("Second?", {}, max_tokens=2)
    else:
        told, reply = generator.ask(["First?"], {}), generator.reply("Second?", {}, max_tokens=2)
    assert (told, reply.text) == (["One."], "Two three")
    assert [[m.content for m in call] for call in model.calls] == [["First?"], ["Second?"]]


def test_signals_that_a_message_cannot_carry_are_refused():
    generator = ChatGenerator(ScriptedChatModel(replies=[]), PROBED)
    assert generator.recompute(task_of(), Draft()) is None
    assert generator.context(task_of()) is None
    with pytest.raises(SignalUnavailableError, match=r"ScriptedChatModel\) cannot give attention"):
        generator.attend_alone("text", None)
    with pytest.raises(SignalUnavailableError, match=r"ScriptedChatModel\) cannot give hidden states"):
        generator.sample_ends(task_of(), SampleSpec(), 0)


def test_calls_are_kept_out_of_the_messages_stream():
    config = {"tags": ["mine"], "metadata": {"a": 1}}
    assert unstreamed(config) == {"tags": ["mine", "nostream"], "metadata": {"a": 1}}
    assert config["tags"] == ["mine"]
    assert unstreamed({})["tags"] == ["nostream"]


async def test_asynchronous_calls_follow_the_retry_rules():
    from tenacity import stop_after_attempt

    calls = []

    async def failing():
        calls.append(1)
        if len(calls) < 3:
            raise OSError("gone")
        return AIMessage("done")

    rules = {"stop": stop_after_attempt(3), "reraise": True}
    assert (await retried(rules, failing)).content == "done"
    calls[:] = []
    with pytest.raises(OSError, match="gone"):
        await retried({**rules, "stop": stop_after_attempt(2)}, failing)
