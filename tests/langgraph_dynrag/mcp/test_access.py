"""Who may reach the server over HTTP."""

import pytest

from langgraph_dynrag.mcp.access import BearerToken, MCPAccess, is_loopback, read_token
from rag_backbone.errors import ConfigurationError
from tests.langgraph_dynrag.mcp.served import TOKEN


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "notes.example.org", "8.8.8.8"])
def test_an_address_that_others_can_reach_needs_a_token(host):
    assert not is_loopback(host)
    with pytest.raises(ConfigurationError, match="so a token is needed: --token-file FILE or \\$DYNPRAG_MCP_TOKEN"):
        MCPAccess(host)
    assert MCPAccess(host, token=TOKEN).settings()["auth"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_an_address_of_this_machine_needs_none(host):
    assert is_loopback(host)
    settings = MCPAccess(host).settings()
    assert "auth" not in settings
    assert settings["transport_security"].enable_dns_rebinding_protection


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"host": " "}, "host is empty"),
        ({"host": None}, "host is None"),
        ({"port": 70000}, "port is 70000"),
        ({"port": "8000"}, "port is '8000'"),
        ({"token": "short"}, "has 5 characters; at least 16"),
        ({"token": "with a space in it 0123"}, "white space"),
        ({"token": "ö" * 20}, "not ASCII"),
        ({"allowed_hosts": ("https://notes.example.org",)}, "a host name is needed"),
        ({"allowed_hosts": ("*.example.org",)}, "a host name is needed"),
        ({"allowed_hosts": "notes.example.org"}, "allowed_hosts is 'notes.example.org' .*a tuple of host names"),
        ({"allowed_hosts": (81,)}, "allowed_hosts is 81"),
        ({"token": b"a-token-of-bytes-0123456789"}, "the token is of type bytes; a string is needed"),
        ({"hots": "127.0.0.1"}, "did you mean 'host'"),
    ],
)
def test_malformed_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        MCPAccess(**arguments)
    assert "token" not in arguments or str(arguments["token"]) not in str(caught.value)


def test_the_token_is_not_shown():
    assert TOKEN not in repr(MCPAccess(token=TOKEN))


def test_hosts_are_allowed_on_any_port_unless_one_is_named():
    hosts = MCPAccess("::", token=TOKEN, allowed_hosts=("a.example", "b.example:81")).settings()
    allowed = hosts["transport_security"].allowed_hosts
    assert {"localhost", "localhost:*", "[::1]:*", "a.example", "a.example:*", "b.example:81"} <= set(allowed)
    assert "b.example:81:*" not in allowed
    assert "https://a.example" in hosts["transport_security"].allowed_origins


async def test_only_the_token_is_accepted():
    verifier = BearerToken(TOKEN)
    assert (await verifier.verify_token(TOKEN)).client_id == "dynprag"
    for wrong in ("", TOKEN[:-1], f"{TOKEN} ", TOKEN.swapcase(), "\udcff"):
        assert await verifier.verify_token(wrong) is None
    assert TOKEN not in str(vars(verifier))


def test_the_token_is_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("DYNPRAG_MCP_TOKEN", raising=False)
    assert read_token(None) is None
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file) == TOKEN
    monkeypatch.setenv("DYNPRAG_MCP_TOKEN", f" {TOKEN} ")
    assert read_token(None) == TOKEN
    with pytest.raises(ConfigurationError, match="both give a token"):
        read_token(file)
    monkeypatch.setenv("DYNPRAG_MCP_TOKEN", "")
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty; create one with"):
        read_token(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_token(tmp_path / "none")
