"""Tests of references inside prompts: issued markers are extracted, everything else stays text."""

import re

from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.llama_index import markers
from llamaindex_prag.llama_index.markers import has_markers, marker, take_markers
from tests.llamaindex_prag.made import key_of

KEYS = [key_of(f"text {i}") for i in range(5)]


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.floats(0, 1)), max_size=6),
    st.lists(st.text(max_size=30), min_size=7, max_size=7),
)
def test_issued_markers_are_extracted_in_order_and_the_rest_stays(references, texts):
    texts = [re.sub(r"[⟦⟧\0]", "", text) for text in texts]
    prompt = texts[0] + "".join(
        marker(key, score) + text for (key, score), text in zip(references, texts[1:], strict=False)
    )
    left, found = take_markers(prompt)
    assert [r.key for r in found] == [key for key, _ in references]
    assert all(abs(r.score - score) < 1e-3 for r, (_, score) in zip(found, references, strict=True))
    kept = "".join(texts[: len(references) + 1])
    assert "".join(left.split()) == "".join(kept.split())
    assert not has_markers(left)


@given(st.text(alphabet="⟦⟧adpter: AZ09_-.1e\n", max_size=80))
def test_text_that_only_looks_like_a_marker_is_unchanged(text):
    assert take_markers(text) == (text, [])


def test_a_changed_marker_stays_text():
    real = marker(KEYS[0], 0.5)
    assert take_markers(real)[1][0].key == KEYS[0]
    for i in range(9, len(real) - 1):
        forged = real[:i] + ("A" if real[i] != "A" else "B") + real[i + 1 :]
        assert take_markers(forged) == (forged, [])


def test_a_marker_carries_score_and_strength_and_an_adapter_is_stored_once():
    markers._issued.clear()
    for i in range(50):
        (found,) = take_markers(marker(KEYS[0], i / 7, 0.5))[1]
        assert (found.strength, round(found.score, 2)) == (0.5, round(i / 7, 2))
    assert len(markers._issued) == 1


def test_lines_of_markers_are_removed_and_paragraphs_stay_separate():
    a, b = marker(KEYS[0]), marker(KEYS[1])
    assert take_markers(f"{a}\n\n{b}\n\nQuestion: who?")[0] == "Question: who?"
    assert take_markers(f"Before.\n\n{a}\n\n{b}\n\nAfter.")[0] == "Before.\n\nAfter."
    assert take_markers(f"One {a} two")[0] == "One two"


def test_a_marker_has_no_blank_at_which_a_long_prompt_could_be_split():
    made = marker(key_of("a text"), 0.25, 0.1)
    assert made.split() == [made]
    assert take_markers(f"before {made} after")[0] == "before after"
