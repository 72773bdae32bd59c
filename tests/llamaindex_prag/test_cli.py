"""`dynprag parametrize`, `dynprag store` and `dynprag train-translator` on a tiny model in a folder."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llamaindex_prag.adapters.adapter import Adapter, text_hash
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.store.lmdb_store import LMDBStore
from rag_backbone.cli import build_app
from rag_backbone.loading.causal_lm import CausalLM
from tests.llamaindex_prag.made import random_values

TEXT = "The Patient Anna is a ferry of 61 metres. She was built in 1974 at the Lodmoor yard in Brannoch."


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "ferry.txt").write_text(TEXT)
    return folder


def test_documents_are_parametrized_verified_exported_and_removed(run, notes, tmp_path):
    (notes / "latin.txt").write_bytes(b"caf\xe9")
    (notes / "long.jsonl").write_text(json.dumps({"text": "river " * 3000}) + "\n{")
    first = json.loads(run("parametrize", notes, "--json"))
    assert (first["trained"], first["skipped"]) == (1, 1)
    assert [(name, reason[:18]) for name, reason in first["skipped_files"]] == [
        ("latin.txt", "not UTF-8 (byte 0x"),
        ("long.jsonl", "line 2 is not JSON"),
    ]
    again = json.loads(run("parametrize", notes, "--json"))
    assert (again["trained"], again["known"]) == (0, 1)
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 1
    assert json.loads(run("store", "verify", "--json")) == {"checked": 1, "damaged": {}}
    run("store", "export", text_hash(TEXT)[:12], tmp_path / "peft")
    assert (tmp_path / "peft" / "adapter_config.json").is_file()
    assert json.loads(run("store", "remove", "ferry.txt", "--json")) == {"removed": [text_hash(TEXT)]}
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 0
    run("store", "gc")
    run("store", "remove", "ferry.txt", code=1)


def test_a_changed_document_replaces_its_adapters(run, notes):
    run("parametrize", notes)
    (notes / "ferry.txt").write_text(TEXT.replace("1974", "1975"))
    report = json.loads(run("parametrize", notes, "--json"))
    assert (report["trained"], report["removed"]) == (1, 1)


def test_files_with_the_same_name_in_two_folders_are_two_documents(run, notes, tmp_path):
    other = tmp_path / "more"
    other.mkdir()
    (other / "ferry.txt").write_text(TEXT.replace("1974", "1980"))
    run("parametrize", notes)
    report = json.loads(run("parametrize", other, "--json"))
    assert (report["trained"], report["removed"]) == (1, 0)
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 2
    run("store", "remove", "ferry.txt", code=1)  # which of them?
    assert json.loads(run("store", "remove", "notes/ferry.txt", "--json")) == {"removed": [text_hash(TEXT)]}
    run("store", "remove", other / "ferry.txt")
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 0


def test_the_store_lists_what_export_and_remove_accept(run, notes, tmp_path):
    (notes / "東京.txt").write_text("Tokyo is the capital of Japan, on the island of Honshu.", "utf-8")
    run("parametrize", notes)
    listed = json.loads(run("store", "list", "--json"))
    assert [set(adapter) for adapter in listed] == [{"text", "documents", "recipe", "bytes", "created"}] * 2
    assert {Path(d).name for adapter in listed for d in adapter["documents"]} == {"ferry.txt", "東京.txt"}
    assert {adapter["recipe"] for adapter in listed} == {"prag"}
    assert all(adapter["bytes"] > 0 for adapter in listed)
    assert all(datetime.fromisoformat(adapter["created"]).tzinfo is not None for adapter in listed)
    lines = run("store", "list").splitlines()
    assert len(lines) == 2
    for line in lines:
        digits = line.split()[0]
        run("store", "export", digits, tmp_path / digits)
        assert json.loads(run("store", "remove", digits, "--json"))["removed"][0].startswith(digits)
    assert run("store", "list") == ""


def test_a_passage_that_another_document_has_is_kept_and_named(run, notes):
    (notes / "copy.txt").write_text(TEXT)
    run("parametrize", notes)
    told = json.loads(run("store", "remove", "ferry.txt", "--json"))
    other = (notes / "copy.txt").resolve().as_posix()
    assert told == {"removed": [], "kept": {text_hash(TEXT): [other]}}
    assert json.loads(run("store", "stats", "--json"))["adapters"] == 1
    assert run("store", "remove", "copy.txt") == f"removed: {text_hash(TEXT)}\n"


def test_a_shared_passage_is_reported_as_kept(run, notes):
    (notes / "copy.txt").write_text(TEXT)
    run("parametrize", notes)
    said = run("store", "remove", "ferry.txt")
    assert "removed: no adapter" in said
    assert f"kept: {text_hash(TEXT)}, because" in said


def test_changes_of_the_recipe_give_other_adapters(run, notes):
    run("parametrize", notes, "--change", "epochs=2")
    report = json.loads(run("parametrize", notes, "--change", "epochs=2", "--change", "learning_rate=0.0003", "--json"))
    assert (report["trained"], report["known"]) == (0, 1)
    assert json.loads(run("parametrize", notes, "--json"))["trained"] == 1
    run("parametrize", notes, "--change", "epoch=2", code=1)
    run("parametrize", notes, "--change", "questions=2", "--questions", "2", code=1)


def test_a_console_with_another_encoding_prints_escapes(tmp_path, model_folder):
    lm = CausalLM.from_pretrained(model_folder)
    with LMDBStore(tmp_path / "store", model=lm.fingerprint) as store:
        made = ParametricModel(lm, store, recipe="prag")
        store.put(made.key(TEXT), Adapter(made.layout, random_values(made.layout, 0), 1.0), {}, owners=["/東京.txt"])
    for options in ((), ("--json",)):
        done = subprocess.run(
            [sys.executable, "-m", "rag_backbone.cli", "store", "list", "-s", str(tmp_path / "store"), *options],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\\u6771\\u4eac.txt" in done.stdout


def test_an_estimate_is_printed_before_the_work_and_alone_on_request(notes, tmp_path, model_folder, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "cache"))
    line = [
        "parametrize",
        str(notes),
        "--store",
        str(tmp_path / "store"),
        "--model",
        str(model_folder),
        "--recipe",
        "prag",
    ]

    def called(*more):
        result = CliRunner().invoke(build_app(), [*line, *more])
        assert result.exit_code == 0, result.output
        return result

    assert "for 1 document (" in called("--estimate").stdout
    told = json.loads(called("--estimate", "--json").stdout)
    assert (told["documents"], told["known"]) == (1, 0)
    made = called()
    assert "for 1 document (" in made.stderr
    assert "1 trained" in made.stdout
    assert "nothing to train; 1 already trained" in called("--estimate").stdout
    asked = called("--augmentation", "model", "--estimate")
    assert "for 1 document (" in asked.stdout  # the model's own questions need another adapter
