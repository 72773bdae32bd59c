"""Connecting to a Ray cluster, and what its nodes have. Everything is refused in bounded time."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rag_backbone.errors import ConfigurationError
from rag_backbone.extras import needed_for

_TRIAL = "import sys, ray; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False)"
_TRIAL_SECONDS = 30.0


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        MissingExtraError: If it is not.
    """
    with needed_for("a Ray cluster"):
        import ray  # noqa: F401


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect this process to a cluster for the duration of the block; an existing connection is used and stays.

    Args:
        address: `"auto"` for the cluster of this machine or of `RAY_ADDRESS`, `"HOST:PORT"`, or `"local"` to start a
            cluster of this machine alone.

    Raises:
        ConfigurationError: If no cluster answers at the address within half a minute, or it has another version of
            Python or Ray.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options["include_dashboard"] = False
    else:
        _check(address)
    ray.init(address, **options)
    try:
        yield
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Try the connection in a process that can be ended: Ray itself tries for minutes, and may end the process."""
    command = [sys.executable, "-c", _TRIAL, address]
    try:
        tried = subprocess.run(  # noqa: S603 - our own line, without a shell
            command, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        why = f"nothing answered within {_TRIAL_SECONDS:.0f} s"
    else:
        if not tried.returncode:
            return
        why = (tried.stderr.strip().splitlines() or ["Ray gave no reason"])[-1]
        if "Version mismatch" in tried.stderr:  # a message of several lines
            why = tried.stderr[tried.stderr.rindex("Version mismatch") :].strip()
    raise ConfigurationError(
        f"the Ray cluster at {address!r} cannot be used: {why}. Start one with `ray start --head`, and give its "
        "address as HOST:PORT, or 'auto' on a machine of the cluster, or 'local' for this machine alone. A cluster "
        "that asks for a token needs RAY_AUTH_MODE=token and its token here, too."
    )


def check_resources(num_cpus: float, num_gpus: float) -> int:
    """Return how many workers with these resources the nodes have room for.

    Raises:
        ConfigurationError: If no node has these resources.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    room = sum(_room(node["Resources"], num_cpus, num_gpus) for node in nodes)
    if not room:
        have = "; ".join(f"{node['NodeManagerAddress']}: {_told(node['Resources'])}" for node in nodes)
        raise ConfigurationError(
            f"no node of the Ray cluster has the {num_cpus:g} CPUs and {num_gpus:g} GPUs that a worker needs ({have}); "
            "lower num_cpus or num_gpus, or add a node"
        )
    return room


def _room(resources: dict[str, float], num_cpus: float, num_gpus: float) -> int:
    room = resources.get("CPU", 0.0) // num_cpus
    return int(min(room, resources.get("GPU", 0.0) // num_gpus) if num_gpus else room)


def _told(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0.0):g} CPUs, {resources.get('GPU', 0.0):g} GPUs"
