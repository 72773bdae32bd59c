"""Processes that end with the one that started them, however that one ends: by an exception, SIGTERM or SIGKILL.

    a program that ends when its standard input is closed     started(command)
    any other command, with all processes that it starts      started(guarded(command))

This process holds the other end of that input, which the operating system closes with it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_GUARD = Path(__file__).with_name("guard_process.py")
_LAST_SECONDS = 10.0
"""Time that a program has to end."""


def started(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a program that ends when its standard input is closed.

    It leads a session and a process group of its own, so Ctrl-C reaches this process only, which decides what ends.

    Args:
        command: The program and its arguments.
        options: Further arguments of `subprocess.Popen`.
    """
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **options)  # noqa: S603 - no shell


def guarded(command: Sequence[str]) -> list[str]:
    """Return a program that runs a command, and kills it when its standard input is closed."""
    return [sys.executable, "-P", str(_GUARD), *command]


def end(process: subprocess.Popen[Any]) -> None:
    """End a program by closing its standard input; kill it if it does not end within seconds."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_LAST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
