"""An index used by several processes and threads, read-only indexes, and damaged ones."""

import asyncio
import copy
import logging
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from langgraph_dynrag.retrieval import LocalIndex
from rag_backbone.errors import ConfigurationError, IndexFolderError
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings, make_index

KINDS = ("dense", "bm25", "hybrid")
OTHER = """
import sys
from langgraph_dynrag.retrieval import LocalIndex
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings
for line in sys.stdin:
    call, argument = line.rstrip("\\n").split(" ", 1)
    if call == "open":
        index = LocalIndex(argument, embeddings=CountedEmbeddings(size=8))
    elif call == "ingest":
        index.ingest(argument, progress=False)
    elif call == "remove":
        index.remove(argument)
    elif call == "add":
        index.add_texts([argument], ids=[argument], source="mail")
    elif call == "search":
        found = {k: sorted(d.page_content for d in index.as_retriever(k, k=50).invoke(argument))
                 for k in ("dense", "bm25")} if len(index) else {}
        print(len(index), found, flush=True)
        continue
    print("done", flush=True)
"""


class OtherProcess:
    """A second process with one `LocalIndex` at a time, which executes commands line by line."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, call, argument):
        self.process.stdin.write(f"{call} {argument}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "bridge.md").write_text("Aldous Wray built the bridge.")
    return folder


@pytest.fixture
def index(tmp_path, notes):
    made = make_index(tmp_path)
    made.ingest(notes, progress=False)
    return made


@pytest.fixture(scope="module")
def process():
    """Yield one process that all tests share, because its imports take longest."""
    process = OtherProcess()
    yield process
    process.process.stdin.close()
    process.process.wait(timeout=60)


@pytest.fixture
def other(index, process):
    assert process("open", index.folder) == "done"
    return process


def found(retriever):
    return {d.page_content for d in retriever.invoke("bridge river bees")}


def test_changes_by_another_process_are_visible_at_the_next_query(tmp_path, index, notes, other):
    before = {kind: index.as_retriever(kind, k=50) for kind in KINDS}
    bridge, river, bees = "Aldous Wray built the bridge.", "The river Tamsin.", "Ida keeps bees near the river."
    for retriever in before.values():
        assert found(retriever) == {bridge}

    def expect(*texts):
        assert len(index) == len(texts)
        for kind in KINDS:
            assert found(before[kind]) == set(texts), f"{kind}, made before"
            for searched in (index, make_index(tmp_path)) if texts else ():
                assert found(searched.as_retriever(kind, k=50)) == set(texts), kind

    (notes / "river.txt").write_text(river)
    assert other("ingest", notes) == "done"
    expect(bridge, river)
    assert other("add", bees) == "done"
    expect(bridge, river, bees)
    assert other("remove", "bridge.md") == "done"
    expect(river, bees)
    # Vice versa: this process changes what the other one has loaded.
    index.remove("mail")
    assert other("search", "river bees") == f"1 {{'dense': [{river!r}], 'bm25': [{river!r}]}}"
    index.add_texts([bees], ids=["b"], source="mail")
    assert str([bees, river]) in other("search", "river bees")
    assert other("remove", notes) == "done"
    expect(bees)
    assert other("remove", "mail") == "done"
    expect()


def test_alternating_writes_by_two_processes_lose_nothing(tmp_path, index, other):
    expected = {"Aldous Wray built the bridge."}
    for number in range(6):
        mine, theirs = f"river {number} mine", f"river {number} theirs"
        index.add_texts([mine], ids=[mine], source="mine")
        assert other("add", theirs) == "done"
        expected |= {mine, theirs}
    for kind in ("dense", "hybrid"):
        assert found(index.as_retriever(kind, k=50)) == expected
    assert {d.page_content for d in index.as_retriever("bm25", k=50).invoke("river bridge")} == expected


def test_concurrent_writes_by_two_processes_lose_nothing(tmp_path, index, other):
    own = make_index(tmp_path)
    failures = []

    def work(write, name):
        try:
            for number in range(5):
                write(f"{name} {number}")
        except Exception as error:  # noqa: BLE001 - shown below
            failures.append(error)

    def here(text):
        own.add_texts([text], ids=[text], source="mail")

    def there(text):
        assert other("add", text) == "done"

    threads = [threading.Thread(target=work, args=of) for of in ((here, "a"), (there, "b"))]
    for thread in threads:
        thread.start()
    retriever = index.as_retriever("hybrid", k=50)
    while any(thread.is_alive() for thread in threads):
        assert "Aldous Wray built the bridge." in found(retriever)  # reads continue during the writes
    for thread in threads:
        thread.join()
    assert failures == []
    wanted = {f"{name} {number}" for name in "ab" for number in range(5)} | {"Aldous Wray built the bridge."}
    assert found(index.as_retriever("dense", k=50)) == wanted
    assert sum(s.items for s in index.sources()) == 11


def test_threads_can_search_while_another_writes(index):
    retriever = index.as_retriever("hybrid", k=50)
    failures = []

    def search():
        for _ in range(15):
            try:
                assert "Aldous Wray built the bridge." in found(retriever)
            except Exception as error:  # noqa: BLE001 - shown below
                failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(5):
        index.add_texts([f"bees {number}"], ids=[str(number % 2)])
    for thread in threads:
        thread.join()
    assert failures == []


def test_asynchronous_searches_see_changes(index):
    retriever = index.as_retriever("hybrid", k=50)
    assert len(asyncio.run(retriever.ainvoke("bridge"))) == 1
    index.add_texts(["Another bridge."])
    assert len(asyncio.run(retriever.ainvoke("bridge"))) == 2


def test_retrievers_notice_a_deleted_and_refilled_index_folder(index, notes):
    retrievers = [index.as_retriever(kind, k=9) for kind in KINDS]
    assert all(map(found, retrievers))
    shutil.rmtree(index.folder)
    assert [found(r) for r in retrievers] == [set(), set(), set()]
    LocalIndex(index.folder, embeddings=CountedEmbeddings(size=8)).add_texts(["The river Tamsin."])
    assert [found(r) for r in retrievers] == [{"The river Tamsin."}] * 3


def test_an_index_and_its_retrievers_can_be_copied_and_pickled(index):
    for kind in KINDS:
        assert found(copy.deepcopy(index.as_retriever(kind))) == {"Aldous Wray built the bridge."}
    assert len(pickle.loads(pickle.dumps(index))) == 1


# --------------------------------------------------------------------------------------------------------- read-only


def as_nobody(work):
    """Run a function in a child process without root's rights; return what it returned."""
    ours, theirs = multiprocessing.Pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            theirs.send(work())
        except BaseException as error:  # noqa: BLE001 - the parent shows it
            theirs.send(error)
        finally:
            theirs.close()
            os._exit(0)
    theirs.close()
    answer = ours.recv()
    os.waitpid(pid, 0)
    return answer


