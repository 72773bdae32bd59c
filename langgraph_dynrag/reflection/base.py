"""What the graph asks of a model that reflects: judgements, and one continuation for each passage."""

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
"""Called with an expansion's number and each of its tokens' characters, log-probability and entropy."""


@known_arguments
@dataclass(frozen=True, slots=True)
class SegmentSelection:
    """One continuation for each passage, scored, and the best ones kept: how, and by whose judgement.

    Args:
        path: `"tokens"` reads the probabilities of reflection tokens, which the model must have been trained with.
            `"classification"` asks any instruct model short questions, and reads the probabilities of the answers.
            `"auto"` takes the tokens if the vocabulary has all of them, and asks if it has none.
        weights: What the judgements count.
        beam: Hypotheses that are kept after each segment; the paper's 2. 1 keeps the best continuation alone.
        depth: Segments of an answer at most; the paper's 7.
        unsupported: Whether continuations that their passage does not support are ranked or dropped.
        form: `"long"`: an answer of several segments, of which a beam is kept (section 3.3). `"short"`: each passage is
            followed by one continuation, which is the answer, and the one of the highest score is taken; `beam` and
            `depth` do not count then. With reflection tokens that is one segment; a model that is asked writes its
            answer to the end.
        answers: For tasks with a closed set of answers, in the short form: the scores of the continuations are summed
            for each of these answers, and the one of the largest sum is taken (appendix B.2), of equal ones the first
            one written. `"written"`: for each string that was written, as the published code does. What it is voted on
            is the short answer, or all that was written if there is none; case and punctuation make no difference, and
            words may follow. It is the result's `short_answer`; `answer` is the best continuation that gives it.
            Where no continuation gives any of them, the one of the highest score is taken. None: no vote.

    Raises:
        ConfigurationError: If a number is less than 1, a choice unknown, or the answers cannot be told apart.

    Example:
        >>> Selection(form="short", answers=("true", "false")).answers
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
        # A list becomes a tuple, and what cannot be voted on is explained.
        object.__setattr__(self, "answers", checked_answers(self.answers))
        check_fields(self)
        if self.answers is not None and self.form != "short":
            raise ConfigurationError(
                f"answers is {self.answers!r} and form {self.form!r}; there is a vote on whole answers only: "
                f"Selection(form='short', answers={self.answers!r})"
            )

    def check_with(self, settings: Method) -> None:
        """Refuse what does not go together with one continuation for each passage."""
        if not isinstance(settings.trigger, Reflection | Never):
            raise ConfigurationError(
                f"with a selection it is decided before each segment whether to retrieve; {settings.trigger} looks at "
                "what was written. Use trigger=Reflection(...) or Never(), or selection=None."
            )
        if needs := settings.query.needs:
            raise ConfigurationError(
                f"with a selection there is no draft when the query is made; {settings.query} reads its "
                f"{', '.join(sorted(needs))}. Use Question, LastSentence, Rewrite, or WithQuestion of one of them."
            )
        if settings.injector is not None:
            raise ConfigurationError(
                "with a selection each continuation has a passage of its own in the prompt: use injection='context'"
            )

    @property
    def width(self) -> int:
        """Hypotheses that are kept."""
        return 1 if self.form == "short" else self.beam

    @property
    def segments(self) -> int:
        """Segments of an answer at most."""
        return 1 if self.form == "short" else self.depth


@dataclass(frozen=True)
class Expansion:
    """One continuation that is to be written."""

    parent: int
    """Which of the beam's hypotheses it continues."""
    hypothesis: Hypothesis
    passage: Passage | None
    fresh: bool
    """Whether the passage was searched for now; else it is the one of the segment before."""
    limit: int
    """Tokens at most."""
    seed: int | None = None


@dataclass(frozen=True)
class ContinuationBatch:
    """Continuations that are to be written together."""

    question: str
    prompt: AnswerPrompt
    expansions: Sequence[Expansion]
    passage_tokens: int
    """Of a passage at most."""
    reserve: int = 0
    """Tokens of the context window that are to be left free."""
    deadline: float = math.inf
    """On `time.monotonic`'s clock."""
    on_token: OnCandidateToken | None = None


@dataclass(frozen=True)
class RetrievalJudgements:
    """Whether hypotheses need a passage next, and what it cost to ask."""

    probabilities: tuple[Probabilities, ...]
    counts: TokenCounts


@dataclass(frozen=True)
class WrittenContinuations:
    """Continuations with their scores, and what they cost."""

    candidates: tuple[SegmentCandidate, ...]
    counts: TokenCounts
    left_out: tuple[tuple[int, str], ...] = ()
    """Hypothesis and passage id of what found no room in the context window."""
    shortened: tuple[str, ...] = ()
    """Ids of passages that were shortened."""


@runtime_checkable
class Reflector(Protocol):
    """A model that judges itself."""

    path: Path
    selection: SegmentSelection
    """By which it judges."""

    @property
    def prompt(self) -> AnswerPrompt | None:
        """How the model was trained to be asked; None: as any other model."""
        ...

    def retrieval(self, question: str, prompt: AnswerPrompt, hypotheses: Sequence[Hypothesis]) -> RetrievalJudgements:
        """Whether each hypothesis needs a passage next."""
        ...

    def write(self, writing: ContinuationBatch) -> WrittenContinuations:
        """Continue hypotheses, all of them in one batch, and judge what was written.

        An expansion whose passage does not fit into the context window is left out, or written without it if nothing
        else continues its hypothesis.
        """
        ...
