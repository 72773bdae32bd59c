"""Documents in any writing system are found by their own words, without other documents of the same script."""

import unicodedata

import pytest
from langchain_core.documents import Document

from langgraph_dynrag.retrieval import BM25Retriever
from rag_backbone.errors import ConfigurationError

# For each language: a document about a bridge, another about bees, and queries that match the first.
LANGUAGES = {
    "chinese": ("库珀桥是石匠奥尔德斯·雷于1907年建造的。", "养蜂人每年检查蜂箱。", ["谁建造了库珀桥？", "石匠"]),
    "traditional": ("這座橋由石匠建造。", "養蜂人檢查蜂箱。", ["誰建造了這座橋", "橋"]),
    "japanese": ("橋は石工オルダスが建設しました。", "養蜂家は巣箱を調べます。", ["橋を建設した石工", "橋"]),
    "korean": ("쿠퍼 다리는 석공 올더스가 지었다.", "양봉가는 봄에 벌통을 살핀다.", ["쿠퍼 다리", "석공"]),
    "thai": ("สะพานคูเปอร์สร้างโดยช่างหินชื่ออัลดัสเรย์", "ผึ้งมีรังอยู่บนต้นไม้", ["ใครสร้างสะพานคูเปอร์", "อัลดัส", "ช่างหิน"]),
    "lao": ("ຂົວນີ້ສ້າງໂດຍຊ່າງຫີນ", "ເຜິ້ງຢູ່ເທິງຕົ້ນໄມ້", ["ໃຜສ້າງຂົວ", "ຊ່າງຫີນ"]),
    "khmer": ("ស្ពាននេះសាងសង់ដោយជាងថ្ម", "ឃ្មុំរស់នៅលើដើមឈើ", ["ជាងថ្ម", "អ្នកណាសាងសង់ស្ពាន"]),
    "burmese": ("တံတားကို ပန်းရန်ဆရာက တည်ဆောက်ခဲ့သည်", "ပျားများ သစ်ပင်ပေါ်နေကြ", ["တံတား", "ပန်းရန်ဆရာ"]),
    "tibetan": ("ཟམ་པ་འདི་རྡོ་བཟོ་བས་བཟོས།", "སྦྲང་མ་ཤིང་སྒང་ལ་སྡོད།", ["ཟམ་པ", "རྡོ་"]),
    "hindi": ("यह पुल राजमिस्त्री ने बनाया।", "मधुमक्खी पेड़ पर रहती है।", ["पुल किसने बनाया", "राजमिस्त्री"]),
    "bengali": ("সেতুটি রাজমিস্ত্রি তৈরি করেছেন।", "মৌমাছি গাছে থাকে।", ["রাজমিস্ত্রি", "সেতুটি"]),
    "tamil": ("பாலத்தை கொத்தனார் கட்டினார்.", "தேனீ மரத்தில் வாழ்கிறது.", ["கொத்தனார்"]),
    "sinhala": ("පාලම ශ්‍රී නාමයෙන් හැඳින්වේ.", "මී මැස්සෝ ගස මත.", ["ශ්‍රී පාලම", "ශ්රී"]),
    "arabic": ("بَنَى البَنَّاءُ الجِسْرَ.", "يعيش النحل في الشجرة.", ["الجسر", "البَنَّاء"]),
    "persian": ("سنگ‌تراش پل را می‌سازد.", "زنبور روی درخت است.", ["می‌سازد", "سنگ‌تراش"]),
    "urdu": ("معمار نے پل بنایا۔", "مکھی درخت پر ہے۔", ["پل", "معمار"]),
    "hebrew": ("הַבַּנַּאי בָּנָה אֶת הַגֶּשֶׁר", "הדבורים חיות בעץ", ["הגשר", "הַגֶּשֶׁר"]),
    "vietnamese": ("Cây cầu do thợ đá xây dựng.", "Ong sống trên tổ.", ["thợ đá", "Xây Dựng"]),
    "greek": ("Τη γέφυρα έχτισε ο Οδυσσεύς.", "Οι μέλισσες ζουν εδώ.", ["ΓΕΦΥΡΑ", "Οδυσσεύς", "γέφυρα"]),
    "turkish": ("Köprüyü Isparta'da ısı ustası İlhan yaptı.", "Arılar ağaçta yaşar.", ["ISPARTA", "ilhan", "ISI"]),
    "german": ("Die Straßenbrücke baute ein Maurer.", "Bienen leben am Baum.", ["STRASSENBRÜCKE", "straßenbrücke"]),
    "amharic": ("ድልድዩን ግንበኛው ሠራው።", "ንቦች ዛፍ ላይ ይኖራሉ።", ["ግንበኛው", "ድልድዩን"]),
    "russian": ("Мост построил каменщик Ёлкин.", "Пчёлы живут на дереве.", ["МОСТ", "ёлкин"]),
    "full-width": ("ＮＡＴＯ２０２４の会議", "養蜂家の巣箱", ["nato2024", "NATO2024 会議"]),
}
CASES = [
    pytest.param(bridge, bees, query, id=f"{name}-{i}")
    for name, (bridge, bees, queries) in LANGUAGES.items()
    for i, query in enumerate(queries)
]


