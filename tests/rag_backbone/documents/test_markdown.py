"""Front matter is metadata, and the title is the first real heading."""

import pytest

from rag_backbone.documents import Note, Skipped, read_file


def read(tmp_path, text, name="some-note.md"):
    path = tmp_path / name
    path.write_text(text, newline="")
    return list(read_file(path, name))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("closing", ["---", "...", "--- "])
def test_front_matter_is_metadata_with_iso_dates(tmp_path, end, closing):
    head = [
        "---",
        "title: No",
        "date: 2024-05-01",
        "at: 2024-05-01 10:30:00",
        "tags: [a, b]",
        "year: 1999",
        "author: {name: Zoë}",
        closing,
        "",
        "# Heading",
        "",
        "Text.",
    ]
    [found] = read(tmp_path, end.join(head))
    assert found.text == "# Heading\n\nText."
    assert found.title == "No"
    assert found.metadata == {
        "date": "2024-05-01",
        "at": "2024-05-01T10:30:00",
        "tags": ["a", "b"],
        "year": 1999,
        "author": {"name": "Zoë"},
    }


def test_toml_front_matter_is_read_as_well(tmp_path):
    [found] = read(tmp_path, '+++\ntitle = "T"\ndate = 2024-05-01\n+++\nText.')
    assert (found.text, found.title, found.metadata) == ("Text.", "T", {"date": "2024-05-01"})


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("---\ntitle: [a\n---\n", "expected ',' or ']'"),
        ("---\ntitle: a: b\n---\n", "mapping values are not allowed"),
        ("---\ndate: 2024-13-45\n---\n", "month must be in 1..12"),
        ("---\na: &x [1]\nb: *x\n---\n", "aliases"),
        ("---\na: !!python/object/apply:os.getcwd []\n---\n", "could not determine a constructor"),
        ("---\ntitle: never closed\n", "not closed"),
        ("+++\ntitle = \n+++\n", "Invalid value"),
    ],
)
def test_broken_front_matter_stays_in_the_text_and_is_reported(tmp_path, head, why):
    note, found = read(tmp_path, head + "\n# Heading\n\nText.")
    assert isinstance(note, Note)
    assert why in note.text
    assert found.text == head + "\n# Heading\n\nText."
    assert found.title == "Heading"


def test_thematic_breaks_are_not_front_matter(tmp_path):
    [found] = read(tmp_path, "---\n\nA quotation.\n\n---\n\nText.")
    assert found.text.startswith("---\n\nA quotation.")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("```sh\n# install it\n```\n\n# Setup\n", "Setup"),
        ("~~~\n# install it\n~~~\n\nSetup\n=====\n", "Setup"),
        ("````md\n```\n# a\n```\n````\n\n## Setup ##\n", "Setup"),
        ("    # indented code\n\nSetup of\nthe server\n---\n", "Setup of the server"),
        ("Intro.\n\n" * 40 + "# Setup\n", "Setup"),
        ("#!/bin/sh\n#hashtag\n\n# Setup", "Setup"),
        ("# The *new* [`setup`](x.md)\n", "The new setup"),
        ("> # quoted\n\n- # listed\n\n# Setup\n", "Setup"),
        ("# \n\n# Setup", "Setup"),
        ("```\n# never closed\n", "some note"),
        ("No heading.", "some note"),
        ("# Ein\u2028Titel\n", "Ein Titel"),
    ],
)
def test_the_title_is_the_first_heading_outside_code(tmp_path, text, title):
    [found] = read(tmp_path, text)
    assert found.title == title


def test_a_comment_in_a_text_file_is_not_a_title(tmp_path):
    [found] = read(tmp_path, "# comment\nls\n", "my_script.txt")
    assert found.title == "my script"


def test_front_matter_without_a_text_is_skipped(tmp_path):
    [found] = read(tmp_path, "---\ntitle: T\n---\n")
    assert found == Skipped("some-note.md", "holds no text")
