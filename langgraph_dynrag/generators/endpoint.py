"""Find out what an OpenAI-compatible endpoint can do, by short requests: each sent once, when its result is needed.

Building a graph only asks for log-probabilities, and only if its method reads them. How an answer is continued is found
out when the first answer has to be continued, and the context window when the first question arrives. Results hold for
all chat models with the same server, model and key, for the lifetime of the process. `ServerPolicy(capabilities=...)`
states them instead, and nothing is asked.

Whether the server continues an answer shows in the number of prompt tokens, independently of the model and its reply.
With `n` tokens for a question, and `n(w)` for the question followed by an assistant's message w:

    flags         n(w) is smaller if continuing is requested: the message was not closed, and no new one was opened
    last_message  n(ww) - n(w) = n(w) - n: a message costs only its text, so it is not closed either
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from tenacity import Retrying

from langgraph_dynrag.drafts.draft import Signal
from langgraph_dynrag.generators.server_policy import ContinuationMode, ServerPolicy
from langgraph_dynrag.reasoning import opens_reasoning
from rag_backbone.errors import ConfigurationError, DynPragError, ServerError, SignalUnavailableError
from rag_backbone.openai_errors import Failure, failure_of, garbled

if TYPE_CHECKING:
    from langchain_openai.chat_models.base import BaseChatOpenAI

_QUESTION = "Say yes."
_WORD = "yes, yes, yes"
CONTINUE: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
"""Extra fields with which vLLM continues the last message of a chat request."""
ADVICE = (
    "Use a server that reports them (vLLM, llama.cpp's server, OpenAI's), LocalChatModel, or a trigger that needs none "
    "(Never, Once, EveryNTokens, EverySentence)."
)


@dataclass
class _Facts:
    """Known facts about one model of one server; the lock is held while the server is asked."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    reported: dict[int, int] = field(default_factory=dict)
    """Requested number of alternatives -> number reported; -1 if not even log-probabilities are reported."""
    way: ContinuationMode | None = None
    window: int | None = None
    window_asked: bool = False
    opens: bool | None = None


_known: dict[Any, _Facts] = {}
_known_lock = threading.Lock()


def forget_endpoints() -> None:
    """Forget what was found out about servers.

    Call it after a server was restarted with other options; the next graph for it probes it again.
    """
    with _known_lock:
        _known.clear()


