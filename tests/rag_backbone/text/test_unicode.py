import logging

from hypothesis import given
from hypothesis import strategies as st

from rag_backbone.text.unicode import clean_data, clean_name, clean_text

ANY = st.text(st.characters(exclude_categories=()))


def test_a_surrogate_pair_becomes_its_character() -> None:
    assert clean_text("a\ud83d\ude00b", "x") == "a\U0001f600b"


def test_a_lone_surrogate_is_replaced_counted_and_logged(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert clean_text("cut \ud83d here \udc00", "notes.pdf") == "cut \ufffd here \ufffd"
    assert "notes.pdf: 2 lone surrogates" in caplog.text


def test_an_existing_replacement_character_is_not_counted(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        clean_text("\ufffd \ud83d\ude00", "x")
    assert not caplog.records


@given(ANY)
def test_cleaned_text_can_be_encoded(text: str) -> None:
    cleaned = clean_text(text, "x")
    cleaned.encode("utf-8")
    assert clean_text(cleaned, "x") == cleaned
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert cleaned == text


def test_plain_data_is_cleaned_at_every_level() -> None:
    data = {"a\ud800": ["b\udfff", ("c\ud83d\ude00", 1, None)], "d": {"e": "f"}}
    assert clean_data(data, "x") == {"a\ufffd": ["b\ufffd", ("c\U0001f600", 1, None)], "d": {"e": "f"}}


@given(ANY)
def test_cleaned_names_can_be_printed(name: str) -> None:
    clean_name(name).encode("utf-8")


def test_a_byte_that_is_not_utf8_is_shown_in_a_name() -> None:
    assert clean_name(b"caf\xe9.txt".decode("utf-8", "surrogateescape")) == "caf\\xe9.txt"
