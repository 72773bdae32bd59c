"""The nodes of the graph. Each one can also be used on its own."""

from langgraph_dynrag.nodes.beam import DecideAndSelect, Expand, ResumeBeam
from langgraph_dynrag.nodes.begin import Begin, after_begin
from langgraph_dynrag.nodes.conclude import Conclude
from langgraph_dynrag.nodes.generate import Generate
from langgraph_dynrag.nodes.monitor import Monitor, after_monitor
from langgraph_dynrag.nodes.reformulate import Reformulate, after_reformulate
from langgraph_dynrag.nodes.resume import Resume, after_resume
from langgraph_dynrag.nodes.retrieve import RetrievalError, Retrieve

__all__ = [
    "Begin",
    "Conclude",
    "DecideAndSelect",
    "Expand",
    "Generate",
    "Monitor",
    "Reformulate",
    "Resume",
    "ResumeBeam",
    "RetrievalError",
    "Retrieve",
    "after_begin",
    "after_monitor",
    "after_reformulate",
    "after_resume",
]