class Endpoint:
    """One model of one server, and what it can do.

    Args:
        chat: The chat model.
        policy: Retries, and the stated capabilities of the server.
        bound: Options of every request.
    """

    def __init__(
        self, chat: BaseChatOpenAI, policy: ServerPolicy | None = None, bound: Mapping[str, Any] | None = None
    ) -> None:
        self._chat = chat
        self._policy = policy or ServerPolicy()
        self._bound = dict(bound or {})
        self.alternatives = 0
        """Number of top alternatives reported with each token; set by `require` and `assume`."""
        self._facts = self._said() or _facts_of(chat, self.model, self._bound)

    @property
    def name(self) -> str:
        """Description of the server for messages."""
        return f"the server at {self._chat.root_client.base_url}"

    @property
    def model(self) -> str:
        """Name of the model on the server."""
        return str(self._bound.get("model") or self._chat.model_name)

    @property
    def extra_body(self) -> dict[str, Any]:
        """Request fields beyond OpenAI's protocol."""
        return {**(self._chat.extra_body or {}), **(self._bound.get("extra_body") or {})}

    def joined(self, options: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request's options with further ones; fields beyond OpenAI's protocol are added to those it has."""
        body = more.get("extra_body")
        merged = {**(options.get("extra_body") or self.extra_body), **body} if body else None
        return {**options, **more} if merged is None else {**options, **more, "extra_body": merged}

    def require(self, needs: frozenset[Signal]) -> frozenset[Signal]:
        """Return which of the needed signals the server gives; sends one request unless that is known already.

        Args:
            needs: Needed signals; without `logprob` and `entropy`, nothing is requested.

        Raises:
            ConfigurationError: If the server has no such model or refuses the key.
            SignalUnavailableError: If log-probabilities are needed and the server does not report them.
            ServerUnavailableError: If the server cannot be reached.
        """
        if not needs & {"logprob", "entropy"}:
            return frozenset()
        wanted = self._policy.alternatives if "entropy" in needs else 0
        with self._facts.lock:
            if wanted not in self._facts.reported:
                self._facts.reported[wanted] = self._alternatives(wanted)
            reported = self._facts.reported[wanted]
        if reported < 0:
            raise SignalUnavailableError(
                f"{self.name} reports no log-probabilities with {self.model!r}, which the trigger needs. {ADVICE}"
            )
        self.alternatives = reported
        return frozenset({"logprob", "entropy"}) if reported else frozenset({"logprob"})

    def assume(self, needs: frozenset[Signal]) -> frozenset[Signal]:
        """Assume that a server which cannot be reached now gives the needed signals, and return these."""
        self.alternatives = self._policy.alternatives if "entropy" in needs else 0
        return needs & {"logprob", "entropy"}

    @property
    def knows_way(self) -> bool:
        """Whether `way` is known without sending requests."""
        return self._policy.continuing != "auto" or self._facts.way is not None

    @property
    def way(self) -> ContinuationMode:
        """How an answer is continued; the first access may send up to four requests."""
        if self._policy.continuing != "auto":
            return self._policy.continuing
        with self._facts.lock:
            if self._facts.way is None:
                self._facts.way = self._find_way()
            return self._facts.way

    @property
    def context_window(self) -> int | None:
        """Context window in the server's list of models, requested on first access; None if it is not listed there."""
        with self._facts.lock:
            if not self._facts.window_asked:
                cards = self.cards()
                found = next((_window(c) for c in cards or () if c.id == self.model), None)
                self._facts.window, self._facts.window_asked = found, cards is not None
            return self._facts.window

    @property
    def opens_reasoning(self) -> bool | None:
        """Whether a reply begins inside a reasoning block opened by the chat template; None if not known yet."""
        return self._facts.opens

    def note_reasoning(self, opens: bool) -> None:
        """Record whether a reply began inside a reasoning block."""
        self._facts.opens = opens

    def cards(self) -> list[Any] | None:
        """Return the server's list of models, empty if it has none; None if the server cannot be reached."""
        try:
            return list(self._chat.root_client.with_options(max_retries=0).models.list())
        except Exception as error:
            failure = failure_of(garbled(error))
            if failure is None:
                raise
            return None if failure.passing and failure.status is None else []

    def explained(self, error: Exception, failure: Failure) -> DynPragError:
        """Return the error that explains a failed request to the caller."""
        if failure.status in (401, 403):
            return ConfigurationError(f"{self.name} refuses the key (HTTP {failure.status}): {error}")
        if failure.unknown_model:
            known = ", ".join(card.id for card in self.cards() or ()) or "no list of models"
            return ConfigurationError(f"{self.name} has no model {self.model!r}; it has {known}. ({error})")
        return failure.explained(self.name)

    # ------------------------------------------------------------------------------------------------- what is asked

    def _said(self) -> _Facts | None:
        """Return the capabilities stated by the policy; None if the server should be probed."""
        said = self._policy.capabilities
        if said is None:
            return None
        counts = {self._policy.alternatives: said.alternatives or 0, 0: 0}
        reported = {wanted: min(wanted, has) if said.logprobs else -1 for wanted, has in counts.items()}
        return _Facts(
            reported=reported,
            way=said.continuing,
            window=said.context_window,
            window_asked=True,
            opens=said.opens_reasoning,
        )

    def _alternatives(self, wanted: int) -> int:
        """Return how many alternatives are reported at least; servers cap the number."""
        refusals = []
        for count in [n for n in dict.fromkeys((wanted, 5, 1)) if n <= wanted] if wanted else [0]:
            options: dict[str, Any] = {"logprobs": True, "top_logprobs": count} if count else {"logprobs": True}
            try:
                reply = self._ask([HumanMessage(_QUESTION)], patient=False, **options)
            except ServerError as error:
                refusals.append(str(error))
                if getattr(error.__cause__, "status_code", None) in (400, 422):
                    continue
                raise
            self._facts.opens = opens_reasoning(reply) if self._facts.opens is None else self._facts.opens
            entries = (reply.response_metadata.get("logprobs") or {}).get("content") or []
            return min((len(e.get("top_logprobs") or []) for e in entries), default=-1)
        raise SignalUnavailableError(
            f"{self.name} refuses requests for log-probabilities, which the trigger needs: {refusals[-1]} {ADVICE}"
        )

    def _find_way(self) -> ContinuationMode:
        question: list[BaseMessage] = [HumanMessage(_QUESTION)]
        once, twice = [*question, AIMessage(_WORD)], [*question, AIMessage(f"{_WORD}, {_WORD}")]
        closed = self._prompt_tokens(once)
        left_open = self._prompt_tokens(once, extra_body={**self.extra_body, **CONTINUE})
        if closed is None:
            return "ask_again"
        if left_open is not None and left_open < closed:
            return "flags"
        alone, more = self._prompt_tokens(question), self._prompt_tokens(twice)
        if alone is None or more is None:
            return "ask_again"
        # The comma between the two words adds one token; an unclosed message adds no other token.
        return "last_message" if closed - alone <= more - closed - 1 else "ask_again"

    def _prompt_tokens(self, messages: Sequence[BaseMessage], **options: Any) -> int | None:
        """Return the server's count of prompt tokens; None if it refuses the request or does not report the count."""
        try:
            reply = self._ask(messages, patient=True, **options)
        except ServerError as error:
            failure = None if error.__cause__ is None else failure_of(error.__cause__)
            if failure is not None and not failure.passing:
                return None
            raise
        usage = reply.usage_metadata
        return None if not usage or not usage["input_tokens"] else usage["input_tokens"]

    def _ask(self, messages: Sequence[BaseMessage], *, patient: bool, **options: Any) -> AIMessage:
        def once() -> AIMessage:
            with reading():
                return self._chat.invoke(list(messages), **{**self._bound, **options, "max_tokens": 4})

        may_pass: Callable[[BaseException], bool] | None = None if patient else _answers
        try:
            return Retrying(**self._policy.rules(may_pass))(once)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            raise self.explained(error, failure) from error


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Distinguish a client's failure to parse a response from errors in this package and in callbacks."""
    try:
        yield
    except Exception as error:
        if (meant := garbled(error)) is not error:
            raise meant from error
        raise


def _facts_of(chat: BaseChatOpenAI, model: str, bound: Mapping[str, Any]) -> _Facts:
    client = chat.root_client
    sent = (chat.default_headers, chat.extra_body, chat.model_kwargs, bound.get("extra_body"))
    key = (str(client.base_url), model, client.api_key, repr(sent))
    with _known_lock:
        return _known.setdefault(key, _Facts())


def _window(card: Any) -> int | None:
    """Return the context window in an entry of a server's list of models, where vLLM or llama.cpp writes it."""
    found = getattr(card, "max_model_len", None) or (getattr(card, "meta", None) or {}).get("n_ctx")
    return int(found) if found else None


def _answers(error: BaseException) -> bool:
    """Return whether an error is transient and comes from a reachable server; unreachable ones are reported at once."""
    failure = failure_of(error)
    return failure is not None and failure.passing and failure.status is not None
