"""llama.cpp's server as a program: serves with the settings in its argument until its standard input is closed.

It runs in a process of its own, because PyTorch and llama.cpp share one pool of OpenMP threads in a process, in which
llama.cpp writes at less than half its speed as soon as PyTorch has computed anything. It imports nothing of this
project. Standard input also closes when the process that started it ends, however it ends. One line of JSON on standard
output says the port, or why the server cannot run.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_LOWEST_VERBOSITY = 1
"""llama.cpp's level for errors, which it prints to stderr."""


def main() -> None:
    """Serve."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever llama.cpp prints, nothing but the report comes to the reader

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["file"]
    params.model_alias = {settings["name"]}
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["tokens"]
    params.fit_params = False  # the sizes are those that were asked for, or an error
    params.hostnames, params.port = ["127.0.0.1"], settings["port"]
    params.verbosity = _LOWEST_VERBOSITY
    params.ui = False
    if settings["threads"] is not None:
        params.cpuparams.n_threads = settings["threads"]
        params.cpuparams_batch.n_threads = settings["threads"]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in settings["adapters"]]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        told: dict[str, Any] = {"error": str(error)}
    else:
        told = {"port": int(server.listening_address.rpartition(":")[2])}
    with report:
        report.write(json.dumps(told) + "\n")
    if "port" in told:
        sys.stdin.buffer.read()
    os._exit(0)  # without waiting for requests that are running


if __name__ == "__main__":
    main()
