"""Questions from models of both frameworks: stored, several at once, retried, and what failures mean."""

import re
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

from llamaindex_prag.adapters.recipe import get_recipe
from llamaindex_prag.augment.augmenter import Augmenter
from llamaindex_prag.augment.endpoint.augmenter import EndpointAugmenter
from llamaindex_prag.augment.rules.augmenter import RuleAugmenter
from llamaindex_prag.parametric_model import ParametricModel
from llamaindex_prag.parametrize import Parametrizer
from llamaindex_prag.passages import Passage
from rag_backbone.errors import ConfigurationError, ServerError, ServerUnavailableError
from tests.openai_server import Fault, OpenAIServer

TITLE = "Harl Gate"
TEXT = "The Harl Gate was built in 1871 by Ume Stoll. It stands near Ostrim and has twenty-two doors."
DOCUMENTS = [(f"Gate {n}", f"Gate {n} was built in 18{n} by Ume Stoll.") for n in range(10, 16)]
FAST = {"questions": 3, "longest_wait": 0.6}  # one retry, after half a second


def written(prompt: str) -> str:
    """Answer as a good model does: one question of the requested style, about the year."""
    title, year = re.search(r"Title: (.*)", prompt)[1], re.search(r"built in (\d+)", prompt)[1]
    if "search box" in prompt:
        return f"Q: {title} built when\nA: {year}"
    if "step of reasoning" in prompt:
        return f"Q: Was {title} built by Ume Stoll after {int(year) - 1}?\nA: yes"
    return f"Q: Which gate was built in {year}?\nA: {title}"


class Scripted(BaseChatModel):
    """A LangChain chat model that replies with a function of the prompt."""

    reply: Callable[[str], str] = written
    model_name: str = "scripted"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        message = AIMessage(self.reply(messages[-1].content))
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "scripted"


