"""Values of the wrong type are refused with an explanation at build time or when first returned."""

import asyncio
import json
from dataclasses import dataclass
from typing import Annotated

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_dynrag import (
    AnswerPrompt,
    Budgets,
    DynamicRAGContext,
    DynamicRetrievalMiddleware,
    Exemplar,
    Reformulation,
    RetrievalPolicy,
    SegmentSelection,
    ServerPolicy,
    calibrate,
    create_dynamic_rag,
    create_nodes,
    get_preset,
    reasoned_prompt,
)
from langgraph_dynrag.drafts.draft import Unit, Verdict
from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.queries import (
    QFS,
    BaseFormulator,
    LastTokens,
    MaskedSentence,
    QueryFormulator,
    Question,
    Rewrite,
    WithQuestion,
)
from langgraph_dynrag.queries.base import QueryPlan
from langgraph_dynrag.seakr.evidence_selection import LeastUncertain
from langgraph_dynrag.seakr.final_answer import SurerAnswer
from langgraph_dynrag.search_tags.formats import TagFormat
from langgraph_dynrag.search_tags.reason_in_documents import ReasonInDocuments
from langgraph_dynrag.triggers import (
    ETC,
    RIND,
    AnyOf,
    BaseTrigger,
    Entropy,
    EveryNTokens,
    Never,
    Once,
    Reflection,
    SelfAwareUncertainty,
    TokenProbability,
    Trigger,
    WrittenTag,
)
from rag_backbone.errors import ConfigurationError
from rag_backbone.typed_fields import Bounds
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

QUESTION = "Who built the bridge?"
ANSWER = said("The bridge was built by Aldous Wray. So the answer is Aldous Wray.")


