"""CUDA graphs: work over fixed buffers is captured once and then replayed, which launches all its kernels at once."""

import gc
import sys
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from vdvae_lr.errors import first_line

T = TypeVar("T")


def captured(function: Callable[[], T], warm_up: int) -> Callable[[], T]:
    """`function` as a CUDA graph.

    Args:
        function: reads and writes tensors at fixed addresses, and waits for nothing.
        warm_up: number of calls before the capture, for example for cuDNN to choose its algorithms.

    Returns:
        The replay. It returns the same tensors each time, with new content.

    Raises:
        RuntimeError: `function` cannot be captured, or memory is short.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm_up):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with (
        torch.cuda.stream(torch.cuda.current_stream()),  # a capture that fails would leave its own stream in place
        torch.cuda.graph(graph, capture_error_mode="thread_local"),  # a loader pins memory in its own thread
    ):
        result = function()

    def replay() -> T:
        graph.replay()
        return result

    return replay


def release_memory() -> None:
    """Free memory that nothing uses. A graph holds that of its passes, and is part of a reference cycle."""
    gc.collect()
    torch.cuda.empty_cache()  # does nothing without a card


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a card's memory was too small. During a capture that is reported as a broken capture."""
    return any(isinstance(link, torch.OutOfMemoryError) for link in (error, error.__context__))


class CheckedGraph(Generic[T]):
    """Calls `function`, from the third time on by a CUDA graph, if the graph has proved to do the same.

    The first call is plain; then the graph is captured. The second call is plain, too, and its result is compared with
    a replay's. If the capture fails or the results differ, all calls are plain, and a line on standard error says why.

    Args:
        function: as `captured` takes it. The content of its buffers changes between the calls.
        alike: whether two results are equal up to rounding.
        capture: what makes the graph.
    """

    def __init__(
        self,
        function: Callable[[], T],
        alike: Callable[[T, T], bool],
        capture: Callable[[Callable[[], T], int], Callable[[], T]] = captured,
    ) -> None:
        self._function = function
        self._alike = alike
        self._capture = capture
        self._next: Callable[[], T] = self._call_and_capture

    def __call__(self) -> T:
        """The result. A later call may overwrite it."""
        return self._next()

    def _call_and_capture(self) -> T:
        result = self._function()
        try:
            replay = self._capture(self._function, 1)
        except RuntimeError as error:
            self._stay_plain(first_line(error))
        else:
            self._next = lambda: self._compared(replay)
        return result

    def _compared(self, replay: Callable[[], T]) -> T:
        result = self._function()
        if self._alike(result, replay()):
            self._next = replay
        else:
            self._stay_plain("it gave other numbers than plain calls")
        return result

    def _stay_plain(self, cause: str) -> None:
        self._next = self._function
        print(f"no CUDA graph is used: {cause}. The results are right, but may take longer.", file=sys.stderr)
