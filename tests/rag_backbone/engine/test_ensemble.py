"""Ensembles of adapter sets, against a loop over the members with NumPy on full logits and no cache."""

import threading

import numpy as np
import pytest
import torch

from rag_backbone.engine.ensemble import AdapterEnsemble, mixed
from rag_backbone.engine.eos_states import EOSStatesRequest
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import ConfigurationError
from tests.rag_backbone.engine.references import PROMPT, ids_of
from tests.rag_backbone.engine.shift import PackedShiftBackend, Shift

VALUES, WEIGHTS = (-1.0, 0.5, 2.0), (0.2, 0.5, 0.3)
KINDS = ("mixture", "product")
LATE = ("prompt", "answer")


@pytest.fixture
def backend(model, engine):
    made = PackedShiftBackend(model)
    engine.attach(made)
    return made


def ensemble(kind="mixture", acts_from="prompt", values=VALUES, weights=WEIGHTS):
    return AdapterEnsemble(tuple(Shift(v, acts_from) for v in values), weights, kind)


def logits_of(model, backend, value, ids, base):
    """Return the last logits of one member, float64; the first `base` tokens are the base model's."""
    before = None
    with torch.inference_mode():
        if base:
            before = model(torch.tensor([ids[:base]]), use_cache=True).past_key_values
        with backend.shifted(torch.tensor(value)):
            return model(torch.tensor([ids[base:]]), past_key_values=before).logits[0, -1].double().numpy()


def mixed_by_numpy(logits, weights, kind):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    w = np.array(weights)[:, None]
    if kind == "mixture":
        return (w * p).sum(0)
    raised = np.prod(p**w, axis=0)
    return raised / raised.sum()


def by_definition(model, backend, end_ids, made, tokens):
    """Return the greedy tokens with their log-probabilities and entropies."""
    prompt, found = ids_of(PROMPT), []
    base = len(prompt) - 1 if made.acts_from == "answer" else 0
    while len(found) < tokens:
        ids = prompt + [token for token, _, _ in found]
        logits = np.stack([logits_of(model, backend, member.value, ids, base) for member in made.members])
        p = mixed_by_numpy(logits, made.weights, made.kind)
        if (token := int(p.argmax())) in end_ids:
            break
        found.append((token, float(np.log(p[token])), float(-(p * np.log(p)).sum())))
    return found


@pytest.mark.parametrize("acts_from", LATE)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_signals_are_those_of_the_mixed_distribution(model, engine, backend, kind, acts_from):
    made = ensemble(kind, acts_from)
    expected = by_definition(model, backend, engine.end_ids, made, 12)
    found = engine.generate(Request(PROMPT, 12, adapters=made, signals=Signals(entropy=True, top_logprobs=2)))
    assert found.token_ids == [token for token, _, _ in expected]
    assert [s.logprob for s in found.steps] == pytest.approx([p for _, p, _ in expected], abs=1e-4)
    assert [s.entropy for s in found.steps] == pytest.approx([h for _, _, h in expected], abs=1e-4)
    assert all(s.top_logprobs[0] == (s.token_id, s.logprob) for s in found.steps)
    alone = [engine.generate(Request(PROMPT, 12, adapters=one)).token_ids for one in made.members]
    assert any(other != found.token_ids for other in alone)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_distributions_matches_its_formula_with_impossible_tokens(kind):
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    logits[0, 3] = logits[1, 3] = logits[2, 3] = logits[1, 7] = -torch.inf
    found = mixed(logits, WEIGHTS, kind)
    assert np.allclose(found.exp().numpy(), mixed_by_numpy(logits.double().numpy(), WEIGHTS, kind), atol=1e-6)
    assert found.exp().sum() == pytest.approx(1.0, abs=1e-6)
    assert found[3] == -torch.inf
    assert (found[7] == -torch.inf) == (kind == "product")  # one expert's veto


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_are_the_same_answer_as_one_alone(engine, backend, kind):
    alone = engine.generate(Request(PROMPT, 10, adapters=Shift(0.5)))
    for values, weights in (((0.5,), (1.0,)), ((0.5, 0.5), (0.3, 0.7))):
        found = engine.generate(Request(PROMPT, 10, adapters=ensemble(kind, values=values, weights=weights)))
        assert found.token_ids == alone.token_ids
        assert [s.logprob for s in found.steps] == pytest.approx([s.logprob for s in alone.steps], abs=1e-4)


def test_members_that_act_from_the_answer_on_share_the_prompt(engine, backend):
    if not engine.shares_steps:
        pytest.skip("this model does not batch sequences")
    prompt = ids_of(PROMPT) * 8
    found = engine.generate(Request(prompt, 4, adapters=ensemble(acts_from="answer")))
    read = found.counts.forward_tokens - 3 * (len(found.steps) - 1)
    assert len(prompt) <= read <= len(prompt) + 2 * 32  # nearly all of the prompt is read once, not three times
    assert engine.counts.generated_tokens == len(found.steps)


