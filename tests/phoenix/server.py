"""A real Phoenix server in a process of its own, and the spans that it has."""

import os
import socket
import subprocess
import time

import httpx


class PhoenixServer:
    """`phoenix serve` on free ports of this machine, with a database in a folder."""

    def __init__(self, command, folder):
        self._command, self._folder = command, folder
        self._process = None
        self.url = f"http://127.0.0.1:{free_port()}"

    def start(self):
        environment = {
            "PHOENIX_WORKING_DIR": str(self._folder),
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": self.url.rpartition(":")[2],
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
        }
        with (self._folder / "phoenix.log").open("w") as log:
            self._process = subprocess.Popen(
                [self._command, "serve"], env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT
            )
        for _ in range(300):  # it takes half a minute to create its database
            assert self._process.poll() is None, (self._folder / "phoenix.log").read_text()
            try:
                if httpx.get(f"{self.url}/healthz").is_success:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(1)
        raise AssertionError(f"Phoenix does not answer at {self.url}")

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def spans(self, project, wanted):
        """Return the spans of a project once there are as many as wanted."""
        found = []
        for _ in range(60):
            answer = httpx.get(f"{self.url}/v1/projects/{project}/spans", params={"limit": 1000})
            found = answer.json()["data"] if answer.is_success else []
            if len(found) >= wanted:
                return found
            time.sleep(0.5)
        raise AssertionError(f"{len(found)} of {wanted} spans arrived")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
