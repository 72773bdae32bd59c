"""llama.cpp's HTTP server as a process that this one starts, with LoRA adapters that each request chooses and scales.

`xllamacpp` contains the server (`llamacpp_process`), or a `llama-server` program is one (`llama_server_process`). It
listens on a local port, so every client of a `llama-server` can use it. llama.cpp loads adapters only when a server
starts: `load` starts it again on the same port, after the requests that hold `using` have ended. Knows nothing of how
adapters are trained.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from rag_backbone.checks import check_type
from rag_backbone.errors import ConfigurationError, ModelLoadError, ServerError
from rag_backbone.extras import needed_for
from rag_backbone.loading import child_process
from rag_backbone.loading.embedded import NAME, embedded_gguf_file
from rag_backbone.read_write_lock import ReadWriteLock

_MAGIC = b"GGUF"
_TOKENS, _SEQUENCES, _THREADS = 2**31 - 1, 256, 512
"""llama.cpp's limits."""
_PATIENCE = 120.0
"""Seconds in which a program has to answer for the first time."""
_PACKAGE = Path(__file__).with_name("llamacpp_process.py")
_PROGRAM = Path(__file__).with_name("llama_server_process.py")


class LlamaCppServer:
    """A llama.cpp server for one GGUF file, in a process of its own that runs until it is closed or this one ends.

    Args:
        model: A GGUF file, or `"embedded"` for that of the embedded model.
        adapters: GGUF files of LoRA adapters. No request uses one unless it says so (`lora`).
        context_window: Maximum number of tokens of prompt and answer together.
        parallel: Number of requests computed at the same time; each has memory for a whole context window.
        threads: Number of threads; None for llama.cpp's choice, the number of physical cores.
        port: Port on 127.0.0.1; 0 for any free one.
        program: A `llama-server` to run instead of the one in `xllamacpp`, by its path or as found on PATH: one that
            was built for this machine's processor or GPU.
        options: Further options of that program, such as `("--n-gpu-layers", "99")`.

    Raises:
        ConfigurationError: If a file does not exist or is no GGUF file, a number is out of range, or the program is not
            found.
        MissingExtraError: If `xllamacpp` is not installed, and no program is given.
        ModelLoadError: If llama.cpp cannot load the model or an adapter.

    Example:
        >>> with LlamaCppServer("embedded") as server:  # doctest: +SKIP
        ...     model = ChatOpenAI(base_url=server.base_url, model=server.name, api_key="none", temperature=0)
    """

    def __init__(
        self,
        model: str | Path = NAME,
        *,
        adapters: Sequence[str | Path] = (),
        context_window: int = 4096,
        parallel: int = 4,
        threads: int | None = None,
        port: int = 0,
        program: str | Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        for name, value, least, most in (
            ("context_window", context_window, 1, _TOKENS // _SEQUENCES),
            ("parallel", parallel, 1, _SEQUENCES),
            ("threads", 1 if threads is None else threads, 1, _THREADS),
            ("port", port, 0, 65535),
        ):
            check_type(name, value, int, "a whole number")
            if not least <= value <= most:
                raise ConfigurationError(f"{name} is {value}; a number from {least} to {most} is needed")
        self._program = None if program is None else _found(program)
        self._options = _checked(options, program)
        self.file = embedded_gguf_file() if str(model) == NAME else Path(model)
        """The model's GGUF file."""
        _check_gguf(self.file)
        self.context_window, self.parallel, self.threads = context_window, parallel, threads
        self._port = port
        self._requests = ReadWriteLock()
        self._process: subprocess.Popen[str] | None = None
        self._end: Callable[[], object] = lambda: None
        self._closed = False
        self.adapters: tuple[Path, ...] = ()
        """The loaded adapters; a request names them by their position in this tuple."""
        self._start(adapters)

    @property
    def base_url(self) -> str:
        """The server's address, including `/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def name(self) -> str:
        """The model's name in the server."""
        return self.file.stem

    def load(self, adapters: Sequence[str | Path]) -> None:
        """Replace the loaded adapters, for which llama.cpp has to load the model again.

        Waits for requests that hold `using`; others that are running break off, and clients that retry them succeed.

        Raises:
            ConfigurationError: If a file does not exist or is no GGUF file; the server keeps running as it was.
            ModelLoadError: If llama.cpp cannot load an adapter. The server then runs with the adapters it had.
            ServerError: If the server was closed.
        """
        for path in adapters:
            _check_gguf(Path(path))
        with self._requests.alone():
            self._check_open()
            before = self.adapters
            self._stop()
            try:
                self._start(adapters)
            except ModelLoadError:
                self._start(before)
                raise
            finally:
                if self._closed:  # in the meantime, by another thread
                    self._stop()

    @contextlib.contextmanager
    def using(self) -> Iterator[tuple[Path, ...]]:
        """Yield the loaded adapters, which stay loaded while the context lasts.

        Raises:
            ServerError: If the server was closed.
        """
        with self._requests.shared():
            self._check_open()
            yield self.adapters

    def close(self) -> None:
        """Stop the server and free its memory; running requests break off. Idempotent."""
        self._closed = True
        self._stop()

    def _start(self, adapters: Sequence[str | Path]) -> None:
        if self._program is None:
            with needed_for("a llama.cpp server"):
                import xllamacpp  # noqa: F401 - the process needs it
        files = tuple(Path(path) for path in adapters)
        for path in files:
            _check_gguf(path)
        settings = {
            "file": str(self.file),
            "name": self.name,
            "parallel": self.parallel,
            "tokens": self.context_window * self.parallel,
            "port": self._port,
            "threads": self.threads,
            "adapters": [str(path) for path in files],
            "program": self._program,
            "options": self._options,
            "patience": _PATIENCE,
        }
        command = [sys.executable, "-P", str(_PACKAGE if self._program is None else _PROGRAM), json.dumps(settings)]
        command = command if self._program is None else child_process.guarded(command)
        process = child_process.started(command, stdout=subprocess.PIPE, text=True)
        self._process = process
        self._end = weakref.finalize(self, child_process.end, process)  # called at the latest when this object is freed
        assert process.stdout is not None
        with process.stdout as report:
            line = report.readline()
        told: dict[str, Any] = json.loads(line) if line else {"error": f"its process ended ({process.wait()})"}
        if "error" in told:
            self._stop()
            beside = f" with {len(files)} adapters" if files else ""
            raise ModelLoadError(
                f"llama.cpp cannot serve {self.file}{beside} on port {self._port}; it printed the reason to stderr: "
                f"{told['error']}"
            )
        self._port = told["port"]
        self.adapters = files
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            connection.request("GET", "/health")
            connection.getresponse().read()

    def _check_open(self) -> None:
        if self._closed:
            raise ServerError(f"the llama.cpp server of {self.file} was closed; create another LlamaCppServer")
        if self._process is not None and (code := self._process.poll()) is not None:
            raise ServerError(
                f"the process of the llama.cpp server of {self.file} ended by itself ({code}); create another "
                "LlamaCppServer"
            )

    def _stop(self) -> None:
        self._end()
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self.base_url if self._process is not None else "closed"
        return f"LlamaCppServer({str(self.file)!r}, {len(self.adapters)} adapters, {state})"


def _found(program: str | Path) -> str:
    found = shutil.which(str(program))
    if found is None:
        raise ConfigurationError(
            f"program is {str(program)!r}, which is no program that can be run, nor one on PATH; give the path of a "
            "llama-server, or leave program out for that of xllamacpp"
        )
    return found


def _checked(options: Sequence[str], program: str | Path | None) -> tuple[str, ...]:
    if isinstance(options, str) or not all(isinstance(option, str) for option in options):
        raise ConfigurationError(f"options are {options!r}; a list of strings is needed: ['--n-gpu-layers', '99']")
    if options and program is None:
        raise ConfigurationError(f"options are {options!r}, for a program; pass program='llama-server' as well")
    return tuple(options)


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}; give a GGUF file") from error
    if start != _MAGIC:
        raise ConfigurationError(f"{path} is no GGUF file: it begins with {start!r}, not {_MAGIC!r}")
