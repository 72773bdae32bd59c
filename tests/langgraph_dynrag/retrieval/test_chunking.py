"""Chunks of texts in any script: whole sentences if they fit, whole characters always, and nothing is lost."""

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter

from langgraph_dynrag.retrieval import Splitter
from langgraph_dynrag.retrieval.chunking import split_text

SENTENCES = {
    "chinese": "这座桥是石匠建造的，已有一百年。",
    "japanese": "橋は石工が建設しました。",
    "hindi": "यह पुल राजमिस्त्री ने बनाया था। ",
    "arabic": "بنى البناء الجسر القديم. ",
    "urdu": "معمار نے یہ پل بنایا تھا۔ ",
    "khmer": "ស្ពាននេះសាងសង់ដោយជាងថ្ម។ ",
    "burmese": "တံတားကိုပန်းရန်ဆရာကတည်ဆောက်ခဲ့သည်။ ",
    "amharic": "ድልድዩን ግንበኛው ሠራው። ",
    "korean": "다리는 석공이 지었습니다. ",
    "russian": "Мост построил каменщик Ёлкин. ",
    "quoted": "他说：「这座桥很旧。」",
}
PIECES = st.sampled_from(
    [
        *"ab. \n\n\t。，！กำคี่한ガ",
        "👩‍👩‍👧‍👦",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "क्षि",
        "e\u0301",
        "か\u3099",
        " \u0301",
        "。\ufe00",
        "\r\n",
        "𠮷",
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=80).map("".join), st.text(max_size=80))


@pytest.mark.parametrize("language", SENTENCES)
def test_chunks_end_at_sentence_boundaries(language):
    sentence = SENTENCES[language]
    text = "".join(f"{sentence}" for _ in range(60))
    chunks = split_text(text, 200, 40)
    assert len(chunks) > 3
    assert all(chunk.endswith(sentence.strip()) and chunk.startswith(sentence[:5]) for chunk in chunks)


@given(TEXTS, st.integers(2, 40), st.floats(0, 0.9))
def test_chunks_contain_the_whole_text_and_never_split_a_cluster(text, characters, share):
    # A cluster that begins with white space may lose it, as white space around chunks is stripped.
    inside = {
        at for m in regex.finditer(r"\X", text) for at in range(m.start() + 1, m.end()) if not text[m.start()].isspace()
    }
    end = 0
    for chunk in split_text(text, characters, int(characters * share)):
        assert chunk == chunk.strip() != ""
        assert len(chunk) <= max(characters, *(len(c) for c in regex.findall(r"\X", chunk)), 0)
        new = len(text) - len(text[end:].lstrip())  # the first character that no chunk contains yet
        places = [i for i in range(new + 1) if text.startswith(chunk, i) and not inside & {i, i + len(chunk)}]
        assert places
        end = max(end, places[-1] + len(chunk))
    assert not text[end:].strip()


@given(st.lists(st.text("abc.,", min_size=1, max_size=9), max_size=60), st.sampled_from([" ", "\n", "\n\n"]))
def test_english_is_split_as_by_langchain(words, gap):
    text = gap.join(words) + " – " + " ".join(words)
    theirs = RecursiveCharacterTextSplitter(chunk_size=60, chunk_overlap=12, keep_separator="end")
    assert split_text(text, 60, 12) == theirs.split_text(text)
    assert split_text(text.replace("–", "-"), 60, 12) == theirs.split_text(text.replace("–", "-"))


def test_text_without_separators_is_split_with_overlap():
    assert split_text("abcdefghij" * 3, 12, 4) == ["abcdefghijab", "ijabcdefghij", "ghijabcdefgh", "efghij"]
    assert split_text("กรุงเทพเป็นเมืองหลวงของประเทศไทย", 20, 0) == ["กรุงเทพเป็นเมืองหลวง", "ของประเทศไทย"]
    assert split_text("爱因斯坦出生于德国", 6, 0) == ["爱因斯坦出生", "于德国"]


def test_noise_does_not_produce_overlong_chunks():
    chunks = split_text("e" + "\u0301" * 5000, 900, 100)
    assert max(map(len, chunks)) <= 900
    assert len(split_text("x" * 100_000, 900, 100)) == 125


def test_documents_are_split_at_sentences_of_their_script():
    chunks = Splitter(100, 20).split(Document(SENTENCES["chinese"] * 50, metadata={"source": "a.txt"}))
    assert {c.page_content[-1] for c in chunks} == {"。"}
    assert unicodedata.normalize("NFC", chunks[0].page_content) == chunks[0].page_content
