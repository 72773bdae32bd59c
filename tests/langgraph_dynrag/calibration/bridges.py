"""A model whose calibration is worked out by hand."""

from langgraph_dynrag import AnswerPrompt
from langgraph_dynrag.queries import Question
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said


class Bridges(ScriptedChatModel):
    """A model that is unsure and wrong without its passage, and right with it.

    `doubts[i]` is the probability of its answer about bridge i; where it is 1, the model is right without a passage.
    """

    replies: list = []  # noqa: RUF012
    doubts: list[float]

    def _next(self, messages, kwargs):
        text = messages[-1].content
        if text == "Say yes.":
            return [("yes", 0.9)]
        self.calls.append(messages)
        i = int(text.split("bridge ")[-1].split("?")[0])
        right = "Fact" in text or self.doubts[i] == 1
        tokens = said(f"It was {'Wray' if right else 'Pike'}.", Pike=self.doubts[i], Wray=0.99)
        self.replies = [tokens] * len(self.calls)
        return tokens


def bridges():
    """Return a model that is certain of two of six bridges: theta at 0.3, 0.5, 0.7 and 0.9 fires in 1, 2, 3 and 4."""
    from langchain_core.documents import Document

    model = Bridges(doubts=[0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    asked = [{"question": f"Who built bridge {i}?", "answers": ["Wray"]} for i in range(6)]
    return model, WatchedRetriever(give=[Document("Fact.", id="f")]), asked


PLAIN = {
    "prompt": AnswerPrompt(instructions="Answer.", answer_phrase=None, stop=()),
    "query": Question(),
    "initial_retrieval": False,
    "evidence_life": "replaced",
}
