"""Which files of a folder are read, and what is reported about the others."""

import os
from pathlib import Path

import pytest

from rag_backbone.documents import SUFFIXES, find_files, read_file
from rag_backbone.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.md", "B.TXT", "sub/c.JsonL", "sub/deep/d.pdf"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("x")
    return tmp_path / "in"


def add(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def find(folder, **options):
    found = find_files(folder, SUFFIXES, **options)
    return [f.name for f in found.files], {s.name: s.reason for s in found.skipped}


FILES = ["B.TXT", "a.md", "sub/c.JsonL", "sub/deep/d.pdf"]


def test_suffixes_match_in_any_case_and_unknown_ones_are_reported(folder):
    add(folder, "x.png", "y.doc", "README")
    names, skipped = find(folder)
    assert names == FILES
    assert skipped == {
        "x.png": "no reader for '.png' files",
        "y.doc": "no reader for '.doc' files",
        "README": "no suffix",
    }


def test_hidden_and_tool_folders_are_skipped_unless_requested(folder):
    hidden = [
        ".git/x.md",
        "sub/.trash/x.md",
        ".obsidian/x.json",
        ".ipynb_checkpoints/x.md",
        "node_modules/p/x.md",
        "__pycache__/x.txt",
        "env/lib/x.txt",
        "__MACOSX/x.md",
        ".hidden.md",
        "~$open.docx",
    ]
    add(folder, *hidden, "env/pyvenv.cfg")
    names, skipped = find(folder)
    assert names == FILES
    assert set(skipped) == {
        ".git/",
        "sub/.trash/",
        ".obsidian/",
        ".ipynb_checkpoints/",
        "node_modules/",
        "__pycache__/",
        "env/",
        "__MACOSX/",
        ".hidden.md",
        "~$open.docx",
    }
    assert set(find(folder, hidden=True)[0]) == {*FILES, *hidden}


def test_a_hidden_folder_that_is_named_explicitly_is_read(folder):
    add(folder, ".notes/a.md")
    assert find(folder / ".notes") == (["a.md"], {})
    assert find(folder / ".notes" / "a.md") == (["a.md"], {})


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["sub"], FILES[:2]),
        ("sub/", FILES[:2]),
        (["*.md", "*.pdf"], ["B.TXT", "sub/c.JsonL"]),
        (["sub/deep/*"], FILES[:3]),
        (["**/d.pdf"], FILES[:3]),
        (["**/a.md"], ["B.TXT", *FILES[2:]]),
        (["sub/*.JsonL"], ["B.TXT", "a.md", "sub/deep/d.pdf"]),
        ((), FILES),
    ],
)
def test_patterns_exclude_names_and_paths(folder, exclude, left):
    names, skipped = find(folder, exclude=exclude)
    assert names == left
    assert bool(skipped) == (left != FILES)
    with pytest.raises(ConfigurationError, match="exclude is 7"):
        find(folder, exclude=[7])


def test_links_are_followed_only_within_the_folder(folder, tmp_path):
    add(tmp_path, "secret.md", "elsewhere/x.md")
    add(folder, "kept.bin")
    links = {
        "out.md": tmp_path / "secret.md",
        "dangling.md": folder / "no.md",
        "loop.md": folder / "loop.md",
        "twice.md": folder / "a.md",
        "named.md": folder / "kept.bin",
        "outside": tmp_path / "elsewhere",
        "inside": folder / "sub",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.txt")
    names, skipped = find(folder)
    assert names == sorted([*FILES, "named.md"])
    assert skipped == {
        "out.md": "a link out of the folder",
        "outside/": "a link out of the folder",
        "dangling.md": "a broken link",
        "loop.md": "a broken link",
        "twice.md": "a link to a file that is read under its own name",
        "inside/": "a link to a folder, which is read under its own name",
        "pipe.txt": "not a regular file",
        "kept.bin": "no reader for '.bin' files",
    }


def test_a_name_that_is_not_utf_8_is_read_and_shown(folder):
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("Some text.")
    found = find_files(folder, SUFFIXES)
    [file] = [f for f in found.files if "caf" in f.name]
    assert file.name == r"caf\xe9.txt"
    [document] = read_file(file.path, file.name)
    assert (document.text, document.source, document.title) == ("Some text.", r"caf\xe9.txt", r"caf\xe9")


def test_a_file_that_disappears_before_it_is_read_is_reported(folder):
    [found] = read_file(folder / "gone.md", "gone.md")
    assert (found.reason, found.transient) == ("cannot be read: No such file or directory", True)


def test_a_single_named_file_must_be_readable(folder):
    add(folder, "x.png")
    for name, message in (("x.png", "is not a .txt"), ("no.md", "there is no file or folder")):
        with pytest.raises(ConfigurationError, match=message):
            find(folder / name)