def made_read_only(folder):
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    # pytest's folders, including those of parallel workers, are not accessible to other users.
    for parent in folder.parents:
        if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
            parent.chmod(parent.stat().st_mode | 0o055)


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs root to become another user")
def test_a_read_only_index_can_be_searched_and_refuses_changes(tmp_path, notes):
    fresh, searched = tmp_path / "fresh", tmp_path / "searched before"
    code = """
from pathlib import Path
import sys
from tests.langgraph_dynrag.retrieval.test_several_processes import make_index
for folder in sys.argv[2:]:
    index = make_index(Path(folder))
    index.ingest(sys.argv[1], progress=False)
index.as_retriever("bm25").invoke("x")
"""
    subprocess.run([sys.executable, "-c", code, str(notes), str(fresh), str(searched)], check=True)
    for _ in range(2):  # so that everything is imported: the other user cannot read Python's folder
        warm = make_index(tmp_path / "warm")
        warm.add_texts(["a river"])
        assert all(found(warm.as_retriever(kind)) for kind in KINDS)
    for folder in (fresh, searched):
        made_read_only(folder / "index")
        folder.chmod(0o755)
    tmp_path.chmod(0o755)

    def search():
        return [
            (answers(index), refusals(index), [s.items for s in index.sources()])
            for index in (make_index(fresh), make_index(searched))
        ]

    def answers(index):
        return [sorted(found(index.as_retriever(kind))) for kind in KINDS]

    def refusals(index):
        errors = []
        for change in (
            lambda: index.ingest(notes, progress=False),
            lambda: index.remove(notes),
            lambda: index.add_texts(["a"]),
        ):
            try:
                change()
            except IndexFolderError as error:
                errors.append(str(error))
        return errors

    told = as_nobody(search)
    assert not isinstance(told, BaseException), told
    for results, errors, items in told:
        assert results == [["Aldous Wray built the bridge."]] * 3
        assert len(errors) == 3
        assert all("is read-only: it can be searched" in e for e in errors)
        assert items == [1]


