"""Fetching files over a real connection: whole, cut, wrong, absent."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_client import client_at
from loopback_faults import Fault
from loopback_files import LoopbackFiles
from refusals import refused

from vdvae_lr.datasets.preparation import ensure_file, extract_tar, run_script
from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import file_sha256

CHUNK = 1024
CONTENT = bytes(range(256)) * 80
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackFiles]:
    with LoopbackFiles({"/file": CONTENT}) as server, client_at(server.address, tmp_path / "home", chunk=CHUNK):
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def asked(server: LoopbackFiles) -> list[str | None]:
    return [request.range for request in server.requests if request.method == "GET"]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".file.bin.lock"}


def test_a_file_is_fetched_checked_and_kept(server: LoopbackFiles, folder: Path) -> None:
    target = folder / "new" / "file.bin"
    for _ in range(2):
        assert ensure_file(target, f"{server.address}/file", DIGEST) == target
    assert target.read_bytes() == CONTENT
    assert asked(server) == [None]
    assert left(target.parent) == {"file.bin"}


def test_a_cut_download_leaves_a_part_and_the_next_run_goes_on(server: LoopbackFiles, folder: Path) -> None:
    target, part = folder / "file.bin", folder / "file.bin.part"
    server.faults += [Fault("cut", times=1), Fault("status", status=404)]
    with refused(f"{server.address}/file", f"{HALF:,} bytes are kept: the same command goes on", "--from"):
        ensure_file(target, f"{server.address}/file", DIGEST)
    assert not target.exists()
    assert part.read_bytes() == CONTENT[:HALF]
    server.faults.clear()
    ensure_file(target, f"{server.address}/file", DIGEST)
    assert asked(server) == [None, f"bytes={HALF}-", f"bytes={HALF}-"]
    assert target.read_bytes() == CONTENT
    assert not part.exists()


def test_a_server_without_ranges_starts_over(server: LoopbackFiles, folder: Path) -> None:
    server.ranges = False
    (folder / "file.bin.part").write_bytes(b"something else")
    assert ensure_file(folder / "file.bin", f"{server.address}/file", DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"], ids=["whole", "too long"])
def test_a_part_that_is_whole_or_too_long_does_no_harm(server: LoopbackFiles, folder: Path, part: bytes) -> None:
    server.faults += [Fault("cut", times=1), Fault("status", status=404, times=1)]
    with pytest.raises(InputError):
        ensure_file(folder / "file.bin", f"{server.address}/file", DIGEST)
    (folder / "file.bin.part").write_bytes(part)
    assert ensure_file(folder / "file.bin", f"{server.address}/file", DIGEST).read_bytes() == CONTENT
    assert len(asked(server)) == (3 if part == CONTENT else 4)
    assert left(folder) == {"file.bin"}


@pytest.mark.parametrize(("unpacked", "words"), [(False, "file.bin has the SHA-256"), (True, "is damaged")])
def test_wrong_content_is_refused_and_leaves_nothing(
    server: LoopbackFiles, folder: Path, unpacked: bool, words: str
) -> None:
    with refused("file.bin", words, "--url" if not unpacked else "run the same command again"):
        ensure_file(folder / "file.bin", f"{server.address}/file", "0" * 64, unpacked)
    assert left(folder) == set()


def test_an_unknown_digest_is_recorded_and_compared_later(server: LoopbackFiles, folder: Path) -> None:
    target = ensure_file(folder / "file.bin", f"{server.address}/file")
    size, line = (folder / "file.bin.sha256").read_text().splitlines()
    assert line == f"{DIGEST}  file.bin"
    assert str(len(CONTENT)) in size
    ensure_file(target, f"{server.address}/file")
    target.write_bytes(CONTENT[:-1] + b"!")
    with refused("file.bin has", "instead of the one recorded in file.bin.sha256", f"delete {target}"):
        ensure_file(target, f"{server.address}/file")


def test_an_absent_file_and_an_absent_server_are_named(server: LoopbackFiles, folder: Path) -> None:
    with refused(f"{server.address}/nothing answers 404", "no such file", "--from"):
        ensure_file(folder / "file.bin", f"{server.address}/nothing")
    with refused("http://127.0.0.1:1/file", "Connection refused", "--url"):
        ensure_file(folder / "file.bin", "http://127.0.0.1:1/file")
    with refused("'no address'", "is no address", "--url"):
        ensure_file(folder / "file.bin", "no address")
    assert left(folder) == set()


def test_a_copy_at_hand_is_used_and_a_missing_one_named(folder: Path) -> None:
    (folder / "copy.bin").write_bytes(CONTENT)
    target = ensure_file(folder / "file.bin", "http://127.0.0.1:1/", DIGEST, given=folder / "copy.bin")
    assert target.read_bytes() == CONTENT
    assert ensure_file(target, "http://127.0.0.1:1/", DIGEST, given=folder / "absent.bin") == target  # it is there
    with refused(f"{folder}/absent.bin", "does not exist", "check --from"):
        ensure_file(folder / "other.bin", "http://127.0.0.1:1/", given=folder / "absent.bin")


def test_a_wrong_copy_at_hand_is_refused_and_stays_where_it_was(folder: Path) -> None:
    (folder / "copy.bin").write_bytes(CONTENT[::-1])
    with refused("file.bin has the SHA-256", DIGEST, "--from"):
        ensure_file(folder / "file.bin", "http://127.0.0.1:1/", DIGEST, given=folder / "copy.bin")
    assert left(folder) == {"copy.bin"}


def test_half_a_copy_is_not_taken_for_the_part_of_a_download(
    server: LoopbackFiles, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(given: Path, part: Path) -> None:
        part.write_bytes(given.read_bytes()[:HALF])
        raise KeyboardInterrupt

    (folder / "copy.bin").write_bytes(CONTENT[::-1])
    server.faults += [Fault("cut", times=1), Fault("status", status=404, times=1)]
    with pytest.raises(InputError):
        ensure_file(folder / "file.bin", f"{server.address}/file")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.copyfile", interrupted)
        ensure_file(folder / "file.bin", f"{server.address}/file", given=folder / "copy.bin")
    assert ensure_file(folder / "file.bin", f"{server.address}/file").read_bytes() == CONTENT


@pytest.mark.parametrize("given", [False, True])
def test_a_folder_that_cannot_be_made_is_an_input_error(folder: Path, given: bool) -> None:
    (folder / "file").write_text("in the way")
    target = folder / "file" / "a.bin"
    with refused(f"{target} cannot be written", "exists", "choose another folder"):
        ensure_file(target, "http://127.0.0.1:1/", given=folder / "file" if given else None)


def test_the_digest_of_unpacked_content_ignores_how_it_was_packed(tmp_path: Path) -> None:
    for level in (1, 9):
        (tmp_path / f"{level}.gz").write_bytes(gzip.compress(CONTENT, level))
        assert file_sha256(tmp_path / f"{level}.gz", unpacked=True) == DIGEST


def write_tar(path: Path, *names: str, links: dict[str, str] | None = None) -> Path:
    """An archive of links, by name and target, and of files."""
    with tarfile.open(path, "w:gz") as tar:
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"data"))
    return path


def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar.gz", "batches/one")
    folder = extract_tar(archive, "batches", tmp_path)
    assert (folder / "one").read_bytes() == b"data"
    archive.unlink()
    assert extract_tar(archive, "batches", tmp_path) == folder


def test_files_below_the_folder_alone_are_unpacked(tmp_path: Path) -> None:
    names = ("./batches/one", "batches/deep/two", "batches/../three", "four", "/batches/five")
    links = {"batches/away": str(tmp_path), "batches/passwd": "/etc/passwd"}
    root = tmp_path / "root"
    root.mkdir()
    folder = extract_tar(write_tar(tmp_path / "a.tar", *names, "batches/away/six", links=links), "batches", root)
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert found == {"batches/one", "batches/deep/two", "batches/away/six"}
    assert not any(path.is_symlink() for path in root.rglob("*"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar", "root"}
    assert (folder / "deep" / "two").read_bytes() == b"data"


@pytest.mark.parametrize("name", ["../escaped/one", "other/one"])
def test_an_archive_that_escapes_or_lacks_the_folder_leaves_nothing(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(InputError, match=r"a\.tar\.gz does not hold the folder batches"):
        extract_tar(write_tar(tmp_path / "a.tar.gz", name), "batches", root)
    assert list(root.iterdir()) == []
    assert not (tmp_path / "escaped").exists()


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar.gz", "batches/one")
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(InputError, match=r"a\.tar\.gz cannot be unpacked"):
        extract_tar(archive, "batches", tmp_path)


def test_a_script_prints_the_sentence_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise InputError("the disk is full: make room")

    with pytest.raises(SystemExit) as caught:
        run_script(fails)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: the disk is full: make room\n"


def test_an_interrupted_script_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_script(interrupted)
    assert caught.value.code == 130
    assert "run the same command again" in capsys.readouterr().err
