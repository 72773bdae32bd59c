"""Stdout while a server speaks over it."""

import os
import subprocess
import sys

from langgraph_dynrag.mcp.serving import protocol_stdout

PRINTING = """
import os, sys
from langgraph_dynrag.mcp.serving import protocol_stdout
print("before", flush=True)
with protocol_stdout():
    print("printed")
    os.system("echo native")
    sys.stdout.buffer.write(b"protocol\\n")
    sys.stdout.buffer.flush()
print("after")
"""


def test_what_is_printed_goes_to_stderr_and_the_protocol_to_stdout():
    done = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["before", "protocol", "after"]
    assert sorted(done.stderr.split()) == ["native", "printed"]


def test_stdout_is_restored_after_an_error(capfd):
    before = sys.stdout
    try:
        with protocol_stdout():
            raise ValueError
    except ValueError:
        pass
    assert sys.stdout is before
    os.write(1, b"here")
    assert capfd.readouterr().out == "here"
