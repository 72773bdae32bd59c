"""The plots of the benchmarks: each is a pure function of a benchmark's figures, as its JSON file holds them.

`finish` draws them after a run, `python -m benchmarks.redraw` from the files.
"""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.plots.dynamic_rag import (
    calibrated,
    learned_trigger,
    methods,
    queries,
    sensitivity,
    throughput,
    triggers,
)
from benchmarks.plots.parametric_rag import (
    conflicts,
    fidelity,
    forgetting,
    learning,
    lengths,
    scalability,
    several,
    translator_run,
)
from benchmarks.plots.parts import Figures

__all__ = ["PLOTS", "learning"]

PLOTS: Mapping[str, Callable[[Figures], Any]] = {
    "calibrated": calibrated,
    "calibrated_1.5b_signals": calibrated,
    "compare_methods": methods,
    "concurrency": throughput,
    "conflicts": conflicts,
    "context_length": lengths,
    "documents": several,
    "forgetting": forgetting,
    "knowledge_fidelity": fidelity,
    "learned_trigger": learned_trigger,
    "queries": queries,
    "scalability": scalability,
    "translator_learning": translator_run,
    "trigger_sensitivity": sensitivity,
    "triggers": triggers,
}
"""The plot of each benchmark that has one; it returns None if there is nothing to draw yet."""
