"""Files from a server that fails in every way: they end up whole and right, or there is a sentence and a way on."""

import hashlib
import io
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from loopback_client import client_at
from loopback_faults import Fault, LoopbackServer
from loopback_files import LoopbackFiles
from refusals import refused

from vdvae_lr.files import download
from vdvae_lr.files.download import fetch, part_of, record_of

CONTENT = random.Random(0).randbytes(20_487)
OTHER = random.Random(1).randbytes(len(CONTENT))
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REMEDY = "try another door"
TENTHS = [tenth / 10 for tenth in range(10)]
NEITHER = ("ETag", "Last-Modified")


@pytest.fixture
def site() -> Iterator[LoopbackFiles]:
    with LoopbackFiles({"/a.bin": CONTENT}) as site:
        yield site


@pytest.fixture(autouse=True)
def naps(site: LoopbackFiles, tmp_path: Path) -> Iterator[list[float]]:
    """The client of this process, with the sleeps it leaves out."""
    with client_at(site.address, tmp_path / "home") as naps:
        yield naps


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "a.bin"


def get(site: LoopbackServer, target: Path, sha256: str | None = None) -> bytes:
    return fetch(f"{site.address}/a.bin", target, REMEDY, sha256).read_bytes()


def left(target: Path) -> set[str]:
    """What lies in the target's folder, but for the lock."""
    return {path.name for path in target.parent.iterdir()} - {".a.bin.lock"}


def asked(site: LoopbackServer) -> list[tuple[str, str | None]]:
    return [(request.method, request.range) for request in site.requests]


def interrupt(site: LoopbackFiles, target: Path, after: float = 0.5) -> int:
    """A download that fails for good; the bytes it leaves."""
    site.faults.append(Fault("cut", method="GET", after=after))
    with refused(f"{site.address}/a.bin", "", REMEDY):
        get(site, target)
    site.faults.clear()
    site.requests.clear()
    return part_of(target).stat().st_size


def test_a_file_arrives_whole_and_the_server_is_asked_no_second_time(site: LoopbackFiles, target: Path) -> None:
    assert get(site, target) == CONTENT
    assert asked(site) == [("GET", None)]
    assert get(site, target) == CONTENT
    assert len(site.requests) == 1
    assert left(target) == {"a.bin", "a.bin.sha256"}


def test_size_origin_and_digest_are_recorded_as_sha256sum_reads_them(site: LoopbackFiles, target: Path) -> None:
    get(site, target)
    record = record_of(target).read_text()
    assert record == f"# {len(CONTENT)} bytes from {site.address}/a.bin\n{DIGEST}  a.bin\n"
    check = ["sha256sum", "--check", "--strict", "a.bin.sha256"]
    assert subprocess.run(check, cwd=target.parent, capture_output=True, check=True).stdout == b"a.bin: OK\n"
    target.write_bytes(OTHER)
    assert subprocess.run(check, cwd=target.parent, capture_output=True).returncode == 1


@pytest.mark.parametrize("kind", ["cut", "reset"])
@pytest.mark.parametrize("after", TENTHS)
def test_one_cut_anywhere_is_gone_on_from_within_the_call(
    site: LoopbackFiles, target: Path, kind: Any, after: float
) -> None:
    site.faults.append(Fault(kind, after=after, times=1))
    assert get(site, target, DIGEST) == CONTENT
    first, second = [range for _, range in asked(site)]
    start = int(second.removeprefix("bytes=").removesuffix("-")) if second else 0
    arrived = int(after * len(CONTENT))
    assert first is None
    assert start == arrived if kind == "cut" else start <= arrived  # a reset throws away what was not read yet


@pytest.mark.parametrize("kind", ["cut", "reset"])
@pytest.mark.parametrize("after", TENTHS)
def test_cuts_without_end_are_told_and_the_next_call_goes_on(
    site: LoopbackFiles, target: Path, kind: Any, after: float
) -> None:
    site.faults.append(Fault(kind, after=after))
    with refused(f"{site.address}/a.bin", "cannot be reached", REMEDY) as caught:
        get(site, target, DIGEST)
    kept = part_of(target).read_bytes()
    assert kept == CONTENT[: len(kept)]
    assert (f"{len(kept):,} bytes are kept" in str(caught.value)) == bool(kept)
    assert bool(kept) or after == 0 or kind == "reset"
    assert left(target) == {"a.bin.part", "a.bin.part.tag"}
    site.faults.clear()
    site.requests.clear()
    assert get(site, target, DIGEST) == CONTENT
    assert asked(site) == [("GET", f"bytes={len(kept)}-" if kept else None)]
    assert left(target) == {"a.bin"}


def test_a_server_without_ranges_starts_over_and_is_right(site: LoopbackFiles, target: Path) -> None:
    site.ranges = False
    site.faults.append(Fault("cut", after=0.5, times=1))
    assert get(site, target) == CONTENT
    target.unlink()
    assert interrupt(site, target) > 0
    assert get(site, target) == CONTENT


