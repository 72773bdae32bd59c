"""The command line: its subcommands, and how it ends."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from rag_backbone import cli
from rag_backbone.cli import build_app
from rag_backbone.errors import ConfigurationError


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


def entry(name, load):
    return SimpleNamespace(name=name, load=load)


def test_subcommands_without_their_extra_are_left_out(monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    def register(app):
        app.command("there")(lambda: print("ran"))
        app.command("other")(lambda: None)

    entries = [entry("b", lambda: register), entry("a", missing)]
    monkeypatch.setattr(cli, "entry_points", lambda group: entries if group == cli.GROUP else [])
    result = CliRunner().invoke(build_app(), ["there"])
    assert (result.exit_code, result.stdout) == (0, "ran\n")


def fails_with(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(cli, "build_app", fail)


def test_a_missing_extra_is_named_with_the_line_to_install_it(monkeypatch):
    fails_with(monkeypatch, ModuleNotFoundError("no", name="rich"))
    with pytest.raises(SystemExit, match=r"the command line needs rich: pip install 'dynprag\[cli\]'"):
        cli.main()


def test_an_error_that_the_user_can_fix_is_one_line(monkeypatch, capsys):
    fails_with(monkeypatch, ConfigurationError("k is 0"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (capsys.readouterr().err, ended.value.code) == ("error: k is 0\n", 2)


def test_a_module_that_no_extra_provides_is_a_bug(monkeypatch):
    fails_with(monkeypatch, ModuleNotFoundError("no module gone", name="rag_backbone.gone"))
    with pytest.raises(ModuleNotFoundError, match="no module gone"):
        cli.main()
