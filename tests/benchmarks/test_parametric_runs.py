"""Adapters and answers that benchmarks keep are told apart by the model that wrote the questions."""

from benchmarks.contract import Deadline
from benchmarks.parametric_runs import Answers, Asked, open_store, recipe_model
from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.training.warm_up import warm_up
from rag_backbone.loading.causal_lm import CausalLM


def test_adapters_trained_on_another_models_questions_are_kept_apart_with_their_answers(model):
    lm = CausalLM.from_pretrained(model, dtype="float32")
    recipe = get_recipe("distill").changed(epochs=1)
    question = "When was the ferry of Vold built?"
    for writer in (None, lm):
        with open_store(lm, writer=writer) as store:
            assert not list(store.keys())
            key = warm_up(lm, store, recipe, [(question, "1973")])
            asked = Asked(question, adapters=(key,))
            answers = Answers(lm, "float32", writer=writer)
            assert answers.known(asked) is None
            assert answers.ask([asked, Asked(question)], recipe_model(lm, store, recipe), Deadline(1))
            assert answers.known(asked) is not None
    assert Answers(lm, "float32").known(Asked(question)) == answers.known(Asked(question))