@pytest.mark.parametrize("without", [(), ("ETag",), NEITHER], ids=["ETag", "date", "no version"])
def test_parts_of_two_versions_are_never_joined(site: LoopbackFiles, target: Path, without: tuple[str, ...]) -> None:
    site.without = without
    assert interrupt(site, target) > 0
    site.files["/a.bin"] = OTHER
    assert get(site, target) == OTHER
    assert len(site.requests) == 1


@pytest.mark.parametrize("without", [(), ("ETag",)], ids=["ETag", "date"])
def test_a_version_that_changes_in_the_middle_of_a_call_is_not_joined(
    site: LoopbackFiles, target: Path, without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.without = without
    site.faults.append(Fault("cut", times=1))
    monkeypatch.setattr(download.time, "sleep", lambda seconds: site.files.update({"/a.bin": OTHER}))
    assert get(site, target) == OTHER


def test_a_part_that_nothing_tells_the_version_of_is_not_used(site: LoopbackFiles, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(OTHER[:5000])
    assert get(site, target) == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(site: LoopbackFiles, target: Path) -> None:
    assert interrupt(site, target) > 0
    part_of(target).write_bytes(CONTENT + b"more")
    assert get(site, target) == CONTENT


def test_a_whole_part_only_needs_its_name(site: LoopbackFiles, target: Path) -> None:
    """A process killed between the last byte and the renaming leaves this."""
    assert interrupt(site, target) > 0
    part_of(target).write_bytes(CONTENT)
    assert get(site, target) == CONTENT
    assert asked(site) == [("GET", f"bytes={len(CONTENT)}-")]
    assert left(target) == {"a.bin", "a.bin.sha256"}


@pytest.mark.parametrize("fault", [Fault("silent"), Fault("stall", after=0.0), Fault("hangup")])
def test_a_server_that_says_nothing_is_given_up(
    site: LoopbackFiles, target: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    site.faults.append(fault)
    with refused(f"{site.address}/a.bin", "cannot be reached", REMEDY):
        get(site, target)
    assert fault.struck <= 20
    assert sum(naps) <= 20
    site.faults.clear()
    assert get(site, target) == CONTENT


def test_a_download_that_stalls_goes_on_after_the_timeout(
    site: LoopbackFiles, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    site.faults.append(Fault("stall", times=1))
    assert get(site, target) == CONTENT
    assert asked(site)[-1] == ("GET", f"bytes={len(CONTENT) // 2}-")


@pytest.mark.parametrize(
    ("status", "cause"), [(401, "login"), (403, "forbids"), (404, "no such"), (429, "too many"), (500, "failed")]
)
def test_a_status_that_stays_is_told(
    site: LoopbackFiles, target: Path, naps: list[float], status: int, cause: str
) -> None:
    site.faults.append(Fault("status", status=status))
    with refused(f"{site.address}/a.bin answers {status}", cause, REMEDY):
        get(site, target)
    assert len(site.requests) <= 8
    assert sum(naps) <= 40
    site.faults.clear()
    assert get(site, target) == CONTENT


def test_a_server_that_wants_a_pause_gets_it(site: LoopbackFiles, target: Path, naps: list[float]) -> None:
    site.faults.append(Fault("status", status=429, retry_after=7, times=2))
    assert get(site, target) == CONTENT
    assert naps == [8, 8]  # the client adds a second


def test_a_server_that_was_busy_at_first_is_asked_again(site: LoopbackFiles, target: Path) -> None:
    site.faults.append(Fault("status", status=500, times=2))
    assert get(site, target) == CONTENT


def test_content_with_another_digest_is_refused_and_not_kept(site: LoopbackFiles, target: Path) -> None:
    site.faults.append(Fault("content", times=1))
    with refused("a.bin has the SHA-256", f"instead of the known one, {DIGEST}", REMEDY):
        get(site, target, DIGEST)
    assert left(target) == set()
    assert get(site, target, DIGEST) == CONTENT
    assert left(target) == {"a.bin"}


def test_a_file_that_changed_since_its_download_is_refused_until_it_is_removed(
    site: LoopbackFiles, target: Path
) -> None:
    get(site, target)
    target.write_bytes(OTHER)
    for _ in range(2):
        with refused("a.bin has", "instead of the one recorded in a.bin.sha256", f"delete {target} and run the same"):
            get(site, target)
    target.unlink()
    assert get(site, target) == CONTENT


def test_a_file_that_its_server_changed_since_is_refused(site: LoopbackFiles, target: Path) -> None:
    get(site, target)
    target.unlink()
    site.files["/a.bin"] = OTHER
    with refused("a.bin has the SHA-256", "instead of the one recorded in a.bin.sha256", REMEDY):
        get(site, target)
    assert left(target) == {"a.bin.sha256"}
    assert get(site, target, hashlib.sha256(OTHER).hexdigest()) == OTHER  # a known digest wins over a recorded one


def test_a_known_digest_is_asked_of_a_file_that_is_there(site: LoopbackFiles, target: Path) -> None:
    get(site, target)
    with refused("a.bin has the SHA-256", "instead of the known one", f"delete {target}"):
        get(site, target, "0" * 64)


@pytest.mark.parametrize("record", ["", "# nothing\n", "\n", "no digest  a.bin\n"])
def test_a_broken_record_vouches_for_nothing(site: LoopbackFiles, target: Path, record: str) -> None:
    get(site, target)
    record_of(target).write_text(record)
    with refused("a.bin has the SHA-256", "instead of the one recorded in a.bin.sha256", "delete"):
        get(site, target)


@pytest.mark.parametrize("change", [-3000, 3000])
def test_another_length_than_announced_is_refused_and_not_gone_on_from(
    site: LoopbackFiles, target: Path, change: int
) -> None:
    """Content-Range states the size of the whole file."""
    site.faults += [Fault("cut", times=1), Fault("length", change=change)]
    with refused(f"{site.address}/a.bin", "announced length", REMEDY):
        get(site, target)
    assert not target.exists()
    site.faults.clear()
    assert get(site, target, DIGEST) == CONTENT


def test_an_answer_with_other_bytes_than_asked_for_is_not_joined(
    site: LoopbackFiles, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert interrupt(site, target) > 0
    monkeypatch.setattr("loopback_faults.wanted_bytes", lambda header, size: range(5, size) if header else None)
    assert get(site, target, DIGEST) == CONTENT
    assert [asked_range is None for _, asked_range in asked(site)] == [False, True]


def test_a_full_disk_is_named_and_what_arrived_stays(site: LoopbackFiles, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).symlink_to("/dev/full")
    with refused(f"{site.address}/a.bin", "No space left on device", "free space or choose another folder"):
        get(site, target)
    part_of(target).unlink()
    assert get(site, target) == CONTENT


def test_a_folder_that_cannot_be_made_is_named(site: LoopbackFiles, target: Path) -> None:
    target.parent.write_text("in the way")
    with refused(f"{target} cannot be written", "exists", "choose another folder"):
        get(site, target)


def test_without_network_what_is_there_is_used_and_what_is_not_is_named(
    site: LoopbackFiles, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(site, target)
    away = f"http://127.0.0.1:{site.server_port}/a.bin"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(away, target, REMEDY) == target
    with refused(f"{away} is not on this machine", "HF_HUB_OFFLINE forbids the network", f"unset it, or {REMEDY}"):
        fetch(away, target.with_name("b.bin"), REMEDY)
    assert len(site.requests) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with refused("http://127.0.0.1:1/a.bin", "Connection refused", REMEDY):
        fetch("http://127.0.0.1:1/a.bin", target.with_name("b.bin"), REMEDY)
    assert fetch("http://127.0.0.1:1/a.bin", target, REMEDY) == target


@pytest.mark.parametrize(
    "url",
    [
        "", "no address", "a.bin", "ftp://127.0.0.1/a.bin", "file:///a.bin", "https://", "http:///a.bin", "http://[::1",
        "http://127.0.0.1:99999/a.bin", "http://127.0.0.1:x/a.bin", "http://a b/a.bin", "http://..../a.bin",
        "http://127.0.0.1:1/a\nb.bin", "http://127.0.0.1:1/a\x1b.bin", "http://127.0.0.1:1/" + "a" * 70_000,
    ],
    ids=range(15),
)  # fmt: skip
def test_what_is_no_address_is_told(target: Path, url: str) -> None:
    with refused(repr(url)[1:17], "cannot be reached" if url.endswith("..../a.bin") else "is no address", REMEDY):
        fetch(url, target, REMEDY)
    assert not target.exists()


def test_an_interruption_leaves_the_part_and_the_lock_free(
    site: LoopbackFiles, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    site.faults.append(Fault("cut", times=1))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(download.time, "sleep", interrupted)
        get(site, target)
    assert part_of(target).read_bytes() == CONTENT[: len(CONTENT) // 2]
    assert get(site, target) == CONTENT
    assert asked(site)[-1] == ("GET", f"bytes={len(CONTENT) // 2}-")


class Terminal(io.StringIO):
    """Where a person looks on."""

    def isatty(self) -> bool:
        return True


def test_a_person_sees_how_far_it_is(site: LoopbackFiles, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    get(site, target)
    assert "a.bin" in screen.getvalue().partition("checking a.bin")[0]
    assert "20.5/20.5 kB" in screen.getvalue()
    assert "checking a.bin" in screen.getvalue()
