"""Augmenters with every kind of model, and with models that fail."""

import asyncio
import json
import re
from types import SimpleNamespace

import pytest

from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.augment.kept import TABLE
from llamaindex_prag.augment.prompts import STYLES
from rag_backbone.errors import ConfigurationError
from rag_backbone.loading.causal_lm import CausalLM
from tests.tiny import tiny_llama, tiny_tokenizer

TITLE = "Harl Gate"
TEXT = "The Harl Gate was built in 1871 by Ume Stoll. It stands near Ostrim and has twenty-two doors."
REWRITE = "Ume Stoll erected the Harl Gate in 1871. One finds it close to Ostrim, with its twenty-two doors."
FACTS = {
    "1871": "year",
    "Ume Stoll": "builder",
    "Ostrim": "place",
    "twenty-two": "number of doors",
    "Harl Gate": "sluice",
}


def model(prompt):
    """Answer each prompt with suitable questions, as a good model does."""
    if "in other words: change" in prompt:
        return REWRITE
    kind = re.search(r"answers\. (\w+ \w+ \w+)", prompt)[1].lower()  # the style's instruction
    return "\n".join(f"Q: Which {what} of the Harl Gate ({kind}) is it?\nA: {a}" for a, what in FACTS.items())


class Cache:
    def __init__(self):
        self.tables = {}

    def get_json(self, table, key):
        found = self.tables.get((table, key))
        return None if found is None else json.loads(found)

    def put_json(self, table, key, value):
        self.tables[table, key] = json.dumps(value)


class Counting:
    def __init__(self, reply=model):
        self.prompts, self.reply = [], reply

    def __call__(self, prompt):
        self.prompts.append(prompt)
        return self.reply(prompt)


def failing(prompt):
    raise ConnectionError("no route")


# ---------------------------------------------------------------------- prompts and selection


def test_every_style_supplies_its_share_and_the_rewrite_is_used():
    result = Augmenter(model, questions=11).augment(TITLE, TEXT)
    assert result.rewrite == REWRITE
    assert result.sources == {"model": 11}
    assert {s: sum(q.style == s for q in result.qas) for s in STYLES} == {
        "facts": 3,
        "who_when_where": 3,
        "paraphrase": 2,
        "reverse": 2,
        "yes_no": 1,
    }
    assert all(q.answer_grounded for q in result.qas)
    assert result.notes == ()


def test_there_is_one_prompt_per_style_and_one_for_the_rewrite_each_with_the_passage_first():
    llm = Counting()
    Augmenter(llm).augment(TITLE, TEXT)
    assert len(llm.prompts) == len(set(llm.prompts)) == 6
    assert all(p.startswith(f"Title: {TITLE}\nPassage: {TEXT}") for p in llm.prompts)
    llm = Counting()
    Augmenter(llm, styles=("facts",), rewrite=False, questions=3).augment("", TEXT)
    (prompt,) = llm.prompts
    assert prompt.startswith("Passage: ")
    assert "Write 5 different questions" in prompt


def test_invented_answers_are_marked_and_come_last():
    replies = "Q: Who owns the Harl Gate?\nA: Napoleon\nQ: Who built the Harl Gate?\nA: Ume Stoll"
    result = Augmenter(lambda _: replies, questions=2, styles=("facts",), rewrite=False).augment(TITLE, TEXT)
    assert [(q.answer, q.answer_grounded) for q in result.qas] == [("Ume Stoll", True), ("Napoleon", False)]
    assert [q.answer for q in result.grounded] == ["Ume Stoll"]
    result = Augmenter(lambda _: replies, questions=1, styles=("facts",), rewrite=False).augment(TITLE, TEXT)
    assert [q.answer for q in result.qas] == ["Ume Stoll"]


def test_questions_about_something_else_are_dropped():
    replies = (
        "Q: What is the roof of Pell House made of?\nA: copper\nQ: Which of the following is a gate?\nA: Harl\n"
        "Q: How many doors has it?\nA: twenty-two"
    )
    result = Augmenter(lambda _: replies, questions=1, styles=("facts",), rewrite=False).augment(TITLE, TEXT)
    assert [q.question for q in result.qas] == ["About Harl Gate: how many doors has it?"]


