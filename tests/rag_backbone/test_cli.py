"""The command line: its subcommands, and how it ends."""

import subprocess
import sys

from typer.testing import CliRunner

from rag_backbone.cli import build_app


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rag_backbone.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_line_lists_the_packages_commands():
    out = run("--help")
    assert out.returncode == 0
    for command in ("index", "ask", "graph"):
        assert command in out.stdout
    assert run("--version").stdout.startswith("dynprag 0.")


def test_an_interrupted_command_prints_one_line():
    app = build_app()

    @app.command("wait")
    def wait() -> None:
        raise KeyboardInterrupt

    result = CliRunner().invoke(app, ["wait"])
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")
