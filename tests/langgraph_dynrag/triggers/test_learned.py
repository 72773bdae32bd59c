"""The learned trigger and its model: hand-worked probabilities, what JSON keeps, and what is refused."""

import json
import math
from dataclasses import asdict, replace

import pytest

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, Trace, create_dynamic_rag, with_threshold
from langgraph_dynrag.drafts.draft import Draft, DraftView
from langgraph_dynrag.presets.file import PresetFile, PresetFileError, belonging
from langgraph_dynrag.queries import Question
from langgraph_dynrag.retrieval import BM25Retriever
from langgraph_dynrag.triggers import LearnedTrigger
from langgraph_dynrag.triggers.learned_model import LearnedModel, Tree, calibrated
from langgraph_dynrag.triggers.policy import Policy
from langgraph_dynrag.triggers.threshold import threshold_of
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.recorded import view
from tests.langgraph_dynrag.running import events
from tests.langgraph_dynrag.scripted import DOCUMENTS, ScriptedChatModel, WatchedRetriever, said
from tests.tiny import tiny_llama_of_lines, tiny_tokenizer

LOGISTIC = LearnedModel("logistic", ("least_logprob", "names"), (-1.0, 2.0), (2.0, 0.5), 0.25, weights=(-1.5, 0.5))
TREE = Tree((0, -1, 1, -1, -1), (-2.0, 0, 1.5, 0, 0), (1, -1, 3, -1, -1), (2, -1, 4, -1, -1), (0, 1.0, 0, -0.5, 0.7))
TREES = LearnedModel("trees", ("least_logprob", "names"), (-1.0, 2.0), (1.0, 1.0), -0.2, trees=(TREE, TREE))
KNOTS = ((0.2, 0.1), (0.6, 0.5), (0.8, 0.5))
PROMPT = AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=())
SHORT = {"prompt": PROMPT, "budgets": Budgets(tokens=16), "lookahead": 16}


def s(x):
    return 1 / (1 + math.exp(-x))


def test_logistic_regression_by_hand():
    assert LOGISTIC.uncalibrated((-3.0, 3.0)) == pytest.approx(s(0.25 + 1.5 + 1.0))
    assert LOGISTIC.uncalibrated((None, None)) == pytest.approx(s(0.25))
    assert LOGISTIC.uncalibrated((-1e5, 0.0)) == 1
    assert LOGISTIC.uncalibrated((1e5, 0.0)) == 0


@pytest.mark.parametrize(
    ("x", "leaf"), [((-2.0, 9), 1.0), ((-1.9, 1.5), -0.5), ((-1.9, 1.6), 0.7), ((None, None), 0.7)]
)
def test_trees_by_hand(x, leaf):
    assert TREES.uncalibrated(x) == pytest.approx(s(-0.2 + 2 * leaf))


@pytest.mark.parametrize(("p", "expected"), [(0.0, 0.1), (0.2, 0.1), (0.4, 0.3), (0.7, 0.5), (1.0, 0.5)])
def test_calibration_interpolates_between_its_knots(p, expected):
    assert calibrated(p, KNOTS) == pytest.approx(expected)
    assert calibrated(p, ()) == p


def test_the_verdict_states_probability_threshold_and_policy():
    judged = view("It was Joan Pike.", {"Joan": 0.5, "Pike": 0.1})
    p = LOGISTIC.probability((math.log(0.1), 2.0))
    bound = Policy("missed", 0.1, 0.9, 80)
    fired = LearnedTrigger(LOGISTIC, p, bound).judge(judged)  # equal is enough
    assert (fired.retrieve, fired.score, fired.threshold, fired.position, fired.hits) == (True, p, p, 3, (3,))
    assert fired.reason == (f"p {p:.3f} >= {p:.3g} (misses at most 10% of the needed retrievals, at 90% confidence)")
    quiet = LearnedTrigger(LOGISTIC, math.nextafter(p, 1), Policy("rate", 0.3)).judge(judged)
    assert (quiet.retrieve, quiet.position, quiet.hits) == (False, None, ())
    assert quiet.reason.endswith("(searches at 30% of the sentences)")
    empty = LearnedTrigger(LOGISTIC, 0).judge(DraftView("Who?", "", Draft(), 0))
    assert (empty.retrieve, empty.reason) == (False, "nothing was written")