class ScriptedLlamaIndex(CustomLLM):
    """A LlamaIndex LLM that does the same."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=written(prompt))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError


class Failing:
    """Counts the calls, and fails those about some of the documents."""

    def __init__(self, error: Exception, *titles: str, times: int = 10**6) -> None:
        self.error, self.titles, self.times, self.prompts = error, titles, times, []
        self.lock = threading.Lock()

    def __call__(self, prompt: str) -> str:
        with self.lock:
            self.prompts.append(prompt)
            if self.times > 0 and any(f"Title: {title}\n" in prompt for title in self.titles):
                self.times -= 1
                raise self.error
        return written(prompt)


@pytest.mark.parametrize(
    "llm", [Scripted(), ScriptedLlamaIndex(), Scripted().with_retry()], ids=lambda m: type(m).__name__
)
def test_models_of_both_frameworks_write_three_styles(llm):
    augmenter = EndpointAugmenter(llm, questions=3, name="scripted")
    result = augmenter.augment(TITLE, TEXT)
    assert [(qa.style, qa.question, qa.answer) for qa in result.qas] == [
        ("search", "Harl Gate built when", "1871"),
        ("implication", "Was Harl Gate built by Ume Stoll after 1870?", "yes"),
        ("reverse", "Which gate was built in 1871?", "Harl Gate"),
    ]
    assert result.notes == ()
    assert augmenter.by == "model"
    assert repr(augmenter) == "EndpointAugmenter(scripted, 1 search, 1 implication, 1 reverse)"


def test_each_style_has_its_own_prompt_which_begins_with_the_passage_and_asks_for_two_more():
    model = Failing(OSError())
    EndpointAugmenter(model, questions=12, name="counting").augment(TITLE, TEXT)
    assert len(set(model.prompts)) == 3
    assert all(p.startswith(f"Title: {TITLE}\nPassage: {TEXT}\n\nWrite 6 different") for p in model.prompts)


def test_requests_run_at_the_same_time_up_to_the_limit():
    both, most, running = threading.Barrier(2), 0, 0
    lock = threading.Lock()

    def slow(prompt: str) -> str:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        both.wait(timeout=10)  # needs two callers
        with lock:
            running -= 1
        return written(prompt)

    parts: list[float] = []
    augmenter = EndpointAugmenter(Scripted(reply=slow), questions=3, concurrency=2)
    found = augmenter.augment_all([*DOCUMENTS, DOCUMENTS[0]], progress=False, advance=parts.append)
    assert [a.qas[0].question[:7] for a in found] == [title for title, _ in [*DOCUMENTS, DOCUMENTS[0]]]
    assert most == 2
    assert sum(parts) == pytest.approx(1)


def test_questions_are_stored_one_by_one_and_never_written_twice(store):
    def breaking(prompt: str) -> str:
        if "Gate 13" in prompt:
            raise KeyboardInterrupt
        return written(prompt)

    with pytest.raises(KeyboardInterrupt):
        EndpointAugmenter(Scripted(reply=breaking), questions=3, concurrency=1, cache=store).augment_all(
            DOCUMENTS, progress=False
        )
    model = Failing(OSError())
    augmenter = EndpointAugmenter(Scripted(reply=model), questions=3, cache=store)
    first = augmenter.augment_all(DOCUMENTS, progress=False)
    assert len(model.prompts) == 3 * 3  # the first three documents were stored before the interrupt
    assert augmenter.augment_all(DOCUMENTS, progress=False) == first
    assert len(model.prompts) == 3 * 3
    EndpointAugmenter(Scripted(reply=model, model_name="other"), questions=3, cache=store).augment(*DOCUMENTS[0])
    assert len(model.prompts) == 4 * 3


# ---------------------------------------------------------------------- failures


def test_a_passing_failure_is_retried():
    model = Failing(ConnectionError("reset"), "Gate 10", times=1)
    result = EndpointAugmenter(Scripted(reply=model), **FAST).augment(*DOCUMENTS[0])
    assert (result.sources, result.notes, len(model.prompts)) == ({"model": 3}, (), 4)


def test_a_document_for_which_the_model_fails_is_left_to_the_rules_and_asked_again_later(store):
    model = Failing(RuntimeError("content filter"), "Gate 12")
    augmenter = EndpointAugmenter(Scripted(reply=model), questions=3, cache=store)
    found = augmenter.augment_all(DOCUMENTS, progress=False)
    assert [set(a.sources) for a in found] == [{"model"}, {"model"}, {"cloze"}, {"model"}, {"model"}, {"model"}]
    assert found[2].qas == RuleAugmenter(questions=3).augment(*DOCUMENTS[2]).qas
    assert found[2].notes[0] == "search: the model failed with RuntimeError: content filter"
    assert found[2].notes[-1] == "no question from the model was left: rules generated them"
    model.times = 0
    assert augmenter.augment_all(DOCUMENTS, progress=False)[2].sources == {"model": 3}


def test_an_endpoint_that_fails_for_several_documents_in_a_row_stops_the_job():
    everything = Failing(ConnectionError("refused"), *(title for title, _ in DOCUMENTS))
    augmenter = EndpointAugmenter(Scripted(reply=everything), concurrency=1, attempts=1)
    with pytest.raises(ServerUnavailableError, match=r"scripted answered nothing about 3 documents in a row.*refused"):
        augmenter.augment_all(DOCUMENTS, progress=False)
    with pytest.raises(ServerError, match="about 2 documents in a row.*RuntimeError: no"):
        EndpointAugmenter(Scripted(reply=Failing(RuntimeError("no"), "Gate 10", "Gate 11"))).augment_all(
            DOCUMENTS[:2], progress=False
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"questions": 0}, "questions is 0"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"attempts": 0}, "attempts is 0"),
        ({"longest_wait": 0}, "longest_wait is 0"),
        ({"styles": ("facts",)}, "no question style 'facts'; known: search, implication, reverse"),
        ({"llm": None}, "RuleAugmenter"),
        ({"llm": Scripted}, "it must be"),
        ({"llm": lambda prompt: ""}, "name it, as in EndpointAugmenter"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        EndpointAugmenter(**({"llm": Scripted()} | options))


def test_a_blank_text_is_refused_before_any_request():
    model = Failing(OSError())
    with pytest.raises(ConfigurationError, match="is blank"):
        EndpointAugmenter(Scripted(reply=model)).augment_all([DOCUMENTS[0], ("b", " ")])
    assert model.prompts == []


def test_a_model_in_this_process_belongs_to_the_other_augmenter(lm):
    with pytest.raises(ConfigurationError, match=r"use Augmenter\(llm\)"):
        EndpointAugmenter(lm)


# ---------------------------------------------------------------------- adapters


def model_of(lm, store, **changes):
    recipe = get_recipe("distill", questions=3, phrases=2, unrelated=0, with_passage=0, epochs=1, **changes)
    return ParametricModel(lm, store, recipe=recipe)


def says(body):
    return [(part, 0.9) for part in re.findall(r"\s*\S+", written(body["messages"][-1]["content"]))]


def test_adapters_are_trained_on_questions_of_an_openai_server(lm, store):
    """From end to end: a rate limit and a broken answer are retried, and the adapter's record says who wrote."""
    model = model_of(lm, store)
    with OpenAIServer(says, model="writer") as server:
        chat = ChatOpenAI(base_url=server.url, model="writer", api_key="none", max_retries=0, max_tokens=200)
        server.faults += [Fault(429, {"retry-after": "0.1"}), Fault(500), Fault(body="<html>no")]
        augmenter = EndpointAugmenter(chat, questions=3, cache=store)
        parametrizer = Parametrizer(model, augmenter=augmenter)
        passages = [Passage(text, title) for title, text in DOCUMENTS[:2]]
        report = parametrizer.parametrize(passages, progress=False)
        assert (report.trained, report.notes) == (2, {})
        assert len(server.asked()) == 2 * 3 + 3 - len(server.faults)
        told = store.record(model.key(DOCUMENTS[0][1]))["augmentation"]
        assert told["by"].startswith("EndpointAugmenter(langchain_openai")
        assert told["questions"] == {"model": 3}
        asked = len(server.asked())
        parametrizer.lessons(passages)
        assert len(server.asked()) == asked  # stored
    assert model.recipe.augmentation == "model"
    assert model.recipe.key != model.recipe.changed(augmentation="auto", questions=0).key


