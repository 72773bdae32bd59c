"""An augmenter that has questions written by any model behind an endpoint, usually larger than the one that is trained.

    passage -> a prompt per style, several at once -> replies -> parsed, grounded in the passage -> questions
            -> the endpoint failed? questions by rule, with a note

The styles are the three in which a passage is asked about and reasoned with: as people search, what follows from it,
and from the property to its bearer. `Augmenter` is for a model in this process; it also rewrites.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from typing import Any, Literal

from tqdm.auto import tqdm

from llamaindex_prag.augment.augmentation import Augmentation, refuse_blank
from llamaindex_prag.augment.completion import CalledCompleter, CompletionResult, completer_of
from llamaindex_prag.augment.endpoint.replies import selected
from llamaindex_prag.augment.endpoint.requests import Endpoint, no_reply
from llamaindex_prag.augment.kept import JSONCache, hash_of, keep, kept
from llamaindex_prag.augment.partial import Outcome
from llamaindex_prag.augment.prompts import ENDPOINT_STYLES, PROMPTS_VERSION, question_prompt, shares
from llamaindex_prag.progress import Tick
from rag_backbone.errors import ConfigurationError

_Document = tuple[str, str]
"""Title and text."""
_IN_A_ROW = 3
"""Number of consecutive documents without any reply after which the endpoint counts as failed."""


class EndpointAugmenter:
    """Has a model behind an endpoint write the questions about documents.

    Three styles, each with its own prompt: `search`, short questions as people type them into a search box;
    `implication`, what follows from the passage in one step of reasoning (as in SEAL, arXiv 2506.10943); and `reverse`,
    from a property to what has it. A question is used only if its answer consists of words of the passage, or is yes or
    no. `Augmentation.notes` counts the others.

    Rate limits, time-outs and server errors are retried. A document for which the model still fails gets its questions
    by rule, and a note; it is not stored, so a later call asks again.

    Args:
        llm: A LangChain chat model or a LlamaIndex LLM. Temperature, time-outs and keys are its own settings.
        questions: Number of questions per document; a document with few facts may get fewer.
        styles: Question styles, in equal shares.
        concurrency: Maximum number of requests at the same time.
        attempts: Maximum number of requests for one prompt, with pauses of 0.5, 1, 2, ... seconds, or as long as the
            server asks for.
        longest_wait: Longest pause in seconds.
        cache: Where the questions are stored, usually the adapters' store: each document's as soon as they are there,
            so that a stopped job continues. None: not stored.
        name: Identifies the model in the cache and in messages if it has no name itself.

    Raises:
        ConfigurationError: If an option is out of range, `llm` is a model in this process or none at all, or it has no
            name.

    Example:
        >>> writer = EndpointAugmenter(ChatOpenAI(model="gpt-5-mini"), cache=store)  # doctest: +SKIP
        >>> adapters = ParametricModel.of(lm, store, recipe=get_recipe("distill", questions=12))  # doctest: +SKIP
        >>> Parametrizer(adapters, augmenter=writer).parametrize(passages)  # doctest: +SKIP
    """

    by: Literal["model", "rules"] = "model"

    def __init__(
        self,
        llm: Any,
        *,
        questions: int = 12,
        styles: Sequence[str] = tuple(ENDPOINT_STYLES),
        concurrency: int = 8,
        attempts: int = 5,
        longest_wait: float = 60.0,
        cache: JSONCache | None = None,
        name: str | None = None,
    ) -> None:
        for option, value in (("questions", questions), ("concurrency", concurrency), ("attempts", attempts)):
            if value < 1:
                raise ConfigurationError(f"{option} is {value}; at least 1 is needed")
        if not longest_wait > 0:
            raise ConfigurationError(f"longest_wait is {longest_wait}; it must be above 0")
        if llm is None:
            raise ConfigurationError("llm is None; give a model, or use RuleAugmenter() for questions by rule")
        completer = completer_of(llm, temperature=0.0, top_k=0, max_new_tokens=1)  # settings of a local model only
        if not isinstance(completer, CalledCompleter):
            raise ConfigurationError(f"llm is {llm!r}, a model in this process; use Augmenter(llm) for it")
        if completer.call is None:
            raise ConfigurationError(
                f"llm is {llm!r}, which is asynchronous only; give a model with invoke or complete"
            )
        called = name or completer.identity
        if called is None:
            raise ConfigurationError(
                f"{type(llm).__name__} has no name; name it, as in EndpointAugmenter(llm, name='my-model', ...)"
            )
        self.questions, self.concurrency, self.cache = questions, concurrency, cache
        self.shares = shares(questions, styles, ENDPOINT_STYLES)
        self._name = called
        self._endpoint = Endpoint(completer, called, concurrency, attempts, longest_wait)

    @property
    def prompts(self) -> int:
        """Number of prompts per document, without retries."""
        return len(self.shares)

    @property
    def key(self) -> str:
        """A hash that is equal exactly for augmenters that treat a document in the same way."""
        return hash_of(["endpoint", self._name, PROMPTS_VERSION, self.shares])

    def augment(self, title: str, text: str) -> Augmentation:
        """Augment a document.

        Raises:
            ConfigurationError: If the text is blank, or the endpoint refuses the key or the model.
        """
        return self.augment_all([(title, text)], progress=False)[0]

    def augment_all(
        self, documents: Iterable[tuple[str, str]], *, progress: bool = True, advance: Tick | None = None
    ) -> list[Augmentation]:
        """Augment (title, text) pairs; equal documents are augmented once.

        Args:
            documents: The (title, text) pairs.
            progress: Whether to show a progress bar.
            advance: Called with each finished fraction of the work, 1 in total.

        Raises:
            ConfigurationError: If a text is blank, in which case nothing has been done, or the endpoint refuses the key
                or the model.
            ServerError: If the model answered nothing about three documents in a row, or about both of two;
                `ServerUnavailableError` if that may pass.
        """
        pairs = list(documents)
        for title, text in pairs:
            refuse_blank(title, text)
        found: dict[_Document, Augmentation] = {}
        distinct = list(dict.fromkeys(pairs))
        if self.cache is not None:
            stored = ((pair, kept(self.cache, self.key, *pair)) for pair in distinct)
            found.update((pair, augmentation) for pair, augmentation in stored if augmentation is not None)
        missing = [pair for pair in distinct if pair not in found]
        if advance is not None and found:
            advance(len(found) / len(distinct))
        part = None if advance is None else (lambda: advance(1 / (len(distinct) * self.prompts)))
        with (
            tqdm(total=len(distinct), desc="augmenting", unit="document", disable=not progress) as bar,
            closing(self._written(missing)) as written,
        ):
            bar.update(len(found))
            for pair, outcome in written:
                if outcome is not None:
                    found[pair] = outcome.augmentation
                    if self.cache is not None and not outcome.failed:
                        keep(self.cache, self.key, *pair, outcome.augmentation)
                    bar.update(1)
                if part is not None:
                    part()
        return [found[pair] for pair in pairs]

    def _written(
        self, pairs: Sequence[tuple[str, str]]
    ) -> Generator[tuple[tuple[str, str], Outcome | None], None, None]:
        """Yield for each reply the document and, with its last reply, its questions."""
        asked = [(pair, style) for pair in pairs for style in self.shares]
        # Ask for two more: some are dropped as duplicates, too long or made up.
        prompts = [question_prompt(style, self.shares[style] + 2, *pair) for pair, style in asked]
        replies: dict[_Document, dict[str, CompletionResult]] = {pair: {} for pair in pairs}
        unanswered, many = 0, min(max(len(pairs), 2), _IN_A_ROW)
        with closing(self._endpoint.replies(prompts)) as arriving:
            for number, reply in arriving:
                pair, style = asked[number]
                replies[pair][style] = reply
                if len(replies[pair]) < self.prompts:
                    yield pair, None
                    continue
                # A single document may be at fault itself; several in a row mean that the endpoint is.
                failed = all(isinstance(one, Exception) for one in replies[pair].values())
                unanswered = unanswered + 1 if failed else 0
                if isinstance(reply, Exception) and unanswered == many:
                    raise no_reply(self._name, many, reply)
                yield pair, selected(*pair, {style: replies[pair][style] for style in self.shares}, self.shares)

    def __repr__(self) -> str:
        styles = ", ".join(f"{count} {style}" for style, count in self.shares.items())
        return f"EndpointAugmenter({self._name}, {styles})"
