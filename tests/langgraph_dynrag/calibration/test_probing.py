"""Training a probe: plain weights like those of scikit-learn, held-out questions, and a calibration with one."""

import numpy as np
import pytest

from langgraph_dynrag import Budgets, calibrate, create_dynamic_rag, create_nodes
from langgraph_dynrag.calibration.folds import TooFewPointsError
from langgraph_dynrag.calibration.points import PointRecorder, label_points
from langgraph_dynrag.calibration.probing import fit_probe
from langgraph_dynrag.calibration.questions import CalibrationQuestion
from langgraph_dynrag.calibration.training import LabelledPoint, fit, train
from langgraph_dynrag.triggers.probe import DEPTHS
from rag_backbone.errors import ConfigurationError, SignalUnavailableError
from tests.langgraph_dynrag.calibration.bridges import PLAIN, bridges
from tests.langgraph_dynrag.scripted import WatchedRetriever

pytest.importorskip("sklearn")

NAMES = ("least_logprob", "names")


def drawn(count, *, told, width=20, seed=0):
    """Return states, labels and questions; the states after two thirds of the layers tell the label if `told`."""
    rng = np.random.default_rng(seed)
    needed = rng.random(count) < 0.5
    states = rng.normal(size=(count, len(DEPTHS), width)).astype(np.float32)
    states[:, 1, 0] += 3 * told * needed
    return states, needed, [i // 3 for i in range(count)]


def points(states, needed, questions, seed=0):
    rng = np.random.default_rng(seed)
    return [
        LabelledPoint(q, {name: float(rng.normal()) for name in NAMES}, bool(n), s)
        for s, n, q in zip(states, needed, questions, strict=True)
    ]


def test_a_probe_finds_the_depth_that_tells():
    states, needed, questions = drawn(400, told=True)
    found = fit_probe(states[:300], needed[:300].tolist(), questions[:300])
    assert found.probe.depth == DEPTHS[1]
    assert np.mean((found.out_of_fold > 0) == needed[:300]) > 0.85
    others = [found.probe.log_odds(s[1]) > 0 for s in states[300:]]
    assert np.mean(np.array(others) == needed[300:]) > 0.85


def test_a_probe_never_scores_a_question_that_it_saw():
    states, needed, questions = drawn(300, told=False, width=200)  # wide enough to learn every label by heart
    found = fit_probe(states, needed.tolist(), questions)
    assert np.mean((found.out_of_fold > 0) == needed) < 0.65


def test_the_plain_weights_are_those_of_standardised_regression():
    from sklearn.linear_model import LogisticRegression

    states, needed, questions = drawn(120, told=True)
    found = fit_probe(states, needed.tolist(), questions).probe
    x = states[:, DEPTHS.index(found.depth)].astype(np.float64)
    scaled = (x - x.mean(0)) / x.std(0)
    gaps = []
    for penalty in (1e-5, 1e-4, 1e-3, 1e-2):
        plain = LogisticRegression(C=penalty, max_iter=200).fit(scaled, needed)
        gaps.append(np.abs(plain.decision_function(scaled) - [found.log_odds(s) for s in x]).max())
    assert min(gaps) < 1e-6


@pytest.mark.parametrize("kind", ["logistic", "trees"])
def test_the_log_odds_are_one_more_input_of_the_model(kind):
    states, needed, questions = drawn(200, told=True)
    of = points(states, needed, questions)
    model = fit(of, NAMES, kind=kind)
    assert len(model.means) == len(NAMES) + 1
    trained = train(of, NAMES, kind=kind)
    assert trained.auroc > 0.9
    without = train([LabelledPoint(p.question, p.values, p.needed) for p in of], NAMES, kind=kind)
    assert without.model.probe is None
    assert without.auroc < 0.65


def test_labels_from_too_few_questions_are_refused():
    states = np.zeros((60, len(DEPTHS), 4), np.float32)
    with pytest.raises(TooFewPointsError, match="cannot judge a probe"):
        fit_probe(states, [i < 3 for i in range(60)], [i // 3 for i in range(60)])


def test_the_recorder_reads_each_sentence_at_all_depths(chat):
    class Labelled(PointRecorder):
        """Labels by the parity of the sentence's length, as the tiny model is never right."""

        def _is_needed(self, view):
            return len(view.unit) % 2 == 0

    recorder = Labelled(NAMES, probe=True)
    assert "hidden_states" in recorder.needs
    options = {"prompt": PLAIN["prompt"], "budgets": Budgets(tokens=24), "lookahead": 8}
    built = {"preset": "flare", "trigger": recorder, "initial_retrieval": False, **options}
    settings = create_nodes(chat, WatchedRetriever(), **built).begin.settings
    asked = [CalibrationQuestion(f"Who built bridge {i}?", ("Wray",)) for i in range(3)]
    found = label_points(create_dynamic_rag(chat, WatchedRetriever(), **built), settings, recorder, asked)
    width = chat.lm.model.config.hidden_size
    assert found
    assert all(p.states.shape == (len(DEPTHS), width) for p in found)


def test_what_cannot_give_hidden_states_is_refused_before_anything_is_drafted():
    model, retriever, asked = bridges()
    with pytest.raises(SignalUnavailableError, match="hidden_states, which Bridges cannot give"):
        calibrate(model, retriever, questions=asked, trigger="learned", rate=0.3, probe=True, **PLAIN)
    assert not model.calls
    with pytest.raises(ConfigurationError, match="pass trigger='learned'"):
        calibrate(model, retriever, questions=asked, rate=0.3, probe=True)
