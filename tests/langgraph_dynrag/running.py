"""Settings with a scripted model; nodes that run one by one; the events of a run."""

from langgraph_dynrag import AnswerPrompt, create_nodes
from tests.langgraph_dynrag.scripted import ScriptedChatModel, WatchedRetriever, said


def step(nodes, state, *names):
    """Run nodes one by one, merging their updates like the graph."""
    for name in names:
        update = getattr(nodes, name)(state)
        trace = update.pop("trace", [])
        state = {**state, **update, "trace": [*state.get("trace", []), *getattr(trace, "value", trace)]}
    return state


def events(out, kind):
    """Return the events of one kind in the result of a run, or in a state."""
    return [e for e in out["trace"] if e["type"] == kind]


def begun(call):
    """Return the text that a remote model was given to continue."""
    return call[-1].content.partition("repeating any of it:\n")[2]


def scripted_settings(*replies, give=None, **options):
    """Return the settings of a graph with a scripted model and a retriever that records its queries."""
    model = ScriptedChatModel(replies=[said(r) if isinstance(r, str) else r for r in replies])
    options = {"preset": "flare", "prompt": AnswerPrompt(), **options}
    return create_nodes(model, WatchedRetriever(give=give), **options).begin.settings
