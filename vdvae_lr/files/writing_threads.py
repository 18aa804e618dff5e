"""Threads that write files beside the computing, such as PNG files: zlib compresses them outside Python's lock."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

MOST_THREADS = 16  # one compresses 30 to 60 pictures of 256x256 a second; a card may make hundreds
_WAITING = 4  # calls for each thread that may have begun or wait: enough work, and bounded memory


class WritingThreads:
    """Calls functions that write files, in threads, in a `with` block.

    `add` and `wait` raise the error of an earlier call. When the block ends, by an error too, calls that run are
    completed, and calls that have not begun are dropped.

    Args:
        threads: number of threads.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "file writer")
        self._begun: deque[Future[object]] = deque()
        self._most = _WAITING * threads

    def add(self, write: Callable[[], object]) -> None:
        """Call `write` soon. If many calls wait, first wait for the oldest one."""
        while self._begun and (len(self._begun) >= self._most or self._begun[0].done()):
            self._begun.popleft().result()
        self._begun.append(self._pool.submit(write))

    def wait(self) -> None:
        """Wait until every call is complete."""
        while self._begun:
            self._begun.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