def test_sampling_draws_from_the_mixed_distribution(model, engine, backend):
    made = ensemble("mixture")
    logits = np.stack([logits_of(model, backend, v, ids_of(PROMPT), 0) for v in VALUES])
    p = mixed_by_numpy(logits, WEIGHTS, "mixture")
    requests = [Request(PROMPT, 1, adapters=made, sampling=Sampling(temperature=1.0, seed=i)) for i in range(300)]
    drawn = [r.token_ids for r in engine.generate_batch(requests)]
    counts = np.bincount([ids[0] for ids in drawn if ids], minlength=len(p))
    likeliest = np.argsort(-p)[:5]
    assert counts[likeliest].sum() / 300 == pytest.approx(p[likeliest].sum(), abs=0.09)  # three standard errors


def test_a_seed_gives_the_same_text_and_a_stream_the_same_as_a_batch(engine, backend):
    request = Request(PROMPT, 8, adapters=ensemble(), sampling=Sampling(temperature=0.8, seed=3))
    plain = Request(PROMPT, 8, adapters=Shift(0.5))
    with engine.stream(request) as stream:
        streamed = "".join(step.text for step in stream)
    together = engine.generate_batch([request, plain, request])
    assert [g.text for g in together] == [streamed, engine.generate(plain).text, streamed]


def test_generation_ends_at_a_stop_string_and_where_the_caller_wants(engine, backend):
    whole = engine.generate(Request(PROMPT, 10, adapters=ensemble()))
    cut = engine.generate(Request(PROMPT, 10, adapters=ensemble(), stop_when=lambda step: step.index == 2))
    assert (cut.token_ids, cut.finish_reason) == (whole.token_ids[:3], "cancelled")
    stop = next(step.text for step in whole.steps if step.text)
    assert engine.generate(Request(PROMPT, 10, adapters=ensemble(), stop=[stop])).finish_reason == "stop"


def test_an_abandoned_stream_leaves_nothing_behind_and_can_be_continued(engine, backend):
    whole = engine.generate(Request(PROMPT, 8, adapters=ensemble())).token_ids
    with engine.stream(Request(PROMPT, 8, adapters=ensemble())) as stream:
        first = [next(stream).token_id for _ in range(3)]
    assert first == whole[:3]
    rest = engine.generate(
        Request(ids_of(PROMPT) + first, 5, adapters=ensemble(), answer_from=len(ids_of(PROMPT)))
    ).token_ids
    assert first + rest == whole


def test_an_error_of_one_member_is_raised_and_a_later_call_works(engine, backend):
    class Broken(Shift):
        @property
        def value(self):
            raise RuntimeError("this member is broken")

        @value.setter
        def value(self, _):
            pass

    broken = AdapterEnsemble((Shift(0.5), Broken(1.0)), (0.5, 0.5))
    with pytest.raises(RuntimeError, match="this member is broken"):
        engine.generate(Request(PROMPT, 4, adapters=broken))
    assert engine.generate(Request(PROMPT, 4, adapters=ensemble())).steps


def test_ensembles_of_several_threads_do_not_mix(engine, backend):
    requests = [Request(PROMPT, 6, adapters=ensemble(values=(v, -v, v / 2))) for v in (0.5, 1.0, 2.0, 3.0)]
    expected = [engine.generate(r).token_ids for r in requests]
    found = [None] * len(requests)

    def ask(i):
        found[i] = engine.generate(requests[i]).token_ids

    threads = [threading.Thread(target=ask, args=[i]) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sum"}, "ensemble is 'sum'; known: mixture, product"),
        ({"values": ()}, "0 members and 3 weights"),
        ({"weights": (0.5, 0.5)}, "3 members and 2 weights"),
        ({"weights": (0.5, 0.5, 0.0)}, "each must be above 0"),
        ({"weights": (0.5, 0.5, 0.5)}, "their sum 1"),
    ],
)
def test_what_is_no_ensemble_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        ensemble(**options)


def test_signals_of_a_single_forward_pass_are_refused_before_any_work(engine, backend):
    made, before = ensemble(), engine.counts
    ids = ids_of(PROMPT)
    for call in (
        lambda: engine.generate(Request(PROMPT, 3, adapters=made, signals=Signals(hidden_state=1))),
        lambda: engine.generate(Request(PROMPT, 3, adapters=made, signals=Signals(attention=True))),
        lambda: engine.score(ids, [5], adapters=made),
        lambda: engine.attention(ids, adapters=made),
        lambda: engine.attention_row(ids, adapters=made),
        lambda: engine.end_states(EOSStatesRequest(ids, 1, adapters=made)),
    ):
        with pytest.raises(ConfigurationError, match="an ensemble of 3, which can generate"):
            call()
    assert engine.counts == before


def test_keys_differ_with_members_weights_and_kind():
    keys = {
        ensemble().cache_key,
        ensemble("product").cache_key,
        ensemble(values=(1.0, 2.0, 3.0)).cache_key,
        ensemble(weights=(0.3, 0.5, 0.2)).cache_key,
    }
    assert len(keys) == 4
    assert ensemble(acts_from="answer").acts_from == "answer"
