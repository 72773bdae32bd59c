"""`Containerfile` and `compose.yaml` name files, extras, options and addresses that exist."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from langgraph_dynrag.mcp.serving import HEALTH
from rag_backbone.cli import build_app

ROOT = Path(__file__).parents[1]
LINES = re.findall(r"^([A-Z]+) (.+)$", (ROOT / "Containerfile").read_text().replace("\\\n", " "), re.MULTILINE)
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["dynprag"]


def of(instruction):
    return [rest for name, rest in LINES if name == instruction]


def copied():
    """Return what is copied from the repository."""
    return [name for rest in of("COPY") if not rest.startswith("--from") for name in rest.split()[:-1]]


@pytest.mark.parametrize("name", copied())
def test_what_is_copied_exists_and_is_sent_to_the_build(name):
    assert (ROOT / name).exists()
    assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_package_can_be_built_from_what_is_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"], project["project"]["readme"]]
    assert set(copied()) >= {*needed, *project["project"]["license-files"], "pyproject.toml", "constraints.txt"}


def test_the_extras_exist_and_versions_are_pinned():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (install,) = [line for line in of("RUN") if "pip install" in line]
    extras = re.search(r'"\.\[([\w,]+)\]"', install)[1].split(",")
    assert set(extras) <= set(known)
    assert {"mcp", "local"} <= set(extras)
    assert "-c constraints.txt" in install


def test_the_commands_are_accepted_by_the_command_line():
    commands = typer.main.get_command(build_app()).commands
    entry = json.loads(of("ENTRYPOINT")[0])
    run = [shlex.split(line.partition("bin/dynprag ")[2]) for line in of("RUN") if "bin/dynprag " in line]
    assert [command[0] for command in run] == ["index", "ask"]
    for name, *arguments in (*run, entry[1:]):
        commands[name].make_context(name, list(arguments))


def test_the_server_runs_without_privileges_and_its_health_is_asked_for():
    assert of("USER") == ["dynprag"]
    assert any("useradd" in line and line.endswith(" dynprag") for line in of("RUN"))
    entry = json.loads(of("ENTRYPOINT")[0])
    port = entry[entry.index("--port") + 1]
    assert of("EXPOSE") == [port]
    assert f"http://127.0.0.1:{port}{HEALTH}" in of("HEALTHCHECK")[0]
    compile(json.loads(of("HEALTHCHECK")[0].partition("CMD ")[2])[2], "healthcheck", "exec")
    assert COMPOSE["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_compose_mounts_the_notes_and_asks_for_a_token():
    assert (ROOT / COMPOSE["build"]["dockerfile"]).exists()
    entry = json.loads(of("ENTRYPOINT")[0])
    notes, index = COMPOSE["volumes"]
    default = re.search(r":-(.+?)\}", notes)[1]
    assert (ROOT / default).is_dir()
    assert notes.endswith(f":{entry[entry.index('--documents') + 1]}:ro")
    assert entry[entry.index("--index") + 1].startswith(index.partition(":")[2] + "/")
    assert COMPOSE["environment"]["DYNPRAG_MCP_TOKEN"].startswith("${DYNPRAG_MCP_TOKEN:?")
