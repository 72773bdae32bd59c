"""Schema-constrained generation. The model is random, so output is valid only because of the constraint."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_backbone.engine.eos_states import EOSStatesRequest
from rag_backbone.engine.grammar import Grammar, check_schema
from rag_backbone.engine.json_schema import closed, compiled_schema
from rag_backbone.engine.requests import Request
from rag_backbone.engine.sampling import Sampling
from rag_backbone.engine.signals import Signals
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_gemma3, tiny_llama, tiny_tokenizer

TOWN = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 5},
        "kind": {"enum": ["東京", "Fluß", "😀"]},
        "size": {"type": "integer", "minimum": 10, "maximum": 99},
        "roads": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "kind", "size"],
}
PROMPT = [1, 50, 60, 70]


def grammar(lm, schema):
    check_schema(schema, "test")
    return Grammar(f"start: %json {compiled_schema(schema)}", lm.tokenizer, lm.engine.end_ids)


def request(lm, schema, *, max_new_tokens=120, stop=(), signals=None, prompt=PROMPT, **sampling):
    constraint = None if schema is None else grammar(lm, schema)
    chosen = Sampling(constraint=constraint, **sampling)
    return Request(prompt, max_new_tokens=max_new_tokens, stop=stop, sampling=chosen, signals=signals or Signals())


def valid(text, schema):
    value = json.loads(text)
    jsonschema.Draft202012Validator(closed(schema)).validate(value)
    return value


# ---------------------------------------------------------------------- one generation


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 1.0, "seed": 1},
        {"temperature": 2.0, "seed": 2, "top_k": 3},
        {"temperature": 1.5, "top_p": 0.3},
    ],
)
def test_the_text_follows_the_schema_with_every_sampling_method(tiny_lm, sampling):
    made = tiny_lm.engine.generate(request(tiny_lm, TOWN, **sampling))
    assert made.finish_reason == "eos"
    assert set(valid(made.text, TOWN)) >= {"name", "kind", "size"}


def test_generation_ends_with_the_json_even_at_the_token_limit(tiny_lm):
    made = tiny_lm.engine.generate(request(tiny_lm, TOWN))
    n = len(made.steps)
    exact = tiny_lm.engine.generate(request(tiny_lm, TOWN, max_new_tokens=n))
    assert (exact.text, exact.finish_reason) == (made.text, "eos")
    short = tiny_lm.engine.generate(request(tiny_lm, TOWN, max_new_tokens=n - 1))
    assert (short.finish_reason, short.text) == ("length", made.text[: -len(made.steps[-1].text)])


def test_json_without_a_closing_character_ends_with_the_models_end_token(tiny_lm):
    made = tiny_lm.engine.generate(request(tiny_lm, {"enum": [1, 12]}, temperature=1.0, seed=1))
    assert (made.finish_reason, made.text in ("1", "12")) == ("eos", True)


def test_a_stop_string_truncates_the_json(tiny_lm):
    made = tiny_lm.engine.generate(request(tiny_lm, TOWN, stop=['"kind"']))
    assert (made.finish_reason, made.stop_string) == ("stop", '"kind"')
    assert made.text.startswith('{"name": "')


def test_a_bias_chooses_among_the_tokens_that_the_schema_allows(tiny_lm):
    quote = tiny_lm.tokenizer.convert_tokens_to_ids('"')
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}, "required": ["a"]}
    assert len(json.loads(tiny_lm.engine.generate(request(tiny_lm, schema)).text)["a"]) > 0
    assert tiny_lm.engine.generate(request(tiny_lm, schema, logit_bias={quote: 100.0})).text == '{"a": ""}'


def test_the_same_seed_gives_the_same_text(tiny_lm):
    texts = [tiny_lm.engine.generate(request(tiny_lm, TOWN, temperature=1.5, seed=s)).text for s in (4, 4, 5)]
    assert texts[0] == texts[1] != texts[2]


def test_log_probabilities_are_those_of_the_unconstrained_model(tiny_lm):
    """A forced token is reported with the probability that the model gave it."""
    made = tiny_lm.engine.generate(request(tiny_lm, TOWN, signals=Signals(top_logprobs=2, entropy=True)))
    scored = tiny_lm.engine.score(PROMPT, made.token_ids)
    assert [step.logprob for step in made.steps] == pytest.approx(scored.logprobs.tolist(), abs=1e-3)
    assert [step.entropy for step in made.steps] == pytest.approx(scored.entropies.tolist(), abs=1e-3)
    assert any(step.token_id not in [i for i, _ in step.top_logprobs] for step in made.steps)


@pytest.mark.parametrize("width", [416, 390])
def test_a_model_may_have_more_or_fewer_outputs_than_its_tokenizer_has_tokens(width):
    lm = CausalLM(tiny_llama(vocab_size=width), tiny_tokenizer(), name="wide")
    valid(lm.engine.generate(request(lm, TOWN, temperature=1.5, seed=3)).text, TOWN)


def test_models_with_sliding_windows_follow_a_schema_too():
    lm = CausalLM(tiny_gemma3(), tiny_tokenizer(), name="gemma")
    valid(lm.engine.generate(request(lm, TOWN)).text, TOWN)


# ---------------------------------------------------------------------- several generations


def test_constrained_sequences_in_a_batch_match_those_generated_alone(tiny_lm):
    def of(i):
        return request(tiny_lm, TOWN if i % 2 else None, prompt=[1, 40 + i, 60], max_new_tokens=90)

    alone = [tiny_lm.engine.generate(of(i)).text for i in range(4)]
    together = [made.text for made in tiny_lm.engine.generate_batch([of(i) for i in range(4)])]
    assert together == alone
    for i in (1, 3):
        valid(together[i], TOWN)


def test_one_request_can_be_generated_several_times_concurrently(tiny_lm):
    same = request(tiny_lm, TOWN)
    texts = {made.text for made in tiny_lm.engine.generate_batch([same, same, same])}
    assert len(texts) == 1
    valid(texts.pop(), TOWN)


def test_threads_share_forward_passes_while_each_follows_its_own_schema(tiny_lm):
    schemas = [TOWN, None, {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 9, "maxItems": 9}, TOWN]
    requests = [request(tiny_lm, s, prompt=[1, 80 + i], max_new_tokens=90) for i, s in enumerate(schemas)]
    alone = [tiny_lm.engine.generate(r).text for r in requests]
    with ThreadPoolExecutor(4) as threads:
        assert [made.text for made in threads.map(tiny_lm.engine.generate, requests)] == alone
    valid(alone[2], schemas[2])


# ---------------------------------------------------------------------- any schema

_NAMES = st.sampled_from(["a", "b", "Ort", "名", "a b", 'q"', "π\\"])
_LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.integers(0, 3).flatmap(
        lambda least: st.integers(least, 5).map(lambda most: {"type": "string", "minLength": least, "maxLength": most})
    ),
    st.integers(-20, 20).flatmap(
        lambda least: st.integers(least, 40).map(lambda most: {"type": "integer", "minimum": least, "maximum": most})
    ),
    st.lists(st.sampled_from(["東京", "", "a\nb", 'say "x"', 3, -1.5, None, True]), min_size=1, unique_by=repr).map(
        lambda values: {"enum": values}
    ),
    st.sampled_from(
        [{"const": "Fluß"}, {"type": "string", "pattern": "^[a-c]{1,3}$"}, {"type": "string", "format": "date"}]
    ),
)


def _objects(parts):
    def made(properties):
        names = list(properties)
        return st.lists(st.sampled_from(names), unique=True).map(
            lambda required: {"type": "object", "properties": properties, "required": required}
        )

    return st.dictionaries(_NAMES, parts, min_size=1, max_size=3).flatmap(made)


_SCHEMAS = st.recursive(
    _LEAVES,
    lambda parts: st.one_of(
        _objects(parts),
        parts.map(lambda items: {"type": "array", "items": items, "maxItems": 2}),
        st.lists(parts, min_size=1, max_size=2).map(lambda some: {"anyOf": some}),
    ),
    max_leaves=4,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_SCHEMAS, st.integers(0, 2**31))
def test_finished_output_is_valid_for_any_schema(tiny_lm, schema, seed):
    made = tiny_lm.engine.generate(request(tiny_lm, schema, temperature=1.0, seed=seed))
    if made.finish_reason == "eos":
        valid(made.text, schema)
    else:
        assert len(made.steps) == 120


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "properties": {"a": {"not": {"type": "string"}}}}, '"not"'),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"$ref": "#/$defs/Town"}, "does not exist"),
        ({"type": "integer", "minimum": 3, "maximum": 1}, "minimum"),
        ({"enum": [{1, 2}]}, "not plain JSON"),
        (7, "a dict is needed"),
    ],
)
def test_an_unsupported_schema_is_refused_with_the_reason(schema, reason):
    with pytest.raises(ConfigurationError, match=reason) as refused:
        check_schema(schema, "response_format")
    assert str(refused.value).startswith("response_format: ")


def test_an_invalid_grammar_is_refused(tiny_lm):
    with pytest.raises(ConfigurationError, match="cannot be constrained to this grammar"):
        Grammar("start: nowhere", tiny_lm.tokenizer, tiny_lm.engine.end_ids)


def test_samples_for_hidden_states_follow_a_constraint_too(tiny_lm):
    colours = ["red", "blue", "green"]
    sampling = Sampling(1.0, seed=0, constraint=grammar(tiny_lm, {"enum": colours}))
    found = tiny_lm.engine.end_states(EOSStatesRequest([1], 0, samples=9, sampling=sampling))
    assert 1 < len({json.loads(text) for text in found.texts} & set(colours)) == len(set(found.texts))


def test_the_error_names_the_extra_if_the_library_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'dynprag\[structured\]'"):
        check_schema({"const": "asked for the first time"}, "response_format")


def test_the_library_is_imported_only_when_needed():
    code = "import sys, rag_backbone.engine.sampling, rag_backbone.engine.grammar; print('llguidance' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
