"""Writers that share records without any server: each has read some of the others' records when it writes its own."""

import itertools

from hypothesis import strategies as st

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.store.object.causal import Delta
from llamaindex_prag.store.object.changes import Change
from llamaindex_prag.store.object.facts import AdapterFact, GoneFact
from llamaindex_prag.store.object.state import State

TEXTS = [text_hash(str(i)) for i in range(2)]
DOCUMENTS = ["d", "e", "f"]
INDEXES = ["i", "j"]


class Writers:
    def __init__(self, number):
        self.states = [State() for _ in range(number)]
        self.counts = [itertools.count(1) for _ in range(number)]
        self.records = []
        self.causes = []
        """For each record, the records that its writer had read: who lists a record lists those too."""
        self.read = [set() for _ in range(number)]
        self.history = []
        """(operation, arguments, result, dots of new facts, dots the writer had seen) of each act."""

    def new_dot(self, writer):
        return str(writer), next(self.counts[writer])

    def sync(self, writer, records=None):
        for number in range(len(self.records)) if records is None else records:
            for known in sorted({number, *self.causes[number]} - self.read[writer]):
                self.states[writer].join(self.records[known])
                self.read[writer].add(known)

    def act(self, writer, operation, *arguments, **options):
        state = self.states[writer]
        change = Change(state, lambda: self.new_dot(writer))
        before = set(state.seen)
        shown = {dot for dot, _ in state.adapters()}
        if operation == "put":
            text, owners = arguments
            dot = self.new_dot(writer)
            fact = AdapterFact(
                turn=change.turn, text=text, recipe="r", digest=str(dot), size=1, layout="l", record="{}"
            )
            result = change.put(dot, fact, owners)
        else:
            result = getattr(change, operation)(*arguments, **options)
        if change:
            delta = change.delta(self.new_dot(writer))
            self.records.append(delta)
            self.causes.append(set(self.read[writer]))
            self.sync(writer, [len(self.records) - 1])
            self.history.append((operation, arguments, delta.facts, before, shown))
        return result

    def act_at_random(self, draw, acts=None):
        """Let a writer read some of the records, and then act."""
        writer = draw(st.integers(0, len(self.states) - 1))
        how = draw(st.sampled_from(["all", "none", "some"]))
        if how == "all":
            self.sync(writer)
        elif how == "some" and self.records:
            self.sync(writer, draw(st.sets(st.integers(0, len(self.records) - 1))))
        acts = ACTS if acts is None else acts
        operation = draw(st.sampled_from(sorted(acts)))
        self.act(writer, operation, *(draw(strategy) for strategy in acts[operation]), **OPTIONS.get(operation, {}))

    def settle(self, writer):
        """Read all records, and carry out what every writer has read: none can act without having seen it."""
        self.sync(writer)
        state = self.states[writer]
        everywhere = [
            (dot, fact) for dot, fact in state.all_of(GoneFact) if all(dot in other.seen for other in self.states)
        ]
        self.act(writer, "settle", everywhere)

    def reader(self, records=None):
        state = State()
        for record in self.records if records is None else records:
            state.join(record)
        return state

    def snapshot(self, records):
        state = self.reader(records)
        return Delta(state.seen, dict(state.facts))


texts, documents, indexes = st.sampled_from(TEXTS), st.sampled_from(DOCUMENTS), st.sampled_from(INDEXES)
ACTS = {
    "put": (texts, st.lists(documents, unique=True, max_size=2)),
    "own": (documents, st.lists(texts, unique=True)),
    "own_also": (documents, st.lists(texts, unique=True)),
    "remove_document": (documents,),
    "hold": (indexes, st.lists(documents, unique=True)),
    "let_go": (st.lists(indexes, unique=True, min_size=1), documents, st.lists(texts, unique=True)),
    "remove_text": (texts,),
}
_few = st.sampled_from(DOCUMENTS[:2])
FEW = {
    "put": (st.just(TEXTS[0]), st.just(DOCUMENTS[:2])),
    "own_also": (_few, st.just(TEXTS[:1])),
    "remove_document": (_few,),
}
"""Acts on one text and two documents, so that they meet more often."""
HOLDING = {
    "put": (st.just(TEXTS[0]), st.just(DOCUMENTS[:1])),
    "hold": (indexes, st.just(DOCUMENTS[:1])),
    "let_go": (st.lists(indexes, min_size=1, max_size=1), st.just(DOCUMENTS[0]), st.just([])),
}
"""Acts of indexes on one document."""
OPTIONS = {"own": {"purge": True}, "let_go": {"purge": True}}
