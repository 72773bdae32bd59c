"""Runs of a preset with a scripted model."""

from langgraph_dynrag import AnswerPrompt, create_dynamic_rag
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said

QUESTION = "Who built the Cooper's Bridge?"


PROMPT = AnswerPrompt()


FINAL = said(" So the answer is Aldous Wray.")


JOAN = said(" answer is Joan.")


def run(replies, preset="flare", retriever=None, prompt=PROMPT, **changes):
    model = ScriptedChatModel(replies=replies)
    retriever = retriever or WatchedRetriever()
    graph = create_dynamic_rag(model, retriever, preset=preset, prompt=prompt, **changes)
    return graph.invoke({"question": QUESTION}), model, retriever


def passages_in(messages) -> list[str]:
    return [line.split("] ", 1)[1] for line in messages[-1].content.splitlines() if line.startswith("[")]


def documents(ids):
    from tests.langgraph_dynrag.scripted import DOCUMENTS

    return [d for i in ids for d in DOCUMENTS if d.id == i]


UNSURE = said("It was built by Joan. Then it was", Joan=0.1)


WRITTEN = said(" It was built by Wray. Then it was")
