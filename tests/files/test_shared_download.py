"""One cache for all: of several processes one downloads, who dies leaves a part, and who reads need not write."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from loopback_client import client_at
from loopback_faults import Fault
from loopback_files import LoopbackFiles
from refusals import refused

from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.files.download import fetch, part_of

CONTENT = random.Random(0).randbytes(20_480)
REMEDY = "try another door"
PROGRAM = f"""
import sys
from pathlib import Path
from loopback_client import client_at
from vdvae_lr.files.download import fetch

url, folder = sys.argv[1], Path(sys.argv[2])
with client_at(url, folder / "home", timeout=60):
    print("ready", flush=True)
    input()
    print(fetch(f"{{url}}/a.bin", folder / "a.bin", "{REMEDY}").stat().st_size)
"""


@pytest.fixture
def site() -> Iterator[LoopbackFiles]:
    with LoopbackFiles({"/a.bin": CONTENT}) as site:
        yield site


@contextmanager
def downloader(site: LoopbackFiles, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is about to fetch /a.bin, killed at the end."""
    path = os.pathsep.join(str(CHECKOUT_ROOT / part) for part in ("tests/support", "."))
    command = [sys.executable, "-c", PROGRAM, site.address, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **pipes, text=True, bufsize=1) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Let it go on."""
    assert process.stdin is not None
    process.stdin.write("\n")


def wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within a minute")


@pytest.mark.parametrize("killed", [False, True], ids=["one downloads", "who downloads is killed"])
def test_of_two_processes_one_downloads_and_the_other_waits(site: LoopbackFiles, tmp_path: Path, killed: bool) -> None:
    target = tmp_path / "a.bin"
    site.faults.append(Fault("stall", times=1))
    with downloader(site, tmp_path) as first, downloader(site, tmp_path) as second:
        assert [said(first), said(second)] == ["ready", "ready"]
        tell(first)
        wait_until(lambda: part_of(target).exists() and part_of(target).stat().st_size > 0)
        part = part_of(target).stat().st_size
        tell(second)
        time.sleep(0.3)  # in which it comes to the lock
        assert len(site.requests) == 1
        if killed:
            first.kill()
        else:
            site.release()
            assert said(first) == str(len(CONTENT))
        assert said(second) == str(len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [request.method for request in site.requests] == ["GET", "GET"]
    assert site.requests[-1].range == (f"bytes={part}-" if killed else f"bytes={len(CONTENT) // 2}-")


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Inside, this process may read the folder and no more, also where it is root."""
    user = os.geteuid()
    folder.chmod(0o555)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_shared_folder_that_is_only_read_serves_what_it_holds(site: LoopbackFiles, tmp_path: Path) -> None:
    url = f"{site.address}/a.bin"
    with client_at(site.address, tmp_path), TemporaryDirectory() as name:  # tmp_path is closed to others
        folder = Path(name)
        fetch(url, folder / "a.bin", REMEDY)
        (folder / ".a.bin.lock").unlink()
        site.requests.clear()
        with unwritable(folder):
            assert fetch(url, folder / "a.bin", REMEDY).read_bytes() == CONTENT
            with refused(f"{folder}/b.bin cannot be written", "Permission denied", "choose another folder"):
                fetch(url, folder / "b.bin", REMEDY)
        assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "a.bin.sha256"]
    assert site.requests == []
