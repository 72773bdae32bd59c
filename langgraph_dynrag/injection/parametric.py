"""Documents' adapters as evidence: the one module of this package that needs `llamaindex_prag`.

- `ParametricInjector`: what a graph with `injection="parametric"` or `"combined"` does with the passages it retrieved.
- `WeightsPrompt`: a prompt for such a graph: it asks as the adapters were trained to be asked.
- `ask_injected`: without a graph. question -> retriever -> each passage's adapter, trained now if it is missing ->
  answer, text in the prompt or not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from langgraph_dynrag.evidence import Passage, name_of, original_hash
from langgraph_dynrag.injection.answer import How, InjectedAnswer
from langgraph_dynrag.injection.injector import PlacedEvidence, PreparedEvidence
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.streaming import emit
from rag_backbone.documents.names import source_of, title_of
from rag_backbone.errors import AdapterError, ConfigurationError
from rag_backbone.text.unicode import clean_text

if TYPE_CHECKING:
    from langgraph_dynrag.retrieval.retriever import Retriever
    from llamaindex_prag.adapter_model import AdapterModel as AdapterModel  # noqa: PLC0414 - for `graph`
    from llamaindex_prag.placement.candidate import Candidate
    from llamaindex_prag.progress import JobStatus

logger = logging.getLogger(__name__)

Inject = Literal["parametric", "combined"]
Missing = Literal["train", "translate", "context"]

_LACKING: dict[Missing, str] = {
    "translate": ", and these adapters have none: ParametricModel.of(lm, store, translator=...)",
    "train": ", and these adapters know a server's address only: ServedModel(..., lm=...), or missing='context'",
}


@dataclass(frozen=True)
class WeightsPrompt(AnswerPrompt):
    """The prompt that adapters are trained with: it asks for a short answer, and the whole text is the answer.

    For graphs with `injection="parametric"` and questions of one step: some forty tokens, which every resume reads
    anew, where a preset's worked examples take some five hundred. What came back out of the weights was the same under
    both (docs/results-parametric.md). Exemplars would change it, and have no place.
    """

    answer_phrase: str | None = None
    stop: tuple[str, ...] = ("\n",)

    def __post_init__(self) -> None:
        if self.exemplars:
            raise ConfigurationError("adapters are trained without exemplars; leave them out, or use AnswerPrompt")

    def messages(self, question: str, passages: Sequence[Passage]) -> list[BaseMessage]:
        """Instruction and question, with the passages that have no adapter between them."""
        from llamaindex_prag.prompts import INSTRUCTION, user_text

        text = user_text(question, [p["text"] for p in passages])
        return [SystemMessage(INSTRUCTION), HumanMessage(text.removeprefix(INSTRUCTION).lstrip())]


class ParametricInjector:
    """Puts passages into the parameters of one model, for one run at a time.

    Args:
        adapters: The model with its store and recipe, in this process or in a server.
        mode: `"parametric"`: nothing of the passages stands in the prompt. `"combined"`: their texts too.
        missing: What becomes of a passage without an adapter: `"train"` it now, `"translate"` it, or leave it in the
            `"context"`.
        strength: Multiplies the updates. None: 1, and 0.1 beside a text.
        max_active: How many passages act through their adapters at once, the best-scored first. None: 1, because merged
            adapters weaken each other; with `conflicts`, as many as a call may use.
        others: Where the other passages that have an adapter go: `"omit"` leaves them out, `"context"` puts them into
            the prompt. None: `"omit"` with `mode="parametric"`, else `"context"`.
        forgetting: The most that the adapters may change the model's answers to unrelated questions, in nats a token;
            `llamaindex_prag.guards.forgetting.BOUND` (0.01) is safe. Above it they are weakened, or the passages stand
            in the prompt. None: not measured.
        conflicts: What becomes of passages that contradict each other about the question: `"mean"`,
            `"score-weighted"`, `"latest"` or `"context"`. None: not measured.
        conflict_bound: Above this many nats two passages contradict each other. None:
            `llamaindex_prag.guards.conflicts.BOUND`.
        conflict_overlap: Passages whose updates have a smaller cosine are about different things, and never do. None:
            `llamaindex_prag.guards.conflicts.OVERLAP`; -1 looks at all.

    Raises:
        ConfigurationError: If an option is unknown, or there is no translator to translate with.
    """

    def __init__(
        self,
        adapters: AdapterModel,
        *,
        mode: Inject = "parametric",
        missing: Missing = "train",
        strength: float | None = None,
        max_active: int | None = None,
        others: Literal["omit", "context"] | None = None,
        forgetting: float | None = None,
        conflicts: str | None = None,
        conflict_bound: float | None = None,
        conflict_overlap: float | None = None,
    ) -> None:
        from llamaindex_prag.guards.conflicts import OVERLAP
        from llamaindex_prag.placement.placer import Placer
        from llamaindex_prag.placement.service import PlacementService

        for name, value, known in (("injection", mode, get_args(Inject)), ("missing", missing, get_args(Missing))):
            if value not in known:
                raise ConfigurationError(f"{name} is {value!r}; known: {', '.join(known)}")
        adapters.check_missing(missing, _LACKING.get(missing, ""))
        self.adapters = adapters
        self.mode: Inject = mode
        self.missing = missing
        placer = Placer(
            adapters,
            max_active=max_active,
            others=others or ("omit" if mode == "parametric" else "context"),
            forgetting=forgetting,
            conflicts=conflicts,
            conflict_bound=conflict_bound,
            conflict_overlap=OVERLAP if conflict_overlap is None else conflict_overlap,
        )
        self._service = PlacementService(
            adapters,
            placer,
            missing=missing,
            beside=mode == "combined",
            strength=strength,
            waiting=logger,
            watch=_emit_training,
        )

    def prepare(self, passages: Sequence[Passage]) -> PreparedEvidence:
        """Make the adapters that are missing.

        A question that waits for training is announced: a warning in the log names the documents and the time that it
        will take, and the graph's `custom` stream has an event `"training"` at the beginning and a few times a second
        (`llamaindex_prag.progress.JobStatus`).
        """
        made = self._service.prepare([_candidate(p) for p in passages])
        done = PreparedEvidence(
            trained=made.trained, translated=made.translated, failed=made.failed, seconds=made.seconds
        )
        if made.waited_for:
            done["training"] = {"documents": made.waited_for, "estimated": made.estimated}
        return done

    def place(self, passages: Sequence[Passage], question: str = "") -> PlacedEvidence:
        """The best-scored of those with an adapter act through it; each other has its reason."""
        placed = self._service.place([_candidate(p) for p in passages], question)
        ids = [p["id"] for p in passages]
        shown = placed.in_prompt if self.mode == "parametric" else set(range(len(passages))) - set(placed.left_out)
        return PlacedEvidence(
            in_prompt=[passages[i] for i in sorted(shown)],
            adapters=None if placed.selection is None else self.adapters.runnable(placed.selection),
            in_weights=tuple(ids[i] for i in placed.in_weights),
            reasons={ids[i]: why for i, why in placed.in_prompt.items()},
            strength=placed.strength,
            forgetting=placed.forgetting,
            left_out={ids[i]: why for i, why in placed.left_out.items()},
            conflicts=placed.conflicts.to_dict() if placed.conflicts else None,
        )

    def __repr__(self) -> str:
        return f"ParametricInjector({self.adapters!r}, mode={self.mode!r}, missing={self.missing!r})"


def _candidate(p: Passage) -> Candidate:
    from llamaindex_prag.placement.candidate import Candidate

    document = p["source"] or p["id"]
    return Candidate(p["id"], p["text"], p["title"], document, name_of(p), p["score"], p["metadata"], original_hash(p))


def _emit_training(advance: JobStatus) -> None:
    emit({"type": "training", **advance.to_dict()})


def ask_injected(
    question: str,
    retriever: Retriever,
    *,
    model: str = "embedded",
    store: str | Path,
    inject: How = "parametric",
    translator: str | Path | None = None,
    max_tokens: int = 48,
    progress: bool = False,
) -> InjectedAnswer:
    """Retrieve once, and answer from the weights.

    The best passage that can be learnt acts through its adapter. The others are left out; with `inject="combined"` they
    stand in the prompt.

    Args:
        question: What is asked.
        retriever: Gives the passages.
        model: `"embedded"`, a folder or a Hub id.
        store: The folder of the model's adapters.
        inject: `"parametric"`: nothing of the passages stands in the prompt. `"combined"`: their texts too.
            `"translated"`: as the first, with adapters that the translator makes where none was trained.
        translator: Folder of the translator's checkpoint, or `"embedded"`, for the last.
        max_tokens: Of the answer.
        progress: Whether to show a bar while adapters are trained.

    Raises:
        ConfigurationError: If `llamaindex_prag` is missing, nothing was found, or there is no translator to use.
    """
    try:
        from llamaindex_prag.adapters.active_adapters import BESIDE_TEXT
        from llamaindex_prag.parametric_model import ParametricModel
        from llamaindex_prag.placement.placer import Placer
        from llamaindex_prag.placement.service import PlacementService
        from llamaindex_prag.prompts import prompt_ids
        from llamaindex_prag.store.lmdb_store import LMDBStore
        from llamaindex_prag.translator.translator import Translator
    except ImportError as error:
        raise ConfigurationError(f"adapters need the parametric half ({error}): pip install 'dynprag[prag]'") from error
    from langgraph_dynrag.retrieval.retriever import call_retriever
    from rag_backbone.loading.causal_lm import CausalLM

    if (inject == "translated") != (translator is not None):
        raise ConfigurationError(
            f"inject is {inject!r} and translator is {translator!r}; inject='translated' needs a "
            "translator ('embedded', or a folder of dynprag train-translator), the others use none"
        )
    question = clean_text(question, "the question")
    found = call_retriever(retriever, question, {})
    if not found:
        raise ConfigurationError(f"nothing was found for {question!r}; index documents first: dynprag index FOLDER")
    lm = CausalLM.from_pretrained(model)
    with LMDBStore(store, model=lm.fingerprint) as opened:
        loaded = None if translator is None else Translator.load(translator, lm)
        recipe = loaded.config.recipe if loaded else "distill"
        parametric = ParametricModel.of(lm, opened, recipe=recipe, max_adapters=1, translator=loaded)
        service = PlacementService(
            parametric,
            Placer(parametric),
            missing="train" if loaded is None else "translate",
            waiting=logger,
            progress=progress,
        )
        candidates = _unscored(found)
        made = service.prepare(candidates)
        placed = service.place(candidates, question)
        if not placed.in_weights:
            why = "; ".join(made.failed.values())
            raise AdapterError(f"none of the {len(found)} passages found could be learnt: {why}")
        active = found[placed.in_weights[0]]
        others = tuple(d for d in found if d is not active)
        beside = [d.page_content for d in (active, *others)] if inject == "combined" else []
        answer = parametric.answer(
            question,
            documents=[active.page_content],
            passages=beside,
            max_new_tokens=max_tokens,
            strength=BESIDE_TEXT if beside else 1.0,
        )
        tokens = len(prompt_ids(lm.tokenizer, question, beside))
    used, left_out = ((active, *others), ()) if beside else ((active,), others)
    return InjectedAnswer(question, answer, inject, used, made.trained, made.translated, tokens, left_out)


def _unscored(found: Sequence[Document]) -> list[Candidate]:
    """Retrieved documents as candidates in the retriever's order, whatever scores they have."""
    from llamaindex_prag.placement.candidate import Candidate

    return [
        Candidate(str(i), d.page_content, title, source, source or title)
        for i, d in enumerate(found)
        for title, source in [(title_of(d.metadata), source_of(d.metadata))]
    ]
