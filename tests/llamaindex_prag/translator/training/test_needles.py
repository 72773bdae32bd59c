"""Needles: invented facts, of which unseen ones share neither name nor code with those of training."""

from llamaindex_prag.translator.training.needles import MOST, needle_corpus


def test_a_needle_states_its_code_and_asks_for_it():
    lesson = needle_corpus(1, 1).train[0]
    (asked,) = lesson.given
    assert lesson.text == f"The code of {lesson.title} is {asked.answer}."
    assert asked.question == f"What is the code of {lesson.title}?"
    assert asked.answer.isdigit()
    assert len(asked.answer) == 4


def test_no_name_or_code_occurs_twice():
    corpus = needle_corpus(MOST - 100, 100, seed=3)
    assert (len(corpus.train), len(corpus.validation)) == (MOST - 100, 100)
    lessons = [*corpus.train, *corpus.validation]
    assert len({lesson.title for lesson in lessons}) == len({x.given[0].answer for x in lessons}) == MOST


def test_the_seed_decides_the_needles():
    assert needle_corpus(5, 5, seed=1).digest == needle_corpus(5, 5, seed=1).digest != needle_corpus(5, 5).digest
