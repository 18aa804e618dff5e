"""The table that `gpu_check.py` fills: rows that may fail or find no time, and whether anything failed."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmark import Report, StepCase, StepMeasurement, release_memory

from vdvae_lr.processes.world import World


@dataclass
class Check:
    """The card, the report, and the time there is."""

    world: World
    report: Report
    deadline: float
    force_compile: bool
    sound: bool = True
    steps: dict[StepCase, StepMeasurement] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def row(self, label: str, seconds: float, measure: Callable[[], Sequence[str]]) -> None:
        """One row that takes about so many `seconds`; a failure is a row as well, and the check goes on."""
        if self.seconds_left < seconds:
            self.report.row(label, f"skipped: no {seconds:.0f} s left")
            return
        try:
            cells = measure()
        except Exception as error:  # whatever it is, the other rows are still worth having
            traceback.print_exc()
            cells = [self.verdict(False), f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"]
        self.report.row(label, *cells)
        release_memory()

    def verdict(self, passed: bool) -> str:
        self.sound &= passed
        return "ok" if passed else "FAILED"
