"""Behaviour that all commands share: what is shown, on which stream, and how a run ends.

    stdout   the result, and nothing else
    stderr   progress, notices of long operations, warnings, errors

Exit codes: 0 done, 1 a check found something wrong, 2 an error that the user can fix, 130 interrupted. Knows no
command.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_backbone.notices import is_notice

OURS = ("rag_backbone", "langgraph_dynrag", "llamaindex_prag")
_DEBUG = "DYNPRAG_DEBUG"
_STDOUT, _STDERR = 1, 2
"""File descriptors."""


@dataclass
class Console:
    """Output settings of one run of the command line."""

    verbose: bool = False
    quiet: bool = False
    debug: bool = False

    @property
    def shows_progress(self) -> bool:
        """Whether to show progress bars: stderr is a terminal, and `-q` was not given."""
        return not self.quiet and sys.stderr.isatty()

    def accepts(self, record: logging.LogRecord) -> bool:
        """Return whether a log record is shown."""
        ours = record.name.partition(".")[0] in OURS
        if record.levelno >= logging.WARNING:
            return ours or record.levelno >= logging.ERROR or not self.quiet
        return record.levelno >= logging.INFO and (self.verbose or (is_notice(record) and not self.quiet))


_running = Console()
"""Shared by the whole process: it runs one command, and library threads log to the same console."""


def console() -> Console:
    """Return the console of the running command."""
    return _running


def start(*, verbose: bool, quiet: bool, debug: bool) -> None:
    """Start a run: make libraries quiet, and send log records to stderr according to the verbosity."""
    _running.verbose, _running.quiet = verbose, False
    _running.debug = debug or bool(os.environ.get(_DEBUG))
    # Libraries read these when they are imported, which happens later. The user's own settings are kept.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = logging.StreamHandler()
    handler.addFilter(_running.accepts)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", handlers=[handler])
    logging.captureWarnings(capture=True)
    be_quiet(wanted=quiet)


def be_quiet(*, wanted: bool) -> None:
    """Show only the result, warnings of this project, and errors from now on, if `wanted`."""
    if not wanted:
        return
    _running.quiet = True
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def as_json(data: Any) -> str:
    """Return data as one line of JSON that stdout can encode, whatever its encoding."""
    text = json.dumps(data, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return json.dumps(data)
    return text


def encode_anything() -> None:
    r"""Let stdout and stderr write every character, escaping those that their encoding lacks, such as `\u4e2d`."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a replaced stream may lack it
            reconfigure(errors="backslashreplace")


@contextmanager
def ending(known: type[Exception]) -> Iterator[None]:
    """End the process with one line on stderr and an exit code if a command fails.

    Args:
        known: Errors with self-explanatory messages. All other errors, except those of the operating system, show a
            traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader, such as `head`, has exited. The interpreter's final flush must not fail again.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        sys.exit(1)
    except known as error:
        _fail(f"error: {one_line(error)}", 2)
    except OSError as error:
        _fail(f"error: {one_line(error)}", 2)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Write to stderr what this process writes to stdout in the block, also by threads and by libraries in C++.

    A command that prints its result after the block so keeps stdout for it alone.
    """
    sys.stdout.flush()
    own = os.dup(_STDOUT)
    try:
        os.dup2(_STDERR, _STDOUT)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(own, _STDOUT)
        os.close(own)


def given(text: str) -> str:
    """Return an argument unchanged; refuse a blank one, such as that of an unset shell variable.

    A blank path would mean the current folder.

    Raises:
        BadParameter: If the argument is blank.
    """
    if not text.strip():
        from typer import BadParameter

        raise BadParameter("it is empty; a name or a path is needed")
    return text


def given_path(text: str | Path) -> Path:
    """Return an argument as a path; refuse a blank one."""
    return Path(given(str(text))) if isinstance(text, str) else text


def given_store(text: str | Path) -> str:
    """Return the folder or URL of a store, unchanged; refuse a blank one."""
    return given(str(text))


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, or its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str, code: int) -> None:
    if _running.debug:
        traceback.print_exc()
    sys.stderr.write(f"{message}\n")
    sys.exit(code)
