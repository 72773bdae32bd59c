"""Immutable objects at a URL, through fsspec: checked when read, retried when a server fails, refused by name.

The name of an object ends with the SHA-256 of its content. So whatever changed the bytes on their way, or at rest, is
found when they are read: they are read once more, and then refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llamaindex_prag.errors import AdapterDamagedError, StoreError
from llamaindex_prag.store.folders import sync
from rag_backbone.errors import ConfigurationError, MissingExtraError
from rag_backbone.extras import needed_for

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_PACKAGES = {
    "s3": "'dynprag[objectstore]'",
    "s3a": "'dynprag[objectstore]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
}
_LOCAL = {"file", "local"}
_S3 = {"s3", "s3a"}
_GOOGLE = {"gs", "gcs"}
_REFUSES_EXISTING = {*_S3, *_GOOGLE, "memory"}
"""Protocols whose servers can write an object only if there is none."""
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError, ImportError)
_LONGEST_WAIT = 8.0
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")
_READS = 4
"""How often content that is not what was written is read: it may have been damaged on its way, and be intact there."""
_TEMPORARY = ".tmp-"
_PROBES = "probe"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing."""

    size: int
    time: float
    """Last change in seconds by the server's clock."""


class _ChecksumError(StoreError):
    """The client library found that bytes changed on their way."""


