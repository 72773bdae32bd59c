"""A real Chroma server in a process of its own, which tests start, stop and start again."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import chromadb


class ChromaProcess:
    """`chroma run` on a free port of this machine."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process = None

    def start(self):
        command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(self.folder)]
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            try:
                self.client()
            except ValueError:  # Chroma's error if no server answers
                assert self._process.poll() is None, "chroma run has ended"
                time.sleep(0.1)
            else:
                return self
        raise AssertionError(f"chroma run does not answer on port {self.port}")

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self):
        settings = chromadb.Settings(anonymized_telemetry=False)
        return chromadb.HttpClient(host="127.0.0.1", port=self.port, settings=settings)
