"""Runs a `llama-server` program with the settings in its argument, and ends with it.

It reports as `llamacpp_process` does: one line of JSON on standard output says the port, once the server answers, or
why it cannot run. `guard_process` ends both with their owner. It imports nothing of this project.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

_LOWEST_VERBOSITY = 1
"""llama.cpp's level for errors."""
_PAUSE = 0.05
"""Seconds between two questions whether the server is ready."""


def main() -> None:
    """Start the server, report, and end with it."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the server prints, nothing but the report comes to the reader
    try:
        port = _free_port(settings["port"])
        server = subprocess.Popen(command_of(settings, port), stdin=subprocess.DEVNULL)  # noqa: S603 - no shell
    except OSError as error:
        _tell(report, {"error": str(error)})
        return
    reason = _wait_until_ready(server, port, settings["patience"])
    _tell(report, {"port": port} if reason is None else {"error": f"{settings['program']} {reason}"})
    sys.exit(server.wait() & 0xFF)  # the owner ends a server that does not answer


def _wait_until_ready(server: subprocess.Popen[bytes], port: int, patience: float) -> str | None:
    """Return None when the server is ready, and the reason if it will not be.

    Loading a model may take minutes, in which the server answers that it is loading; it has to answer anything at all
    within `patience` seconds.
    """
    until = time.monotonic() + patience
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return None
        except urllib.error.HTTPError:
            until = float("inf")
        except OSError:
            if time.monotonic() > until:
                return f"did not answer on port {port} within {patience:g} seconds"
        time.sleep(_PAUSE)
    return f"ended ({server.returncode})"


def command_of(settings: dict[str, Any], port: int) -> list[str]:
    """Return the command line."""
    command = [settings["program"], "--model", settings["file"], "--alias", settings["name"]]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-verbosity", str(_LOWEST_VERBOSITY)]
    command += ["--ctx-size", str(settings["tokens"]), "--parallel", str(settings["parallel"])]
    command += [] if settings["threads"] is None else ["--threads", str(settings["threads"])]
    command += ["--lora-init-without-apply"] if settings["adapters"] else []
    for path in settings["adapters"]:
        command += ["--lora", path]
    return [*command, *settings["options"]]


def _tell(report: Any, told: dict[str, Any]) -> None:
    with report:
        report.write(json.dumps(told) + "\n")


def _free_port(wanted: int) -> int:
    """Return the port, or with 0 any free one; refuse one that is in use, where another server would answer."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", wanted))
        port: int = free.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
