"""Decides which files of a folder are documents, and why the others are left out. Opens no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from rag_backbone.checks import check_type
from rag_backbone.documents.pieces import Skipped
from rag_backbone.errors import ConfigurationError
from rag_backbone.text.unicode import clean_name

# In addition to hidden folders, and virtual environments under any name.
_TOOL_FOLDERS = frozenset(
    {
        "node_modules",
        "bower_components",
        "__pycache__",
        "__pypackages__",
        "site-packages",
        "__MACOSX",
        "@eaDir",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "CVS",
    }
)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read."""

    path: Path
    name: str
    """Path relative to the folder, with `/`, and printable."""


@dataclass(slots=True)
class Found:
    """The files of a folder, sorted by name, and those that were left out."""

    files: list[FoundFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def find_files(
    source: Path,
    suffixes: Collection[str],
    *,
    exclude: Sequence[str] | str = (),
    hidden: bool = False,
    outside: Iterable[Path] = (),
) -> Found:
    """Return the files of a folder, or the file itself.

    Args:
        source: A folder, or one file, which is returned even if it is hidden or excluded.
        suffixes: Lower-case suffixes of files that can be read.
        exclude: Glob patterns of names or relative paths, of files or folders: `"drafts"`, `"*.log"`, `"a/*.md"`.
        hidden: Whether to search hidden files and folders, and folders of tools, as well.
        outside: Folders that contain no documents of the user, such as the index itself; they are not reported.

    Raises:
        ConfigurationError: If the file or folder does not exist, or the one file has another suffix.
    """
    patterns = _patterns(exclude)
    if not source.is_dir():
        if not source.exists():
            raise ConfigurationError(f"there is no file or folder {clean_name(str(source))}")
        if source.suffix.lower() not in suffixes or not source.is_file():
            raise ConfigurationError(f"{clean_name(str(source))} is not a {', '.join(suffixes)} file")
        return Found([FoundFile(source, clean_name(source.name))])
    walk = _Walk(source, frozenset(suffixes), patterns, hidden, frozenset(p.resolve() for p in outside))
    return walk.run()


class _Walk:
    def __init__(
        self, source: Path, suffixes: frozenset[str], patterns: tuple[str, ...], hidden: bool, outside: frozenset[Path]
    ) -> None:
        self._source = source
        self._root = source.resolve()
        self._suffixes = suffixes
        self._patterns = patterns
        self._hidden = hidden
        self._outside = outside
        self._found = Found()

    def run(self) -> Found:
        links = []
        for parent, folders, names in os.walk(self._source, onerror=self._unlisted):
            folders[:] = [name for name in sorted(folders) if self._enters(Path(parent, name))]
            for path in (Path(parent, name) for name in names):
                if (rule := self._left_out(path)) is not None:
                    self._skip(path, rule, deliberate=True)
                elif path.suffix.lower() not in self._suffixes:
                    self._skip(path, f"no reader for {path.suffix.lower()!r} files" if path.suffix else "no suffix")
                elif os.path.islink(path):  # noqa: PTH114 - Path's own methods raise where permission is missing
                    links.append(path)
                else:
                    self._take(path)
        self._follow(links)
        self._found.files.sort(key=lambda f: f.name)
        self._found.skipped.sort(key=lambda s: s.name)
        return self._found

    def _enters(self, path: Path) -> bool:
        rule = self._left_out(path, folder=True)
        if path.resolve() in self._outside:
            return False
        if rule is not None:
            self._skip(path, rule, deliberate=True, ending="/")
        elif os.path.islink(path):  # noqa: PTH114
            inside = path.resolve().is_relative_to(self._root)
            reason = "a link to a folder, which is read under its own name" if inside else "a link out of the folder"
            self._skip(path, reason, deliberate=inside, ending="/")
            return False
        return rule is None

    def _left_out(self, path: Path, *, folder: bool = False) -> str | None:
        """Return the rule that excludes a file or folder, or None."""
        name = path.name
        relative = path.relative_to(self._source).as_posix()
        for pattern in self._patterns:
            if any(fnmatchcase(n, pattern) for n in (name, relative, f"/{relative}")):
                return f"excluded by {pattern!r}"
        if self._hidden:
            return None
        if name.startswith("."):
            return "hidden"
        if name.startswith("~$"):
            return "temporary file of an office program"
        if folder and (name in _TOOL_FOLDERS or os.path.exists(path / "pyvenv.cfg")):  # noqa: PTH110
            return "a tool's folder"
        return None

    def _follow(self, links: list[Path]) -> None:
        """Take links within the folder whose files are not read under their own names."""
        taken = {file.path.resolve() for file in self._found.files} if links else set()
        for path in sorted(links):
            try:
                target = path.resolve(strict=True)
            except (OSError, RuntimeError):  # RuntimeError: a loop
                self._skip(path, "a broken link")
                continue
            if not target.is_relative_to(self._root):
                self._skip(path, "a link out of the folder")
            elif target in taken:
                self._skip(path, "a link to a file that is read under its own name", deliberate=True)
            else:
                taken.add(target)
                self._take(path)

    def _take(self, path: Path) -> None:
        try:
            regular = stat.S_ISREG(path.stat().st_mode)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            self._found.skipped.append(Skipped(self._name(path), reason, transient=True))
            return
        if regular:
            self._found.files.append(FoundFile(path, self._name(path)))
        else:
            self._skip(path, "not a regular file")

    def _skip(self, path: Path, reason: str, *, deliberate: bool = False, ending: str = "") -> None:
        self._found.skipped.append(Skipped(self._name(path) + ending, reason, deliberate=deliberate))

    def _unlisted(self, error: OSError) -> None:
        name = self._name(Path(error.filename))
        reason = f"cannot be listed: {error.strerror or error}"
        self._found.skipped.append(Skipped(f"{name}/", reason, transient=True))

    def _name(self, path: Path) -> str:
        return clean_name(path.relative_to(self._source).as_posix())


def _patterns(exclude: Sequence[str] | str) -> tuple[str, ...]:
    given = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    for pattern in given:
        check_type("exclude", pattern, str, "a list of glob patterns, such as exclude=['drafts', '*.log']")
    return tuple(pattern.rstrip("/") for pattern in given)
