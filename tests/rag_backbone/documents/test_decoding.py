"""Bytes to text: byte-order marks are obeyed, UTF-8 is strict, other encodings must be named, nothing is corrupted."""

import codecs
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.documents import UndecodableError, check_encoding, decode, read_text_file
from rag_backbone.errors import ConfigurationError

MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
SAMPLES = {
    "cp1252": "Œuvre “naïve” – 5 €, Straße in Zürich",
    "latin-1": "Fluß, façade, señor",
    "iso8859-2": "Žluťoučký kůň úpěl",
    "cp1251": "Мост построил каменщик",
    "koi8-r": "Мост построил каменщик",
    "cp1253": "Η γέφυρα χτίστηκε",
    "cp1255": "הגשר נבנה",
    "cp1256": "الجسر بناه البناء",
    "gbk": "这座桥是由石匠建造的",
    "gb18030": "这座桥是由石匠建造的",
    "big5": "這座橋是由石匠建造的",
    "shift_jis": "この橋は石工が建てた",
    "euc_jp": "この橋は石工が建てた",
    "iso2022_jp": "この橋は石工が建てた",
    "euc_kr": "이 다리는 석공이 지었다",
    "cp874": "สะพานนี้สร้างโดยช่างหิน",
    "hz": "这座桥是由石匠建造的",
    "utf-7": "Brücke über den Fluß",
    "utf-16-le": "Die Brücke",
    "utf-16-be": "这座桥",
    "utf-32-le": "Brücke",
}
texts = st.text(st.characters(exclude_categories=("Cs",)))


@given(texts, st.sampled_from(sorted(MARKED)))
def test_any_text_with_a_byte_order_mark_is_decoded_exactly(text, encoding):
    if encoding == "utf-16-le" and text.startswith("\0"):
        return  # its first four bytes are the UTF-32 mark
    assert decode(MARKED[encoding] + text.encode(encoding)) == text
    assert decode(MARKED[encoding] + text.encode(encoding), "cp1252") == text


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\t\n\r\x85")))
def test_any_utf_8_text_is_decoded_exactly(text):
    if text.startswith(("\ufeff", "{\\rtf", "%PDF-", "GIF8")):
        return
    assert decode(text.encode()) == text
    assert decode(text.encode(), "cp1252") == text


@given(st.binary())
def test_bytes_are_decoded_exactly_or_refused(data):
    try:
        text = decode(data)
    except UndecodableError:
        return
    if not data.startswith(tuple(MARKED.values())):
        assert text.encode() == data


@pytest.mark.parametrize("encoding", SAMPLES)
def test_other_encodings_are_refused_unless_named(encoding):
    text = SAMPLES[encoding]
    data = (text + "\n").encode(encoding)
    assert decode(data, encoding) == text + "\n"
    if encoding in ("iso2022_jp", "hz", "utf-7"):
        return  # it is valid ASCII, so it cannot be recognised
    with pytest.raises(UndecodableError, match=r"encoding=|binary"):
        decode(data)


def test_a_named_encoding_does_not_affect_utf_8_files():
    assert decode("Straße".encode(), "cp1252") == decode("Straße".encode("cp1252"), "cp1252") == "Straße"
    assert decode("桥".encode(), "utf-16-le") == "桥"


def test_a_declared_encoding_takes_precedence_over_the_users():
    assert decode("Мост".encode("koi8-r"), "cp1252", declared="koi8-r") == "Мост"
    assert decode("Straße".encode("cp1252"), "cp1252", declared="no-such-charset") == "Straße"


def test_the_error_for_a_wrong_encoding_lists_what_was_tried():
    with pytest.raises(UndecodableError, match=r"not UTF-8 \(byte 0x93 at position 0\) and not ascii \(byte 0x93"):
        decode("日本".encode("shift_jis"), "ascii")
    with pytest.raises(UndecodableError, match=r"byte-order mark says UTF-16, but"):
        decode(codecs.BOM_UTF16_LE + b"a")


@pytest.mark.parametrize("name", ["cp125x", "base64", "rot13", "", "a\0b", 7])
def test_a_name_that_is_not_an_encoding_is_refused(name):
    with pytest.raises(ConfigurationError, match="such as encoding='cp1252'"):
        check_encoding(name)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (bytes(range(256)) * 8, "binary"),
        (b"\x00\x01\x02\x03", "binary"),
        (b"{\\rtf1 text}", "RTF"),
        (b"SQLite format 3\0", "database"),
    ],
)
@pytest.mark.parametrize("encoding", [None, "latin-1"])
def test_binary_data_is_refused_even_if_the_encoding_can_decode_every_byte(data, what, encoding):
    with pytest.raises(UndecodableError, match=what):
        decode(data, encoding)


def test_random_bytes_are_refused_with_a_single_byte_encoding():
    with pytest.raises(UndecodableError):
        decode(os.urandom(4096), "latin-1")


def test_utf_16_without_a_mark_is_recognised_and_the_error_names_the_byte_order():
    for order in ("le", "be"):
        with pytest.raises(UndecodableError, match=f"encoding='utf-16-{order}'"):
            decode("The bridge was built by a mason.".encode(f"utf-16-{order}"))


def test_a_stray_nul_does_not_make_a_text_binary():
    assert decode(b"The bridge\0 stands.") == "The bridge\0 stands."


def test_the_error_names_a_text_file_that_cannot_be_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigurationError, match=r"a\.txt cannot be read: not UTF-8"):
        read_text_file(tmp_path / "a.txt")
    with pytest.raises(ConfigurationError, match=r"b\.txt cannot be read: No such file"):
        read_text_file(tmp_path / "b.txt")
    assert read_text_file(tmp_path / "a.txt", "cp1252") == "café"
