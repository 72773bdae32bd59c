"""Tests of model names that encode documents: round trips, damage, and signatures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.adapters.adapter import AdapterKey, text_hash
from llamaindex_prag.serving.document_names import DocumentNameError, DocumentSet, checked_secret
from rag_backbone.errors import ConfigurationError

SECRET = b"sixteen bytes or more"
RECIPE = "5" * 64


def document_set(n=2, **changes):
    made = {"recipe": RECIPE, "texts": tuple(text_hash(f"{i}") for i in range(n)), "weights": (1 / 3,) * n}
    return DocumentSet(**{**made, **changes})


@given(
    st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.floats(0, 100)), min_size=1, max_size=20),
    st.booleans(),
    st.integers(0, 2**63),
    st.sampled_from([None, SECRET]),
)
def test_a_document_set_survives_a_round_trip_through_its_name(members, orthogonal, version, secret):
    told = document_set(
        texts=tuple(t.hex() for t, _ in members),
        weights=tuple(w for _, w in members),
        orthogonal=orthogonal,
        version=version,
    )
    assert DocumentSet.parse(told.name(secret), secret) == told


def test_active_adapters_survive_a_round_trip_through_a_document_set():
    keys = [AdapterKey("m" * 64, RECIPE, text_hash(t)) for t in ("a", "b")]
    selection = ActiveAdapters.of(keys, merge="score", scores=[0.7, 0.3], version=4)
    assert DocumentSet.of(selection).selection("m" * 64) == selection
    mixed = ActiveAdapters.of([keys[0], AdapterKey("m" * 64, "6" * 64, text_hash("b"))])
    with pytest.raises(ConfigurationError, match="of one recipe; these are of 2"):
        DocumentSet.of(mixed)


@pytest.mark.parametrize("other", [None, b"another secret of some length"])
def test_a_name_not_signed_with_the_secret_is_rejected(other):
    with pytest.raises(DocumentNameError, match="not signed"):
        DocumentSet.parse(document_set().name(other), SECRET)


@given(st.data())
def test_a_changed_name_is_rejected(data):
    name = document_set().name(SECRET)
    at = data.draw(st.integers(len("prag:"), len(name) - 1))
    letter = data.draw(st.sampled_from("ABCDwxyz0189-_.!é"))
    changed = name[:at] + letter + name[at + 1 :]
    if changed != name:
        try:
            found = DocumentSet.parse(changed, SECRET)
        except DocumentNameError:
            return
        assert found == document_set()  # the last base64 character has unused bits


@pytest.mark.parametrize("name", ["prag:", "prag:AAAA", "prag:%%%", document_set().name()[:-8], "prag:é"])
def test_damaged_names_are_rejected(name):
    with pytest.raises(DocumentNameError):
        DocumentSet.parse(name)


def test_impossible_weights_are_rejected():
    for weight in (float("nan"), -1.0, 1e9):
        with pytest.raises(DocumentNameError, match="weights"):
            DocumentSet.parse(document_set(weights=(weight, 1.0)).name())


def test_a_short_secret_is_rejected():
    assert checked_secret("sixteen letters!") == b"sixteen letters!"
    with pytest.raises(ConfigurationError, match="has 5 bytes"):
        checked_secret("short")
