"""Servers on this machine for tests. A test says how, where and how often they fail.

    with LoopbackFiles({"/a.bin": content}) as site:
        site.faults.append(Fault("cut", "a.bin", after=0.3, times=1))
        ...
    assert site.requests == [("GET", "/a.bin", None), ("GET", "/a.bin", "bytes=300-")]

`loopback_files.py` and `loopback_hub.py` define the answers of the two servers. This file has what they share.
"""

import contextlib
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import unquote, urlsplit

_INVERTED = bytes(range(255, -1, -1))


@dataclass
class Fault:
    """A fault of the server. The first fault in the list that fits a request, and has strikes left, applies to it.

    The answer to HEAD has no body, so `cut`, `reset` and `stall` do not change it; `length` announces another size.
    The path "model" also fits every request for a repository whose name contains "model".

    | kind    | what the client sees                                                              |
    |---------|-----------------------------------------------------------------------------------|
    | cut     | the whole length is announced; after the share `after` the connection is closed   |
    | reset   | as cut, but ended by a TCP reset (as if a process died), not by an orderly close  |
    | stall   | the share `after` comes, then nothing until the server closes or is released      |
    | silent  | nothing comes, until the server closes or is released                             |
    | hangup  | the connection is closed without an answer                                        |
    | status  | the answer is `status`, with Retry-After if `retry_after` is given                |
    | content | a body of the announced length, but with other bytes                              |
    | length  | a body that is `change` bytes longer (negative: shorter), announced with its size |
    """

    kind: Literal["cut", "reset", "stall", "silent", "hangup", "status", "content", "length"]
    path: str = ""  # fits a path (unquoted, without query) that contains this
    method: str = "GET"
    times: int | None = None  # the number of times that it applies; None: always
    after: float = 0.5
    status: int = 503
    retry_after: int | None = None
    change: int = -1
    struck: int = field(default=0, init=False)

    def fits(self, method: str, path: str) -> bool:
        """Whether the fault applies to this request."""
        left = self.times is None or self.struck < self.times
        return left and method == self.method and self.path in path

    def spoil(self, body: bytes) -> bytes:
        """The wrong body, which is announced instead of the right one."""
        if self.kind == "content":
            return body.translate(_INVERTED)
        if self.kind == "length":
            return body + bytes(self.change) if self.change > 0 else body[: self.change]
        return body


class Seen(NamedTuple):
    """A request that was received; it equals the plain tuple."""

    method: str
    path: str
    range: str | None


class LoopbackServer(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1 inside a `with` block. Afterwards no thread or socket is left.

    Attributes:
        address: the server's address, http://127.0.0.1:PORT.
        faults: the faults; the test fills this list.
        requests: the requests that were received, in order.
    """

    daemon_threads = False  # server_close waits only for threads that are not daemons
    request_queue_size = 64

    def __init__(self, handler: type["LoopbackHandler"]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.faults: list[Fault] = []
        self.requests: list[Seen] = []
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[Any] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._connections:  # open ones would wait for another request forever
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def release(self) -> None:
        """End the waiting of `silent` and `stall`: close their connections."""
        self.released.set()

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault that applies to this request, or None; it counts as a strike."""
        with self._lock:
            fault = next((fault for fault in self.faults if fault.fits(method, path)), None)
            if fault is not None:
                fault.struck += 1
            return fault

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that it ends with the server."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._connections.discard(request)
        super().close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that disconnects. Any other error is a defect; pytest sees it as an exception of a thread."""
        if not isinstance(sys.exception(), ConnectionError):
            raise


class LoopbackHandler(BaseHTTPRequestHandler):
    """Records each request, applies its fault, and lets `respond` answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else headers and body, which are two writes, wait 40 ms for each other
    server: LoopbackServer

    def respond(self) -> None:
        """Answer the request `self.command` for `self.path` with the body `self.body`."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Handle any request."""
        self.body = self._read_body()
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(Seen(self.command, path, self.headers.get("Range")))
        self.fault = fault = self.server.strike(self.command, path)
        if fault is not None and fault.kind in ("silent", "hangup"):
            if fault.kind == "silent":
                self.server.released.wait()
            self.close_connection = True
        elif fault is not None and fault.kind == "status":
            wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            self.answer(fault.status, headers=wait)
        else:
            self.respond()

    do_HEAD = do_POST = do_PUT = do_GET

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Send an answer, changed by the request's fault. An answer to HEAD has only the length of the body."""
        fault = self.fault
        body = fault.spoil(body) if fault is not None else body
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is None or fault.kind not in ("cut", "reset", "stall"):
            self.wfile.write(body)
            return
        self.wfile.write(body[: int(len(body) * fault.after)])
        self.close_connection = True
        if fault.kind == "stall":
            self.server.released.wait()
        elif fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # close() is not enough, as `rfile` keeps the socket open

    def answer_file(self, content: bytes, headers: Mapping[str, str]) -> None:
        """Send `content`, or the part that Range asks for if If-Range names the version in `headers`."""
        ranged = {"Accept-Ranges": "bytes", **headers}
        versions = (None, headers.get("ETag"), headers.get("Last-Modified"))
        same = self.command == "GET" and self.headers.get("If-Range") in versions
        wanted = wanted_bytes(self.headers.get("Range"), len(content)) if same else None
        if wanted is None:
            self.answer(HTTPStatus.OK, content, ranged)
        elif not wanted:
            self.answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", {"Content-Range": f"bytes */{len(content)}"})
        else:
            ranged["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(content)}"
            self.answer(HTTPStatus.PARTIAL_CONTENT, content[wanted.start : wanted.stop], ranged)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


def wanted_bytes(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for in a file of `size` bytes. None: all. Empty: none of them exist.

    A header that is not one range of bytes counts as absent, as RFC 9110 allows.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    first, last = found.groups() if found else ("", "")
    if not first:
        return range(max(size - int(last), 0), size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)
