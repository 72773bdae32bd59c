"""The pages agree with each other and with the packages. `make docs` checks the built site, which takes longer."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

import langgraph_dynrag
import langgraph_dynrag.queries
import langgraph_dynrag.triggers
import llamaindex_prag
import rag_backbone
import rag_backbone.errors
from tests.docs.pages import DOCS, ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
PACKAGES = [langgraph_dynrag, llamaindex_prag, rag_backbone]
MODULES = [*PACKAGES, langgraph_dynrag.triggers, langgraph_dynrag.queries, rag_backbone.errors]
_LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")


def prose(page):
    return re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)


def anchors(page):
    """Return the anchors of a page's headings, as Markdown renderers derive them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\(.*?\)", "", h)).strip().lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target, anchor in _LINK.findall(prose(page)):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":  # an image's anchor says in which colour scheme the site shows it
            assert anchor in anchors(file), f"{target}#{anchor}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) < 900


def test_the_navigation_and_the_index_for_models_name_every_page():
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    generated = {"changelog.md", "contributing.md"}
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if p.parent.name != "results"}
    assert set(re.findall(r"[\w/-]+\.md", str(navigation))) == pages | generated
    assert set(_LINK.findall((DOCS / "llms.txt").read_text("utf-8"))) == {(page, "") for page in pages}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_reference_has_every_exported_name(package):
    name = package.__name__
    page = (DOCS / "api" / f"{name}.md").read_text("utf-8")
    listed = set(re.findall(rf"::: {name}\.(\w+)$", page, re.MULTILINE))
    whole = {"triggers", "queries", "errors"}
    of_errors = {"DynPragError", "ConfigurationError", "MissingExtraError"} if name == "rag_backbone" else set()
    assert (listed | of_errors) - whole == set(package.__all__)


def public(module):
    """Return the classes and functions that a module offers, by name."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    found = {name: getattr(module, name) for name in names}
    return {n: o for n, o in found.items() if inspect.isclass(o) or inspect.isfunction(o)}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_has_a_docstring_of_several_lines(module):
    short = [name for name, found in public(module).items() if len((found.__doc__ or "").split("\n")) < 2]
    assert short == [], f"{module.__name__}: say more than a line about {', '.join(short)}"


def test_every_example_has_a_section():
    page = (DOCS / "examples.md").read_text("utf-8")
    programs = [p.stem for p in (ROOT / "examples").glob("*.py") if '__name__ == "__main__"' in p.read_text("utf-8")]
    assert [name for name in programs if f"python -m examples.{name}" not in page] == []
    assert [p.name for p in (ROOT / "examples" / "notebooks").glob("*.ipynb") if f"`{p.name}`" not in page] == []


def test_every_error_class_is_explained():
    sources = [path.read_text("utf-8") for p in PACKAGES for path in Path(p.__path__[0]).rglob("*.py")]
    found = re.compile(r"^class ([A-Z]\w*(?:Error|Warning))\(", re.MULTILINE)
    classes = {name for text in sources for name in found.findall(text)}
    page = (DOCS / "errors.md").read_text("utf-8")
    internal = {"NotPlainError"}  # caught where it is raised
    assert {name for name in classes - internal if f"`{name}`" not in page} == set()
