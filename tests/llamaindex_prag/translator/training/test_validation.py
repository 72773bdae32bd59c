"""The quality of a translator on passages that it was not trained on."""

import numpy as np
import pytest
import torch

from llamaindex_prag.augment.augmentation import QA
from llamaindex_prag.training.factors import DocumentFactors
from llamaindex_prag.training.gradients import DocumentLosses
from llamaindex_prag.translator.training.corpus import Lesson, split
from llamaindex_prag.translator.training.validation import Validation
from rag_backbone.errors import ConfigurationError
from tests.llamaindex_prag.translator.training.lessons import LESSONS, PLAN, translator, unchecked

PASSAGES = LESSONS[:3]


def test_a_corpus_without_any_questions_is_rejected(lm, tmp_path):
    empty = [Lesson("...", f"x{i}") for i in range(12)]
    with pytest.raises(ConfigurationError, match="have questions"):
        unchecked(translator(lm), split(empty, validation=3), tmp_path / "t", PLAN)


@pytest.fixture
def network(lm):
    """A translator whose adapters change the model."""
    made = translator(lm)
    made.network.gains.data.fill_(0.6)
    return made


def validation(made, lessons=PASSAGES, **changes):
    return Validation(made, DocumentLosses(made.lm.engine, made.config.layout), lessons, PLAN.changed(**changes))


def test_each_loss_is_that_of_the_adapter_that_it_names(network):
    found = validation(network)
    own, other, mean, base = found.losses()
    values = network.network.generate(network.network.pool(network.reader.states([x.text for x in PASSAGES])))
    values = values.detach()
    losses = DocumentLosses(network.lm.engine, network.config.layout)

    def of(adapters):
        factors = DocumentFactors(network.lm.model, network.config.layout, adapters, 3, network.config.scale)
        told = losses.values(factors, {i: d.examples for i, d in enumerate(found._documents)}, {})
        return [told[i] for i in range(3)]

    assert own == pytest.approx(of(values), rel=1e-4)
    assert other == pytest.approx(of(values[[2, 0, 1]]), rel=1e-4)
    assert mean == pytest.approx(of(values.mean(0).expand(3, -1)), rel=1e-4)
    assert base == pytest.approx(of(torch.zeros_like(values)), rel=1e-4)
    assert own != pytest.approx(base, rel=1e-3)
    judged = found.judge()
    assert judged.own == pytest.approx(np.mean(own), rel=1e-5)
    assert judged.to_dict().keys() == {"own", "other", "mean", "base", "f1"}


def test_questions_are_the_same_for_every_translator_of_a_seed(lm, network):
    def asked(made, **changes):
        return [[e.ids for e in d.examples] for d in validation(made, **changes)._documents]

    first = asked(network, validation_questions=2)
    assert [len(ids) for ids in first] == [2, 2, 2]
    assert asked(translator(lm, seed=1), validation_questions=2) == first
    assert asked(network, validation_questions=2, seed=1) != first


def test_f1_compares_with_known_answers_only(network, monkeypatch):
    given = [Lesson(x.text, x.title, (QA(f"Who built {x.title}?", "Ada Bo"),)) for x in PASSAGES]
    found = validation(network, given, phrases=0)
    monkeypatch.setattr("llamaindex_prag.translator.training.validation.answers", lambda *_: ["Ada Bo", "Ada", "Di"])
    assert found.f1() == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_at_least_two_passages_need_questions(network):
    with pytest.raises(ConfigurationError, match="1 of 2 passages set apart for validation have questions; at least 2"):
        validation(network, [LESSONS[0], Lesson("...", "dots")])
