"""A real Ray cluster of two nodes on this machine."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}


@contextmanager
def two_nodes():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_worker_niceness", "0")  # by default, workers give way to everything else on the machine
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args=NODE)
        made.add_node(**NODE)
        yield made
        made.shutdown()


def command_output(*arguments):
    """Run `dynprag` in a process of its own, whose streams are as a user's shell sees them."""
    command = [sys.executable, "-m", "rag_backbone.cli", *map(str, arguments)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 0, told.stderr
    return told
