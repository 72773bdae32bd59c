"""What an OpenAI-compatible endpoint can do, found out by a few short requests when a graph is built.

Whether it continues an answer is told by the number of prompt tokens, whatever the model is and says. With
`n` for a question, and `n(w)` for the question followed by an assistant's message w:

    flags         n(w) is smaller when continuing is asked for: the message was not closed, no new one was opened
    last_message  n(ww) - n(w) = n(w) - n: a message costs what its text costs, so it is not closed either
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from tenacity import Retrying

from langgraph_dynrag.draft import Signal
from langgraph_dynrag.reasoning import opens_reasoning
from langgraph_dynrag.server_policy import ServerPolicy
from rag_backbone.errors import ConfigurationError, ServerError, SignalUnavailableError
from rag_backbone.server_failures import Failure, failure_of, garbled

if TYPE_CHECKING:
    from langchain_openai.chat_models.base import BaseChatOpenAI

Way = Literal["flags", "last_message", "ask_again"]

_QUESTION = "Say yes."
_WORD = "yes, yes, yes"
CONTINUE: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
"""vLLM's extra fields of a chat request whose last message is to be continued."""
ADVICE = (
    "Use a server that reports them (vLLM, llama.cpp's server, OpenAI's), LocalChatModel, or a trigger that needs none "
    "(Never, Once, EveryNTokens, EverySentence)."
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What was found."""

    name: str
    """For messages."""
    signals: frozenset[Signal] = frozenset()
    alternatives: int = 0
    """Likeliest tokens that it reports with each token."""
    way: Way = "ask_again"
    """How an answer is continued."""
    context_window: int | None = None
    opens_reasoning: bool | None = None
    """Whether a reply begins within a block of reasoning that the server's chat template opens; None: not known."""


def endpoint_name(chat: BaseChatOpenAI) -> str:
    """Where the model is, in words."""
    return f"the server at {chat.root_client.base_url}"


def probe(chat: BaseChatOpenAI, needs: frozenset[Signal], policy: ServerPolicy) -> Endpoint:
    """Ask the endpoint what a graph needs to know.

    Raises:
        ConfigurationError: If it has no such model, or refuses the key.
        SignalUnavailableError: If it reports no log-probabilities, and they are needed.
        ServerUnavailableError: If it cannot be reached.
    """
    name = endpoint_name(chat)
    cards = _models(chat)
    window = next((getattr(c, "max_model_len", None) for c in cards if c.id == chat.model_name), None)
    wanted = needs & {"logprob", "entropy"}
    signals: set[Signal] = set()
    reported = 0
    if wanted:
        reported, found, opens = _alternatives(chat, name, policy.alternatives if "entropy" in wanted else 0, policy)
        signals = {"logprob", "entropy"} if reported else {"logprob"}
        if not found:
            raise SignalUnavailableError(
                f"{name} reports no log-probabilities with {chat.model_name!r}, which the trigger needs. {ADVICE}"
            )
    else:
        opens = opens_reasoning(_ask(chat, name, [HumanMessage(_QUESTION)], policy))
    way = _way(chat, name, policy) if policy.continuing == "auto" else policy.continuing
    return Endpoint(name, frozenset(signals), reported, way, int(window) if window else None, opens)


def _alternatives(chat: BaseChatOpenAI, name: str, wanted: int, policy: ServerPolicy) -> tuple[int, bool, bool | None]:
    """How many alternatives are reported at least, whether log-probabilities are, and whether the reply reasons first.

    Servers cap the number of alternatives.
    """
    refusals = []
    for count in [n for n in dict.fromkeys((wanted, 5, 1)) if n <= wanted] if wanted else [0]:
        options: dict[str, Any] = {"logprobs": True, "top_logprobs": count} if count else {"logprobs": True}
        try:
            reply = _ask(chat, name, [HumanMessage(_QUESTION)], policy, **options)
        except ServerError as error:
            refusals.append(str(error))
            if getattr(error.__cause__, "status_code", None) in (400, 422):
                continue
            raise
        entries = (reply.response_metadata.get("logprobs") or {}).get("content") or []
        least = min((len(e.get("top_logprobs") or []) for e in entries), default=0)
        return least, bool(entries), opens_reasoning(reply)
    raise SignalUnavailableError(
        f"{name} refuses requests for log-probabilities, which the trigger needs: {refusals[-1]} {ADVICE}"
    )


def _way(chat: BaseChatOpenAI, name: str, policy: ServerPolicy) -> Way:
    """How the server continues an answer."""
    question: list[BaseMessage] = [HumanMessage(_QUESTION)]
    once, twice = [*question, AIMessage(_WORD)], [*question, AIMessage(f"{_WORD}, {_WORD}")]
    closed = _prompt_tokens(chat, name, once, policy)
    left_open = _prompt_tokens(chat, name, once, policy, extra_body={**(chat.extra_body or {}), **CONTINUE})
    if closed is None:
        return "ask_again"
    if left_open is not None and left_open < closed:
        return "flags"
    alone, more = _prompt_tokens(chat, name, question, policy), _prompt_tokens(chat, name, twice, policy)
    if alone is None or more is None:
        return "ask_again"
    # The comma between the two makes one more; an unclosed message has no other token of its own.
    return "last_message" if closed - alone <= more - closed - 1 else "ask_again"


def _prompt_tokens(
    chat: BaseChatOpenAI, name: str, messages: Sequence[BaseMessage], policy: ServerPolicy, **options: Any
) -> int | None:
    """As the server counts them; None if it refuses the request, or does not tell."""
    try:
        reply = _ask(chat, name, messages, policy, **options)
    except ServerError as error:
        failure = _failure(error.__cause__)
        if failure is not None and not failure.passing:
            return None
        raise
    usage = reply.usage_metadata
    return None if not usage or not usage["input_tokens"] else usage["input_tokens"]


def _ask(
    chat: BaseChatOpenAI, name: str, messages: Sequence[BaseMessage], policy: ServerPolicy, **options: Any
) -> AIMessage:
    def once() -> AIMessage:
        try:
            return chat.invoke(list(messages), max_tokens=4, **options)
        except Exception as error:
            if (meant := garbled(error)) is not error:
                raise meant from error
            raise

    try:
        return Retrying(**policy.rules())(once)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        if failure.status in (401, 403):
            raise ConfigurationError(f"{name} refuses the key (HTTP {failure.status}): {error}") from error
        if failure.unknown_model:
            raise ConfigurationError(unknown_model(chat, name, error)) from error
        raise failure.explained(name) from error


def unknown_model(chat: BaseChatOpenAI, name: str, error: BaseException) -> str:
    """What to say of a model that the server does not have."""
    known = [card.id for card in _models(chat)]
    return f"{name} has no model {chat.model_name!r}; it has {', '.join(known) or 'not told which'}. ({error})"


def _models(chat: BaseChatOpenAI) -> list[Any]:
    """The server's own list; empty where it has none."""
    try:
        return list(chat.root_client.with_options(max_retries=0).models.list())
    except Exception as error:
        if failure_of(garbled(error)) is None:
            raise
        return []


def _failure(error: BaseException | None) -> Failure | None:
    return None if error is None else failure_of(error)
