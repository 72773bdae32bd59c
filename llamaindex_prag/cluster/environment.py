"""What has to be the same in the driver and in every worker, or adapters would differ by node."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("dynprag", "torch", "transformers", "tokenizers")


@dataclass(frozen=True, slots=True)
class Environment:
    """Describes the process that trains adapters, or the one that stores them."""

    node: str
    """Ray's id of the node."""
    host: str
    """The machine's name."""
    versions: Mapping[str, str]
    """Python's version and those of the packages that training depends on."""
    fingerprint: str = ""
    """The model's fingerprint; empty if it could not be loaded."""
    problem: str = ""
    """Why the model could not be loaded."""

    def differences(self, worker: Environment) -> list[str]:
        """Return how a worker differs from this driver, as clauses that name what, and both values."""
        found = [
            f"it has {name} {worker.versions.get(name, 'not installed')}, the driver {own}"
            for name, own in self.versions.items()
            if worker.versions.get(name) != own
        ]
        if worker.problem:
            found.append(f"its model could not be loaded: {worker.problem}")
        elif worker.fingerprint != self.fingerprint:
            found.append(
                f"its model has the fingerprint {worker.fingerprint[:12]}…, the driver's {self.fingerprint[:12]}…: "
                "another model is in the folder of that name"
            )
        return found


def versions() -> dict[str, str]:
    """Return the versions of Python and of `PACKAGES` in this process."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
