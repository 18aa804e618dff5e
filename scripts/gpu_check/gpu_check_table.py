"""The table that `gpu_check.py` fills. A row may fail, or be skipped for lack of time."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmark import Report, StepCase, StepMeasurement, fresh_memory

from vdvae_lr.processes.world import World


@dataclass
class Check:
    """The device, the report, the deadline, and whether everything passed so far."""

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
        """Measure one row that takes about `seconds`. A failure becomes a row too, and the check continues."""
        if self.seconds_left < seconds:
            self.report.row(label, f"skipped: no {seconds:.0f} s left")
            return
        try:
            cells = measure()
        except Exception as error:  # after any error, the other rows are still useful
            traceback.print_exc()
            cells = [self.verdict(False), f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"]
        self.report.row(label, *cells)
        fresh_memory()

    def verdict(self, passed: bool) -> str:
        self.sound &= passed
        return "ok" if passed else "FAILED"
