"""What several writers' records amount to: by hand, against a plain model, and in arbitrary interleavings."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaindex_prag.store.object.facts import OwnerFact, from_plain, to_plain
from tests.llamaindex_prag.store.object.simulated import ACTS, DOCUMENTS, FEW, HOLDING, OPTIONS, TEXTS, Writers

T, U = TEXTS
MANY = {name: ACTS[name] for name in ("put", "own_also", "remove_document", "own")}


def shown(state):
    return {fact.text for _, fact in state.adapters()}


def two_writers(*owners):
    """Two writers that have both read that a text has an adapter, and these owners."""
    writers = Writers(2)
    writers.act(0, "put", T, owners)
    writers.sync(1)
    return writers


def test_a_text_that_another_host_begins_to_use_during_the_removal_is_kept():
    writers = two_writers("d")
    writers.act(0, "remove_document", "d")
    writers.act(1, "own_also", "e", [T])
    state = writers.reader()
    assert shown(state) == {T}
    assert [fact.document for _, fact in state.owners(T)] == ["e"]


def test_two_hosts_that_each_remove_the_last_owner_but_one_remove_the_text():
    writers = two_writers("d", "e")
    writers.act(0, "remove_document", "d")
    writers.act(1, "remove_document", "e")
    assert shown(writers.states[0]) == {T}
    assert shown(writers.reader()) == set()


def test_two_indexes_that_let_go_of_a_document_at_once_remove_its_texts():
    writers = two_writers("d")
    writers.act(0, "hold", "i", ["d"])
    writers.act(0, "hold", "j", ["d"])
    writers.sync(1)
    writers.act(0, "let_go", ["i"], "d", [], purge=True)
    writers.act(1, "let_go", ["j"], "d", [], purge=True)
    assert shown(writers.states[0]) == {T}
    state = writers.reader()
    assert (shown(state), state.documents()) == (set(), [])


def test_an_index_that_begins_to_hold_a_document_while_another_lets_go_keeps_it():
    writers = two_writers("d")
    writers.act(0, "hold", "i", ["d"])
    writers.sync(1)
    writers.act(0, "let_go", ["i"], "d", [], purge=True)
    writers.act(1, "hold", "j", ["d"])
    assert shown(writers.states[0]) == set()
    assert shown(writers.reader()) == {T}


def test_who_uses_a_removed_text_again_does_not_bring_its_adapter_back():
    writers = two_writers("d")
    writers.act(0, "remove_document", "d")
    writers.sync(1)
    writers.act(1, "own_also", "e", [T])
    assert shown(writers.reader()) == set()
    writers.act(1, "put", T, [])
    assert shown(writers.reader()) == {T}


def test_a_later_owner_of_a_text_that_an_earlier_removal_spared_keeps_it():
    writers = two_writers("d", "e")
    writers.act(0, "remove_document", "d")
    writers.act(0, "own_also", "f", [T])
    writers.act(0, "remove_document", "e")
    assert shown(writers.reader()) == {T}
    writers.act(0, "remove_document", "f")
    assert shown(writers.reader()) == set()


def test_who_lets_go_and_holds_again_keeps_a_document_that_another_index_lets_go_later():
    writers = two_writers("d")
    for index in ("i", "j"):
        writers.act(0, "hold", index, ["d"])
    writers.act(0, "let_go", ["i"], "d", [], purge=True)
    writers.act(0, "hold", "i", ["d"])
    writers.act(0, "let_go", ["j"], "d", [], purge=True)
    assert shown(writers.reader()) == {T}


def test_an_owner_that_ended_does_not_come_back_when_its_text_is_stored_again():
    writers = two_writers("d")
    writers.act(0, "let_go", ["i"], "d", [], purge=False)
    assert writers.reader().unowned() == [T]
    writers.act(0, "put", T, [])
    state = writers.reader()
    assert (state.unowned(), state.owners(T), shown(state)) == ([], [], {T})


def test_removal_by_name_is_not_held_up_by_an_owner():
    writers = two_writers("d")
    writers.act(0, "remove_text", T)
    writers.act(1, "own_also", "e", [T])
    assert shown(writers.reader()) == set()


def test_settling_changes_nothing_that_is_visible():
    writers = two_writers("d", "e")
    writers.act(0, "put", U, ["d"])
    writers.act(0, "remove_document", "d")
    writers.sync(1)
    before = shown(writers.reader()), writers.reader().documents()
    writers.settle(1)
    state = writers.reader()
    assert (shown(state), state.documents()) == before == ({T}, state.documents())
    assert {type(fact).__name__ for fact in state.facts.values()} == {"AdapterFact", "OwnerFact"}
    assert len(state.facts) == 2


def test_a_removal_that_took_effect_through_another_one_is_not_settled_before_all_have_seen_both():
    writers = Writers(2)
    writers.act(0, "put", T, ["d", "e"])
    writers.sync(1)
    writers.act(1, "remove_document", "e")
    writers.act(0, "remove_document", "d")  # without having seen that "e" was removed, too
    writers.settle(1)
    writers.act(0, "own_also", "d", [T])
    assert shown(writers.states[0]) == {T}
    writers.settle(1)
    assert shown(writers.reader()) == {T}
    writers.act(0, "remove_document", "d")
    for writer in (0, 1):
        writers.settle(writer)
    assert not writers.reader().facts


class PlainModel:
    """What a store with transactions does, written down without records."""

    def __init__(self):
        self.adapters, self.owned, self.held = set(), {}, {}

    def users(self, text):
        return {document for document, texts in self.owned.items() if text in texts}

    def drop(self, document, texts):
        self.owned[document] = [t for t in self.owned.get(document, []) if t not in texts]
        self.adapters -= {t for t in texts if not self.users(t)}

    def put(self, text, owners):
        self.adapters.add(text)
        for document in owners:
            self.own_also(document, [text])

    def own(self, document, texts):
        self.drop(document, [t for t in self.owned.get(document, []) if t not in texts])
        self.owned[document] = list(texts)

    def own_also(self, document, texts):
        known = self.owned.setdefault(document, [])
        known += [t for t in texts if t not in known]

    def remove_document(self, document):
        self.held.pop(document, None)
        self.drop(document, self.owned.get(document, []))

    def hold(self, index, documents):
        for document in documents:
            self.held.setdefault(document, set()).add(index)

    def let_go(self, indexes, document, keep):
        others = self.held.get(document, set()) - set(indexes)
        if not keep:
            self.held[document] = others
        if not others:
            self.drop(document, [t for t in self.owned.get(document, []) if t not in keep])

    def remove_text(self, text):
        self.adapters.discard(text)
        for document in self.owned:
            self.owned[document] = [t for t in self.owned[document] if t != text]

    def documents(self):
        names = sorted({*self.owned, *self.held})
        rows = [(n, self.owned.get(n, []), sorted(self.held.get(n, ()))) for n in names]
        return [row for row in rows if row[1] or row[2]]


@pytest.mark.parametrize("acts", [ACTS, HOLDING], ids=["all", "holding"])
@settings(max_examples=100)
@given(data=st.data())
def test_calls_that_do_not_overlap_do_what_a_store_with_transactions_does(acts, data):
    writers, model = Writers(3), PlainModel()
    for _ in range(data.draw(st.integers(3, 15))):
        writer = data.draw(st.integers(0, 2))
        writers.sync(writer)
        if data.draw(st.booleans()):
            for other in range(3):
                writers.sync(other)
            writers.settle(writer)
        operation = data.draw(st.sampled_from(sorted(acts)))
        arguments = [data.draw(strategy) for strategy in acts[operation]]
        writers.act(writer, operation, *arguments, **OPTIONS.get(operation, {}))
        getattr(model, operation)(*arguments)
        state = writers.states[writer]
        assert shown(state) == model.adapters
        assert [(d.id, list(d.texts), sorted(d.indexes)) for d in state.documents()] == model.documents()


@pytest.mark.parametrize("acts", [MANY, FEW], ids=["many", "few"])
@settings(max_examples=150)
@given(data=st.data())
def test_in_any_interleaving_nothing_owned_is_lost_and_nothing_removed_stays(acts, data):
    """Writers read any part of the records before each act, so acts overlap in every possible way."""
    writers = Writers(3 if acts is MANY else 2)
    for _ in range(data.draw(st.integers(3, 12))):
        if data.draw(st.integers(0, 5)) == 0:
            writers.settle(data.draw(st.integers(0, len(writers.states) - 1)))
        else:
            writers.act_at_random(data.draw, acts)
    check(writers)


def test_in_every_interleaving_of_three_acts_on_one_text_nothing_is_lost_or_stays():
    moves = [("put", T, ["d"]), ("own_also", "e", [T]), ("remove_document", "d"), ("remove_document", "e")]
    choices = list(itertools.product(moves, (0, 1), (True, False)))
    for acts in itertools.product(choices, repeat=3):
        writers = two_writers("d", "e")
        for (name, *arguments), writer, reads in acts:
            if reads:
                writers.sync(writer)
            writers.act(writer, name, *arguments)
        check(writers)


def test_every_order_of_five_acts_of_two_indexes_does_what_transactions_do():
    moves = [("hold", "i", ["d"]), ("hold", "j", ["d"]), ("let_go", ["i"], "d", []), ("let_go", ["j"], "d", [])]
    for acts in itertools.product(moves, repeat=5):
        writers, model = two_writers("d"), PlainModel()
        model.put(T, ["d"])
        for name, *arguments in acts:
            writers.act(0, name, *arguments, **OPTIONS.get(name, {}))
            getattr(model, name)(*arguments)
            assert shown(writers.states[0]) == model.adapters, acts


def check(writers):
    """Check that no adapter that a document uses was lost, and none that was removed with its last owner is visible."""
    state = writers.reader()
    visible = {dot for dot, _ in state.adapters()}
    acts = writers.history
    removals = [(args[0], seen) for name, args, _, seen, _ in acts if name == "remove_document"]
    removals += [(args[0], seen) for name, args, _, seen, _ in acts if name == "own" and not args[1]]
    partly = [(args, seen) for name, args, _, seen, _ in acts if name == "own" and args[1]]

    def gone(dot, owner):
        """Return whether a removal of the owner's document, or of the text from it, had seen it."""
        seen_by = [seen for document, seen in removals if document == owner.document]
        seen_by += [
            seen for (document, texts), seen in partly if document == owner.document and owner.text not in texts
        ]
        return any(dot in seen for seen in seen_by)

    owners = [(d, f, act) for act in acts for d, f in act[2].items() if isinstance(f, OwnerFact)]
    puts = [(d, f, act) for act in acts for d, f in act[2].items() if type(f).__name__ == "AdapterFact"]
    for dot, fact, act in puts:
        replaced = any(other is not act and dot in other[3] and f.text == fact.text for _, f, other in puts)
        # Documents that began to use the text while its adapter was visible, or with it, and that were not removed.
        alive = [
            o
            for o_dot, o, o_act in owners
            if o.text == fact.text and (o_act is act or dot in o_act[4]) and not gone(o_dot, o)
        ]
        if alive and not replaced:
            assert any(d == dot for d, _ in state.adapters_of(fact.text)), "an owned adapter was lost"
    for dot, fact in ((d, state.facts[d]) for d in visible):
        known = [(o_dot, o) for o_dot, o, _ in owners if o.text == fact.text]
        ended = [(o_dot, o) for o_dot, o in known if gone(o_dot, o)]
        if ended and len(ended) == len(known):  # it has no owner left: only what no removal had seen may stay
            for document, seen in removals:
                used = any(o.document == document and o_dot in seen for o_dot, o in ended)
                assert not (used and dot in seen), "an adapter that was removed with its last owner is served"


def test_facts_are_plain_data():
    writers = two_writers("d")
    writers.act(0, "hold", "i", DOCUMENTS)
    writers.act(0, "let_go", ["j"], "d", [], purge=True)
    for record in writers.records:
        for fact in record.facts.values():
            assert from_plain(to_plain(fact)) == fact
