"""Random changes through two alternating `LocalIndex` objects give the same content as a dictionary model."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from langchain_core.documents import Document

from langgraph_dynrag.retrieval import LocalIndex
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.retrieval.indexes import CountedEmbeddings

NAMES = st.sampled_from(["a.txt", "b.txt", "sub/c.txt"])
WORDS = st.sampled_from(["ants", "bees", "crows", "deer"])
FOLDERS = st.sampled_from(["one", "two"])
IDS = st.sampled_from(["x", "y"])
SOURCES = st.sampled_from(["crm", "mail"])


class IndexMachine(RuleBasedStateMachine):
    """Files change at any time; the model holds the expected content of the index as of its last change."""

    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp(prefix="dynprag-model-"))
        made = [LocalIndex(self.root / "index", embeddings=CountedEmbeddings(size=4)) for _ in range(2)]
        self.indexes = made
        self.turn = 0
        self.files = {}  # indexed files: path -> text
        self.documents = {}  # indexed documents: id -> (source, text)
        self.retrievers = []

    @property
    def index(self):
        self.turn += 1
        return self.indexes[self.turn % 2]

    def teardown(self):
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    # -------------------------------------------------------------- changes to the files

    @rule(folder=FOLDERS, name=NAMES, word=WORDS)
    def write(self, folder, name, word):
        path = self.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{word} of {name}")

    @rule(folder=FOLDERS, name=NAMES)
    def delete(self, folder, name):
        (self.root / folder / name).unlink(missing_ok=True)

    @rule(folder=FOLDERS)
    def delete_folder(self, folder):
        shutil.rmtree(self.root / folder, ignore_errors=True)

    @rule(folder=FOLDERS)
    def empty_folder(self, folder):
        self.delete_folder(folder)
        (self.root / folder).mkdir()

    @rule()
    def move(self):
        one, two = self.root / "one", self.root / "two"
        if one.exists() and not two.exists():
            one.rename(two)

    # -------------------------------------------------------------- changes to the index

    @rule(folder=FOLDERS, part=st.sampled_from(["", "sub"]))
    def ingest(self, folder, part):
        source = self.root / folder / part
        present = {str(p): p.read_text() for p in source.rglob("*.txt")} if source.is_dir() else {}
        known = any(Path(p).is_relative_to(source) for p in self.files)
        if not present and not known:
            with pytest.raises(ConfigurationError):
                self.index.ingest(source, progress=False)
            return
        before = set(self.files)
        kept = {p: t for p, t in self.files.items() if Path(p).exists() and not Path(p).is_relative_to(source)}
        self.files = {**kept, **present}
        report = self.index.ingest(source, progress=False)
        assert report.removed == len(before - set(self.files))
        assert report.added == len(set(self.files) - before)

    @rule(folder=FOLDERS, name=NAMES | st.just(""))
    def remove(self, folder, name):
        source = self.root / folder / name
        gone = {p for p in self.files if Path(p).is_relative_to(source)}
        if not gone:
            with pytest.raises(ConfigurationError, match="nothing in the index came from"):
                self.index.remove(source)
            return
        self.files = {p: t for p, t in self.files.items() if p not in gone}
        assert self.index.remove(source).removed == len(gone)

    @rule(given=st.dictionaries(IDS, WORDS, min_size=1), source=SOURCES, replace=st.booleans())
    def add_documents(self, given, source, replace):
        if replace:
            self.documents = {k: v for k, v in self.documents.items() if v[0] != source}
        self.documents.update({key: (source, f"{word} in mail") for key, word in given.items()})
        documents = [Document(f"{word} in mail", id=key) for key, word in given.items()]
        self.index.add_documents(documents, source=source, replace=replace)

    @rule(source=SOURCES)
    def remove_documents(self, source):
        gone = {k for k, v in self.documents.items() if v[0] == source}
        if gone:
            assert self.index.remove(source).removed == len(gone)
            self.documents = {k: v for k, v in self.documents.items() if k not in gone}

    @rule(kind=st.sampled_from(["dense", "bm25", "hybrid"]))
    def make_a_retriever(self, kind):
        if self.files or self.documents:
            self.retrievers = [*self.retrievers[-2:], self.index.as_retriever(kind, k=40)]

    # -------------------------------------------------------------- invariants

    @invariant()
    def both_hold_what_the_model_says(self):
        if not hasattr(self, "files"):
            return
        expected = sorted([*self.files.values(), *(text for _, text in self.documents.values())])
        # Files with the same relative name and text share a chunk, even in different folders.
        same = sorted({(Path(p).name, t) for p, t in self.files.items()})
        distinct = {t for _, t in same} | {t for _, t in self.documents.values()}
        for index in self.indexes:
            assert sum(s.items for s in index.sources()) == len(expected)
            if not expected:
                assert len(index) == 0
                continue
            for kind in ("dense", "bm25"):
                found = {d.page_content for d in index.as_retriever(kind, k=40).invoke("ants bees crows deer")}
                assert found == distinct, kind
        for retriever in self.retrievers:
            assert {d.page_content for d in retriever.invoke("ants bees crows deer")} == distinct


TestIndexModel = IndexMachine.TestCase
TestIndexModel.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
