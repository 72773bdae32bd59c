"""Continuations sampled from a tiny model: where each ends, and what they cost."""

import numpy as np
import pytest

from langgraph_dynrag.drafts.sampled_ends import SampleSpec
from langgraph_dynrag.generators.local_samples import sample_end, sample_ends
from tests.langgraph_dynrag.generators.tasks import task_of

SPEC = SampleSpec(samples=3, max_tokens=6)
ANSWER = SampleSpec(until="answer")


@pytest.mark.parametrize(
    ("spec", "changes", "text", "kept"),
    [
        (SPEC, {}, "It was Joan", None),
        (SPEC, {}, "It was Joan. Then", None),  # the next word may still show that the full stop is no end
        (SPEC, {}, "It was Joan. Then he", "It was Joan."),
        (SPEC, {"stop": ("\n", "was")}, "It was Joan.\nThen", "It "),
        (ANSWER, {}, "It was Joan. Then", None),  # without a phrase, nothing marks the answer
        (ANSWER, {"answer_phrase": "the answer is"}, "It was Joan. So the answer is Jo", None),
        (ANSWER, {"answer_phrase": "the answer is"}, "So the answer is Joan. And then", "So the answer is Joan."),
        (ANSWER, {"answer_phrase": "the answer is", "stop": ("So",)}, "It. So the answer is Joan. And", "It. "),
    ],
)
def test_a_sample_ends_with_its_sentence_its_short_answer_or_before_a_stop_string(spec, changes, text, kept):
    end = sample_end(task_of(**changes), spec, text)
    assert (None if end is None else text[:end]) == kept


def test_the_same_seed_gives_the_same_samples(local):
    task = task_of()
    first, again, other = (sample_ends(local, task.messages, task, SPEC, seed) for seed in (1, 1, 2))
    assert len(first.texts) == first.cost["sequences"] == 3
    assert first.states.shape == (3, local.lm.model.config.hidden_size)
    assert first.texts == again.texts != other.texts
    # The second time the prompt's keys come from the cache, so the last digits of float32 may differ.
    np.testing.assert_allclose(first.states, again.states, rtol=1e-4, atol=1e-4)
    assert abs(first.states - other.states).max() > 0.1
    assert 0 < first.cost["tokens"] <= 18
    assert first.cost["seconds"] > 0


def test_both_states_of_a_layer_can_be_read(local):
    task = task_of()
    layer, mlp = (
        sample_ends(local, task.messages, task, SampleSpec(samples=2, max_tokens=3, state=state), 1)
        for state in ("layer", "mlp")
    )
    assert layer.texts == mlp.texts
    assert layer.states != pytest.approx(mlp.states)