# ------------------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize(
    "damage",
    ["garbage in the database", "half a database", "no database", "no chroma folder", "a file in its place"],
)
@pytest.mark.parametrize("kind", ["dense", "bm25"])
def test_the_error_for_a_damaged_index_names_its_folder_and_what_to_do(index, notes, damage, kind):
    folder = index.folder
    database = folder / "chroma" / "chroma.sqlite3"
    copied = folder.with_name("copied")
    shutil.copytree(folder, copied, ignore=shutil.ignore_patterns("bm25-*"))
    database = copied / "chroma" / "chroma.sqlite3"
    if damage == "garbage in the database":
        database.write_bytes(os.urandom(50_000))
    elif damage == "half a database":
        os.truncate(database, database.stat().st_size // 3)
    elif damage == "no database":
        database.unlink()
    else:
        shutil.rmtree(copied / "chroma")
        if damage == "a file in its place":
            (copied / "chroma").write_text("x")
    opened = LocalIndex(copied, embeddings=CountedEmbeddings(size=8))
    with pytest.raises(IndexFolderError) as error:
        opened.as_retriever(kind).invoke("bridge")
    assert str(copied) in str(error.value)
    assert "index again" in str(error.value)
    # Following the advice in the message repairs the index.
    if damage in ("no database", "no chroma folder"):
        opened.ingest(notes, progress=False)
    else:
        shutil.rmtree(copied)
        opened.ingest(notes, progress=False)
    assert found(opened.as_retriever(kind)) == {"Aldous Wray built the bridge."}


def test_embeddings_of_another_size_are_reported(index, caplog):
    wide = LocalIndex(index.folder, embeddings=DeterministicFakeEmbedding(size=5))
    with caplog.at_level(logging.WARNING):
        retriever = wide.as_retriever("hybrid")
    assert "were computed with CountedEmbeddings but are searched with DeterministicFakeEmbedding" in caplog.text
    with pytest.raises(IndexFolderError, match=r"cannot be read: .*dimension.*built with other embeddings"):
        retriever.invoke("bridge")


FULL = """
import resource, signal, sys
from langgraph_dynrag.retrieval import LocalIndex
from rag_backbone.errors import IndexFolderError
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings
index = LocalIndex(sys.argv[1], embeddings=CountedEmbeddings(size=8))
index.add_texts(["The first."])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
texts = [f"{i} " + "word " * 1000 for i in range(30)]
try:
    index.add_texts(texts)
except IndexFolderError as error:
    print("refused:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(["The first."] == [d.page_content for d in index.as_retriever("bm25", k=1).invoke("first")])
print(index.add_texts(texts).chunks, len(index.as_retriever("dense", k=400).invoke("x")))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs resource.setrlimit to limit file sizes")
def test_a_full_disk_is_reported_and_the_index_stays_intact(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "index")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    refused, first, count = run.stdout.splitlines()
    assert refused.startswith("refused:")
    assert str(tmp_path / "index") in refused
    assert (first, count) == ("True", "91 91")  # in three chunks each


def test_the_error_for_an_impossible_index_folder_names_it(tmp_path):
    (tmp_path / "file").write_text("x")
    index = LocalIndex(tmp_path / "file" / "index", embeddings=CountedEmbeddings(size=8))
    with pytest.raises((ConfigurationError, IndexFolderError), match="file/index"):
        index.add_documents([Document("a")])