def test_a_threshold_set_by_hand_drops_the_policy():
    trigger = LearnedTrigger(LOGISTIC, 0.3, Policy("rate", 0.5))
    assert threshold_of(trigger) == 0.3
    assert with_threshold(trigger, 0.4) == LearnedTrigger(LOGISTIC, 0.4)
    assert repr(trigger) == "LearnedTrigger(logistic, 2 features, threshold=0.3)"
    hash(trigger)


@pytest.mark.parametrize(
    "model", [LOGISTIC, TREES, replace(TREES, calibration=KNOTS)], ids=["logistic", "trees", "knots"]
)
def test_a_preset_file_keeps_the_trigger(tiny_lm, tmp_path, model):
    assert LearnedModel.of(json.loads(json.dumps(asdict(model)))) == model
    trigger = LearnedTrigger(model, 0.35, Policy("missed", 0.1, 0.9, 40), ((0.0, 1), (0.6, 5)), 0.9, "Unknown.")
    about = belonging(LocalChatModel.from_causal_lm(tiny_lm), PROMPT)
    path = PresetFile("flare", "hotpotqa", "paper", trigger, about).write(tmp_path / "p.json")
    assert PresetFile.read(path).trigger == trigger
    held = json.loads(path.read_text("utf-8"))
    held["trigger"]["options"]["model"]["features"] = ["least_logprob", "mood"]
    path.write_text(json.dumps(held), "utf-8")
    with pytest.raises(PresetFileError, match="no feature 'mood'"):
        PresetFile.read(path)


@pytest.mark.parametrize(("steps", "k"), [(((0, 1), (0.9, 3)), 1), (((0, 3), (0.4, 1)), 1), (((0.9, 1),), 2), ((), 2)])
def test_the_probability_decides_how_many_passages_are_searched_for(tiny_lm, steps, k):
    constant = LearnedModel("logistic", ("names",), (0,), (1,), 0, weights=(0,))  # p is 0.5
    trigger = LearnedTrigger(constant, 0.5, passages=steps)
    chat = LocalChatModel.from_causal_lm(tiny_lm)
    retriever = WatchedRetriever(give=DOCUMENTS)
    graph = create_dynamic_rag(chat, retriever, trigger=trigger, k=2, initial_retrieval=False, **SHORT)
    out = graph.invoke({"question": "Who built the bridge?"})
    assert {len(e["documents"]) for e in events(out, "retrieval")} == {k}
    shown = ", 1 passage" if k == 1 else ""
    assert events(out, "verdict")[0]["reason"] == f"p 0.500 >= 0.5{shown}"


def test_abstaining_takes_passages_in_the_prompt_and_a_probability():
    judged = view("It was Joan Pike.", {"Joan": 0.5, "Pike": 0.1})
    p = LOGISTIC.probability((math.log(0.1), 2.0))
    trigger = LearnedTrigger(LOGISTIC, 0.1, abstain=p, unknown="Not known.")
    assert trigger.judge(judged).retrieve  # no passages yet: search first
    informed = replace(judged, passages=[{"title": "Bridge", "text": "It is old."}])
    given_up = trigger.judge(informed)
    assert (given_up.retrieve, given_up.answer, given_up.threshold) == (False, "Not known.", p)
    assert given_up.reason == f"p {p:.3f} >= {p:.3g} with passages in the prompt"
    chosen = replace(trigger, abstain_policy={"goal": "given_up", "value": 0.1, "confidence": 0.9, "points": 30})
    told = "(gives at most 10% of the right sentences up, at 90% confidence)"
    assert chosen.judge(informed).reason == f"{given_up.reason} {told}"
    surer = LearnedTrigger(LOGISTIC, 0.1, abstain=math.nextafter(p, 1)).judge(informed)
    assert (surer.retrieve, surer.answer) == (True, None)
    with pytest.raises(ConfigurationError, match=r"abstain is 0.3, below its threshold 0.5"):
        LearnedTrigger(LOGISTIC, 0.5, abstain=0.3)


