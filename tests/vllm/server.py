"""A vLLM server process, started by a command from the environment, that can be killed like a crashing server."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path


class VLLMServer:
    """A server started by `command`, in which `{model}` and `{port}` are replaced; its output goes to `log`."""

    def __init__(self, command: str, model: Path, log: Path, environment: dict[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = [part.format(model=model, port=self.port) for part in shlex.split(command)]
        self._log, self._environment = log, environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, seconds: float = 1200) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **self._environment}
            )
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise AssertionError(f"the server exited; {self._log} says:\n{self.tail()}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/models", timeout=5):
                return
            time.sleep(1)
        raise AssertionError(f"the server was not ready within {seconds} s; {self._log} says:\n{self.tail()}")

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
