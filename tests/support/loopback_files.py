"""Plain file downloads on this machine: ranges, versions and faults, for code that fetches from any web server."""

import email.utils
import hashlib
import zlib
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import unquote, urlsplit

from loopback_faults import LoopbackHandler, LoopbackServer


class _Download(LoopbackHandler):
    """HEAD and GET of the files; anything else is 404."""

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
    """Serves `files`, which a test may change at any time.

    Args:
        files: path (with its slash) → content.
        ranges: whether Range is honoured; else every GET gets the whole file.
        without: headers that are left out of the answers, of ETag and Last-Modified.
    """

    def __init__(self, files: dict[str, bytes], ranges: bool = True, without: Collection[str] = ()) -> None:
        super().__init__(_Download)
        self.files = files
        self.ranges = ranges
        self.without = without


def described(content: bytes) -> dict[str, str]:
    """ETag and Last-Modified of a file; the date is made up, but another one for another content."""
    date = 1_700_000_000 + zlib.crc32(content) % 10_000_000
    return {
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Last-Modified": email.utils.formatdate(date, usegmt=True),
    }