class RemoteFiles:
    """The objects below one URL.

    Args:
        url: Such as `s3://bucket/folder` or `file:///srv/adapters`.
        options: Arguments of the file system, such as `endpoint_url`.
        attempts: How often a request is made before it fails.
        timeout: Seconds to wait for a connection, and for each read.

    Raises:
        ConfigurationError: If the URL has no protocol, or one that fsspec does not know, a password, or a relative
            path.
        MissingExtraError: If the protocol's package is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, attempts: int, timeout: float) -> None:
        if attempts < 1 or timeout <= 0:
            raise ConfigurationError(f"attempts is {attempts} and timeout {timeout}; they must be above 0")
        self.protocol, separator, path = url.partition("://")
        if not separator or not path.strip("/"):
            raise ConfigurationError(f"{url!r} is not the URL of a folder; give one such as s3://bucket/adapters")
        if ":" in (user := path.partition("/")[0].rpartition("@")[0]):
            raise ConfigurationError(
                f"the {self.protocol}:// URL of a store has a password for {user.partition(':')[0]!r}, which messages "
                "would repeat; leave it out, and give it in storage_options"
            )
        if self.is_local and not path.startswith("/"):  # every process would look into its own current folder
            raise ConfigurationError(f"{url!r} is a relative path; give an absolute one, such as file:///srv/adapters")
        self.url = url.rstrip("/")
        self._options, self._attempts, self._timeout = dict(options), attempts, timeout
        self._opened_by: tuple[int, AbstractFileSystem | None] = 0, None
        self._root = str(self._system()._strip_protocol(self.url))  # noqa: SLF001 - fsspec documents it for callers

    @property
    def is_local(self) -> bool:
        """Whether the objects are files of this machine."""
        return self.protocol in _LOCAL

    def address(self, name: str) -> str:
        """Return an object's URL, for messages."""
        return f"{self.url}/{name}"

    def listed(self, folder: str) -> dict[str, Listed]:
        """Return the objects in a folder by name; empty if there is no such folder."""

        def ask(system: AbstractFileSystem) -> list[dict[str, Any]]:
            try:
                found: list[dict[str, Any]] = system.ls(f"{self._root}/{folder}", detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return found

        files = {
            info["name"].rpartition("/")[2]: info
            for info in self._call("listed", folder, ask)
            if info["type"] == "file" and _TEMPORARY not in info["name"]
        }
        return {name: Listed(int(info["size"] or 0), _time(info)) for name, info in files.items() if name}

    def read(self, name: str) -> bytes:
        """Return the content of an object whose name ends with its SHA-256.

        Raises:
            FileNotFoundError: If there is no such object.
            AdapterDamagedError: If its content is not what was written, as often as it is read.
            StoreError: If the server cannot be reached, or refuses.
        """
        expected, why = name[-64:], ""
        for _ in range(_READS):
            try:
                content = self.read_plain(name)
            except _ChecksumError as error:
                why = str(error)
                continue
            if (found := hashlib.sha256(content).hexdigest()) == expected:
                return content
            why = f"it has {len(content)} bytes with SHA-256 {found[:12]}..., and was written with {expected[:12]}..."
        raise AdapterDamagedError(f"{self.address(name)} is damaged: {why}; it was read {_READS} times")

    def read_plain(self, name: str) -> bytes:
        """Return the content of an object without a check."""
        content: bytes = self._call("read", name, lambda system: system.cat_file(f"{self._root}/{name}"))
        return content

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Write an object; it is complete and durable when this returns, and never seen incomplete.

        Args:
            name: Its name.
            content: Its content.
            new: Refuse an object that exists, where the server can do so.

        Raises:
            FileExistsError: If it exists and must be new.
            StoreError: If it cannot be written. If the server could not be reached, it may have been written all the
                same.
        """
        path = f"{self._root}/{name}"

        def put(system: AbstractFileSystem) -> None:
            if self.is_local:
                _write_file(Path(path), content, new=new)
            elif new and self.protocol in _REFUSES_EXISTING:
                system.pipe_file(path, content, mode="create")
            else:
                system.pipe_file(path, content)

        try:
            self._call("written", name, put)
        except FileNotFoundError as error:
            raise StoreError(f"{self.address(name)} cannot be written, {error}: is the address right?") from error

    def delete(self, name: str) -> None:
        """Delete an object; does nothing if there is none."""
        with contextlib.suppress(FileNotFoundError):
            self._call("deleted", name, lambda system: system.rm_file(f"{self._root}/{name}"))

    def now(self) -> float:
        """Return the time by the server's clock, by writing and removing a small object.

        Raises:
            StoreError: If objects cannot be written here.
        """
        name = f"{_PROBES}/{uuid.uuid4().hex}"
        self.write(name, b"dynprag")
        try:
            return self._call("read", name, lambda system: _time({"mtime": system.modified(f"{self._root}/{name}")}))
        finally:
            self.delete(name)

    def tidy(self, now: float, age: float) -> None:
        """Delete probes and temporary files of at least this age in seconds: a process that was killed left them."""
        for name, entry in self.listed(_PROBES).items():
            if now - entry.time >= age:
                self.delete(f"{_PROBES}/{name}")
        for path in Path(self._root).rglob(f"{_TEMPORARY}*") if self.is_local else ():
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime >= age:
                    path.unlink()

    def is_occupied(self) -> bool:
        """Return whether there is any object below the URL."""

        def ask(system: AbstractFileSystem) -> bool:
            try:
                return any(_TEMPORARY not in path for path in system.ls(self._root, detail=False, refresh=True))
            except FileNotFoundError:
                return False

        return self._call("listed", "", ask)

    def _call(self, done: str, name: str, request: Callable[[AbstractFileSystem], Result]) -> Result:
        """Make a request, again if it fails for a reason that may pass, waiting longer each time."""
        for attempt in range(1, self._attempts + 1):
            try:
                return request(self._system())
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:
                if "Checksum" in type(error).__name__:  # the client compares with what the server has recorded
                    raise _ChecksumError(f"{self.address(name)}: {_told(error)}") from error
                if _is_conflict(error):
                    raise FileExistsError(self.address(name)) from error
                if reason := _reason(error):
                    raise StoreError(f"{self.address(name)} cannot be {done}: {reason} ({_told(error)})") from error
                if attempt == self._attempts:
                    raise StoreError(
                        f"{self.address(name)} could not be {done} in {attempt} attempts: {_told(error)}"
                    ) from error
                wait = min(_LONGEST_WAIT, 0.1 * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
                logger.info("%s: %s; trying again in %.1f s", self.address(name), _told(error), wait)
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _system(self) -> AbstractFileSystem:
        """Return this process's file system: connections, threads and locks do not survive a fork."""
        process, system = self._opened_by
        if process != os.getpid() or system is None:  # threads that come here at once each open one
            system = self._opened()
            self._opened_by = os.getpid(), system
        return system

    def _opened(self) -> AbstractFileSystem:
        with needed_for(f"a store at {self.url}"):
            import fsspec
        options = {"use_listings_cache": False, "skip_instance_cache": True, **self._options}
        if self.protocol in _S3:
            own = {"connect_timeout": self._timeout, "read_timeout": self._timeout, "retries": {"max_attempts": 0}}
            options.setdefault("max_concurrency", 1)  # otherwise each read asks for the size first
            options["config_kwargs"] = own | dict(options.get("config_kwargs") or {})
        if self.protocol in _GOOGLE:  # which makes a request again by itself, however often `attempts` says
            options.setdefault("requests_timeout", self._timeout)
        try:
            system = fsspec.filesystem(self.protocol, **options)
        except ImportError as error:
            package = _PACKAGES.get(self.protocol, "the package that it names")
            raise MissingExtraError(
                f"{self.url} needs a package for {self.protocol}:// that is not installed: pip install {package} "
                f"({_told(error)})"
            ) from error
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{self.url} cannot be opened: {_told(error)}") from error
        if self.protocol in _S3:
            system.retries = 1  # requests are made again here, so that the number of attempts is the one given
        return system


def _write_file(path: Path, content: bytes, *, new: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        beside.write_bytes(content)
        sync(beside)
        if new:
            os.link(beside, path)
        else:
            beside.replace(path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _time(info: Mapping[str, Any]) -> float:
    for name in _TIMES:
        if (value := info.get(name)) is not None:
            if isinstance(value, str):
                value = datetime.fromisoformat(value)
            return value.timestamp() if isinstance(value, datetime) else float(value)
    return time.time()  # a server that does not say when: as young as can be, so that nothing is deleted too early


def _is_conflict(error: BaseException) -> bool:
    return "PreconditionFailed" in str(error) or "At least one of the pre-conditions" in str(error)


def _reason(error: BaseException) -> str:
    """Return why a request cannot succeed, or "" if it may when it is made again."""
    kind = type(error).__name__
    if "Credential" in kind or "NoAuth" in kind:
        return "there are no credentials for it; give them as the server's client expects, or as storage_options"
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):  # the latter is gcsfs's
        return "these credentials, or this user, may not do that"
    if isinstance(error, _FINAL) or kind in {"ParamValidationError", "InvalidBucketName", "UnknownProtocol"}:
        return "the address or the options are wrong"
    if isinstance(error, MissingExtraError | ConfigurationError):
        raise error
    return ""


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
