"""Published methods as settings, with the papers' values.

| preset | source | when | what | resume |
| --- | --- | --- | --- | --- |
| `no_retrieval` | | never | | |
| `single` | | once, before the answer | question | |
| `fixed_length` | fixed-length RAG as in DRAGIN's comparison, n = 16 | every 16 tokens | last 16 tokens | end |
| `fixed_sentence` | fixed-sentence RAG (IRCoT) as in DRAGIN's comparison | every sentence | last sentence | end |
| `ircot` | IRCoT (Trivedi et al. 2023), 8 steps, 15 passages | every sentence | last sentence | end, then a reader |
| `iter_retgen` | ITER-RETGEN (Shao et al. 2023), T = 2 | every answer | answer, question | start |
| `adaptive_rag` | Adaptive-RAG (Jeong et al. 2024) | by class: never, once, `ircot` | by class | by class |
| `flare` | FLARE (Jiang et al. 2023), FLARE-direct | probability < theta | masked sentence | sentence |
| `dragin` | DRAGIN (Su et al. 2024) | RIND | QFS | token |
| `etc` | ETC (entropy-trend constraint) | trend of entropy | QFS | word |
| `seakr` | SeaKR (Yao et al. 2024) | uncertainty of samples > -6 | words known | sentence |
| `search_tag` | an instruct model told to write `<search>query</search>` | when it does | the tag's | end |
| `search_o1` | Search-o1 (Li et al. 2025), its marks, caps and notices | when it does | the tag's | end |
| `search_r1` | Search-R1 (Jin et al. 2025) | when it does | the tag's | end |
| `r1_searcher` | R1-Searcher (Song et al. 2025) | when it does | the tag's | end |
| `self_rag` | Self-RAG (Asai et al. 2023) | the model says so | question, last segment | best of one per passage |

`ircot` follows sections 3.1 and 3.2: passages accumulate, 15 at most, the earliest first; the reasoning ends with the
short answer or after 8 sentences, and a reader, the same model, answers from the passages alone (`final_answer`, see
`langgraph_dynrag.reader`). It searches for 4 passages at a time (the paper chooses among 2, 4, 6 and 8 for each data
set). The published code searches for the sentence before a concluding one ("Thus ..."); the paper, and this preset, for
the last sentence in any case. A model that ends its text without a short answer ends the reasoning, too, whereas the
paper goes on. The paper's worked examples contain passages, and those of this project do not.

`iter_retgen` searches with the previous answer and the question (equation 1), five passages each time (section 4.4),
and writes the whole answer again with those alone; the last answer counts. The paper evaluates up to 7 iterations, of
which the second brings the largest gain (section 4.5). If a search finds nothing, the previous answer stays.

`adaptive_rag` classifies the question first: no retrieval, one, or `ircot` (section 3.1). The paper's classifier is a
trained T5-large; by default the model itself is asked, which is our stand-in (see
`langgraph_dynrag.inputs.complexity`). Pass your own as `classifier=`.

`dragin` and `etc` come in two bundles. `paper` follows the paper's equations on the signals of the single decoding
pass. No published threshold fits that form, so its thresholds were tuned on training questions with a 0.5B model (see
docs/results-dynamic.md); another model needs its own. `reference` follows the published code, with its thresholds.

Where a source leaves a choice: FLARE's passages condition only the sentence that is regenerated (section 3.2: the
tentative sentence is written without documents). DRAGIN's and ETC's stay until others replace them in the paper's form,
and for one sentence in the code's. None of the methods limits its retrievals; the default budget of 20 is out of their
reach, as is the limit on identical searches.

SeaKR keeps from each search the one passage that makes the model least uncertain, five passages at most. `reference`
reads the output of the feed-forward block, as the published code does; `paper` reads the layer's. Drawing 20 samples
for each sentence and passage is expensive; fewer samples need another threshold (see
`langgraph_dynrag.triggers.seakr`). At the end, an answer from the reasoning alone is compared with one from the
passages alone (`final_answer`, see `langgraph_dynrag.seakr.final_answer`); `final_answer=None` saves that cost. A
repeated query does not end the run.

The methods that search by tags have limits, as published, after which the answer is forced. They bring their own
prompts, because no model writes tags without being told or trained to; a model trained on a format may need the prompt
that it was trained with. `search_r1` is for PeterJinGo/SearchR1-nq_hotpotqa_train-qwen2.5-7b-em-ppo and its siblings,
`r1_searcher` for XXsongLALA/Qwen-2.5-7B-base-RAG-RL; docs/methods.md has the commands. Their token budgets count the
model's own words over all turns (Search-o1's 32768 are reduced to what a small model can hold). In `search_o1` the
model condenses the documents of each search before they are inserted (`digest`, see
`langgraph_dynrag.search_tags.reason_in_documents`), at the cost of one more call per search; `digest=None` inserts them
as they are.

`self_rag` uses reflection tokens if the model has them, and otherwise asks the model (see
`langgraph_dynrag.SegmentSelection`). Its threshold, weights, beam and depth are the paper's for long answers. Short
answers need `selection=SegmentSelection(form="short")`; with a closed set of answers the passages vote:
`SegmentSelection(form="short", answers=("true", "false"))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from langgraph_dynrag.budgets import Budgets
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.inputs.complexity import AskComplexity
from langgraph_dynrag.presets.file import CalibratedFor, PresetFile, is_preset_file
from langgraph_dynrag.prompts import AnswerPrompt
from langgraph_dynrag.queries import (
    QFS,
    AnswerThenQuestion,
    KnownWords,
    LastSentence,
    LastTokens,
    MaskedSentence,
    Question,
    SearchTag,
    WithQuestion,
)
from langgraph_dynrag.reader import Reader
from langgraph_dynrag.reflection.base import SegmentSelection
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.search_tags.formats import R1_SEARCHER, SEARCH, SEARCH_O1, SEARCH_R1
from langgraph_dynrag.search_tags.prompts import tag_prompt
from langgraph_dynrag.search_tags.reason_in_documents import ReasonInDocuments
from langgraph_dynrag.triggers import (
    ETC,
    RIND,
    EveryNTokens,
    EverySentence,
    Never,
    Once,
    ReasoningSteps,
    Reflection,
    SelfAwareUncertainty,
    TokenProbability,
    WholeAnswers,
    WrittenTag,
)
from langgraph_dynrag.triggers.rind import Bundle, check_bundle
from rag_backbone.checks import check_type, known_arguments, suggestion
from rag_backbone.errors import ConfigurationError

Dataset = Literal["2wikimultihopqa", "hotpotqa", "iirc", "strategyqa"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A published method as options of `create_dynamic_rag`.

    `get_preset` returns one by its name, for a data set's published settings or in another published form. Options that
    are passed to `create_dynamic_rag` beside a preset replace its own.
    """

    name: str
    settings: Mapping[str, Any]
    """Options of `create_dynamic_rag`."""
    exemplars: int = 6
    """Number of worked examples in the prompt, as published (limited to what the project has)."""
    prompt: AnswerPrompt | None = None
    """The method's own prompt; None: the project's, with `exemplars` exemplars."""
    calibrated_for: CalibratedFor | None = None
    """The model and prompt that its threshold belongs to, if it comes from a preset file."""
    dataset: Dataset = "2wikimultihopqa"
    """The data set whose published settings it has."""
    bundle: Bundle = "paper"
    """The form of `dragin`, `etc` and `seakr`."""