def built(**options):
    model = ScriptedChatModel(replies=[ANSWER] * 3)
    return create_dynamic_rag(model, WatchedRetriever(), **{"preset": "single", "prompt": AnswerPrompt(), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": {"tokens": 64}}, r"budgets is {'tokens': 64} \(dict\); a Budgets is needed: Budgets\(tokens=64\)"),
        ({"prompt": "Answer."}, r"prompt is 'Answer.' \(str\); an AnswerPrompt"),
        ({"prompt": AnswerPrompt}, r"Pass an instance: AnswerPrompt\(...\)"),
        ({"k": "3"}, r"k is '3' \(str\); a whole number"),
        ({"k": True}, r"k is True \(bool\)"),
        ({"k": 0}, "k is 0; at least 1"),
        ({"k": float("nan")}, "k is nan"),
        ({"trigger": TokenProbability}, r"Pass an instance: TokenProbability\(...\)"),
        ({"trigger": "flare"}, r"trigger is 'flare' \(str\); a Trigger is needed"),
        ({"trigger": None}, "trigger is None"),
        ({"query": Question}, r"Pass an instance: Question\(...\)"),
        ({"reformulation": {"max_rewrites": 1}}, r"Reformulation\(max_rewrites=1\)"),
        ({"retrieval": None}, "a RetrievalPolicy is needed"),
        ({"retrieval": 5.0}, "a RetrievalPolicy is needed"),
        ({"seed": "1"}, "seed is '1'"),
        ({"recheck": "no"}, "recheck is 'no'"),
        ({"initial_retrieval": 1}, "initial_retrieval is 1"),
        ({"carries_content": "en"}, "carries_content is 'en'"),
        ({"lookahead": float("inf")}, "lookahead is inf"),
        ({"context_tokens": "1024"}, "context_tokens is '1024'"),
        ({"query_tokens": None}, "query_tokens is None"),
        ({"resume_at": True}, "resume_at is True"),
        ({"evidence_life": "forever"}, "'forever'; known"),
        ({"evidence_selector": "best"}, "an EvidenceSelector or None"),
        ({"final_answer": True}, "a SurerAnswer or a Reader or None"),
        ({"digest": True}, "a ReasonInDocuments or None"),
        ({"selection": {"beam": 2}}, r"Selection\(beam=2\)"),
        ({"server": {"attempts": 2}}, r"ServerPolicy\(attempts=2\)"),
        ({"name": 5}, "name is 5"),
        ({"checkpointer": "memory"}, "checkpointer is 'memory'.*InMemorySaver"),
        ({"checkpointer": InMemorySaver}, r"Pass an instance: InMemorySaver\(\)"),
        ({"interrupt_before": "retrieve"}, r"interrupt_before=\['retrieve'\]"),
        ({"interrupt_after": ["retreive"]}, "did you mean 'retrieve'"),
        ({"preset": None}, "preset is None"),
        ({"preset": "dragon"}, "did you mean 'dragin'"),
        ({"bundle": "reference"}, r"preset=get_preset\(NAME, bundle=...\)"),
        ({"missing": "context"}, r"injection=ParametricInjector\(adapters, missing=...\)"),
        ({"injection": "parametrc"}, "did you mean 'parametric'"),
    ],
)
def test_options_of_the_wrong_type_are_refused_at_build_time(options, message):
    with pytest.raises(ConfigurationError, match=message):
        built(**options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Budgets(tokens="64"),
        lambda: Budgets(seconds="60"),
        lambda: Budgets(retrievals=2.5),
        lambda: Budgets(identical_retrievals=None),
        lambda: Budgets(closing_tokens=True),
        lambda: Reformulation(max_rewrites="1"),
        lambda: Reformulation(min_score=float("nan")),
        lambda: RetrievalPolicy(timeout="30"),
        lambda: RetrievalPolicy(timeout=float("inf")),
        lambda: RetrievalPolicy(on_error=None),
        lambda: ServerPolicy(attempts="4"),
        lambda: ServerPolicy(pause=float("nan")),
        lambda: SegmentSelection(beam="2"),
        lambda: SegmentSelection(weights=1.0),
        lambda: AnswerPrompt(instructions=None),
        lambda: AnswerPrompt(exemplars="Q"),
        lambda: AnswerPrompt(exemplars=[("Q?", "So the answer is A.")]),
        lambda: AnswerPrompt(stop="\n"),
        lambda: AnswerPrompt(answer_phrase=5),
        lambda: Exemplar("Q?", None),
        lambda: reasoned_prompt("4"),
        lambda: TokenProbability("0.5"),
        lambda: TokenProbability(True),
        lambda: Entropy("high"),
        lambda: Entropy(float("inf")),
        lambda: RIND("1"),
        lambda: ETC("1"),
        lambda: EveryNTokens("16"),
        lambda: WrittenTag("<search>"),
        lambda: Reflection("0.2"),
        lambda: SelfAwareUncertainty("-6"),
        lambda: MaskedSentence("0.4"),
        lambda: QFS(2.5),
        lambda: LastTokens("16"),
        lambda: Rewrite(max_words=None),
        lambda: WithQuestion("question"),
        lambda: WithQuestion(Question),
        lambda: QueryPlan(queries="text"),
        lambda: QueryPlan(prompts="text"),
        lambda: QueryPlan(queries=[1]),
        lambda: Unit(5),
        lambda: SampleSpec(samples="20"),
        lambda: SampleSpec(temperature=float("inf")),
        lambda: LeastUncertain(sampling=20),
        lambda: SurerAnswer(alpha="small"),
        lambda: ReasonInDocuments(tokens="512"),
        lambda: TagFormat("mine", "<a></a>", ("<r>", "</r>")),
        lambda: AnyOf(TokenProbability, Entropy()),
    ],
)
def test_parts_refuse_values_of_the_wrong_type(make):
    with pytest.raises(ConfigurationError, match=" is | was given "):
        make()


