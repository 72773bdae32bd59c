"""A program that runs the command in its arguments, and kills it when its own standard input is closed.

It has to lead a process group, whose processes, itself included, it kills. It imports nothing of this project.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Run the command, and end with its exit status."""
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603 - no shell
    threading.Thread(target=_kill_with_owner, daemon=True).start()
    os._exit(command.wait() & 0xFF)  # without waiting for the thread


def _kill_with_owner() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
