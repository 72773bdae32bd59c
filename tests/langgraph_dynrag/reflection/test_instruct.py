"""Judgements as questions to any instruct model, against plain forward passes."""

import math

import pytest
import torch

from langgraph_dynrag import AnswerPrompt, Budgets, LocalChatModel, SegmentSelection, create_dynamic_rag
from langgraph_dynrag.reflection.instruct import RELEVANT, RETRIEVE, SUPPORTED, USEFUL
from langgraph_dynrag.triggers import Reflection
from rag_backbone.loading.causal_lm import CausalLM
from tests.langgraph_dynrag.reflective import BRIDGE
from tests.langgraph_dynrag.running import events
from tests.langgraph_dynrag.scripted import DOCUMENTS, WatchedRetriever
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def plain():
    return LocalChatModel.from_causal_lm(CausalLM(tiny_llama(), tiny_tokenizer(), name="tiny"))


def option_masses(chat, prompt, judgement):
    """Return every form's probability, token by token, from plain forward passes; no form is a prefix of another."""
    tokenizer = chat.lm.tokenizer
    text = f"<|start|>user\n{prompt}<|end|>\n<|start|>assistant\n"
    found = {}
    for name, word in judgement.words.items():
        forms = {f"{lead}{way}" for lead in ("", " ") for way in (word, word.lower(), word.upper())}
        found[name] = [tokenizer(form, add_special_tokens=False).input_ids for form in forms]
    total = {}
    for name, forms in found.items():
        others = [f for other, all_forms in found.items() if other != name for f in all_forms]
        prefixes = set()
        for ids in forms:
            n = next((n for n in range(1, len(ids)) if not any(o[:n] == ids[:n] for o in others)), len(ids))
            prefixes.add(tuple(ids[:n]))
        total[name] = 0.0
        for prefix in prefixes:
            ids = tokenizer(text).input_ids
            log = 0.0
            for token in prefix:
                with torch.inference_mode():
                    logits = chat.lm.model(torch.tensor([ids])).logits[0, -1]
                log += torch.log_softmax(logits.double(), -1)[token].item()
                ids.append(token)
            total[name] += math.exp(log)
    mass = sum(total.values())
    return {name: value / mass for name, value in total.items()}


def test_judgements_are_the_probabilities_of_the_options_after_a_question(plain):
    graph = create_dynamic_rag(
        plain,
        WatchedRetriever(give=DOCUMENTS[:2]),
        preset="self_rag",
        selection=SegmentSelection(depth=1),
        trigger=Reflection(0.0),
        lookahead=12,
        prompt=AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=()),
    )
    question = "Who built the bridge?"
    out = graph.invoke({"question": question})
    (decision,) = events(out, "reflection")[0]["decisions"]
    asked = RETRIEVE.text.replace("{question}", question)
    assert decision["probabilities"] == pytest.approx(option_masses(plain, asked, RETRIEVE), abs=1e-5)
    (event,) = events(out, "continuations")
    assert event["path"] == "classification"
    for candidate, document in zip(event["candidates"], DOCUMENTS, strict=False):
        shown = f"{document.metadata['title']}: {document.page_content}"
        if document.page_content.startswith(document.metadata["title"]):
            shown = document.page_content
        said = candidate["text"].strip()
        for judgement, name in ((RELEVANT, "relevance"), (SUPPORTED, "support"), (USEFUL, "utility")):
            texts = {"question": question, "passage": shown, "statement": said, "answer": said}
            prompt = judgement.text
            for key, text in texts.items():
                prompt = prompt.replace("{%s}" % key, text)  # noqa: UP031 - braces
            expected = option_masses(plain, prompt, judgement)
            assert candidate["probabilities"][name] == pytest.approx(expected, abs=1e-4), name
        p = candidate["probabilities"]
        total = (
            candidate["likelihood"]
            + p["relevance"]["relevant"]
            + p["support"]["full"]
            + p["support"]["partial"] / 2
            + 0.5 * sum(w * p["utility"][u] for w, u in zip((-1, -0.5, 0, 0.5, 1), "12345", strict=True))
        )
        assert candidate["total"] == pytest.approx(total)


def test_a_reflective_model_can_be_asked_questions_instead(chat, retriever):
    graph = create_dynamic_rag(
        chat,
        retriever,
        preset="self_rag",
        selection=SegmentSelection("classification", depth=2),
        lookahead=8,
        prompt=AnswerPrompt(instructions="", answer_phrase=None),
    )
    assert events(graph.invoke({"question": BRIDGE}), "continuations")[0]["path"] == "classification"


def test_the_embedded_model_is_asked_questions_end_to_end(embedded_lm):
    """A model of 135M parameters is a poor judge, but it writes with every passage and prefers the informative one."""
    chat = LocalChatModel.from_causal_lm(embedded_lm)
    retriever = WatchedRetriever(give=[DOCUMENTS[2], DOCUMENTS[0]])
    graph = create_dynamic_rag(
        chat,
        retriever,
        preset="self_rag",
        k=2,
        budgets=Budgets(tokens=24),
        lookahead=24,
        selection=SegmentSelection(beam=1, depth=1),
        trigger=Reflection(0.0),
    )
    out = graph.invoke({"question": "Who built the Cooper's Bridge?"})
    first = events(out, "continuations")[0]
    river, bridge = first["candidates"]
    assert (river["passage"]["id"], bridge["passage"]["id"]) == ("tamsin", "bridge")
    assert "Aldous Wray" in bridge["text"]
    assert bridge["total"] > river["total"]
    assert "Aldous Wray" in out["short_answer"]
    assert "bridge" in [s["id"] for s in out["sources"]]
    for judgement in bridge["probabilities"].values():
        assert sum(judgement.values()) == pytest.approx(1)
