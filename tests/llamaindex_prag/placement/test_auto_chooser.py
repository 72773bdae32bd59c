"""How often each document is retrieved, and the mode that is chosen for it."""

import pytest

from llamaindex_prag.adapters.adapter import text_hash
from llamaindex_prag.passages import Passage
from llamaindex_prag.placement.auto_chooser import AutoChooser
from llamaindex_prag.placement.auto_policy import Demand
from llamaindex_prag.placement.costs import Costs
from tests.llamaindex_prag.translator.conftest import OTHERS, TRAINED

# Training costs as much as reading twice.
COSTS = Costs(read=1.0, activate=1e-6, train=1.5)


@pytest.fixture
def chooser(model):
    return AutoChooser(model, costs=COSTS)


def test_a_document_is_counted_once_per_question_and_blank_ones_never(chooser, store):
    decisions = chooser.choose([OTHERS[0], " ", OTHERS[0]])
    assert [d.way for d in decisions] == ["context", "context", "context"]
    assert decisions[1].why == "no text"
    assert store.get_json("asked", text_hash(OTHERS[0])) == 1
    assert store.get_json("asked", text_hash(" ")) is None
    assert chooser.choose([OTHERS[0]])[0].way == "trained"


def test_the_count_is_removed_with_the_document(chooser, model, store):
    chooser.choose([TRAINED])
    chooser.choose([TRAINED])
    assert chooser.demand(TRAINED).asked == 2
    store.remove_document("letters")
    assert chooser.demand(TRAINED).asked == 0


def test_the_demand_tells_what_exists_of_a_document(chooser, model):
    def tokens(text):
        return len(model.lm.tokenizer(text, add_special_tokens=False).input_ids)

    assert chooser.demand(TRAINED) == Demand(tokens(TRAINED), 0, trained=True, represented=False)
    model.translations.keep([Passage(OTHERS[0])])
    assert chooser.demand(OTHERS[0]) == Demand(tokens(OTHERS[0]), 0, trained=False, represented=True)


def test_a_count_of_another_form_is_ignored(chooser, store):
    store.put_json("asked", text_hash(OTHERS[0]), "often")
    assert chooser.demand(OTHERS[0]).asked == 0
