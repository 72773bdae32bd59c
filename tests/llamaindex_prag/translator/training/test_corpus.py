"""Tests of the data that a translator is trained on, and of its order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.translator.training.corpus import Corpus, Lesson, drawn, questions_of, read_lessons, split
from rag_backbone.errors import ConfigurationError

LESSONS = [Lesson(f"House {i} has {i + 2} lamps.", f"House {i % 10}") for i in range(30)]


def _file(tmp_path, *rows):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), "utf-8")
    return path


def test_duplicate_passages_are_merged_with_the_questions_of_both(tmp_path):
    one, two = {"question": "Who?", "answer": "Ada"}, {"question": "When?", "answer": "1954"}
    again = {"text": "A river. ", "questions": [one, two]}
    path = _file(tmp_path, {"text": "A river.", "questions": [one]}, "", again, {"text": "B"})
    first, second = read_lessons(path)
    assert [qa.question for qa in first.given] == ["Who?", "When?"]
    assert (second.text, second.given) == ("B", ())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ({"title": "x"}, "line 2"),
        ({"text": " "}, "blank"),
        ({"text": "x", "questions": [{"question": "?"}]}, "line 2"),
        ({"text": 5}, "line 2"),
    ],
)
def test_an_invalid_line_is_rejected_with_its_number(tmp_path, row, reason):
    with pytest.raises(ConfigurationError, match=reason):
        read_lessons(_file(tmp_path, {"text": "A river."}, row))


def test_a_missing_corpus_file_is_reported(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no corpus"):
        read_lessons(tmp_path / "none.jsonl")


def test_passages_with_the_same_title_stay_on_one_side_of_the_split():
    corpus = split(LESSONS, validation=7, seed=3)
    assert not {x.title for x in corpus.train} & {x.title for x in corpus.validation}
    assert len(corpus.train) + len(corpus.validation) == len(LESSONS)
    assert len(corpus.validation) >= 7
    assert split(LESSONS, validation=7, seed=3).digest == corpus.digest != split(LESSONS, validation=7, seed=4).digest


@pytest.mark.parametrize("validation", [0, 1, 16, 40])
def test_a_corpus_too_small_for_the_validation_set_is_rejected(validation):
    with pytest.raises(ConfigurationError, match="set apart for validation"):
        split(LESSONS, validation=validation)


def test_the_digest_of_a_corpus_depends_on_its_questions():
    asked = Lesson("A river.", given=(QA("Who?", "Ada"),))
    assert Corpus((Lesson("A river."),), ()).digest != Corpus((asked,), ()).digest


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_every_epoch_uses_each_lesson_once_whatever_was_drawn_before(count, size, seed):
    lessons = LESSONS[:count]
    seen = [x for step in range(2 * count + 4) for x in drawn(lessons, step, size, seed)]
    for i in range(0, len(seen) - count + 1, count):
        assert sorted(x.text for x in seen[i : i + count]) == sorted(x.text for x in lessons)
    assert drawn(lessons, 3, size, seed) == seen[3 * size : 4 * size]


def test_given_questions_come_before_rule_based_ones():
    lesson = Lesson("The Patient Anna was built in Tarn Ellis in 1954.", "Patient Anna", (QA("Who?", "Ada"),))
    found = questions_of(lesson, 5)
    assert found[0].question == "Who?"
    assert 1 < len(found) <= 6