@dataclass(frozen=True, slots=True)
class _Task:
    """Answer length and exemplars of DRAGIN's comparison (its configuration files)."""

    tokens: int
    exemplars: int


_TASKS: dict[str, _Task] = {
    "2wikimultihopqa": _Task(64, 6),
    "hotpotqa": _Task(100, 8),
    "iirc": _Task(128, 8),
    "strategyqa": _Task(100, 6),
}
# FLARE's appendix: theta, beta, passages. It has no IIRC and HotpotQA, which take the values of 2WikiMultihopQA.
_FLARE = {
    "2wikimultihopqa": (0.8, 0.4, 2),
    "hotpotqa": (0.8, 0.4, 2),
    "iirc": (0.8, 0.4, 2),
    "strategyqa": (0.4, 0.4, 3),
}
# DRAGIN's configuration for Llama-2-13B-chat: threshold of RIND and words of QFS.
_DRAGIN_REFERENCE = {
    "2wikimultihopqa": (0.8, 25),
    "hotpotqa": (1.2, 35),
    "iirc": (1.0, 25),
    "strategyqa": (1.3, 25),
}
# Methods that search by tags: documents, searches (one more turn follows without), tokens, tokens per turn, and tokens
# of the inserted results, or of the documents that are condensed first.
_TAGS = {
    "search_tag": (SEARCH, 3, 6, 256, 256, 512),
    "search_o1": (SEARCH_O1, 10, 10, 4096, 4096, 2048),
    "search_r1": (SEARCH_R1, 3, 4, 1024, 1024, 500),
    "r1_searcher": (R1_SEARCHER, 5, 9, 4096, 512, 1024),
}
# Tuned by us, see docs/results-dynamic.md.
_DRAGIN_PAPER = 0.005
_ETC_PAPER = 0.5
# The only configuration that ships with ETC's code (Llama-3-8B on IIRC).
_ETC_REFERENCE = (1.3, 35)


