"""Lists of digests: as sha256sum writes and reads them, and nothing that a stranger writes into one leads anywhere."""

import gzip
import hashlib
import os
import subprocess
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from refusals import refused
from rich.progress import Progress

from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.files.digests import check_listed_digest, file_sha256, listed_digests, write_digests

FILES = {"config.json": b"{}\n", "model.safetensors": bytes(range(256))}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def check(folder: Path) -> None:
    for name in FILES:
        check_listed_digest(folder / name)


def test_the_list_is_as_sha256sum_reads_it(folder: Path) -> None:
    write_digests(folder, FILES)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    assert listed_digests(folder) == DIGESTS


@pytest.mark.parametrize("binary", [False, True])
def test_what_sha256sum_writes_is_read(folder: Path, binary: bool) -> None:
    command = ["sha256sum", *(["--binary"] if binary else []), "./config.json", "model.safetensors"]
    written = subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "SHA256SUMS").write_bytes(written.stdout)
    assert listed_digests(folder) == DIGESTS


@pytest.mark.parametrize(
    "change",
    [
        lambda text: (
            text.upper().replace("CONFIG.JSON", "config.json").replace("MODEL.SAFETENSORS", "model.safetensors")
        ),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "# by hand\n\n" + text + "\n",
        lambda text: text.removesuffix("\n"),
        lambda text: text + "0" * 64 + "  other.bin\n",
        lambda text: text + "0" * 64 + "  ../config.json\n",
        lambda text: text + "0" * 64 + "  /dev/zero\n",
        lambda text: text + "0" * 64 + "  sub/config.json\n",
        lambda text: text + "0" * 64 + "  a\0b\n",
        lambda text: "\\" + "0" * 64 + "  a\\nb\n" + text,
    ],
    ids=range(11),
)
def test_other_ways_to_write_the_same_list(folder: Path, change: object) -> None:
    write_digests(folder, FILES)
    path = folder / "SHA256SUMS"
    assert callable(change)
    path.write_bytes(change(path.read_text(encoding="utf-8")).encode())
    check(folder)
    assert {name: digest for name, digest in listed_digests(folder).items() if name in FILES} == DIGESTS
    (folder / "config.json").write_bytes(b"[]\n")
    with refused(f"{folder}/config.json", "is damaged or was changed", "fetch or make it again"):
        check(folder)


def test_names_out_of_the_folder_are_no_part_of_a_list(folder: Path) -> None:
    names = ("../x", "/dev/zero", "sub/x", "a\0b")
    (folder / "SHA256SUMS").write_bytes("".join("0" * 64 + f"  {name}\n" for name in names).encode())
    assert listed_digests(folder) == {}


def test_without_a_list_or_a_line_nothing_is_checked(folder: Path) -> None:
    assert listed_digests(folder) == {}
    check(folder)
    (folder / "SHA256SUMS").write_text("0" * 64 + "  other.bin\n")
    check(folder)
    (folder / "SHA256SUMS").unlink()
    (folder / "SHA256SUMS").symlink_to(folder / "absent")
    check(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"# nothing\n",
        b"<html>not found</html>",
        b"0" * 63 + b"  config.json\n",
        b"0" * 65 + b"  config.json\n",
        b"g" * 64 + b"  config.json\n",
        b"0" * 64 + b" config.json\n",
        b"0" * 64 + b"\tconfig.json\n",
        b"0" * 64 + b"  \n",
        b"0" * 64,
        b"\xff\xfe\x00",
        bytes(100),
        b"0" * 64 + b"  config.json\nmore\n",
        (b"0" * 64 + b"  config.json\n") * 20_000,
    ],
    ids=range(15),
)
def test_what_is_no_list_is_refused(folder: Path, content: bytes) -> None:
    (folder / "SHA256SUMS").write_bytes(content)
    with refused(f"{folder}/SHA256SUMS", "is damaged", "delete it to load the others unchecked"):
        check(folder)


def test_the_lists_that_travel_with_the_program_are_right() -> None:
    for path in bundled_folder("models").glob("*/config.json"):
        listed = listed_digests(path.parent)
        assert listed.keys() == {"config.json", "model.safetensors"}, path.parent
        for name in listed:
            check_listed_digest(path.parent / name)


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the pieces that digests read."""
    read: list[int] = []
    wrap_file = Progress.wrap_file

    def noted(bar: Progress, file: BinaryIO, *words: Any, **more: Any) -> BinaryIO:
        read.append(os.fstat(file.fileno()).st_size)
        return wrap_file(bar, file, *words, **more)

    monkeypatch.setattr(Progress, "wrap_file", noted)
    return read


def test_a_file_that_does_not_change_is_read_once(
    tmp_path: Path, read_bytes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"abc")
    for _ in range(2):  # too young: a change within the clock's tick could go unseen
        assert file_sha256(path) == hashlib.sha256(b"abc").hexdigest()
    assert read_bytes == [3, 3]
    later = time.time_ns() + 10 * 10**9
    monkeypatch.setattr("vdvae_lr.files.digests.time.time_ns", lambda: later)
    for _ in range(3):
        assert file_sha256(path) == hashlib.sha256(b"abc").hexdigest()
    assert read_bytes == [3, 3, 3]


@pytest.mark.parametrize("keeps_date", [False, True])
def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps_date: bool) -> None:
    path, later = tmp_path / "large", time.time_ns() + 10 * 10**9
    monkeypatch.setattr("vdvae_lr.files.digests.time.time_ns", lambda: later)
    path.write_bytes(b"abc")
    assert file_sha256(path) == hashlib.sha256(b"abc").hexdigest()
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system ticks in milliseconds
        path.write_bytes(b"abd")
    if keeps_date:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_sha256(path) == hashlib.sha256(b"abd").hexdigest()


def test_the_digest_of_packed_content_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, later = tmp_path / "large.gz", time.time_ns() + 10 * 10**9
    monkeypatch.setattr("vdvae_lr.files.digests.time.time_ns", lambda: later)
    path.write_bytes(gzip.compress(b"abc"))
    for _ in range(2):
        assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
        assert file_sha256(path, unpacked=True) == hashlib.sha256(b"abc").hexdigest()