@pytest.mark.parametrize("phrase", [None, "So the answer is:"])
def test_a_graph_gives_up_with_passages_in_the_prompt(tiny_lm, phrase):
    constant = LearnedModel("logistic", ("names",), (0,), (1,), 0, weights=(0,))  # p is 0.5
    trigger = LearnedTrigger(constant, 0.5, abstain=0.5)
    chat = LocalChatModel.from_causal_lm(tiny_lm)
    options = {**SHORT, "prompt": replace(PROMPT, answer_phrase=phrase), "initial_retrieval": True, "k": 2}
    graph = create_dynamic_rag(chat, WatchedRetriever(give=DOCUMENTS), trigger=trigger, **options)
    streamed = list(graph.stream({"question": "Who built the bridge?"}, stream_mode="messages"))
    out = graph.invoke({"question": "Who built the bridge?"})
    assert out["short_answer"] == "I do not know."
    assert out["answer"] == ("I do not know." if phrase is None else f"{phrase} I do not know.")
    assert out["warnings"] == ["the answer was given up: p 0.500 >= 0.5 with passages in the prompt"]
    assert [e["retrieve"] for e in events(out, "verdict")] == [False]
    assert len(events(out, "retrieval")) == 1  # the one before the answer
    assert "".join(chunk.content for chunk, _ in streamed if chunk.id.startswith("dynrag-")) in (
        out["answer"],
        out["answer"] * 2,  # the chunks, and the final message
    )
    assert out["messages"][-1].content == out["answer"]
    assert "given up" in str(Trace.from_state(out))


@pytest.mark.parametrize("steps", [((0.5, 1), (0.4, 2)), ((0.5, 0),), ((2, 1),), ((0.5,),), "many"])
def test_amounts_that_do_not_ascend_are_refused(steps):
    with pytest.raises(ConfigurationError, match="passages"):
        LearnedTrigger(LOGISTIC, 0.5, passages=steps)


def test_a_learned_trigger_with_another_model_or_prompt_is_refused(chat, tmp_path):
    trigger = LearnedTrigger(LOGISTIC)
    path = PresetFile("flare", "hotpotqa", "paper", trigger, belonging(chat, PROMPT)).write(tmp_path / "p.json")
    create_dynamic_rag(chat, WatchedRetriever(), preset=path, prompt=PROMPT)
    with pytest.raises(ConfigurationError, match="learned for tiny .* used with another prompt"):
        create_dynamic_rag(chat, WatchedRetriever(), preset=path, prompt=replace(PROMPT, instructions="Say."))
    other = LocalChatModel.from_causal_lm(CausalLM(tiny_llama_of_lines(), tiny_tokenizer(), name="lines"))
    with pytest.raises(ConfigurationError, match="used with the model lines"):
        create_dynamic_rag(other, WatchedRetriever(), preset=path, prompt=PROMPT)
    create_dynamic_rag(other, WatchedRetriever(), preset=path, prompt=PROMPT, trigger=trigger)  # asked for explicitly


