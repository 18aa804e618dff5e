"""A file server on this machine, with ranges, versions and faults, for code that downloads from any web server."""

import email.utils
import hashlib
import zlib
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from loopback_faults import LoopbackHandler, LoopbackServer


class _Download(LoopbackHandler):
    """Answers HEAD and GET for the files, and 404 to anything else."""

    server: "LoopbackFiles"

    def respond(self) -> None:
        content = self.server.files.get(unquote(urlsplit(self.path).path))
        if content is None or self.command not in ("HEAD", "GET"):
            self.answer(HTTPStatus.NOT_FOUND, b"not found")
            return
        headers = {name: value for name, value in described(content).items() if name not in self.server.without}
        if self.server.ranges:
            self.answer_file(content, headers)
        else:
            self.answer(HTTPStatus.OK, content, headers)


class LoopbackFiles(LoopbackServer):
    """Serves `files`. A test may change them at any time.

    Args:
        files: the content for each path (with its leading slash).
        ranges: whether the server obeys Range; otherwise every GET gets the whole file.
        without: headers that the answers lack: ETag, Last-Modified or both.
    """

    def __init__(self, files: dict[str, bytes], ranges: bool = True, without: Collection[str] = ()) -> None:
        super().__init__(_Download)
        self.files = files
        self.ranges = ranges
        self.without = without


def described(content: bytes) -> dict[str, str]:
    """ETag and Last-Modified of a file. The date is invented, and differs for other contents."""
    date = 1_700_000_000 + zlib.crc32(content) % 10_000_000
    return {
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Last-Modified": email.utils.formatdate(date, usegmt=True),
    }
