"""Servers on this machine for the tests, which fail in the way, at the place and as often as a test says.

    with LoopbackFiles({"/a.bin": content}) as site:
        site.faults.append(Fault("cut", "a.bin", after=0.3, times=1))
        ...
    assert site.requests == [("GET", "/a.bin", None), ("GET", "/a.bin", "bytes=300-")]

`loopback_files.py` and `loopback_hub.py` say what the two servers answer; here is what both do with a request.
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
    """What goes wrong with requests. Each request meets the first fault of the list that fits it and has strikes left.

    The answer to HEAD has no body: `cut`, `reset` and `stall` leave it alone, and `length` announces another size.
    Mind that "model" is also in the path of every request about a repository that is called so.

    | kind    | what the client meets                                                             |
    |---------|-----------------------------------------------------------------------------------|
    | cut     | the whole length is announced, the share `after` comes, the connection is closed  |
    | reset   | the same, ended by a TCP reset (a process that died) instead of an orderly close  |
    | stall   | the share `after` comes, then nothing until the server closes or is released      |
    | silent  | nothing comes, until the server closes or is released                             |
    | hangup  | the connection is closed without an answer                                        |
    | status  | the answer is `status`, with Retry-After if `retry_after` is given                |
    | content | the announced length, but other bytes                                             |
    | length  | a body that is `change` bytes longer (shorter where negative), announced as such  |
    """

    kind: Literal["cut", "reset", "stall", "silent", "hangup", "status", "content", "length"]
    path: str = ""  # strikes where the request's path, without quoting and query, holds this
    method: str = "GET"
    times: int | None = None  # how often it strikes; None: always
    after: float = 0.5
    status: int = 503
    retry_after: int | None = None
    change: int = -1
    struck: int = field(default=0, init=False)

    def fits(self, method: str, path: str) -> bool:
        """Whether it strikes this request."""
        left = self.times is None or self.struck < self.times
        return left and method == self.method and self.path in path

    def spoil(self, body: bytes) -> bytes:
        """The body that is announced instead of the right one."""
        if self.kind == "content":
            return body.translate(_INVERTED)
        if self.kind == "length":
            return body + bytes(self.change) if self.change > 0 else body[: self.change]
        return body


class Seen(NamedTuple):
    """A request that came in; equal to the plain tuple."""

    method: str
    path: str
    range: str | None


class LoopbackServer(ThreadingHTTPServer):
    """A server on a free port of 127.0.0.1 for the length of a `with` block, after which no thread or socket is left.

    Attributes:
        address: where it listens, http://127.0.0.1:PORT.
        faults: what shall go wrong; the test fills it.
        requests: what came in, in order.
    """

    daemon_threads = False  # those are the ones that server_close waits for
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
            for connection in self._connections:  # kept-alive ones would wait for another request forever
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def release(self) -> None:
        """End the silence of `silent` and `stall`: the connections that wait are closed."""
        self.released.set()

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets."""
        with self._lock:
            fault = next((fault for fault in self.faults if fault.fits(method, path)), None)
            if fault is not None:
                fault.struck += 1
            return fault

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keep the connection, to end it with the server."""
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._connections.discard(request)
        super().close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may go away; anything else is a defect of the server, which pytest sees as a thread's exception."""
        if not isinstance(sys.exception(), ConnectionError):
            raise


class LoopbackHandler(BaseHTTPRequestHandler):
    """Notes each request, applies its fault, and leaves the answer to `respond`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or headers and body, which are two writes, wait 40 ms for each other
    server: LoopbackServer

    def respond(self) -> None:
        """Answer `self.command` on `self.path`, whose body is `self.body`."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Any request."""
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
        """Send an answer, spoiled by the request's fault; the body of an answer to HEAD is only measured."""
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
            os.close(self.connection.detach())  # not close(): `rfile` would hold the socket open for an orderly end

    def answer_file(self, content: bytes, headers: Mapping[str, str]) -> None:
        """Send `content`, or what Range asks of it as long as If-Range names the version that `headers` describe."""
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
        """Keep the test's output quiet."""


def wanted_bytes(header: str | None, size: int) -> range | None:
    """What a Range header asks of a file of `size` bytes: None for the whole, an empty range for what is not there.

    A header that is not one range of bytes counts as absent, as RFC 9110 allows.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    first, last = found.groups() if found else ("", "")
    if not first:
        return range(max(size - int(last), 0), size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)
