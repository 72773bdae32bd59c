"""Who may reach a server over HTTP: its address, the bearer token, and the host names that it answers to.

A server that other machines can reach needs a token. Browsers are kept out by the checks of the `Host` and `Origin`
headers, so that a web page cannot reach a server on the reader's own machine under a name of its own (DNS rebinding).
Does not encrypt; for that, put a reverse proxy in front.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl

from rag_backbone.checks import check_type, known_arguments, shown
from rag_backbone.errors import ConfigurationError

TOKEN_VARIABLE = "DYNPRAG_MCP_TOKEN"  # noqa: S105 - the name of a variable
_SHORTEST = 16
_HOW = "create one with: openssl rand -hex 32"
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


@known_arguments
@dataclass(frozen=True)
class MCPAccess:
    """The address of a server over HTTP, and who may use it.

    Raises:
        ConfigurationError: If the address can be reached from other machines and no token is given, the token is short
            or cannot stand in a header, or an argument is malformed. No message contains the token.
    """

    host: str = "127.0.0.1"
    """The address to listen on; `"0.0.0.0"` is every IPv4 address of the machine."""
    port: int = 8000
    """The port; 0 takes a free one."""
    token: str | None = field(default=None, repr=False)
    """The bearer token that clients send; None for a server that only this machine can reach."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names under which clients reach the server, such as `"notes.example.org"`, besides `host` and the names of
    this machine; with a port or without."""

    def __post_init__(self) -> None:
        check_type("host", self.host, str, 'an address, such as host="127.0.0.1"')
        check_type("port", self.port, int, "a port, such as port=8000")
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port is {self.port}; a number from 0 to 65535 is needed")
        if not self.host.strip():
            raise ConfigurationError("host is empty, which would mean every address; name one, such as 127.0.0.1")
        needed = 'a tuple of host names, such as allowed_hosts=("notes.example.org",)'
        check_type("allowed_hosts", self.allowed_hosts, (tuple, list), needed)
        for name in self.allowed_hosts:
            check_type("allowed_hosts", name, str, needed)
            if not name.strip() or "/" in name or "*" in name:
                raise ConfigurationError(
                    f"the allowed host is {shown(name)}; a host name is needed, such as notes.example.org"
                )
        if self.token is not None:
            _check_token(self.token)
        elif not is_loopback(self.host):
            raise ConfigurationError(
                f"the host {self.host} can be reached from other machines, so a token is needed: --token-file FILE or "
                f"${TOKEN_VARIABLE}; {_HOW}. Without one, the host has to be 127.0.0.1"
            )

    @property
    def url(self) -> str:
        """Where clients on this machine find the server, without the path."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared only
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `FastMCP` that enforce this access."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        names = dict.fromkeys((*_LOCAL_NAMES, own, *self.allowed_hosts))
        # ":*" stands for any port, and does not cover the absence of one.
        hosts = [form for name in names for form in ((name,) if _has_port(name) else (name, f"{name}:*"))]
        settings: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "transport_security": TransportSecuritySettings(
                enable_dns_rebinding_protection=True,
                allowed_hosts=hosts,
                allowed_origins=[f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")],
            ),
        }
        if self.token is not None:
            settings["token_verifier"] = BearerToken(self.token)
            # No address of an authorization server is published, because tokens come from the operator.
            settings["auth"] = AuthSettings(issuer_url=AnyHttpUrl(self.url), resource_server_url=None)
        return settings


class BearerToken:
    """Verifies one token, which the operator handed out: a `TokenVerifier` of the `mcp` package.

    Args:
        token: The token; only its SHA-256 is kept.
    """

    def __init__(self, token: str) -> None:
        self._sha256 = _sha256(token)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return who a token stands for; None if it is another token. Takes the same time for every wrong one."""
        if not hmac.compare_digest(_sha256(token), self._sha256):
            return None
        return AccessToken(token=token, client_id="dynprag", scopes=[])


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(file: Path | None) -> str | None:
    """Return the token of a file, or of `$DYNPRAG_MCP_TOKEN`; None if neither is given.

    A token is no argument of a command, because every user of a machine can read the arguments of a process.

    Raises:
        ConfigurationError: If both are given, or the file cannot be read or is empty.
    """
    variable = os.environ.get(TOKEN_VARIABLE, "").strip()
    if file is None:
        return variable or None
    if variable:
        raise ConfigurationError(f"--token-file and ${TOKEN_VARIABLE} both give a token; leave one of them out")
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--token-file {file} cannot be read: {error}") from error
    if not token:
        raise ConfigurationError(f"--token-file {file} is empty; {_HOW}")
    return token


def _check_token(token: str) -> None:
    if not isinstance(token, str):
        raise ConfigurationError(f"the token is of type {type(token).__name__}; a string is needed; {_HOW}")
    if len(token) < _SHORTEST:
        raise ConfigurationError(f"the token has {len(token)} characters; at least {_SHORTEST} are needed; {_HOW}")
    if not all("!" <= character <= "~" for character in token):
        raise ConfigurationError(f"the token has white space or characters that are not ASCII; {_HOW}")


def _has_port(name: str) -> bool:
    return name.rpartition(":")[2].isdigit() and not name.endswith("]")


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
