"""Folders are built atomically, whatever happens in the meantime."""

import errno
import multiprocessing
import os
import time

import pytest

from rag_backbone.errors import CacheFolderError, IntegrityError
from rag_backbone.loading.cache_folder import atomic_file, built_folder, check_sha256, is_sound, sha256, write_json


def fill(folder):
    (folder / "weights").write_bytes(b"w" * 1000)
    (folder / "sub").mkdir()
    (folder / "sub" / "config").write_text("{}")


def test_a_folder_is_built_once(tmp_path):
    calls = []

    def build(folder):
        calls.append(folder)
        fill(folder)

    target = tmp_path / "deep" / "model"
    assert built_folder(target, build) == built_folder(target, build) == target
    assert len(calls) == 1
    assert (target / "sub" / "config").read_text() == "{}"


def test_a_failed_build_leaves_no_files(tmp_path):
    def build(folder):
        fill(folder)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        built_folder(tmp_path / "model", build)
    assert not (tmp_path / "model").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model.lock"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "no manifest", "bad manifest"])
def test_a_damaged_folder_is_rebuilt(tmp_path, damage):
    target = built_folder(tmp_path / "model", fill)
    weights = target / "weights"
    if damage == "truncate":
        weights.write_bytes(b"w" * 10)
    elif damage == "flip":
        weights.write_bytes(b"v" + b"w" * 999)
    elif damage == "delete":
        weights.unlink()
    elif damage == "no manifest":
        (target / "dynprag-manifest.json").unlink()
    else:
        (target / "dynprag-manifest.json").write_text('{"files": [1]}')
    assert not is_sound(target)
    built_folder(target, fill)
    assert weights.read_bytes() == b"w" * 1000


def test_a_touched_file_is_hashed_and_accepted(tmp_path):
    target = built_folder(tmp_path / "model", fill)
    os.utime(target / "weights")
    assert is_sound(target)


def _slow_build(arguments):
    target, log = arguments

    def build(folder):
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        fill(folder)

    return (built_folder(target, build) / "weights").stat().st_size


def test_concurrent_processes_build_a_folder_once(tmp_path):
    log = tmp_path / "log"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_slow_build, [(tmp_path / "cache" / "model", log)] * 4) == [1000] * 4
    assert log.read_text() == "built\n"


def test_a_filled_read_only_cache_works(tmp_path):
    target = built_folder(tmp_path / "model", fill)
    (tmp_path / "model.lock").unlink()
    tmp_path.chmod(0o500)
    try:
        assert built_folder(target, lambda _: pytest.fail("built again")) == target
        assert not (tmp_path / "model.lock").exists()
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "not writable"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_the_error_for_an_unwritable_cache_says_what_to_do(tmp_path, code, words):
    def build(folder):
        raise OSError(code, os.strerror(code))

    with pytest.raises(CacheFolderError, match=f"{words}.*DYNPRAG_CACHE"):
        built_folder(tmp_path / "model", build)
    assert not (tmp_path / "model").exists()


def test_a_file_in_the_path_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheFolderError, match="file"):
        built_folder(tmp_path / "file" / "model", fill)


def test_atomic_files_either_replace_or_keep_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == '{\n "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_wrong_checksum_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(IntegrityError, match="the thing is damaged"):
        check_sha256(path, "0" * 64, "the thing")