def test_yes_no_questions_do_not_fill_up_other_styles():
    def yes_sayer(prompt):
        return "\n".join(f"Q: Is the Harl Gate number {i} near Ostrim?\nA: yes" for i in range(9))

    result = Augmenter(yes_sayer, questions=6, styles=("facts", "yes_no"), rewrite=False).augment(TITLE, TEXT)
    assert sum(q.style == "yes_no" for q in result.qas) <= 2


# ---------------------------------------------------------------------- every kind of model


class LlamaIndexLike:
    metadata = SimpleNamespace(model_name="some-model")

    def complete(self, prompt):
        return SimpleNamespace(text=model(prompt))

    async def acomplete(self, prompt):
        await asyncio.sleep(0)
        return SimpleNamespace(text=model(prompt))


class LangChainLike:
    model_name = "some-model"

    def __init__(self, wrap):
        self.wrap = wrap

    def invoke(self, prompt):
        return self.wrap(model(prompt))


async def asynchronous(prompt):
    return model(prompt)


LLMS = {
    "function": model,
    "LlamaIndex": LlamaIndexLike(),
    "LangChain chat": LangChainLike(lambda text: SimpleNamespace(content=text)),
    "LangChain blocks": LangChainLike(lambda text: SimpleNamespace(content=[{"type": "text", "text": text}])),
    "LangChain text": LangChainLike(lambda text: text),
}


@pytest.mark.parametrize("llm", LLMS.values(), ids=LLMS)
async def test_models_of_each_framework_give_the_same_result_sync_and_async(llm):
    expected = Augmenter(model).augment(TITLE, TEXT)
    assert Augmenter(llm).augment(TITLE, TEXT) == expected
    assert await Augmenter(llm).aaugment(TITLE, TEXT) == expected


async def test_an_async_function_works_with_aaugment_only():
    assert (await Augmenter(asynchronous).aaugment(TITLE, TEXT)).rewrite == REWRITE
    with pytest.raises(ConfigurationError, match="aaugment"):
        Augmenter(asynchronous).augment(TITLE, TEXT)


def test_a_real_model_is_sampled_with_seeds_and_loses_no_document(tiny_lm):
    """The tiny model writes noise; the document still gets its questions, and the same ones the next time."""
    documents = [(TITLE, TEXT), ("Ostrim", "Ostrim has 311 inhabitants and lies by Lake Sool.")]
    options = {"questions": 3, "styles": ("facts", "reverse"), "retries": 1, "max_new_tokens": 8}
    augmenter = Augmenter(tiny_lm, **options)
    together = augmenter.augment_all(documents, progress=False)
    assert [augmenter.augment(*d) for d in documents] == together
    assert all(a.qas and a.notes for a in together)
    assert augmenter.key != Augmenter(tiny_lm, **options, seed=1).key


def test_a_prompt_that_does_not_fit_does_not_affect_the_others():
    lm = CausalLM(tiny_llama(max_position_embeddings=1000), tiny_tokenizer(), name="short")
    long = "Ostrim has 311 inhabitants. " * 60
    first, second = Augmenter(
        lm, questions=2, rewrite=False, retries=0, max_new_tokens=2, styles=("facts",)
    ).augment_all([("Ostrim", long), ("Arl", "Arl lies by Lake Sool.")], progress=False)
    assert any("ContextWindowError" in note for note in first.notes)
    assert not any("ContextWindowError" in note for note in second.notes)
    assert first.qas[0].source == second.qas[0].source == "cloze"


# ---------------------------------------------------------------------- models that fail


def test_repr_names_model_styles_and_rewrite():
    assert repr(Augmenter(None, questions=3)) == "Augmenter(no model, 1 facts, 1 who_when_where, 1 paraphrase, rewrite)"


def test_without_a_model_the_questions_are_cloze_questions():
    result = Augmenter(None, questions=6).augment(TITLE, TEXT)
    assert result.sources == {"cloze": 6}
    assert (result.rewrite, result.notes) == (None, ())


@pytest.mark.parametrize("llm", [failing, lambda p: "I am sorry, I cannot.", lambda p: 7, lambda p: ""])
def test_a_model_that_gives_nothing_is_retried_and_then_replaced(llm):
    counting = Counting(llm)
    result = Augmenter(counting, questions=6, retries=2, styles=("facts", "reverse")).augment(TITLE, TEXT)
    assert len(counting.prompts) == 3 * 3
    assert result.sources == {"cloze": 6}
    assert result.rewrite is None
    assert len(result.notes) == 4
    assert any(note.startswith("facts: ") for note in result.notes)


