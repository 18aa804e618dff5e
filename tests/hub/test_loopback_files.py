"""The file server that other tests stand on: ranges and versions as the standard has them, faults as a test wants."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_client import CHUNK, client_at
from loopback_faults import Fault, wanted_bytes
from loopback_files import LoopbackFiles, described

httpx2 = pytest.importorskip("httpx2")
download = pytest.importorskip("huggingface_hub.file_download")
errors = pytest.importorskip("huggingface_hub.errors")

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LoopbackFiles]:
    with LoopbackFiles({"/a.bin": CONTENT}) as site, client_at(site.address, tmp_path / "home"):
        yield site


def fetch(site: LoopbackFiles, start: int = 0, tag: str = "") -> bytes:
    """/a.bin, of which the first `start` bytes are there already."""
    file = io.BytesIO(CONTENT[:start])
    file.seek(start)
    headers = {"If-Range": tag} if tag else {}
    download.http_get(f"{site.address}/a.bin", file, resume_size=start, headers=headers)
    return file.getvalue()


def test_a_file_is_served_from_where_it_stopped(site: LoopbackFiles) -> None:
    assert fetch(site) == fetch(site, 1000) == fetch(site, len(CONTENT) - 1) == CONTENT
    assert [request.range for request in site.requests] == [None, "bytes=1000-", f"bytes={len(CONTENT) - 1}-"]
    with pytest.raises(errors.HfHubHTTPError, match=rf"416[\s\S]*bytes \*/{len(CONTENT)}"):
        fetch(site, len(CONTENT))


def test_if_range_of_another_version_and_a_server_without_ranges_start_over(site: LoopbackFiles) -> None:
    for tag in described(CONTENT).values():
        assert fetch(site, 1000, tag) == CONTENT
    part = httpx2.get(f"{site.address}/a.bin", headers={"Range": "bytes=1-2", "If-Range": described(CONTENT)["ETag"]})
    assert (part.status_code, part.content) == (206, CONTENT[1:3])
    assert part.headers["Content-Range"] == f"bytes 1-2/{len(CONTENT)}"
    whole = httpx2.get(f"{site.address}/a.bin", headers={"Range": "bytes=1-2", "If-Range": described(b"old")["ETag"]})
    assert (whole.status_code, whole.content) == (200, CONTENT)
    site.ranges = False
    assert fetch(site, 1000) == CONTENT
    assert "Accept-Ranges" not in httpx2.head(f"{site.address}/a.bin").headers


def test_headers_and_faults_of_the_file_server(site: LoopbackFiles) -> None:
    head = httpx2.head(f"{site.address}/a.bin")
    assert head.headers["Content-Length"] == str(len(CONTENT))
    assert {name: head.headers[name] for name in described(CONTENT)} == described(CONTENT)
    site.without = ("ETag",)
    assert "ETag" not in httpx2.head(f"{site.address}/a.bin").headers
    assert httpx2.get(f"{site.address}/b.bin").status_code == 404
    site.faults += [Fault("cut", "a.bin", after=0.5, times=1), Fault("status", "a.bin", status=408, times=1)]
    site.requests.clear()
    assert fetch(site) == CONTENT
    half = f"bytes={len(CONTENT) // 2 // CHUNK * CHUNK}-"
    assert site.requests == [("GET", "/a.bin", None), ("GET", "/a.bin", half), ("GET", "/a.bin", half)]


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-", range(10)),
        ("bytes=3-4", range(3, 5)),
        ("bytes=3-99", range(3, 10)),
        ("bytes=-4", range(6, 10)),
        ("bytes=-99", range(10)),
        ("bytes=10-", range(0)),
        ("bytes=-0", range(0)),
        ("bytes=4-3", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=1-2", None),
    ],
)
def test_a_range_is_what_the_standard_says(header: str | None, wanted: range | None) -> None:
    assert wanted_bytes(header, 10) == wanted