class _Asked(NamedTuple):
    """The choices that a method's settings depend on."""

    dataset: str
    bundle: Bundle
    tokens: int
    """Length of an answer on that data set."""


_Options = dict[str, Any]


def _no_retrieval(_: _Asked) -> _Options:
    return {"trigger": Never(), "query": Question()}


def _single(_: _Asked) -> _Options:
    return {"trigger": Once(), "query": Question()}


def _fixed_length(_: _Asked) -> _Options:
    return {"trigger": EveryNTokens(16), "query": LastTokens(16), "initial_retrieval": True, "resume_at": "end"}


def _fixed_sentence(_: _Asked) -> _Options:
    return {"trigger": EverySentence(), "query": LastSentence(), "initial_retrieval": True, "resume_at": "end"}


def _ircot(_: _Asked) -> _Options:
    return {
        "trigger": ReasoningSteps(8),
        "query": LastSentence(),
        "k": 4,
        "initial_retrieval": True,
        "resume_at": "end",
        "evidence_life": "accumulated",
        "max_passages": 15,
        "context_tokens": 4096,
        "lookahead": 64,
        "budgets": Budgets(tokens=256),
        "final_answer": Reader(),
    }


def _iter_retgen(asked: _Asked) -> _Options:
    return {
        "trigger": WholeAnswers(2),
        "query": AnswerThenQuestion(),
        "k": 5,
        "recheck": True,
        # Neither a draft nor a query is cut off before the whole answer.
        "lookahead": 4096,
        "query_tokens": 4096,
        "budgets": Budgets(tokens=asked.tokens),
    }


def _adaptive_rag(asked: _Asked) -> _Options:
    return {**_ircot(asked), "classifier": AskComplexity()}


def _flare(asked: _Asked) -> _Options:
    theta, beta, k = _FLARE[asked.dataset]
    return {
        "trigger": TokenProbability(theta),
        "query": MaskedSentence(beta),
        "k": k,
        "initial_retrieval": True,
        "resume_at": "sentence",
        "evidence_life": "sentence",
        "lookahead": 64,
        "budgets": Budgets(tokens=256),
    }


def _dragin(asked: _Asked) -> _Options:
    threshold, words = _DRAGIN_REFERENCE[asked.dataset]
    if asked.bundle == "paper":
        return {"trigger": RIND(_DRAGIN_PAPER), "query": QFS(words), "resume_at": "token"}
    return {
        "trigger": RIND(threshold, "reference"),
        "query": QFS(words, "reference"),
        "resume_at": "sentence",
        "evidence_life": "sentence",
    }


def _etc(asked: _Asked) -> _Options:
    if asked.bundle == "paper":
        words = _DRAGIN_REFERENCE[asked.dataset][1]
        return {"trigger": ETC(_ETC_PAPER), "query": QFS(words), "resume_at": "word"}
    threshold, words = _ETC_REFERENCE
    return {
        "trigger": ETC(threshold, "reference"),
        "query": QFS(words, "reference"),
        "resume_at": "word",
        "evidence_life": "sentence",
    }


def _self_rag(_: _Asked) -> _Options:
    return {
        "trigger": Reflection(0.2),
        "query": WithQuestion(LastSentence()),
        "selection": SegmentSelection(),
        "k": 5,
        "evidence_life": "replaced",
    }


def _seakr(asked: _Asked) -> _Options:
    sampling = SampleSpec(state="layer" if asked.bundle == "paper" else "mlp")
    return {
        "trigger": SelfAwareUncertainty(-6.0, sampling),
        "query": KnownWords(),
        "evidence_selector": LeastUncertain(sampling),
        "final_answer": SurerAnswer(sampling),
        "evidence_life": "accumulated",
        "budgets": Budgets(retrievals=5, tokens=asked.tokens),
    }


