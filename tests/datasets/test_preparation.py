"""Fetching files over a real connection: whole, cut, wrong, absent."""

import gzip
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vdvae_lr.datasets.preparation import ensure_file, extract_tar, file_sha256, run_script
from vdvae_lr.errors import InputError

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class _Site(BaseHTTPRequestHandler):
    """/file honours ranges, /no-ranges does not, /cut ends after half of what it announced, anything else is 404."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path not in ("/file", "/no-ranges", "/cut"):
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.path == "/file" else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : len(CONTENT) // 2 if self.path == "/cut" else None])

    def log_message(self, *arguments: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        server.asked = []
        server.site = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_is_fetched_checked_and_kept(server, tmp_path: Path):
    target = tmp_path / "new" / "file.bin"
    for _ in range(2):
        assert ensure_file(target, f"{server.site}/file", DIGEST) == target
    assert target.read_bytes() == CONTENT
    assert server.asked == [None]
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_a_cut_download_leaves_a_part_and_the_next_run_goes_on(server, tmp_path: Path):
    target, part = tmp_path / "file.bin", tmp_path / "file.bin.part"
    with pytest.raises(InputError, match=f"ended after {len(CONTENT) // 2} of {len(CONTENT)} bytes: run the script"):
        ensure_file(target, f"{server.site}/cut", DIGEST)
    assert not target.exists()
    assert part.read_bytes() == CONTENT[: len(CONTENT) // 2]
    ensure_file(target, f"{server.site}/file", DIGEST)
    assert server.asked == [None, f"bytes={len(CONTENT) // 2}-"]
    assert target.read_bytes() == CONTENT
    assert not part.exists()


def test_a_server_without_ranges_starts_over(server, tmp_path: Path):
    (tmp_path / "file.bin.part").write_bytes(b"something else")
    assert ensure_file(tmp_path / "file.bin", f"{server.site}/no-ranges", DIGEST).read_bytes() == CONTENT


def test_a_part_that_was_whole_already_only_needs_its_name(server, tmp_path: Path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert ensure_file(tmp_path / "file.bin", f"{server.site}/file", DIGEST).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path: Path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    with pytest.raises(InputError, match="answers 416"):
        ensure_file(tmp_path / "file.bin", f"{server.site}/file", DIGEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unpacked", [False, True])
def test_wrong_content_is_refused_and_leaves_nothing(server, tmp_path: Path, unpacked: bool):
    with pytest.raises(InputError, match=r"has the SHA-256|is damaged"):
        ensure_file(tmp_path / "file.bin", f"{server.site}/file", "0" * 64, unpacked)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_digest_is_recorded_and_compared_later(server, tmp_path: Path):
    target = ensure_file(tmp_path / "file.bin", f"{server.site}/file")
    assert (tmp_path / "file.bin.sha256").read_text() == f"{DIGEST}  file.bin\n"
    ensure_file(target, f"{server.site}/file")
    target.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(InputError, match=r"instead of the one recorded in file\.bin\.sha256"):
        ensure_file(target, f"{server.site}/file")


def test_an_absent_file_and_an_absent_server_are_named(server, tmp_path: Path):
    with pytest.raises(InputError, match=r"/nothing answers 404 .*--from"):
        ensure_file(tmp_path / "file.bin", f"{server.site}/nothing")
    with pytest.raises(InputError, match=r"cannot be fetched .*--url"):
        ensure_file(tmp_path / "file.bin", "http://127.0.0.1:1/file")
    with pytest.raises(InputError, match="cannot be fetched"):
        ensure_file(tmp_path / "file.bin", "no address")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_at_hand_is_used_and_a_missing_one_named(tmp_path: Path):
    (tmp_path / "copy.bin").write_bytes(CONTENT)
    target = ensure_file(tmp_path / "file.bin", "http://127.0.0.1:1/", DIGEST, given=tmp_path / "copy.bin")
    assert target.read_bytes() == CONTENT
    with pytest.raises(InputError, match=r"absent\.bin does not exist: check --from"):
        ensure_file(tmp_path / "other.bin", "http://127.0.0.1:1/", given=tmp_path / "absent.bin")


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="choose another --data_root"):
        ensure_file(tmp_path / "file" / "a.bin", "http://127.0.0.1:1/")


def test_the_digest_of_unpacked_content_ignores_how_it_was_packed(tmp_path: Path):
    for level in (1, 9):
        (tmp_path / f"{level}.gz").write_bytes(gzip.compress(CONTENT, level))
        assert file_sha256(tmp_path / f"{level}.gz", unpacked=True) == DIGEST


def write_tar(path: Path, name: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    return path


def test_an_archive_is_unpacked_once(tmp_path: Path):
    archive = write_tar(tmp_path / "a.tar.gz", "batches/one")
    folder = extract_tar(archive, "batches", tmp_path)
    assert (folder / "one").read_bytes() == b"data"
    archive.unlink()
    assert extract_tar(archive, "batches", tmp_path) == folder


@pytest.mark.parametrize("name", ["../escaped/one", "other/one"])
def test_an_archive_that_escapes_or_lacks_the_folder_leaves_nothing(tmp_path: Path, name: str):
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(InputError, match=r"a\.tar\.gz (cannot be unpacked|does not hold the folder batches)"):
        extract_tar(write_tar(tmp_path / "a.tar.gz", name), "batches", root)
    assert list(root.iterdir()) == []
    assert not (tmp_path / "escaped").exists()


def test_a_damaged_archive_is_named(tmp_path: Path):
    archive = write_tar(tmp_path / "a.tar.gz", "batches/one")
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(InputError, match=r"a\.tar\.gz cannot be unpacked"):
        extract_tar(archive, "batches", tmp_path)


def test_a_script_prints_the_sentence_alone(capsys):
    def fails() -> None:
        raise InputError("the disk is full: make room")

    with pytest.raises(SystemExit) as caught:
        run_script(fails)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: the disk is full: make room\n"


def test_an_interrupted_script_says_how_to_go_on(capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_script(interrupted)
    assert caught.value.code == 130
    assert "run the same command again" in capsys.readouterr().err