@pytest.mark.parametrize(
    ("call", "near"),
    [
        (lambda: built(treshold=1), None),
        (lambda: built(presett="flare"), "preset"),
        (lambda: built(evidence_lives="replaced"), "evidence_life"),
        (lambda: create_nodes(ScriptedChatModel(replies=[]), None, budget=Budgets()), "budgets"),
        (lambda: get_preset("flare", datset="hotpotqa"), "dataset"),
        (lambda: calibrate(ScriptedChatModel(replies=[]), questions=["Q?"], rates=0.3), "rate"),
        (lambda: calibrate(ScriptedChatModel(replies=[]), questions=["Q?"], rate=0.3, retreiver=None), "retriever"),
        (lambda: Budgets(token=64), "tokens"),
        (lambda: RetrievalPolicy(time_out=3), "timeout"),
        (lambda: AnswerPrompt(instruction="Answer."), "instructions"),
        (lambda: DynamicRetrievalMiddleware(WatchedRetriever(), maximum_rounds=2), "max_rounds"),
    ],
)
def test_errors_on_unknown_options_suggest_the_nearest_name(call, near):
    with pytest.raises(ConfigurationError, match="has no argument" if near is None else f"did you mean '{near}'"):
        call()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"question": ["Who?", "Where?"]}, r"graph.batch\("),
        ({"question": b"Who?"}, r"question.decode\(\)"),
        ({"question": 5}, r"the question is 5 \(int\)"),
        ({"question": HumanMessage("Who?")}, r'{"messages": \[message\]}'),
        ({"question": None}, "the question is empty"),
        ({"question": ""}, "the question is empty"),
        ({"quesiton": "Who?"}, "did you mean 'question'"),
        ({"query": "Who?"}, 'neither "question" nor "messages"'),
        ("Who?", r'a mapping is needed: {"question": '),
        ([HumanMessage("Who?")], r'{"messages": \[...\]}'),
        (HumanMessage("Who?"), r'{"messages": \[...\]}'),
        (7, "a mapping is needed"),
        ({"messages": 5}, "messages is 5"),
        ({"messages": [5]}, "messages is"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_input_without_a_question_is_explained(given, message, asynchronous):
    graph = built()
    with pytest.raises(ConfigurationError, match=message):
        asyncio.run(graph.ainvoke(given)) if asynchronous else graph.invoke(given)


# -------------------------------------------------------------------------------- return values of user-defined parts


class Own(Never):
    returned = None
    piece = Unit("sentence")
    reads = frozenset()

    def __init__(self, **given):
        for name, value in given.items():
            object.__setattr__(self, name, value)

    __slots__ = ("__dict__",)

    @property
    def unit(self):
        return self.piece

    @property
    def needs(self):
        return self.reads

    def judge(self, view):
        return self.returned


@dataclass(frozen=True, slots=True)
class Often(BaseTrigger):
    """A trigger that defines only what differs from the base class."""

    n: Annotated[int, Bounds(least=1)] = 1

    unit = Unit("all")

    def judge(self, view):
        return Verdict(view.judged >= self.n, "often")


@dataclass(frozen=True)
class Words(BaseFormulator):
    """A formulator that defines only what differs from the base class."""

    needs = frozenset({"logprob"})

    def plan(self, view, verdict):
        return QueryPlan((view.unit.text,))


def test_subclasses_of_the_base_classes_define_only_what_differs():
    assert isinstance(Often(), Trigger)
    assert isinstance(Words(), QueryFormulator)
    assert (Often().needs, Often().unit, Often().before(QUESTION)) == (frozenset(), Unit("all"), None)
    assert (Words().needs, Words().finish(None, None, [])) == (frozenset({"logprob"}), ())
    out = built(trigger=Often(99), query=Words()).invoke({"question": QUESTION})
    assert {e["reason"] for e in out["trace"] if e["type"] == "verdict"} == {"often"}
    with pytest.raises(ConfigurationError, match="n is 0; at least 1 is needed"):
        Often(0)


@pytest.mark.parametrize("returned", [True, None, "yes", 0.5])
def test_a_verdict_of_the_wrong_type_is_refused_when_first_returned(returned):
    with pytest.raises(ConfigurationError, match=r"judge\(\) returned .*a Verdict is needed, such as Verdict\("):
        built(trigger=Own(returned=returned)).invoke({"question": QUESTION})
    for trigger in (AnyOf(Own(returned=returned), Entropy()),):
        with pytest.raises(ConfigurationError, match=r"judge\(\) returned"):
            built(trigger=trigger).invoke({"question": QUESTION})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"piece": "sentence"}, r"Unit\('sentence'\)"),
        ({"reads": ["logprob"]}, "a frozenset of signals"),
        ({"reads": frozenset({"probability"})}, "needs probability; .* gives"),
        ({"reads": "logprob"}, "a frozenset"),
    ],
)
def test_units_and_needs_of_the_wrong_type_are_refused_at_build_time(given, message):
    with pytest.raises(ConfigurationError, match=message):
        built(trigger=Own(**given))


