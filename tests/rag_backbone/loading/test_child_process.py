"""Child processes that end with their owner, however it ends."""

import signal
import subprocess
import sys

import pytest

from rag_backbone.loading import child_process

SLEEPS = "import time; time.sleep(600)"
STARTS_ANOTHER = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {SLEEPS!r}])
print("started", flush=True)
time.sleep(600)
"""
OWNER = f"""
import subprocess, sys, time
from rag_backbone.loading import child_process
command = child_process.guarded([sys.executable, "-c", {STARTS_ANOTHER!r}])
process = child_process.started(command, stdout=subprocess.PIPE, text=True)
print(process.stdout.readline(), end="", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_and_its_processes_end_with_their_owner(how):
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "started\n"
    owner.send_signal(how)
    assert owner.communicate(timeout=60) == ("", "")  # when none is left that could write to stderr
    assert owner.returncode == -how


def test_a_command_ends_with_its_input():
    process = child_process.started(child_process.guarded([sys.executable, "-c", SLEEPS]))
    assert process.poll() is None
    child_process.end(process)
    assert process.returncode == -signal.SIGKILL


def test_a_command_that_ends_by_itself_says_how():
    command = child_process.guarded(
        [sys.executable, "-c", "import sys; sys.exit(sys.argv[1:] == ['a b'] and 3)", "a b"]
    )
    assert child_process.started(command).wait(60) == 3


def test_a_program_that_outlives_its_input_is_killed(monkeypatch):
    monkeypatch.setattr(child_process, "_LAST_SECONDS", 0.1)
    process = child_process.started([sys.executable, "-c", SLEEPS])
    child_process.end(process)
    assert process.returncode == -signal.SIGKILL
