"""What a vLLM server has computed, from the counters that it reports to Prometheus at `/metrics`."""

from __future__ import annotations

import re
import urllib.request
from collections import defaultdict
from dataclasses import astuple, dataclass

from rag_backbone.errors import ServerError

_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{.*\})? (?P<value>\S+)")
_NAMES = (
    "vllm:prompt_tokens_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:generation_tokens_total",
    "vllm:time_to_first_token_seconds_count",
    "vllm:time_to_first_token_seconds_sum",
)


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the server started, or, as the difference of two, those of the time between them."""

    prompt: float
    """Tokens of the prompts."""
    looked_up: float
    """Tokens of the prompts that were looked up in the prefix cache; 0 if it is off."""
    cached: float
    """Tokens of the prompts that were in the prefix cache."""
    generated: float
    """Tokens that were generated, those after a client closed its stream included."""
    requests: float
    """Requests for which a first token was generated."""
    first_token_seconds: float
    """Sum over the requests of the seconds from their arrival to their first token, waiting included."""

    @classmethod
    def parse(cls, text: str) -> Counters:
        """Read Prometheus's text format; samples that differ in their labels only are added up.

        Raises:
            ServerError: If a counter is missing.
        """
        found: dict[str, float] = defaultdict(float)
        for line in text.splitlines():
            if (sample := _SAMPLE.match(line)) is not None:
                found[sample["name"]] += float(sample["value"])
        if missing := [name for name in _NAMES if name not in found]:
            raise ServerError(f"the server's /metrics lack {', '.join(missing)}; vLLM 0.32 reports them")
        return cls(*(found[name] for name in _NAMES))

    @classmethod
    def read(cls, root_url: str) -> Counters:
        """Ask a server, whose address is given without `/v1`."""
        with urllib.request.urlopen(f"{root_url}/metrics", timeout=60) as reply:
            return cls.parse(reply.read().decode())

    def __sub__(self, before: Counters) -> Counters:
        return Counters(*(a - b for a, b in zip(astuple(self), astuple(before), strict=True)))
