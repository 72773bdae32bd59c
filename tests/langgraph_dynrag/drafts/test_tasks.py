"""Tasks and replies that nodes and generators exchange."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langgraph_dynrag.drafts.draft import Draft
from langgraph_dynrag.drafts.tasks import Reply
from tests.langgraph_dynrag.recorded import task_of

CARRIED = Draft((" was", " Wray"), (-0.1, -0.1), token_ids=(7, 8))


@pytest.mark.parametrize(
    ("ids", "carried", "expected"),
    [
        ((1, 2), CARRIED, [1, 2, 7, 8]),
        ((1, 2), Draft(), [1, 2]),
        ((), CARRIED, [7, 8]),
        (None, CARRIED, None),
        ((1, 2), Draft((" was",), (-0.1,)), None),  # without the ids of the carried tokens, the rest are of no use
    ],
)
def test_the_open_answer_has_the_ids_of_all_its_tokens_or_none(ids, carried, expected):
    message = task_of(accepted="It", accepted_ids=ids, carried=carried).open_answer
    assert message.content == "It" + carried.text
    assert message.response_metadata.get("dynprag", {}).get("token_ids") == expected


def test_a_reply_has_its_text_without_reasoning_and_its_reported_cost():
    message = AIMessage(
        "<think>Hm.</think>Wray.",
        usage_metadata={"input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
        response_metadata={"dynprag": {"forward_tokens": 0, "cached_tokens": 8}},
    )
    reply = Reply.of(message)
    assert reply.text == "Wray."
    assert reply.cost == {"prompt_tokens": 9, "generated_tokens": 4, "forward_tokens": 0, "cached_tokens": 8}


def test_a_cost_that_is_not_reported_is_absent():
    assert Reply.of(AIMessage("Wray.")).cost == {}
    assert Reply.of(HumanMessage("Wray.")) == Reply("Wray.")
