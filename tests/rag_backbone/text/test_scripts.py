"""Words in all writing systems: as text units with exact offsets, and as search terms."""

import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.text.scripts import fold, letters, search_terms
from rag_backbone.text.units import (
    content_words,
    first_sentence_end,
    sentences,
    spaced_pieces,
    token_spans,
    tokens_of_word,
    words,
    words_of_tokens,
)

LANGUAGES = {
    "hindi": "वह भारत की राजधानी नई दिल्ली में रहता है।",
    "bengali": "তিনি ঢাকায় জন্মগ্রহণ করেন। র‍্যাব",
    "tamil": "சென்னை தமிழ்நாட்டின் தலைநகரம்.",
    "sinhala": "ශ්‍රී ලංකාව දිවයිනකි.",
    "thai": "กรุงเทพเป็นเมืองหลวงของประเทศไทย",
    "khmer": "ភ្នំពេញជារាជធានីនៃប្រទេសកម្ពុជា។",
    "burmese": "ရန်ကုန်သည်မြန်မာနိုင်ငံ၏မြို့တော်ဟောင်းဖြစ်သည်။",
    "tibetan": "ལྷ་ས་ནི་བོད་ཀྱི་རྒྱལ་ས་ཡིན།",
    "arabic": "وُلِدَ الشَّاعِرُ فِي دِمَشْقَ.",
    "persian": "او می‌خواهد به تهران برود.",
    "hebrew": "בְּרֵאשִׁית בָּרָא אֱלֹהִים",
    "chinese": "爱因斯坦于1879年出生在德国乌尔姆市。",
    "japanese": "東京は日本の首都です。ｶﾞﾗｽとガラス",
    "korean": "서울은 대한민국의 수도이다.",
    "vietnamese": "Hà Nội là thủ đô của nước Việt Nam.",
    "greek": "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
    "amharic": "አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት።",
    "georgian": "თბილისი საქართველოს დედაქალაქია.",
}
CHARACTERS = "".join(LANGUAGES.values())
MIXED = st.lists(st.sampled_from([*CHARACTERS, *"aé1' -.𠮷𠮷\u0301\u200d\u200c\u200b\ufe0f👩"])).map("".join)
ANY_TEXT = st.one_of(st.text(), MIXED, st.sampled_from(list(LANGUAGES.values())))


def cut(text, spans):
    return [text[s.start : s.end] for s in spans]


# ------------------------------------------------------------------------------------------------------ words


@given(ANY_TEXT)
def test_words_are_ordered_disjoint_and_never_separate_a_mark_from_its_letter(text):
    spans = words(text)
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    for span in spans:
        assert not unicodedata.category(text[span.start]).startswith("M")
        assert span.end == len(text) or not unicodedata.category(text[span.end]).startswith("M")
    assert sum(len(letters(w)) for w in cut(text, spans)) == len(letters(text))  # every letter is in a word


@given(ANY_TEXT)
def test_composed_and_decomposed_forms_have_the_same_words(text):
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    found = cut(decomposed, words(decomposed))
    assert [unicodedata.normalize("NFC", w) for w in found] == cut(composed, words(composed))


@given(st.text(alphabet=st.characters(max_codepoint=0x17F)))
def test_words_in_latin_script_match_a_plain_regular_expression(text):
    text = text.replace("\u00ad", "")  # a soft hyphen belongs to its word
    assert cut(text, words(text)) == re.findall(r"\w+(?:['\u2019.,\-]\w+)*", text)


@pytest.mark.parametrize(
    ("language", "wanted"),
    [
        ("hindi", ["वह", "भारत", "की", "राजधानी", "नई", "दिल्ली", "में", "रहता", "है"]),
        ("bengali", ["তিনি", "ঢাকায়", "জন্মগ্রহণ", "করেন", "র‍্যাব"]),
        ("tamil", ["சென்னை", "தமிழ்நாட்டின்", "தலைநகரம்"]),
        ("sinhala", ["ශ්‍රී", "ලංකාව", "දිවයිනකි"]),
        ("arabic", ["وُلِدَ", "الشَّاعِرُ", "فِي", "دِمَشْقَ"]),
        ("persian", ["او", "می‌خواهد", "به", "تهران", "برود"]),
        ("hebrew", ["בְּרֵאשִׁית", "בָּרָא", "אֱלֹהִים"]),
        ("thai", ["กรุงเทพ", "เป็น", "เมือง", "หลวง", "ของ", "ประเทศไทย"]),
        ("korean", ["서울은", "대한민국의", "수도이다"]),
    ],
)
def test_words_keep_their_vowel_signs_and_joiners(language, wanted):
    assert cut(LANGUAGES[language], words(LANGUAGES[language])) == wanted


@pytest.mark.parametrize("language", ["chinese", "japanese", "thai", "khmer", "burmese"])
def test_a_clause_without_spaces_has_several_words(language):
    text = LANGUAGES[language]
    assert len(words(text)) >= 5
    assert len(content_words(text)) >= 5


def test_chinese_words_come_from_a_dictionary_and_numbers_stay_whole():
    assert cut(LANGUAGES["chinese"], words(LANGUAGES["chinese"]))[:6] == ["爱因斯坦", "于", "1879", "年", "出生", "在"]


