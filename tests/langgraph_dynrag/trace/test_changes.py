"""What changed between two texts."""

import pytest

from langgraph_dynrag.trace.changes import Change, changes, marked


def test_words_are_kept_removed_and_added():
    assert changes("It was built by Joan Pike.", "It was built by Aldous Wray.") == [
        Change("kept", "It was built by"),
        Change("removed", " Joan Pike"),
        Change("added", " Aldous Wray"),
        Change("kept", "."),
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a b c", "a b c"),
        ("", "new"),
        ("old", ""),
        ("  two  spaces\n", "two spaces"),
        ("古い橋は石工が建てた。", "古い橋は大工が建てた。"),
        ("بناه سامي.", "بناه يوسف."),
        ("a " * 3000, "b " * 3000),
    ],
)
def test_the_parts_joined_are_the_two_texts(before, after):
    parts = changes(before, after)
    assert "".join(p.text for p in parts if p.kind != "added") == before
    assert "".join(p.text for p in parts if p.kind != "removed") == after


def test_only_the_word_that_differs_is_marked_without_spaces_between_words():
    parts = changes("古い橋は石工が建てた。", "古い橋は大工が建てた。")
    assert [p.text for p in parts if p.kind == "kept"] == ["古い橋は", "が建てた。"]


def test_marks_are_elements_and_text_is_escaped():
    parts = changes("It is <b>", "It is <i>")
    assert marked(parts, "removed") == "It is &lt;<del>b</del>&gt;"
    assert marked(parts, "added") == "It is &lt;<ins>i</ins>&gt;"
