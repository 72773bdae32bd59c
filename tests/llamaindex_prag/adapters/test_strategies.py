"""Ways of combining adapters that exclude each other are refused, by a model and by each front end."""

import pytest

from langgraph_dynrag.injection.parametric import ParametricInjector
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.adapters.strategies import check_strategy
from llamaindex_prag.llama_index import ParametricLLM
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.placement.placer import Placer
from rag_backbone.errors import AdapterError, ConfigurationError

BOTH = {"merge": "sum", "ensemble": "mixture"}


@pytest.mark.parametrize(
    ("merge", "ensemble", "reason"),
    [
        ("average", None, "merge is 'average'; known: mean, sum"),
        ("mean", "sum", "ensemble is 'sum'; known: mixture, product"),
        ("orthogonal", "product", "ensemble='product' mixes .* but merge is 'orthogonal'; leave out one of the two"),
        ("shared_once", None, "the recipe 'prag' has no start; .* or use another merge"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(merge, ensemble, reason):
    with pytest.raises(ConfigurationError, match=reason):
        check_strategy(get_recipe("prag"), merge, ensemble)


def test_what_goes_together_is_accepted():
    check_strategy(get_recipe("prag"), "sum", None)
    check_strategy(get_recipe("prag"), "mean", "mixture")
    check_strategy(get_recipe("prag", start="a" * 64), "shared_once", None)


def test_a_merge_beside_an_ensemble_is_refused_wherever_both_can_be_given(lm, store):
    model = ParametricModel.of(lm, store, recipe="prag")
    for refusing in (
        lambda: model.answer("Who?", **BOTH),
        lambda: Placer(model, **BOTH),
        lambda: ParametricInjector(model, missing="context", **BOTH),
    ):
        with pytest.raises(ConfigurationError, match="ensemble='mixture' mixes .* merge is 'sum'"):
            refusing()


def test_an_llm_refuses_it_before_it_loads_a_model_and_again_after_its_fields_changed(lm, store, tmp_path):
    with pytest.raises(ConfigurationError, match="merge is 'sum'"):
        ParametricLLM(lm=tmp_path / "no model", **BOTH)
    with pytest.raises(ConfigurationError, match="the recipe 'distill' has no start"):
        ParametricLLM(lm=tmp_path / "no model", merge="shared_once")
    mixing = ParametricLLM(lm=lm, store=store, recipe="prag").model_copy(update=BOTH)
    with pytest.raises(AdapterError, match="merge is 'sum'"):  # LlamaIndex would swallow a ValueError
        mixing.complete("Who?")
