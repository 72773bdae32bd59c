"""The command line, run as a user runs it."""

from typer.testing import CliRunner

from rag_backbone.cli import build_app

QUESTION = "Who built the bridge in the capital?"


def run(*arguments, code=0):
    result = CliRunner().invoke(build_app(), list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def injected(told):
    (event,) = [e for e in told["trace"] if e["type"] == "injection"]
    return event


def prompt_tokens(told):
    return max(e["prompt_tokens"] for e in told["trace"] if e["type"] == "draft")
