"""Tests of the server side: from a model name to a folder, in a process without torch and LlamaIndex."""

import subprocess
import sys

import pytest

from llamaindex_prag.adapters.active_adapters import ActiveAdapters
from llamaindex_prag.serving.document_names import DocumentSet
from llamaindex_prag.serving.merging import merged
from llamaindex_prag.serving.vllm_resolver import DocumentResolver, MergedFolders, made, register
from llamaindex_prag.store.peft_folder import import_peft
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.serving.conftest import TEXTS

SECRET = b"sixteen bytes or more"


@pytest.fixture
def resolver(store, tmp_path):
    folders = MergedFolders(tmp_path / "out", limit=1e9)
    return DocumentResolver(lambda: store, lambda: folders)


def name_of(local, *numbers, secret=None, **options):
    return DocumentSet.of(ActiveAdapters.of([local.key(TEXTS[i]) for i in numbers], **options)).name(secret)


def test_a_name_becomes_the_folder_of_the_merged_adapter(local, store, resolver):
    folder = resolver.folder_of("base", name_of(local, 0, 2, merge="sum"))
    wanted = merged(store, ActiveAdapters.of([local.key(TEXTS[0]), local.key(TEXTS[2])], merge="sum"))
    found = import_peft(folder, local.layout)
    assert found.layout == wanted.layout
    assert (found.buffer == wanted.buffer).all()
    assert resolver.folder_of("base", name_of(local, 2, 0, merge="sum")) == folder


def test_names_that_do_not_encode_documents_are_ignored(resolver):
    assert resolver.folder_of("base", "somebody/lora") is None


def test_names_that_cannot_be_served_are_logged_with_the_reason(local, resolver, caplog):
    assert resolver.folder_of("base", "prag:nonsense") is None
    unknown = DocumentSet(local.recipe.key, ("ab" * 32,), (1.0,)).name()
    assert resolver.folder_of("base", unknown) is None
    assert "no adapter of text abab" in caplog.text


def test_with_a_secret_only_signed_names_are_served(local, store, tmp_path):
    folders = MergedFolders(tmp_path / "out", limit=1e9)
    resolver = DocumentResolver(lambda: store, lambda: folders, SECRET)
    assert resolver.folder_of("base", name_of(local, 0)) is None
    assert resolver.folder_of("base", name_of(local, 0, secret=SECRET)) is not None


def test_new_document_sets_are_rejected_beyond_the_size_limit(local, store, tmp_path, caplog):
    folders = MergedFolders(tmp_path / "out", limit=1000)
    resolver = DocumentResolver(lambda: store, lambda: folders)
    first = resolver.folder_of("base", name_of(local, 0))
    assert resolver.folder_of("base", name_of(local, 1)) is None
    assert "DYNPRAG_EXPORTS_GB" in caplog.text
    assert resolver.folder_of("base", name_of(local, 0)) == first


def test_folders_of_dead_servers_are_deleted_and_those_of_running_ones_stay(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from llamaindex_prag.serving.vllm_resolver import MergedFolders\n"
        "print(MergedFolders(Path(sys.argv[1]), limit=1).folder)"
    )
    dead = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert [str(p) for p in tmp_path.iterdir()] == [dead.stdout.strip()]
    first = MergedFolders(tmp_path, limit=1)
    second = MergedFolders(tmp_path, limit=1)
    assert sorted(tmp_path.iterdir()) == sorted([first.folder, second.folder])


def test_the_default_folder_is_writable_by_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.delenv("DYNPRAG_EXPORTS", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = made(1e9).folder.parent
    assert (root.parent, root.stat().st_mode & 0o777) == (tmp_path, 0o700)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707])
def test_a_folder_writable_by_others_is_rejected_with_a_remedy(tmp_path, mode):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(ConfigurationError, match=f"others may write .mode {mode:o}.*Set DYNPRAG_EXPORTS"):
        MergedFolders(tmp_path / "open", limit=1)
    assert not list((tmp_path / "open").iterdir())
    assert MergedFolders(tmp_path / "open" / "own", limit=1).folder.is_dir()


def test_a_folder_of_another_user_is_rejected_and_logged(local, store, tmp_path, monkeypatch, caplog):
    resolver = DocumentResolver(lambda: store, lambda: MergedFolders(tmp_path / "out", limit=1e9))
    monkeypatch.setattr("os.getuid", lambda: (tmp_path.stat().st_uid) + 1)
    assert resolver.folder_of("base", name_of(local, 0)) is None
    assert "belongs to the user" in caplog.text
    assert "Set DYNPRAG_EXPORTS" in caplog.text


async def test_vllm_gets_none_for_a_name_that_does_not_encode_documents(resolver):
    assert await resolver.resolve_lora("base", "other") is None


def test_importing_the_plugin_loads_neither_torch_nor_llama_index_nor_vllm():
    code = (
        "import os, sys; os.environ.pop('DYNPRAG_STORE', None)\n"
        "from llamaindex_prag.serving import vllm_resolver\n"
        "vllm_resolver.register()\n"
        "from llamaindex_prag.store.lmdb_store import LMDBStore\n"
        "heavy = {'torch', 'transformers', 'llama_index', 'langgraph', 'vllm', 'openai'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_plugin_is_found_by_its_entry_point():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["vllm.general_plugins"] == {
        "dynprag": "llamaindex_prag.serving.vllm_resolver:register"
    }


@pytest.mark.parametrize("limit", ["plenty", "0", "-1", "nan"])
def test_an_impossible_limit_is_refused_when_the_server_starts(monkeypatch, limit):
    monkeypatch.setenv("DYNPRAG_STORE", "/srv/adapters")
    monkeypatch.setenv("DYNPRAG_EXPORTS_GB", limit)
    with pytest.raises(ConfigurationError, match=f"DYNPRAG_EXPORTS_GB is '{limit}'; a number of gigabytes above 0"):
        register()
