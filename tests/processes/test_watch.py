"""What a process of a run learns of the others, on a store in memory, with time that passes quickly."""

import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from torch.distributed import HashStore

from vdvae_lr.processes import watch as peers
from vdvae_lr.processes.watch import PeerWatch

Watches = list[tuple[PeerWatch, list[str]]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "BEAT_S", 0.02)
    monkeypatch.setattr(peers, "SILENT_S", 1.0)
    monkeypatch.setattr(peers, "SILENT_AFTER_BROKEN_CONNECTION_S", 0.5)


@pytest.fixture
def start() -> Iterator[Callable[..., Watches]]:
    """Watches of so many processes on one store, each with the sentences it ended with."""
    started: Watches = []

    def begin(count: int, stuck_after_s: float = 1e9) -> Watches:
        store = HashStore()
        for rank in range(count):
            said: list[str] = []
            started.append((PeerWatch(store, rank, count, stuck_after_s, leave=said.append), said))
            started[-1][0].start()
        return started

    yield begin
    for watch, _ in started:
        watch.stop()


def wait_for(said: list[str]) -> str:
    deadline = time.monotonic() + 60
    while not said:
        assert time.monotonic() < deadline, "nothing was said"
        time.sleep(0.01)
    return said[0]


def test_healthy_processes_say_nothing(start: Callable[..., Watches]) -> None:
    watches = start(3)
    time.sleep(1.5)  # longer than a silence may be
    assert [said for _, said in watches] == [[], [], []]


def test_a_failure_reaches_every_other_process_with_its_cause(start: Callable[..., Watches]) -> None:
    watches = start(3)
    watches[2][0].fail("the cat sat on it")
    for rank in (0, 1):
        assert wait_for(watches[rank][1]) == (f"process 2 failed: the cat sat on it; process {rank} ends with it.")


def test_the_first_failure_is_the_cause(start: Callable[..., Watches]) -> None:
    watches = start(3)
    watches[2][0].fail("first", linger=False)
    watches[1][0].fail("a consequence", linger=False)
    assert "process 2 failed: first" in wait_for(watches[0][1])


def test_a_silent_process_is_gone(start: Callable[..., Watches]) -> None:
    watches = start(2)
    watches[1][0].at("step 7, computing")
    time.sleep(0.2)
    watches[1][0].stop()  # as SIGKILL would
    sentence = wait_for(watches[0][1])
    assert re.match(r"process 1 has not been heard of for \d+ s \(last: step 7, computing\): killed, or", sentence)


def test_a_process_that_ends_well_is_not_missed(start: Callable[..., Watches]) -> None:
    watches = start(2)
    watches[1][0].ending()
    time.sleep(0.2)
    watches[1][0].stop()
    time.sleep(1.5)
    assert watches[0][1] == []


def test_one_that_stands_still_ends_all_and_everybody_says_where_everybody_was(start: Callable[..., Watches]) -> None:
    watches = start(2, stuck_after_s=0.5)
    watches[0][0].at("step 3, reducing gradients")
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        watches[1][0].at("step 3, reading images")
        time.sleep(0.01)
    for _, said in watches:
        sentence = wait_for(said)
        assert "no progress for" in sentence
        assert "process 0: step 3, reducing gradients, for" in sentence
        assert "process 1: step 3, reading images, for" in sentence


def test_a_store_that_is_gone_means_process_0(start: Callable[..., Watches], monkeypatch: pytest.MonkeyPatch) -> None:
    class GoneStore(HashStore):
        def check(self, keys: list[str]) -> bool:
            raise RuntimeError("connection reset")

    said: list[str] = []
    watch = PeerWatch(GoneStore(), 1, 2, leave=said.append)
    watch.start()
    assert wait_for(said).startswith("process 0, or the launcher beside it, does not answer")
    watch.stop()


def test_a_store_that_does_not_answer_means_process_0_too() -> None:
    class FrozenStore(HashStore):
        def check(self, keys: list[str]) -> bool:
            thaw.wait()
            return False

    thaw = threading.Event()
    said: list[str] = []
    watch = PeerWatch(FrozenStore(), 1, 2, leave=said.append)
    watch.start()
    assert wait_for(said).startswith("process 0, or the launcher beside it, does not answer for")
    began = time.monotonic()
    watch.fail("a consequence", linger=False)
    thaw.set()
    watch.stop()
    assert time.monotonic() - began < 60  # neither waited for the store


def test_a_process_that_slept_does_not_think_the_others_are_gone(
    start: Callable[..., Watches], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspended machine: every clock jumps, and nobody has been heard of meanwhile."""
    watches = start(2)
    time.sleep(0.2)
    jump = 1000.0
    monotonic = time.monotonic
    monkeypatch.setattr(peers.time, "monotonic", lambda: monotonic() + jump)
    time.sleep(0.5)
    monkeypatch.setattr(peers.time, "monotonic", monotonic)
    assert [said for _, said in watches] == [[], []]


def test_a_process_that_has_not_come_yet_is_missing_but_not_lost() -> None:
    """It may be minutes late; one that came and is silent since is lost, whoever else is missing."""
    store, said = HashStore(), list[str]()
    first, second = (PeerWatch(store, rank, 3, leave=said.append) for rank in (0, 1))
    assert first.missing() == [1, 2]
    first.start()
    second.start()
    try:
        assert (first.missing(), second.missing()) == ([2], [2])
        time.sleep(1.5)  # longer than a silence may be
        assert not said
        second.stop()
        assert "process 1 has not been heard of" in wait_for(said)
    finally:
        first.stop()
        second.stop()
