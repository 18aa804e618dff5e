"""A CUDA graph is used only if it does what plain calls do."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vdvae_lr.processes.cuda_graph import CheckedGraph, captured


class Work:
    """Doubles what is in a buffer, and counts its calls."""

    def __init__(self) -> None:
        self.buffer = torch.zeros(2)
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return 2 * self.buffer


def follows(function: Callable[[], Tensor], calls: int) -> Callable[[], Tensor]:
    """A capture whose replays are right; they do not count as calls."""
    assert isinstance(function, Work)
    buffer = function.buffer
    for _ in range(calls):
        function()
    return lambda: 2 * buffer


def goes_stale(function: Callable[[], Tensor], calls: int) -> Callable[[], Tensor]:
    result = function()
    return lambda: result


def fails(function: Callable[[], Tensor], calls: int) -> Callable[[], Tensor]:
    raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore words")


def results(work: Work, capture: Callable[[Callable[[], Tensor], int], Callable[[], Tensor]]) -> list[float]:
    checked = CheckedGraph(work, torch.equal, capture)
    found = []
    for number in range(1, 6):
        work.buffer.fill_(number)
        found.append(float(checked()[0]))
    return found


def test_a_graph_that_is_right_takes_over(capsys: pytest.CaptureFixture[str]) -> None:
    work = Work()
    assert results(work, follows) == [2, 4, 6, 8, 10]
    assert work.calls == 3  # two plain ones and one before the capture
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("capture", "calls", "cause"),
    [(goes_stale, 6, "it gave other numbers"), (fails, 5, "CUDA error: operation not permitted when stream is captur")],
)
def test_plain_calls_stand_in_for_a_graph_that_is_not(
    capsys: pytest.CaptureFixture[str],
    capture: Callable[[Callable[[], Tensor], int], Callable[[], Tensor]],
    calls: int,
    cause: str,
) -> None:
    work = Work()
    assert results(work, capture) == [2, 4, 6, 8, 10]
    assert work.calls == calls
    said = capsys.readouterr().err
    assert said.startswith(f"no CUDA graph is used: {cause}") and said.count("\n") == 1


def test_another_error_is_not_hidden() -> None:
    def defective(function: Callable[[], Tensor], calls: int) -> Callable[[], Tensor]:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        results(Work(), defective)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_a_captured_graph_follows_its_buffers(capsys: pytest.CaptureFixture[str]) -> None:
    work = Work()
    work.buffer = work.buffer.cuda()
    assert results(work, captured) == [2, 4, 6, 8, 10]
    assert work.calls == 4  # one of them is captured
    assert capsys.readouterr().err == ""


WAITS = """
import torch
from vdvae_lr.processes.cuda_graph import CheckedGraph

buffer = torch.ones(2, device="cuda")
checked = CheckedGraph(lambda: torch.tensor(buffer.sum().item()) + buffer, torch.equal)
print([float(checked()[0]) for _ in range(3)], torch.cuda.current_stream() == torch.cuda.default_stream())
"""


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_a_card_is_still_usable_after_a_capture_that_failed() -> None:
    """In a process of its own, so that other tests do not meet what it may leave."""
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, check=True)
    assert done.stdout == "[3.0, 3.0, 3.0] True\n"
    assert done.stderr.startswith("no CUDA graph is used: ")
