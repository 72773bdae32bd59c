"""Contradictions between documents: the measure by its formula, and the effect of each policy."""

import numpy as np
import pytest
import torch

from llamaindex_prag.adapters.adapter import Adapter
from llamaindex_prag.guards.conflict_policies import known_policy
from llamaindex_prag.guards.conflicts import OVERLAP, ConflictMeter, overlap
from llamaindex_prag.prompts import prompt_ids
from rag_backbone.errors import AdapterError, ConfigurationError
from tests.llamaindex_prag.made import random_model, random_values, version_of, with_update

QUESTION = "Who wrote a letter?"


@pytest.fixture
def model(tmp_path):
    with random_model(tmp_path, 0.3) as made:
        yield made


def likelihood(model, prompt, answer):
    """Return log p(answer | prompt), from one plain forward pass."""
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0].double().log_softmax(-1)
    return sum(float(logprobs[len(prompt) + n - 1, token]) for n, token in enumerate(answer))


def test_the_measure_matches_its_formula(model):
    lm = model.lm
    prompt, end = prompt_ids(lm.tokenizer, QUESTION), lm.tokenizer.eos_token_id
    numbers = (0, 1, 2)
    single = [with_update(lm.model, model.layout, [(random_values(model.layout, i, 0.3), 2.0)]) for i in numbers]
    answers = []
    for changed in single:
        said = changed.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, pad_token_id=end)[0]
        answers.append(said[len(prompt) :].tolist())
    expected = np.zeros((3, 3))
    for i in numbers:
        for j in numbers:
            if i != j:
                claims = []
                for a, b in ((i, j), (j, i)):
                    own = likelihood(single[a], prompt, answers[a])
                    others = likelihood(single[b], prompt, answers[a]), likelihood(lm.model, prompt, answers[a])
                    claims.append(own - max(others))
                expected[i, j] = max(0.0, min(claims))
    keys = [model.key(f"text {i}") for i in numbers]
    found = ConflictMeter(model, max_new_tokens=8, least_overlap=None).measure(QUESTION, keys)
    assert found.overlaps is None
    assert expected.max() > 0.1  # the adapters do give different answers
    assert found.matrix == pytest.approx(expected, abs=1e-3)


def test_documents_about_different_things_do_not_contradict_each_other(model):
    layout = model.layout
    first = random_values(layout, 0, 0.3)
    model.store.put(model.key("version"), Adapter(layout, version_of(layout, first, 7), 2.0), {})
    keys = [model.key("text 0"), model.key("text 1"), model.key("version")]
    free = ConflictMeter(model, least_overlap=None).measure(QUESTION, keys)
    found = ConflictMeter(model).measure(QUESTION, keys)
    expected = overlap(layout, [first, random_values(layout, 1, 0.3), version_of(layout, first, 7)])
    assert found.overlaps == pytest.approx(expected, abs=1e-5)
    assert expected[0, 2] > OVERLAP > max(expected[0, 1], expected[1, 2])
    assert free.matrix[0, 1] > 0 < free.matrix[0, 2]
    assert found.matrix[0, 2] == free.matrix[0, 2]
    assert (found.matrix[0, 1], found.matrix[1, 2]) == (0, 0)
    assert found.to_dict()["pairs"][0]["overlap"] == pytest.approx(expected[0, 2], abs=1e-3)
    apart = ConflictMeter(model).measure(QUESTION, keys[:2])
    assert (apart.answers, apart.matrix.max(), apart.pairs) == (("", ""), 0, [])


def test_documents_that_say_the_same_do_not_contradict_each_other(model):
    model.store.put(model.key("copy"), Adapter(model.layout, random_values(model.layout, 0, 0.3), 2.0), {})
    found = ConflictMeter(model, bound=1e-3).measure(QUESTION, [model.key("text 0"), model.key("copy")])
    assert found.answers[0] == found.answers[1]
    assert (found.matrix.max(), found.pairs, found.documents) == (0.0, [], [])


def test_an_adapter_that_changes_nothing_contradicts_no_other(model):
    quiet = random_values(model.layout, 5, 0.3)
    quiet[model.layout.a_size :] = 0
    model.store.put(model.key("quiet"), Adapter(model.layout, quiet, 2.0), {})
    found = ConflictMeter(model, bound=1e-3).measure(QUESTION, [model.key("text 0"), model.key("quiet")])
    assert found.matrix.max() == pytest.approx(0, abs=1e-4)


def test_impossible_measurements_are_refused(model):
    meter = ConflictMeter(model)
    with pytest.raises(ConfigurationError, match="blank"):
        meter.measure("  ", [model.key("text 0")])
    with pytest.raises(AdapterError, match="no adapter"):
        meter.measure(QUESTION, [model.key("never stored")])
    with pytest.raises(ConfigurationError, match="bound is 0"):
        ConflictMeter(model, bound=0)
    with pytest.raises(ConfigurationError, match="least_overlap is 2"):
        ConflictMeter(model, least_overlap=2)
    with pytest.raises(ConfigurationError, match="known: mean, score-weighted, latest, context"):
        known_policy("newest")


def test_overlap_is_the_cosine_of_the_dense_updates(model):
    layout = model.layout
    buffers = [random_values(layout, i, 0.3) for i in range(2)]
    buffers += [0.5 * buffers[0], np.zeros_like(buffers[0])]
    dense = [np.concatenate([(b @ a).ravel() for _, a, b in layout.factors(buffer)]) for buffer in buffers]
    found = overlap(layout, buffers)
    norms = [np.linalg.norm(d) for d in dense]
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(float(dense[i] @ dense[j]) / (norms[i] * norms[j]), abs=1e-5)
    assert not found[3].any()