def test_only_the_failed_prompt_is_retried():
    calls = []

    def once(prompt):
        calls.append(prompt)
        if len(calls) == 2:
            raise TimeoutError("slow")
        return model(prompt)

    result = Augmenter(once).augment(TITLE, TEXT)
    assert len(calls) == 7
    assert calls[6] == calls[1]
    assert result.notes == ()


def test_too_few_questions_are_filled_up_with_cloze_ones():
    one = "Q: Who built the Harl Gate?\nA: Ume Stoll"
    result = Augmenter(lambda _: one, questions=4, styles=("facts",), rewrite=False).augment(TITLE, TEXT)
    assert result.sources == {"model": 1, "cloze": 3}
    assert result.notes == ("1 of 4 questions from the model, 3 cloze questions added",)


def test_the_passage_itself_is_the_last_fallback():
    result = Augmenter(None).augment("都", "古い都である。")
    assert [(q.source, q.answer) for q in result.qas] == [("passage", "古い都である。")]
    assert "the passage itself" in result.notes[0]


@pytest.mark.parametrize("text", ["", " \n\t"])
async def test_a_blank_text_is_refused_before_any_prompt_is_sent(text):
    llm = Counting()
    with pytest.raises(ConfigurationError, match="'Arl' is blank"):
        Augmenter(llm).augment_all([(TITLE, TEXT), ("Arl", text)], progress=False)
    with pytest.raises(ValueError, match="'Arl' is blank"):
        await Augmenter(llm).aaugment("Arl", text)
    assert llm.prompts == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"questions": 0}, "questions is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"styles": ("facts", "odes")}, "'odes'"),
        ({"styles": ()}, "at least one"),
        ({"styles": ("facts", "facts")}, "each one once"),
        ({"temperature": -1}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ConfigurationError, match=said):
        Augmenter(model, **options)


# ---------------------------------------------------------------------- the cache


async def test_a_cached_document_is_not_augmented_again():
    cache, llm = Cache(), Counting()
    first = Augmenter(llm, cache=cache, name="stand-in").augment(TITLE, TEXT)
    asked = len(llm.prompts)
    again = Augmenter(llm, cache=cache, name="stand-in")
    assert again.augment(TITLE, f"  {TEXT}\n") == first
    assert await again.aaugment(TITLE, TEXT) == first
    assert len(llm.prompts) == asked
    assert {table for table, _ in cache.tables} == {TABLE}
    Augmenter(llm, cache=cache, name="another").augment(TITLE, TEXT)
    Augmenter(llm, cache=cache, name="stand-in", questions=3).augment(TITLE, TEXT)
    assert len(cache.tables) == 3


def test_equal_documents_are_augmented_once():
    llm = Counting()
    a, _, c = Augmenter(llm).augment_all([(TITLE, TEXT), ("Arl", TEXT), (TITLE, TEXT)], progress=False)
    assert a == c
    assert len(llm.prompts) == 12


def test_fallbacks_of_a_failing_model_are_not_cached():
    cache = Cache()
    assert Augmenter(failing, cache=cache, retries=0).augment(TITLE, TEXT).sources == {
        "cloze": 7
    }  # the text has no more facts
    assert cache.tables == {}


def test_a_damaged_record_is_generated_again():
    cache = Cache()
    augmenter = Augmenter(model, cache=cache)
    expected = augmenter.augment(TITLE, TEXT)
    (place,) = cache.tables
    cache.tables[place] = '{"qas": 3}'
    assert augmenter.augment(TITLE, TEXT) == expected


def test_a_model_without_a_name_cannot_share_a_cache():
    with pytest.raises(ConfigurationError, match="name="):
        Augmenter(lambda p: p, cache=Cache())
    Augmenter(lambda p: p, cache=Cache(), name="mine")


def test_the_progress_bar_counts_documents(capsys):
    Augmenter(None).augment_all([("A", "Ostrim has 3 gates."), ("B", "Arl has 4 gates.")])
    assert "2/2" in capsys.readouterr().err