GOOD = asdict(LOGISTIC)
TREE_GOOD = asdict(TREE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "no learned model"),
        ({"kind": "logistic"}, "means, scales and intercept"),
        ({**GOOD, "code": "x"}, "no code"),
        ({**GOOD, "kind": "forest"}, "'forest'; known"),
        ({**GOOD, "features": "names"}, "a list of names"),
        ({**GOOD, "weights": [1.0]}, "1 weights; 2 are needed"),
        ({**GOOD, "means": [0.0, float("nan")]}, "means of a learned model.*finite"),
        ({**GOOD, "intercept": True}, "intercept.*True"),
        ({**GOOD, "scales": [1, 0]}, "above 0"),
        ({**GOOD, "trees": [TREE_GOOD]}, "has 1 trees"),
        ({**GOOD, "calibration": [[0.5, 0.2], [0.4, 0.3]]}, "ascending"),
        ({**GOOD, "calibration": [[0.5, 0.2, 0.1]]}, "pairs"),
        ({**asdict(TREES), "trees": []}, "has 0 trees"),
        ({**asdict(TREES), "trees": [{**TREE_GOOD, "left": [0, -1, 3, -1, -1]}]}, "node 0"),  # would never end
        ({**asdict(TREES), "trees": [{**TREE_GOOD, "right": [9, -1, 4, -1, -1]}]}, "node 0"),
        ({**asdict(TREES), "trees": [{**TREE_GOOD, "feature": [0, -1, 2, -1, -1]}]}, "beyond the 2"),
        ({**asdict(TREES), "trees": [{**TREE_GOOD, "value": [0]}]}, "differ in length"),
        ({**asdict(TREES), "trees": ["x"]}, "no tree"),
    ],
)
def test_damaged_models_are_refused(value, message):
    with pytest.raises(ConfigurationError, match=message):
        LearnedTrigger(value)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"goal": "missed", "value": 0.1}, "confidence is None"),
        ({"goal": "rate", "value": 0.1, "confidence": 0.9}, "a rate has none"),
        ({"goal": "rate", "value": 2}, "probability"),
        ({"goal": "rate"}, "no policy"),
        ({"goal": "cost", "value": 0.1}, "'cost'; known"),
    ],
)
def test_damaged_policies_are_refused(policy, message):
    with pytest.raises(ConfigurationError, match=message):
        LearnedTrigger(LOGISTIC, 0.5, policy)
    with pytest.raises(ConfigurationError, match="probability"):
        LearnedTrigger(LOGISTIC, 1.5)


def test_a_model_without_the_signals_is_refused_by_name():
    entropies = LearnedTrigger(LearnedModel("logistic", ("mean_entropy",), (0,), (1,), 0, weights=(1,)))
    assert entropies.needs == {"entropy", "logprob"}
    mute = ScriptedChatModel(replies=[said("yes")], reports=False)
    with pytest.raises(SignalUnavailableError, match="logprob"):
        create_dynamic_rag(mute, WatchedRetriever(), preset="flare", trigger=LearnedTrigger(LOGISTIC), prompt=PROMPT)


def test_a_retriever_that_does_not_count_words_is_refused_by_name(chat):
    trigger = LearnedTrigger(LearnedModel("logistic", ("rarest_new_name",), (0,), (1,), 0, weights=(1,)), 0.0)
    with pytest.raises(SignalUnavailableError, match="rarest_new_name.*WatchedRetriever does not"):
        create_dynamic_rag(chat, WatchedRetriever(), preset="flare", trigger=trigger, **SHORT)
    graph = create_dynamic_rag(chat, BM25Retriever.from_documents(DOCUMENTS), preset="flare", trigger=trigger, **SHORT)
    assert events(graph.invoke({"question": "Who?"}), "verdict")


def test_a_graph_on_a_local_model_shows_probabilities_and_sees_its_evidence():
    chat = LocalChatModel.from_causal_lm(CausalLM(tiny_llama_of_lines(), tiny_tokenizer(), name="tiny"))
    model = LearnedModel("logistic", ("evidence_in_prompt",), (0,), (1,), 0, weights=(-2,))
    trigger = LearnedTrigger(model, 0.3, Policy("rate", 0.5))  # p is 0.5 without evidence, and 0.119 with it
    options = {"preset": "flare", "evidence_life": "accumulated", "query": Question(), "prompt": PROMPT}
    options |= {"budgets": Budgets(tokens=48), "lookahead": 16, "initial_retrieval": False}
    graph = create_dynamic_rag(chat, WatchedRetriever(), trigger=trigger, **options)
    out = graph.invoke({"question": "Who built the bridge?"})
    evidence, found = [], []
    for event in out["trace"]:
        if event["type"] == "draft":
            evidence = event["evidence"]
        elif event["type"] == "verdict" and event.get("trigger") == "learned":
            assert event["score"] == pytest.approx(s(-2) if evidence else 0.5)
            found.append((bool(evidence), event["retrieve"]))
            assert event["reason"].startswith("p 0.119 < 0.3 (searches at 50%" if evidence else "p 0.500 >= 0.3 (")
    assert set(found) == {(False, True), (True, False)}
    trace = Trace.from_state(out)
    assert "p 0.500 >= 0.3 (searches at 50% of the sentences)" in str(trace)
    page = trace._repr_html_()
    assert "probability that a search helps" in page
    assert "(searches at 50% of the sentences)" in page
