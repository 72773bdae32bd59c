"""The engine compared with transformers itself, on tiny random models of three families."""

import pytest
import torch

from rag_backbone.engine.engine import Engine
from rag_backbone.engine.prefix_cache import common_prefix
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import ConfigurationError, ContextWindowError, SignalUnavailableError
from tests.rag_backbone.engine.references import EVERYTHING, PROMPT, by_generate, eager, ids_of
from tests.rag_backbone.engine.shift import Shift, ShiftBackend
from tests.tiny import tiny_gemma3, tiny_tokenizer


def test_greedy_tokens_match_those_of_transformers(engine, model):
    ids = ids_of(PROMPT)
    assert engine.generate(Request(ids, 40)).token_ids == by_generate(model, ids, 40)


def test_signals_match_one_eager_forward_pass_over_the_whole_text(engine, model):
    ids = ids_of(PROMPT)
    made = engine.generate(Request(ids, 20, signals=EVERYTHING))
    out = eager(model, ids + made.token_ids)
    logprobs = torch.log_softmax(out.logits[0].float(), -1)
    for t, step in enumerate(made.steps):
        at = len(ids) + t - 1  # the position that predicts the token
        row = logprobs[at]
        assert step.logprob == pytest.approx(row[step.token_id].item(), abs=1e-4)
        assert step.entropy == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-4)
        best = row.topk(3)
        assert [i for i, _ in step.top_logprobs] == best.indices.tolist()
        assert [p for _, p in step.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert step.attention.shape == (4, at + 1)
        assert (step.attention - out.attentions[-1][0, :, at, : at + 1]).abs().max() < 1e-4
        # hidden_states[0] is the embedding, so layer 1's output is at index 2
        assert (step.hidden_state - out.hidden_states[2][0, at]).abs().max() < 1e-3


def test_scoring_a_text_gives_the_same_signals_as_generating_it(engine):
    ids = ids_of(PROMPT)
    made = engine.generate(Request(ids, 15, signals=Signals(entropy=True, attention=True)))
    scored = engine.score(ids, made.token_ids, attention=True)
    assert scored.logprobs.tolist() == pytest.approx([s.logprob for s in made.steps], abs=1e-4)
    assert scored.entropies.tolist() == pytest.approx([s.entropy for s in made.steps], abs=1e-4)
    for t, step in enumerate(made.steps):
        assert (scored.attention[:, t, : step.attention.shape[1]] - step.attention).abs().max() < 1e-4


def test_scoring_gives_the_states_that_predict_each_token(engine, model):
    ids, continuation = ids_of(PROMPT), (7, 8, 9, 100)
    engine.generate(Request(ids, 3))  # the prompt's prefix is known now
    scored = engine.score(ids, continuation, hidden_states=[0, 1, "model.layers.1.mlp"])
    out = eager(model, [*ids, *continuation])
    for layer in (0, 1):
        expected = out.hidden_states[layer + 1][0, len(ids) - 1 : -1]
        assert (scored.hidden_states[layer] - expected).abs().max() < 1e-3
    assert scored.hidden_states["model.layers.1.mlp"].shape == (4, 32)
    assert engine.score(ids, continuation).hidden_states == {}
    with pytest.raises(SignalUnavailableError, match="the model has layers 0 to"):
        engine.score(ids, continuation, hidden_states=[99])


def test_scoring_a_batch_gives_what_scoring_each_continuation_alone_gives(engine, model):
    prompt = ids_of(PROMPT)
    continuations = [[7, 8, 9], [100], [9] * 20, [7, 8, 4]]
    before = engine.counts.forwards
    found = engine.score_batch(prompt, continuations)
    assert engine.counts.forwards - before == (2 if engine.shares_steps else 4)  # the prompt, and all continuations
    for scored, ids in zip(found, continuations, strict=True):
        alone = Engine(model, tiny_tokenizer()).score(prompt, ids)
        assert scored.token_ids == alone.token_ids == tuple(ids)
        assert scored.logprobs.tolist() == pytest.approx(alone.logprobs.tolist(), abs=1e-4)
        assert scored.entropies.tolist() == pytest.approx(alone.entropies.tolist(), abs=1e-4)
    before = engine.counts.forwards
    again = engine.score_batch(prompt, [[5], [6], [7]])  # one token each: a batch of rows, not a packed one
    assert engine.counts.forwards - before == (1 if engine.shares_steps else 3)
    assert [float(one.logprobs) for one in again] == pytest.approx(
        [float(engine.score(prompt, [token]).logprobs) for token in (5, 6, 7)], abs=1e-4
    )
    assert engine.generate(Request(prompt, 8)).token_ids == by_generate(model, prompt, 8)  # the cached prompt is whole


def test_a_batch_without_continuations_or_tokens_and_a_prompt_of_one_token(engine):
    assert engine.score_batch([5], []) == []
    (one,) = engine.score_batch([5], [[6, 7]])
    assert one.logprobs.tolist() == pytest.approx(engine.score([5], [6, 7]).logprobs.tolist(), abs=1e-4)
    assert len(engine.score_batch([5], [[6, 7], [8]])) == 2
    for prompt, continuations in (([], [[5]]), ([5], [[6], []])):
        with pytest.raises(ConfigurationError, match="score_batch needs a prompt and continuations"):
            engine.score_batch(prompt, continuations)
    with pytest.raises(ContextWindowError):
        engine.score_batch([5] * 2000, [[6], [6] * 100])


def test_a_model_that_was_moved_to_another_device_is_refused(engine, model):
    begun = engine.stream(Request(PROMPT, 8))
    next(iter(begun))
    model.to("meta")
    for call in (
        lambda: engine.generate(Request(PROMPT, 3)),
        lambda: next(iter(begun)),
        lambda: engine.generate_batch([Request("A", 3), Request("B", 3)]),
        lambda: engine.score([5], [6]),
        lambda: engine.score_batch([5], [[6], [7]]),
        lambda: engine.attention_row([5, 6]),
    ):
        with pytest.raises(ConfigurationError, match=r"moved from cpu to meta.*load it there.*device='meta'"):
            call()
    assert Engine(model, tiny_tokenizer()).model.device.type == "meta"  # a new engine takes the model where it is


def test_attention_of_a_text_alone_sees_nothing_before_it(engine, model):
    ids = ids_of("In 1954 the river rose.")
    assert (engine.attention(ids) - eager(model, ids).attentions[-1][0]).abs().max() < 1e-4


# ---------------------------------------------------------------------- prefix cache


def test_a_cached_prefix_is_not_computed_again(engine):
    fixed, first, second = ids_of(PROMPT * 5), ids_of(" One."), ids_of(" Two, which is longer.")
    known = fixed + first + engine.generate(Request(fixed + first, 4)).token_ids
    shared = common_prefix(known, fixed + second)
    assert shared >= len(fixed)
    before = engine.counts
    made = engine.generate(Request(fixed + second, 4))
    work = engine.counts - before
    assert made.counts.cached_tokens == shared
    assert work.forward_tokens == len(fixed + second) - shared + len(made.steps) - (made.finish_reason != "eos")


def test_continuing_a_text_recomputes_one_token_and_gives_the_same_result(engine, model):
    ids = ids_of(PROMPT)
    whole = engine.generate(Request(ids, 20)).token_ids
    engine.prefixes.clear()
    first = engine.generate(Request(ids, 7))
    rest = engine.generate(Request(ids + first.token_ids, 13))
    assert rest.counts.forward_tokens == 1 + len(rest.steps) - (rest.finish_reason != "eos")
    assert rest.counts.cached_tokens == len(ids) + 6  # all but the last token, which was never fed
    assert first.token_ids + rest.token_ids == whole == by_generate(model, ids, 20)


def test_reusing_a_prefix_gives_the_same_tokens_as_a_fresh_engine(model):
    reused, tokenizer = Engine(model, tiny_tokenizer()), tiny_tokenizer()
    prompts = [PROMPT + tail for tail in (" And then?", " And why?", "", " And then? Nobody came back.")]
    for prompt in prompts:
        again = reused.generate(Request(prompt, 25, signals=Signals(entropy=True)))
        fresh = Engine(model, tokenizer).generate(Request(prompt, 25, signals=Signals(entropy=True)))
        assert again.token_ids == fresh.token_ids
        assert [s.entropy for s in again.steps] == pytest.approx([s.entropy for s in fresh.steps], abs=1e-3)


def test_the_prefix_cache_respects_its_memory_limit(model):
    engine = Engine(model, tiny_tokenizer(), prefix_cache_bytes=300_000)
    for i in range(12):
        engine.generate(Request(f"{i} {PROMPT}" * 3, 3))
        assert engine.prefixes.nbytes <= 300_000
    assert len(engine.prefixes) >= 1


def test_the_text_ends_before_a_stop_string(engine):
    text = engine.generate(Request(PROMPT, 40)).text
    stop = text[10:13]
    made = engine.generate(Request(PROMPT, 40, stop=[stop, "never occurs"]))
    assert made.finish_reason == "stop"
    assert made.stop_string == stop
    assert made.text == text[: text.index(stop)]
    assert made.text == "".join(s.text for s in made.steps)


# ---------------------------------------------------------------------- batches


def test_batched_sequences_match_sequences_generated_alone(model):
    requests = [
        Request("The river", 12, signals=EVERYTHING),
        Request(PROMPT * 3, 25, signals=Signals(hidden_state=0)),
        Request("Nobody came back.", 30, sampling=Sampling(temperature=0.8, top_p=0.9, seed=5)),
        Request(PROMPT, 1),
        Request("In 1954 the river rose", 18, stop=["e"], signals=Signals(entropy=True, attention=True)),
    ]
    alone = [Engine(model, tiny_tokenizer()).generate(r) for r in requests]
    engine = Engine(model, tiny_tokenizer(), max_batch=3)
    assert engine.shares_steps
    before = engine.counts
    together = engine.generate_batch(requests)
    assert (engine.counts - before).forwards < sum(g.counts.forwards for g in alone)
    for a, b in zip(alone, together, strict=True):
        assert a.token_ids == b.token_ids
        assert (a.finish_reason, a.text) == (b.finish_reason, b.text)
        for x, y in zip(a.steps, b.steps, strict=True):
            assert y.logprob == pytest.approx(x.logprob, abs=1e-3)
            for name in ("attention", "hidden_state"):
                if getattr(x, name) is not None:
                    assert getattr(x, name).shape == getattr(y, name).shape
                    assert (getattr(x, name) - getattr(y, name)).abs().max() < 1e-3


def test_batched_sequences_longer_than_the_sliding_window_match_too():
    model = tiny_gemma3(sliding_window=6)
    prompts = [PROMPT * 2, "The river rose and the town moved to higher ground"]
    alone = [Engine(model, tiny_tokenizer()).generate(Request(p, 20, signals=Signals(attention=True))) for p in prompts]
    together = Engine(model, tiny_tokenizer()).generate_batch(
        [Request(p, 20, signals=Signals(attention=True)) for p in prompts]
    )
    for a, b in zip(alone, together, strict=True):
        assert a.token_ids == b.token_ids
        assert all((x.attention - y.attention).abs().max() < 1e-4 for x, y in zip(a.steps, b.steps, strict=True))


# ---------------------------------------------------------------------- sampling


def test_the_same_seed_gives_the_same_text_and_another_seed_a_different_one(engine):
    def text(seed):
        return engine.generate(Request(PROMPT, 30, sampling=Sampling(temperature=1.5, seed=seed))).token_ids

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_logit_bias_forbids_and_forces_tokens(engine):
    forced = engine.generate(Request(PROMPT, 5, sampling=Sampling(logit_bias={65: 1e4}))).token_ids
    assert forced == [65] * 5
    free = engine.generate(Request(PROMPT, 1)).token_ids[0]
    assert engine.generate(Request(PROMPT, 1, sampling=Sampling(logit_bias={free: -1e4}))).token_ids != [free]


def test_log_probabilities_are_reported_before_bias_and_temperature(engine):
    plain = engine.generate(Request(PROMPT, 1, signals=Signals(entropy=True))).steps[0]
    hot = engine.generate(
        Request(
            PROMPT,
            1,
            signals=Signals(entropy=True),
            sampling=Sampling(temperature=2.0, logit_bias={plain.token_id: 1e4}),
        )
    ).steps[0]
    assert (hot.token_id, hot.logprob, hot.entropy) == pytest.approx(
        (plain.token_id, plain.logprob, plain.entropy), abs=1e-4
    )


# ---------------------------------------------------------------------- adapters


def test_adapters_apply_per_sequence_and_never_share_a_prefix(model):
    engine = Engine(model, tiny_tokenizer())
    engine.attach(ShiftBackend(model))
    sets = [None, Shift(0.5), Shift(-2.0)]
    expected = []
    for adapters in sets:
        fresh = Engine(model, tiny_tokenizer())
        fresh.attach(ShiftBackend(model))
        expected.append(fresh.generate(Request(PROMPT, 15, adapters=adapters)).token_ids)
    assert len({tuple(t) for t in expected}) == 3
    for _ in range(2):  # the second time, everything is in the prefix cache under the right key
        assert [engine.generate(Request(PROMPT, 15, adapters=s)).token_ids for s in sets] == expected
    batch = engine.generate_batch([Request(PROMPT, 15, adapters=s) for s in sets])
    assert [g.token_ids for g in batch] == expected


# ---------------------------------------------------------------------- bad input


def test_empty_prompts_stop_strings_and_unknown_layers_are_refused(engine):
    with pytest.raises(ConfigurationError, match="empty"):
        engine.generate(Request([], 3))
    with pytest.raises(ConfigurationError, match="stop string is empty"):
        engine.generate(Request(PROMPT, 3, stop=[""]))
    with pytest.raises(SignalUnavailableError, match="layers 0 to 2"):
        engine.generate(Request(PROMPT, 3, signals=Signals(hidden_state=3)))
    with pytest.raises(SignalUnavailableError, match=r"model\.layers"):
        engine.generate(Request(PROMPT, 3, signals=Signals(hidden_state="no.such.module")))
