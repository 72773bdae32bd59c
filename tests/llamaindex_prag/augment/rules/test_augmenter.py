"""Questions without a model: natural ones in English, blanks in every other script."""

import pytest

from llamaindex_prag.augment.grounding import PassageWords
from llamaindex_prag.augment.rules.augmenter import RuleAugmenter, word_blanks
from rag_backbone.errors import ConfigurationError

ENGLISH = "The Patient Anna is a ferry of 61 metres. She was built in 1974 at the Lodmoor yard in Brannoch."
OTHERS = {
    "German": "Die Fähre Geduldige Anna verlässt Brannoch werktags um 7.40 Uhr. Kapitän Osk steuert sie seit 2011.",
    "Russian": "Паром Терпеливая Анна отходит из Бранноха в 7.40 по будням. Капитан Мирель Оск водит его с 2011 года.",
    "Chinese": "耐心安娜号渡轮工作日七点四十分离开布兰诺克。米雷尔船长驾驶它。",
    "Thai": "เรือข้ามฟากออกจากท่าเรือบรานนอคเวลาเช้า กัปตันมิเรล",
    "Arabic": "تغادر العبارة آنا ميناء برانوخ في الساعة السابعة. يقودها القبطان ميريل.",
}


def test_english_gets_natural_questions_answered_in_the_passages_words():
    found = RuleAugmenter(questions=3).augment("Patient Anna", ENGLISH)
    assert len(found.qas) == 3
    assert found.rewrite is None
    assert found.sources == {"cloze": 3}
    assert all(qa.question.endswith("?") and "___" not in qa.question for qa in found.qas)
    assert all(PassageWords(ENGLISH).supports(qa.question, qa.answer) for qa in found.qas)
    assert RuleAugmenter(questions=3).augment("Patient Anna", ENGLISH) == found


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_other_languages_get_blanks_that_the_passage_fills(text):
    found = RuleAugmenter(questions=3).augment("", text)
    assert len(found.qas) == 3
    for qa in found.qas:
        assert qa.question.count("___") == 1
        shown = qa.question.split('"')[1]
        assert shown.replace("___", qa.answer) in text


def test_blanks_use_the_longest_words_and_alternate_between_sentences():
    found = list(word_blanks("Kurz steht Weizenfeldrand. Drüben liegt Morgenland."))
    assert [qa.answer for qa in found[:2]] == ["Weizenfeldrand", "Morgenland"]


def test_a_passage_without_words_is_its_own_answer_with_a_note():
    found = RuleAugmenter().augment("Signs", "§ ¶ †")
    assert found.sources == {"passage": 1}
    assert "the passage itself" in found.notes[0]
    with pytest.raises(ConfigurationError, match="is blank"):
        RuleAugmenter().augment("Signs", " ")
    with pytest.raises(ConfigurationError, match="questions is 0"):
        RuleAugmenter(questions=0)


async def test_sync_async_and_batched_calls_give_the_same_result():
    augmenter = RuleAugmenter(questions=2)
    assert augmenter.augment_all([("A", ENGLISH)]) == [augmenter.augment("A", ENGLISH)]
    assert await augmenter.aaugment("A", ENGLISH) == augmenter.augment("A", ENGLISH)
    assert augmenter.key != RuleAugmenter(questions=3).key
