"""A vLLM server, started by a command in the environment: it can be killed, and ends when this process does."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rag_backbone.errors import ConfigurationError, ServerUnavailableError
from rag_backbone.loading import child_process

COMMAND = "DYNPRAG_VLLM_COMMAND"
"""The environment variable with the command, which has the placeholders `{model}` and `{port}`."""


class VLLMServer:
    """A server on a free port of this machine, running from `start`, or the beginning of a `with` block, until killed.

    If this process ends, however it ends, so does the server.

    Args:
        command: A command line that stays in the foreground; `{model}` and `{port}` in it are replaced.
        model: A checkpoint folder, or a name that vLLM knows.
        log: The file to which the server's output is appended.
        environment: Variables added to this process's environment.
        options: Options added to the command.

    Raises:
        ConfigurationError: If the command lacks a placeholder.
    """

    def __init__(
        self,
        command: str,
        model: str | Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        for name in ("{model}", "{port}"):
            if name not in command:
                raise ConfigurationError(f"{COMMAND} is {command!r}, which lacks {name}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        # Not str.format: an option may be JSON, which has braces.
        given = [p.replace("{model}", str(model)).replace("{port}", str(self.port)) for p in shlex.split(command)]
        self._command = [*given, *options]
        self._log, self._environment = log, dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address, including `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, seconds: float = 1200) -> None:
        """Start the server, and wait until it answers.

        Raises:
            ServerUnavailableError: If it exits, or does not answer in time; the message ends with its last output.
        """
        with self._log.open("ab") as log:
            self._process = child_process.started(
                child_process.guarded(self._command), stdout=log, stderr=log, env={**os.environ, **self._environment}
            )
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise ServerUnavailableError(f"the server exited; {self._log} says:\n{self._tail()}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/models", timeout=5):
                return
            time.sleep(1)
        raise ServerUnavailableError(f"the server was not ready within {seconds} s; {self._log} says:\n{self._tail()}")

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            child_process.end(self._process)
            self._process = None

    def __enter__(self) -> VLLMServer:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