def test_a_trigger_with_missing_members_is_refused_with_their_names():
    class Half:
        needs = frozenset()

        def judge(self, view):
            return Verdict(False, "no")

    with pytest.raises(ConfigurationError, match="it lacks before, unit"):
        built(trigger=Half())


class Asking(Question):
    def __init__(self, plan=None, finish=None):
        object.__setattr__(self, "_plan", plan)
        object.__setattr__(self, "_finish", finish)

    def plan(self, view, verdict):
        return self._plan

    def finish(self, view, verdict, replies):
        return self._finish


@pytest.mark.parametrize("plan", ["text", ("text",), None])
def test_a_plan_of_the_wrong_type_is_refused_when_first_returned(plan):
    graph = built(trigger=EveryNTokens(2), query=Asking(plan))
    with pytest.raises(ConfigurationError, match=r"plan\(\) returned .*a QueryPlan is needed"):
        graph.invoke({"question": QUESTION})


@pytest.mark.parametrize("queries", ["text", None, [1]])
def test_queries_from_replies_must_be_a_sequence_of_strings(queries):
    for query in (
        Asking(QueryPlan(prompts=("Which?",)), queries),
        WithQuestion(Asking(QueryPlan(prompts=("Which?",)), queries)),
    ):
        with pytest.raises(ConfigurationError, match=r"finish\(\) returned .*a tuple of strings is needed"):
            built(trigger=EveryNTokens(2), query=query).invoke({"question": QUESTION})


# ---------------------------------------------------------------------------------------------------------- the context


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"foo": 1}, "DynamicRAGContext has no argument 'foo'. Known: budgets, k"),
        ({"budget": Budgets()}, "did you mean 'budgets'"),
        ({"k": "3"}, r"k is '3' \(str\)"),
        ({"k": True}, "k is True"),
        ({"k": 0}, "k is 0; at least 1"),
        ({"budgets": {"token": 5}}, "did you mean 'tokens'"),
        ({"budgets": {"tokens": "5"}}, "budget tokens is '5'"),
        ({"budgets": 5}, "a Budgets or None"),
        ({"trigger": "flare"}, "a Trigger or None"),
        ({"trigger": Once}, r"Pass an instance: Once\(...\)"),
        ({"query": "question"}, "a QueryFormulator or None"),
        ({"retriever": lambda query: []}, r"RunnableLambda\(function\)"),
        ({"seed": 1.5}, "seed is 1.5"),
        (5, "the context is 5"),
        ("k=5", "the context is 'k=5'"),
        ([("k", 5)], "the context is"),
        (DynamicRAGContext, r"pass an instance: DynamicRAGContext\(k=5\)"),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_invalid_context_is_refused_before_the_run(context, message, asynchronous):
    graph = built()
    with pytest.raises(ConfigurationError, match=message):
        given = {"question": QUESTION}
        asyncio.run(graph.ainvoke(given, context=context)) if asynchronous else graph.invoke(given, context=context)


def test_budgets_in_a_context_may_be_plain_data():
    """Clients of a LangGraph server can only send plain data."""
    out = built().invoke({"question": QUESTION}, context={"k": 1, "budgets": {"retrievals": 0}})
    assert out["sources"] == []


def test_schemas_of_the_graph_are_valid_json():
    graph = built(checkpointer=InMemorySaver())
    made = {name: getattr(graph, f"get_{name}_jsonschema")() for name in ("context", "input", "output")}
    for schema in made.values():
        assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    assert set(made["context"]["properties"]) == {"retriever", "trigger", "query", "k", "budgets", "seed"}
    assert made["context"]["properties"]["k"]["anyOf"][0]["type"] == "integer"
    assert {"question", "messages"} <= set(made["input"]["properties"])
    assert {"answer", "sources", "warnings"} <= set(made["output"]["properties"])
    with pytest.warns(DeprecationWarning, match="get_config_jsonschema"):
        assert json.dumps(graph.get_config_jsonschema())
