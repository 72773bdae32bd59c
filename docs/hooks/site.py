"""Hooks of the documentation site.

- CHANGELOG.md and CONTRIBUTING.md, which stand at the root of the repository, become pages.
- Links to folders and files of the repository, which work on a code host, lead to the page that describes them.
- Each page is also published as Markdown beside its HTML; `llms.txt` links to these files.
"""

import shutil
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
_LINKS = {
    "](../CONTRIBUTING.md": "](contributing.md",
    "](../CHANGELOG.md": "](changelog.md",
    "](CONTRIBUTING.md": "](contributing.md",
    "](CHANGELOG.md": "](changelog.md",
    "](docs/": "](",
    "](results)": "](results.md)",
}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages whose sources are outside of the documentation folder."""
    for name, page in _ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links that only work in the repository."""
    for link, target in _LINKS.items():
        markdown = markdown.replace(link, target)
    return markdown


def on_post_build(*, config: MkDocsConfig) -> None:
    """Publish the Markdown sources of the pages."""
    site = Path(config.site_dir)
    docs = Path(config.docs_dir)
    for source in docs.rglob("*.md"):
        shutil.copy(source, site / source.relative_to(docs))
    for name, page in _ROOT_PAGES.items():
        shutil.copy(ROOT / name, site / page)
