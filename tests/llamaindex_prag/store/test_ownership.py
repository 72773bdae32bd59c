"""Ownership of texts, compared with a model of plain dictionaries."""

import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llamaindex_prag.adapters.adapter import text_hash
from tests.llamaindex_prag.store.made import made_adapter, made_key, opened

DOCUMENTS = st.sampled_from(["a", "b", "c/with a long name " * 40, ""])
TEXTS = st.sampled_from(["one", "two", "three", "four"])


class Owners(RuleBasedStateMachine):
    """Any sequence of calls leaves the store in the same state as two dictionaries."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = opened(self.folder.name)
        self.stored = set()
        self.documents = {}
        self.freed = set()

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    def owned(self):
        return {text for texts in self.documents.values() for text in texts}

    def set_document(self, document, texts):
        before = self.documents.get(document, [])
        self.documents[document] = list(dict.fromkeys(texts))
        freed = [t for t in before if t not in self.owned()]
        self.freed = (self.freed | set(freed)) - set(texts)
        return [text_hash(t) for t in freed]

    @rule(text=TEXTS, documents=st.lists(DOCUMENTS, max_size=2))
    def put(self, text, documents):
        self.store.put(made_key(text), made_adapter(), {}, owners=documents)
        self.stored.add(text)
        self.freed.discard(text)
        for document in documents:
            self.set_document(document, [*self.documents.get(document, []), text])

    @rule(document=DOCUMENTS, texts=st.lists(TEXTS, max_size=4))
    def own(self, document, texts):
        assert self.store.own(document, [text_hash(t) for t in texts]) == self.set_document(document, texts)

    @rule(document=DOCUMENTS, texts=st.lists(TEXTS, max_size=4))
    def own_also(self, document, texts):
        self.store.own_also(document, [text_hash(t) for t in texts])
        self.set_document(document, [*self.documents.get(document, []), *texts])

    @rule(document=DOCUMENTS, texts=st.lists(TEXTS, max_size=4))
    def replace_document(self, document, texts):
        freed = self.set_document(document, texts)
        assert self.store.replace_document(document, [text_hash(t) for t in texts]) == freed
        self.forget({t for t in self.stored | self.freed if text_hash(t) in freed})

    @rule(document=DOCUMENTS)
    def remove_document(self, document):
        freed = self.set_document(document, [])
        assert self.store.remove_document(document) == freed
        self.forget({t for t in self.stored | self.freed if text_hash(t) in freed})

    @rule(text=TEXTS)
    def remove(self, text):
        assert self.store.remove(text_hash(text)) == (text in self.stored)
        self.forget({text})

    @precondition(lambda self: self.freed)
    @rule()
    def gc(self):
        assert set(self.store.gc().removed_texts) == {text_hash(t) for t in self.freed}
        self.forget(set(self.freed))

    def forget(self, texts):
        self.stored -= texts
        self.freed -= texts
        self.documents = {d: [t for t in ts if t not in texts] for d, ts in self.documents.items()}

    @invariant()
    def the_store_says_the_same(self):
        keys = self.store.keys()
        assert {key.text for key in keys} == {text_hash(t) for t in self.stored}
        for document, texts in self.documents.items():
            assert self.store.texts(document) == [text_hash(t) for t in texts]
        for text in ("one", "two", "three", "four"):
            owners = sorted(d for d, ts in self.documents.items() if text in ts)
            assert self.store.owners(text_hash(text)) == owners
        stats = self.store.stats()
        assert stats.documents == sum(bool(ts) for ts in self.documents.values())
        assert stats.unowned_texts == len(self.freed)


Owners.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
test_owners = pytest.mark.filterwarnings("ignore::ResourceWarning")(Owners.TestCase)