def found(retriever, query):
    return [d.page_content for d in retriever.invoke(query)]


@pytest.mark.parametrize(("bridge", "bees", "query"), CASES)
def test_a_document_is_found_by_its_words_in_any_unicode_form(bridge, bees, query):
    for form in ("NFC", "NFD"):
        texts = [unicodedata.normalize(form, text) for text in (bees, bridge, "Bees live in hives.")]
        retriever = BM25Retriever.from_documents([Document(text) for text in texts])
        for asked in (unicodedata.normalize("NFC", query), unicodedata.normalize("NFD", query)):
            assert found(retriever, asked) == [texts[1]]


def test_a_text_that_only_shares_letters_with_the_query_is_not_found():
    retriever = BM25Retriever.from_documents([Document("क का कि की कु"), Document("कम काम")])
    assert found(retriever, "काम") == ["कम काम"]
    assert found(retriever, "कि") == ["क का कि की कु"]
    assert found(retriever, "के") == []


def test_documents_without_words_cannot_be_indexed():
    with pytest.raises(ConfigurationError, match="no documents to index"):
        BM25Retriever.from_documents([])
    with pytest.raises(ConfigurationError, match="none of the 2 documents contains a word"):
        BM25Retriever.from_documents([Document("the of"), Document("...")])


async def test_documents_that_share_a_word_are_ranked_with_positive_scores():
    retriever = BM25Retriever.from_documents([Document("bees bees hum"), Document("bees and ants"), Document("crows")])
    documents = retriever.invoke("bees")
    assert [d.page_content for d in documents] == ["bees bees hum", "bees and ants"]
    assert documents[0].metadata["score"] > documents[1].metadata["score"] > 0
    assert await retriever.ainvoke("bees") == documents
    assert len(retriever) == 3
    assert retriever.invoke("the of ...") == []


def test_titles_are_indexed_with_the_text():
    retriever = BM25Retriever.from_documents(
        [Document("It stands.", metadata={"title": "Bridge"}), Document("A mill.")]
    )
    assert found(retriever, "bridge") == ["It stands."]


async def test_k_of_a_search_overrides_that_of_the_retriever():
    retriever = BM25Retriever.from_documents([Document(f"bees {i}") for i in range(4)], k=2)
    assert [len(retriever.invoke("bees")), len(retriever.invoke("bees", k=3))] == [2, 3]
    assert len(await retriever.ainvoke("bees", k=9)) == 4
    with pytest.raises(ConfigurationError, match="k is 0; at least 1 is needed"):
        retriever.invoke("bees", k=0)


def test_a_saved_index_finds_the_same(tmp_path):
    documents = [Document("bees hum"), Document("ants march")]
    built = BM25Retriever.from_documents(documents)
    built.save(tmp_path / "bm25")
    loaded = BM25Retriever.load(tmp_path / "bm25", documents)
    assert loaded.invoke("ants") == built.invoke("ants") != []