def _by_tags(name: str, _: _Asked) -> _Options:
    tag_format, k, searches, tokens, turn, inserted = _TAGS[name]
    return {
        "trigger": WrittenTag(tag_format),
        "query": SearchTag(tag_format),
        "k": k,
        "resume_at": "end",
        "evidence_life": "accumulated",
        "lookahead": turn,
        "context_tokens": inserted,
        "budgets": Budgets(retrievals=searches, tokens=tokens),
        "digest": ReasonInDocuments() if tag_format is SEARCH_O1 else None,
    }


_METHODS: Mapping[str, Callable[[_Asked], _Options]] = {
    "no_retrieval": _no_retrieval,
    "single": _single,
    "fixed_length": _fixed_length,
    "fixed_sentence": _fixed_sentence,
    "ircot": _ircot,
    "iter_retgen": _iter_retgen,
    "adaptive_rag": _adaptive_rag,
    "flare": _flare,
    "dragin": _dragin,
    "etc": _etc,
    "self_rag": _self_rag,
    "seakr": _seakr,
    **{name: partial(_by_tags, name) for name in _TAGS},
}
PRESETS = tuple(_METHODS)
"""Names of the presets, which `create_dynamic_rag(preset=...)` and `get_preset` take.

Files that `dynprag calibrate` wrote are presets too, by their path.
"""
_TWO_FORMS = ("dragin", "etc", "seakr")


@known_arguments
def get_preset(name: str | Path, *, dataset: Dataset = "2wikimultihopqa", bundle: Bundle = "paper") -> Preset:
    """Return the settings of a published method, or of a preset file that `calibrate` wrote.

    Args:
        name: One of `PRESETS`, or a path that ends in `.json`. A file has its own data set and bundle.
        dataset: The data set whose published settings to use.
        bundle: The form of `dragin`, `etc` and `seakr`; other methods have only one.

    Raises:
        ConfigurationError: If a name is unknown (the message lists the known ones), or the preset has no such form.
        PresetFileError: If a file is missing or damaged.
    """
    if is_preset_file(name):
        if (dataset, bundle) != ("2wikimultihopqa", "paper"):
            raise ConfigurationError(f"{name} is a preset file, which has its own data set and form; leave them out")
        return _calibrated(PresetFile.read(name))
    check_type("preset", name, str, "a name, such as 'flare', or the path of a preset file")
    name = str(name)
    if name not in PRESETS:
        near = suggestion(name, PRESETS)
        raise ConfigurationError(f"there is no preset {name!r}{near}; known: {', '.join(PRESETS)}")
    if dataset not in _TASKS:
        near = suggestion(str(dataset), tuple(_TASKS))
        raise ConfigurationError(f"there are no settings for data set {dataset!r}{near}; known: {', '.join(_TASKS)}")
    check_bundle(bundle)
    if bundle != "paper" and name not in _TWO_FORMS:
        raise ConfigurationError(
            f"bundle is {bundle!r}, but {name} has only one form; leave it out ({', '.join(_TWO_FORMS)} have two)"
        )
    task = _TASKS[dataset]
    common: dict[str, Any] = {"budgets": Budgets(tokens=task.tokens), "lookahead": task.tokens}
    settings = {**common, **_METHODS[name](_Asked(dataset, bundle, task.tokens))}
    exemplars = 8 if name == "seakr" else task.exemplars  # published are 10; the project has 8
    own = tag_prompt(_TAGS[name][0]) if name in _TAGS else None
    return Preset(name, settings, exemplars, prompt=own, dataset=dataset, bundle=bundle)


def as_preset(preset: str | Path | Preset) -> Preset:
    """Return the preset itself, or the one that a name or file stands for; errors as for `get_preset`."""
    return preset if isinstance(preset, Preset) else get_preset(preset)


def _calibrated(file: PresetFile) -> Preset:
    """Return the method that a file is based on, with the trigger that was calibrated."""
    if is_preset_file(file.preset):
        raise ConfigurationError(f"a preset file names the preset {file.preset!r}; a published method is needed there")
    base = get_preset(file.preset, dataset=file.dataset, bundle=file.bundle)  # type: ignore[arg-type]
    return replace(base, settings={**base.settings, "trigger": file.trigger}, calibrated_for=file.calibrated_for)
