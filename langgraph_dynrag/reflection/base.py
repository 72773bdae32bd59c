"""The interface of a model that reflects: judgements, and one continuation per passage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, runtime_checkable

from langgraph_dynrag.evidence import Passage
from langgraph_dynrag.method import Method
from langgraph_dynrag.reflection.beam import Hypothesis, SegmentCandidate, Unsupported
from langgraph_dynrag.reflection.scores import Probabilities, Weights
from langgraph_dynrag.reflection.vote import Answers, checked_answers
from langgraph_dynrag.triggers.fixed import Never
from langgraph_dynrag.triggers.reflection import Reflection
from rag_backbone.checks import known_arguments
from rag_backbone.engine.requests import TokenCounts
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds, check_fields

if TYPE_CHECKING:
    from langgraph_dynrag.prompts import AnswerPrompt

Path = Literal["auto", "tokens", "classification"]
Form = Literal["long", "short"]
OnCandidateToken = Callable[[int, str, float, float | None], None]
"""Callback that receives an expansion's index, and the characters, log-probability and entropy of a token."""


@known_arguments
@dataclass(frozen=True, slots=True)
class SegmentSelection:
    """Settings for segment selection: one continuation per passage is scored, and the best ones are kept.

    Args:
        path: `"tokens"` reads the probabilities of reflection tokens, which the model must have been trained with.
            `"classification"` asks any instruct model short questions, and reads the probabilities of the answers.
            `"auto"` uses the tokens if the vocabulary has all of them, and asks questions if it has none.
        weights: Weights of the judgements.
        beam: Number of hypotheses kept after each segment; 2 in the paper. 1 keeps only the best continuation.
        depth: Maximum number of segments of an answer; 7 in the paper.
        unsupported: Whether continuations that their passage does not support are ranked or dropped.
        form: `"long"`: an answer of several segments, of which a beam is kept (section 3.3). `"short"`: each passage is
            followed by one continuation, which is the whole answer, and the one with the highest score is returned;
            `beam` and `depth` are ignored. With reflection tokens, the continuation is one segment; a model that is
            asked questions writes its answer to the end.
        answers: For tasks with a closed set of answers, in the short form: the scores of the continuations are summed
            for each of these answers, and the answer with the largest sum is returned (appendix B.2); ties go to the
            one written first. `"written"` sums over each distinct string written, as the published code does. The vote
            is on the short answer, or on the whole text if there is none. Case and punctuation are ignored, and
            further words may follow. The winner becomes the result's `short_answer`, and `answer` is the best
            continuation that gives it. If no continuation gives any of the answers, the one with the highest score is
            returned. None: no vote.

    Raises:
        ConfigurationError: If a number is less than 1, a choice is unknown, or the answers cannot be told apart.

    Example:
        >>> SegmentSelection(form="short", answers=("true", "false")).answers
        ('true', 'false')
    """

    path: Path = "auto"
    weights: Weights = field(default_factory=Weights)
    beam: Annotated[int, Bounds(least=1)] = 2
    depth: Annotated[int, Bounds(least=1)] = 7
    unsupported: Unsupported = "keep"
    form: Form = "long"
    answers: Answers | None = None

    def __post_init__(self) -> None:
        # Turns a list into a tuple, and rejects answers that cannot be voted on.
        object.__setattr__(self, "answers", checked_answers(self.answers))
        check_fields(self)
        if self.answers is not None and self.form != "short":
            raise ConfigurationError(
                f"answers is {self.answers!r} and form {self.form!r}; a vote needs whole answers: "
                f"SegmentSelection(form='short', answers={self.answers!r})"
            )

    def check_with(self, settings: Method) -> None:
        """Refuse settings that cannot be combined with one continuation per passage.

        Raises:
            ConfigurationError: If the trigger, the query formulator or an injector conflicts with the selection.
        """
        if not isinstance(settings.trigger, Reflection | Never):
            raise ConfigurationError(
                f"with a selection, retrieval is decided before each segment is written, but {settings.trigger} "
                "judges what was written. Use trigger=Reflection(...) or Never(), or selection=None."
            )
        if needs := settings.query.needs:
            raise ConfigurationError(
                f"with a selection, there is no draft when the query is formulated, but {settings.query} reads its "
                f"{', '.join(sorted(needs))}. Use Question, LastSentence, Rewrite, or WithQuestion of one of them."
            )
        if settings.injector is not None:
            raise ConfigurationError(
                "with a selection, each continuation has a different passage in the prompt: use injection='context'"
            )

    @property
    def width(self) -> int:
        """Number of hypotheses kept."""
        return 1 if self.form == "short" else self.beam

    @property
    def segments(self) -> int:
        """Maximum number of segments of an answer."""
        return 1 if self.form == "short" else self.depth


@dataclass(frozen=True)
class Expansion:
    """One continuation to write."""

    parent: int
    """Index of the hypothesis that it continues."""
    hypothesis: Hypothesis
    passage: Passage | None
    fresh: bool
    """Whether the passage was just searched for; otherwise it is kept from the previous segment."""
    limit: int
    """Maximum number of tokens."""
    seed: int | None = None


@dataclass(frozen=True)
class ContinuationBatch:
    """Continuations to write in one batch."""

    question: str
    prompt: AnswerPrompt
    expansions: Sequence[Expansion]
    passage_tokens: int
    """Maximum number of tokens per passage."""
    reserve: int = 0
    """Number of tokens of the context window to leave free."""
    deadline: float = math.inf
    """Deadline on the `time.monotonic` clock."""
    on_token: OnCandidateToken | None = None


@dataclass(frozen=True)
class RetrievalJudgements:
    """Whether hypotheses need a passage next, and the cost of asking."""

    probabilities: tuple[Probabilities, ...]
    counts: TokenCounts


@dataclass(frozen=True)
class WrittenContinuations:
    """Continuations with their scores, and their cost."""

    candidates: tuple[SegmentCandidate, ...]
    counts: TokenCounts
    left_out: tuple[tuple[int, str], ...] = ()
    """Hypothesis index and passage id of expansions that did not fit into the context window."""
    shortened: tuple[str, ...] = ()
    """Ids of passages that were truncated."""


@runtime_checkable
class Reflector(Protocol):
    """A model that judges its own output."""

    path: Path
    selection: SegmentSelection
    """The settings that it judges by."""

    @property
    def prompt(self) -> AnswerPrompt | None:
        """The prompt that the model was trained with; None: it needs no special prompt."""
        return None

    def retrieval(self, question: str, prompt: AnswerPrompt, hypotheses: Sequence[Hypothesis]) -> RetrievalJudgements:
        """Return, for each hypothesis, whether it needs a passage next."""

    def write(self, writing: ContinuationBatch) -> WrittenContinuations:
        """Continue all hypotheses in one batch, and judge the continuations.

        An expansion whose passage does not fit into the context window is left out, or written without the passage if
        nothing else continues its hypothesis.
        """
