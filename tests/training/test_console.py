"""Speed and time left are those of the last steps; other work on the cores is noticed, and said once."""

from datetime import timedelta
from pathlib import Path

import pytest

from vdvae_lr.training import console
from vdvae_lr.training.console import CoreWatch, Speedometer


def test_speed_and_time_left_are_those_of_the_last_steps() -> None:
    clock = 0.0
    speed = Speedometer(iterations=10_000, global_batch=4, now=lambda: clock)
    assert speed.time_left(0) == timedelta(0)  # nothing is known yet
    for _ in range(50):  # slow at first, as where kernels are compiled or another program runs
        clock += 10
        speed.step()
    assert speed.images_per_second() == pytest.approx(0.4)
    clock += 1000  # an evaluation
    speed.exclude(1000)
    for _ in range(150):
        clock += 0.5
        speed.step()
    assert speed.images_per_second() == pytest.approx(8.0)
    assert speed.time_left(200) == timedelta(seconds=9_800 * 0.5)


class Machine:
    """A clock, and how long a thread of it waited for a core."""

    def __init__(self) -> None:
        self.now, self.waited = 0.0, 0.0

    def goes_on(self, seconds: float, share: float) -> None:
        self.now += seconds
        self.waited += share * seconds

    def watched(self, threads: int = 2) -> CoreWatch:
        return CoreWatch(threads, lambda: self.now, lambda: self.waited)


def test_other_work_is_said_once_with_its_share_and_a_remedy() -> None:
    machine = Machine()
    watch = machine.watched()
    machine.goes_on(100, 0.01)
    assert watch.notice() == ""
    machine.goes_on(10, 0.4)  # counted from the last line, not from the start of the run
    said = watch.notice()
    assert "40% of the time" in said
    assert "OMP_NUM_THREADS=1" in said
    machine.goes_on(10, 0.4)
    assert watch.notice() == ""


def test_one_thread_waits_for_no_other() -> None:
    machine = Machine()
    watch = machine.watched(threads=1)
    machine.goes_on(10, 0.9)
    assert watch.notice() == ""


def test_where_nobody_counts_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(console, "_COUNTER", tmp_path / "schedstat")
    machine = Machine()
    watch = CoreWatch(2, lambda: machine.now)
    machine.goes_on(10, 0.9)
    assert watch.notice() == ""


@pytest.mark.skipif(not console._COUNTER.exists(), reason="only Linux counts it")
def test_linux_counts_seconds() -> None:
    waited = console._waited_for_a_core_s()
    assert waited is not None
    assert 0 <= waited < 1e6