@given(ANY_TEXT, st.integers(1, 4))
def test_each_word_has_a_token_for_any_tokenisation(text, size):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    tokens, of = token_spans(pieces), words(text)
    for w in range(len(of)):
        assert tokens_of_word(w, tokens, of)
    assert all(w is None or t in tokens_of_word(w, tokens, of) for t, w in enumerate(words_of_tokens(tokens, of)))


@given(ANY_TEXT)
def test_spaced_pieces_are_the_text_without_its_white_space(text):
    pieces = spaced_pieces(text)
    assert "".join(cut(text, pieces)) == "".join(re.findall(r"\S+", text))
    assert len(pieces) >= len(re.findall(r"\S+", text))


def test_spaced_pieces_are_split_at_spaces_in_english_and_at_words_in_chinese():
    assert cut("He's (not) here.", spaced_pieces("He's (not) here.")) == ["He's", "(not)", "here."]
    assert cut("出生在德国。", spaced_pieces("出生在德国。")) == ["出生", "在", "德国。"]
    assert cut("（德国2024年）x", spaced_pieces("（德国2024年）x")) == ["（", "德国", "2024", "年）x"]


# ------------------------------------------------------------------------------------------------------ sentences


@pytest.mark.parametrize(
    "first",
    [
        "他出生在德国。",
        "他出生在德国吗？",
        "東京です！",
        "वह वहाँ रहता है। ",
        "أين وُلِدَ؟ ",
        "یہ ایک کتاب ہے۔ ",
        "ខ្ញុំទៅផ្សារ។ ",
        "သူသွားသည်။ ",
        "བོད་ཡིག། ",
        "ቤት ነው። ",
        "Այստեղ է։ ",
        "他说：「你好。再见。」",
        "他说：“你好。再见。”",
        "「はい。」",
        "他（见第3章。参看图2。）来了。",
        "《三国。演义》很好。",
    ],
)
def test_the_end_of_a_sentence_in_any_script_is_found_while_the_text_grows(first):
    following = "他" if first[-1] != " " else "क"
    assert sentences(first + following)[0].end == len(first)
    text = first + following
    ends = [first_sentence_end(text[:i]) for i in range(1, len(text) + 1)]
    assert ends == [None] * (len(text) - 1) + [len(first)]


@given(ANY_TEXT)
def test_sentences_cover_a_text_in_any_script(text):
    spans = sentences(text)
    assert "".join(cut(text, spans)) == text
    assert all(s.end > s.start for s in spans)


# ------------------------------------------------------------------------------------------------------ terms


@given(ANY_TEXT, st.booleans())
def test_composed_and_decomposed_forms_have_the_same_terms(text, indexing):
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert search_terms(forms[0], indexing=indexing) == search_terms(forms[1], indexing=indexing)


@given(ANY_TEXT)
def test_a_document_has_all_terms_of_a_query_with_the_same_text(text):
    assert set(search_terms(text, indexing=False)) <= set(search_terms(text, indexing=True))


@given(st.text(alphabet=st.characters(max_codepoint=0x7F)))
def test_terms_in_english_are_the_words_in_lower_case(text):
    assert search_terms(text, indexing=True) == re.findall(r"\b\w+\b", text.lower())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＮＢＡ２０２４", "nba2024"),
        ("Straße", "STRASSE"),
        ("ISPARTA", "ısparta"),
        ("İstanbul", "istanbul"),
        ("Οδυσσεύς", "ΟΔΥΣΣΕΥΣ"),
        ("شَرِكَة", "شركة"),
        ("می‌خواهم", "میخواهم"),
        ("کتاب", "كتاب"),
        ("שָׁלוֹם", "שלום"),
        ("ｶﾞﾗｽ", "ガラス"),
        ("ﬁnd", "find"),
        ("١٩٨٧", "1987"),
        ("Kraft\u00adwerk", "Kraftwerk"),
        ("Việt", "Vie\u0302\u0323t"),
        ("ශ්‍රී", "ශ්රී"),
        ("ភ្នំ\u200bពេញ", "ភ្នំពេញ"),
        ("ﻻ", "لا"),
        ("각", "\u1100\u1161\u11a8"),
        ("Å", "\u212b"),
    ],
)
def test_variants_that_readers_treat_as_the_same_are_equal(one, other):
    assert fold(one) == fold(other)
    assert search_terms(one, indexing=False) == search_terms(other, indexing=False) != []


def test_signs_do_not_become_part_of_the_word_before_them():
    assert search_terms("Widget™ 1½ 5㎏", indexing=False) == ["widget", "tm", "1", "1", "2", "5", "kg"]


def test_terms_in_scripts_without_spaces_are_pairs_or_triples_of_letters():
    assert search_terms("于1879年出生", indexing=False) == ["于", "1879", "年出", "出生"]
    assert search_terms("年出生", indexing=True) == ["年", "出", "生", "年出", "出生"]
    assert search_terms("ที่นี่", indexing=False) == ["ที่นี่"]
    assert search_terms("ของไทย", indexing=False) == ["ของ", "องไ", "งไท", "ไทย"]
