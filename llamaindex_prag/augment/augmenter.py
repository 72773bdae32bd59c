"""Augment documents with a language model: questions with answers in several styles, and a rewrite.

    text -> one prompt per style, one for the rewrite -> replies -> parsed, checked against the text
         -> too few? retry (bounded) -> cloze questions -> the passage itself

PRAG (Su et al. 2025, arXiv 2501.15915, section 3.2) asks for one rewrite and three questions in a single prompt, and
drops a document whose reply cannot be parsed. Here no document is lost, and `notes` says what happened instead.

An answer whose words do not occur in the document is kept but marked (`QA.answer_grounded`), and used only if there are
too few grounded ones: for distillation the question is what matters. Knows nothing of training.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from tqdm.auto import tqdm

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.augment.augmentation import Augmentation, refuse_blank
from llamaindex_prag.augment.completion import CompletionResult, LocalCompleter, Prompt, completer_of
from llamaindex_prag.augment.grounding import PassageWords
from llamaindex_prag.augment.kept import JSONCache, hash_of, keep, kept
from llamaindex_prag.augment.partial import Outcome, PartialAugmentation
from llamaindex_prag.augment.prompts import (
    PROMPTS_VERSION,
    STYLES,
    passage_rewrite_prompt,
    question_begin,
    question_prompt,
    shares,
)
from llamaindex_prag.augment.rewriting import REWRITE
from llamaindex_prag.progress import Tick, scaled
from rag_backbone.errors import ConfigurationError


class Augmenter:
    """Generates questions and a rewrite for each document.

    Args:
        llm: A `CausalLM`, a LlamaIndex LLM, a LangChain model, or a function from text to text; None: cloze
            questions only.
        questions: Number of questions per document; a document with few facts may get fewer.
        rewrite: Whether to ask for a rewrite of the document.
        styles: Question styles, each with its own prompt (see `augment.prompts.STYLES`).
        retries: Number of retries for a style or a rewrite that gave nothing.
        temperature: Sampling temperature of a `CausalLM`, by default the published one. Other models use their own
            settings.
        top_k: Sampling top-k of a `CausalLM`, as for `temperature`.
        max_new_tokens: Token limit of each reply of a `CausalLM`.
        seed: The same seed, model and document give the same result, whatever else is augmented in the same call.
        cache: Where results are stored, so that no document is augmented twice. Results that fell back because the
            model failed are not stored.
        name: Identifies the model in the cache if it has no name itself.

    Example:
        >>> Augmenter(None).augment("Arl", "Arl was founded in 1683.").qas[0].answer
        '1683'
    """

    def __init__(
        self,
        llm: Any,
        *,
        questions: int = 12,
        rewrite: bool = True,
        styles: Sequence[str] = tuple(STYLES),
        retries: int = 2,
        temperature: float = 0.7,
        top_k: int = 50,
        max_new_tokens: int = 512,
        seed: int = 0,
        cache: JSONCache | None = None,
        name: str | None = None,
    ) -> None:
        if questions < 1:
            raise ConfigurationError(f"questions is {questions}; at least 1 is needed")
        if retries < 0:
            raise ConfigurationError(f"retries is {retries}; it cannot be negative")
        self.questions, self.rewrite, self.retries, self.seed, self.cache = questions, rewrite, retries, seed, cache
        self.shares = shares(questions, styles)
        sampling = {"temperature": temperature, "top_k": top_k, "max_new_tokens": max_new_tokens}
        self._completer = None if llm is None else completer_of(llm, **sampling)  # type: ignore[arg-type]
        self._sampling, self._name = sampling, name
        self._llm = name or getattr(llm, "name", None) or ("no model" if llm is None else type(llm).__name__)
        if cache is not None:
            _ = self.key  # refuse a model without an identity now, not at the first document

    @property
    def by(self) -> Literal["model", "rules"]:
        """Whether a model or rules generate the questions, which decides the key that adapters are stored under."""
        return "rules" if self._completer is None else "model"

    @property
    def prompts(self) -> int:
        """Number of prompts per document, without retries."""
        return len(self.shares) + self.rewrite

    @property
    def tokens(self) -> tuple[int, int]:
        """Maximum number of tokens of a reply: of one attempt, and of all attempts together."""
        most: int = self._sampling["max_new_tokens"]  # type: ignore[assignment]
        return most, (self.retries + 1) * most

    def trial(self, documents: Sequence[tuple[str, str]], tokens: int) -> float | None:
        """Generate the beginnings of all first replies about (title, text) pairs; return the seconds per document.

        The documents are generated as one batch. Returns None without a model, or if the model is not in this process:
        the time and cost of server calls are not tried out.
        """
        if not isinstance(self._completer, LocalCompleter):
            return None
        kinds = [*self.shares, *([REWRITE] if self.rewrite else [])]
        prompts = [self._prompt(kind, title, text, 0) for title, text in documents for kind in kinds]
        started = time.perf_counter()
        replace(self._completer, max_new_tokens=tokens).complete(prompts)
        return (time.perf_counter() - started) / len(documents)

    @property
    def key(self) -> str:
        """A hash that is equal exactly for augmenters that treat a document in the same way.

        Raises:
            ConfigurationError: If the model has no identity.
        """
        model = self._name or ("none" if self._completer is None else self._completer.identity)
        if model is None:
            raise ConfigurationError(
                "this llm has no identity for the cache; name it, as in Augmenter(llm, name='my-model', ...)"
            )
        settings = [model, PROMPTS_VERSION, self.shares, self.rewrite, self.retries, self.seed, self._sampling]
        return hash_of(settings)

    def augment(self, title: str, text: str) -> Augmentation:
        """Augment a document.

        Raises:
            ConfigurationError: If the text is blank.
        """
        return self.augment_all([(title, text)], progress=False)[0]

    async def aaugment(self, title: str, text: str) -> Augmentation:
        """Augment a document without blocking the event loop."""
        refuse_blank(title, text)
        if (known := self._known(title, text)) is not None:
            return known
        work = self._work(title, text)
        prompts = _sent(work)
        while isinstance(prompts, list):
            assert self._completer is not None
            prompts = _sent(work, await self._completer.acomplete(prompts))
        return self._kept(title, text, prompts)

    def augment_all(
        self, documents: Iterable[tuple[str, str]], *, progress: bool = True, advance: Tick | None = None
    ) -> list[Augmentation]:
        """Augment (title, text) pairs; equal documents are augmented once.

        Args:
            documents: The (title, text) pairs.
            progress: Whether to show a progress bar.
            advance: Called with each finished fraction of the work, 1 in total. A model in this process advances with
                every token, relative to the maximum length of its replies.

        Raises:
            ConfigurationError: If a text is blank; nothing has been done then.
        """
        pairs = list(documents)
        for title, text in pairs:
            refuse_blank(title, text)
        found: dict[tuple[str, str], Augmentation] = {}
        at_once = 1 if self._completer is None else self._completer.documents_at_once
        distinct = list(dict.fromkeys(pairs))
        with tqdm(total=len(distinct), desc="augmenting", unit="document", disable=not progress) as bar:
            for start in range(0, len(distinct), at_once):
                group = distinct[start : start + at_once]
                known = {pair: self._known(*pair) for pair in group}
                missing = [pair for pair in group if known[pair] is None]
                found.update((pair, a) for pair, a in known.items() if a is not None)
                own = scaled(advance, len(missing) / len(distinct))
                found.update(zip(missing, self._together(missing, own), strict=True))
                if advance is not None:
                    advance((len(group) - len(missing)) / len(distinct))
                bar.update(len(group))
        return [found[pair] for pair in pairs]

    def __repr__(self) -> str:
        styles = ", ".join(f"{n} {s}" for s, n in self.shares.items())
        return f"Augmenter({self._llm}, {styles}{', rewrite' if self.rewrite else ''})"

    # ------------------------------------------------------------------ driving the work on documents

    def _together(self, pairs: list[tuple[str, str]], advance: Tick | None = None) -> list[Augmentation]:
        """Augment several documents, sending the prompts of each round as one batch."""
        works = [self._work(*pair) for pair in pairs]
        states: list[list[Prompt] | Outcome] = [_sent(work) for work in works]
        while waiting := [i for i, state in enumerate(states) if isinstance(state, list)]:
            assert self._completer is not None
            asked = [prompts for i in waiting if isinstance(prompts := states[i], list)]
            sent = [p for prompts in asked for p in prompts]
            most = self.prompts * len(pairs) * (self.retries + 1)
            replies = iter(self._completer.complete(sent, scaled(advance, 1 / most)))
            for i, prompts in zip(waiting, asked, strict=True):
                states[i] = _sent(works[i], [next(replies) for _ in prompts])
        return [
            self._kept(*pair, state) for pair, state in zip(pairs, states, strict=True) if not isinstance(state, list)
        ]

    def _work(self, title: str, text: str) -> Generator[list[Prompt], list[CompletionResult], Outcome]:
        """Yield prompts and receive their replies, so that sync, async and batched callers share the logic."""
        draft = PartialAugmentation(title, text, PassageWords(title, text))
        wanted = [] if self._completer is None else [*self.shares, *([REWRITE] if self.rewrite else [])]
        for attempt in range(self.retries + 1):
            if not wanted:
                break
            replies = yield [self._prompt(kind, title, text, attempt) for kind in wanted]
            for kind, reply in zip(wanted, replies, strict=True):
                draft.take(kind, reply)
            wanted = [kind for kind in wanted if draft.lacks(kind)]
        return draft.finished(self.shares, wanted, with_model=self._completer is not None)

    def _prompt(self, kind: str, title: str, text: str, attempt: int) -> Prompt:
        seed = int(hash_of([self.seed, title, text_hash(text), kind, attempt])[:15], 16)
        if kind == REWRITE:
            return Prompt(passage_rewrite_prompt(title, text), seed)
        # Ask for two more: some are dropped as duplicates, too long or made up.
        count = self.shares[kind] + 2
        return Prompt(question_prompt(kind, count, title, text), seed, question_begin(kind, attempt))

    # ------------------------------------------------------------------ the cache

    def _known(self, title: str, text: str) -> Augmentation | None:
        return None if self.cache is None else kept(self.cache, self.key, title, text)

    def _kept(self, title: str, text: str, result: Outcome) -> Augmentation:
        if self.cache is not None and not result.failed:
            keep(self.cache, self.key, title, text, result.augmentation)
        return result.augmentation


def _sent(
    work: Generator[list[Prompt], list[CompletionResult], Outcome], replies: list[CompletionResult] | None = None
) -> list[Prompt] | Outcome:
    """Send replies, or nothing at the beginning; return the next prompts, or the outcome."""
    try:
        return next(work) if replies is None else work.send(replies)
    except StopIteration as done:
        return done.value