@pytest.mark.parametrize(("status", "message"), [(401, "check the API key"), (404, "check the model's name")])
def test_a_wrong_setting_stops_the_job_before_training(lm, store, status, message):
    model = model_of(lm, store)
    with OpenAIServer(says, model="writer" if status != 404 else "another") as server:
        chat = ChatOpenAI(base_url=server.url, model="writer", api_key="none", max_retries=0)
        server.faults += [Fault(401, message="wrong key")] * 9 if status == 401 else []
        parametrizer = Parametrizer(model, augmenter=EndpointAugmenter(chat, concurrency=1, cache=store))
        with pytest.raises(ConfigurationError, match=f"refuses every request.*{message}") as raised:
            parametrizer.parametrize([Passage(text, title) for title, text in DOCUMENTS], progress=False)
        assert len(server.asked()) == 1
    assert isinstance(raised.value.__cause__, openai.APIStatusError)
    assert store.keys() == []


def test_an_account_without_credit_does_not_wait():
    response = openai.APIStatusError.__new__(openai.APIStatusError)
    response.status_code, response.code = 429, "insufficient_quota"
    with pytest.raises(ConfigurationError, match="the account's credit"):
        EndpointAugmenter(Scripted(reply=Failing(response, "Gate 10"))).augment(*DOCUMENTS[0])


def test_a_recipe_that_asks_no_model_refuses_the_augmenter(lm, store):
    with pytest.raises(ConfigurationError, match=r"would never be asked.*get_recipe\('distill', questions=12\)"):
        Parametrizer(ParametricModel(lm, store, recipe="distill"), augmenter=EndpointAugmenter(Scripted()))
    by_rule = ParametricModel(lm, store, recipe="prag")
    with pytest.raises(ConfigurationError, match="augmentation='model'"):
        Parametrizer(by_rule, augmenter=EndpointAugmenter(Scripted()))
    assert Augmenter(None).by == "rules"


def test_the_estimate_says_that_the_writing_time_is_a_guess(lm, store, tmp_path, monkeypatch):
    monkeypatch.setenv("DYNPRAG_CACHE", str(tmp_path / "cache"))
    made = [
        Parametrizer(model_of(lm, store), augmenter=EndpointAugmenter(Scripted(), concurrency=n)).estimate(
            [Passage(text, title) for title, text in DOCUMENTS]
        )
        for n in (1, 8)
    ]
    assert "EndpointAugmenter" in str(made[0])
    assert made[0].by_stage["questions"] == pytest.approx(8 * made[1].by_stage["questions"])
