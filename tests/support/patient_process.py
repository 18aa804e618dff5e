"""One of two processes that do something slow together: `patient_process.py SCENARIO`, under a launcher.

| scenario  | what happens                                                                                        |
|-----------|-----------------------------------------------------------------------------------------------------|
| slow      | process 1 takes longer than one may stand still; then process 0 fails while process 1 works on      |
| interrupt | somebody presses Ctrl-C on process 1 while both work on; the moment is left in the file MARK        |
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from vdvae_lr.errors import InputError
from vdvae_lr.processes.failures import ends_with_exit_code
from vdvae_lr.processes.world import World, joined_world

STUCK_AFTER_S = 2.5
SLOW_S = 4.0
FOR_EVER_S = 600.0
SENTENCE = "the mirror is empty; name another one."


def be_slow(world: World) -> str:
    if world.rank == 1:
        time.sleep(SLOW_S)
    return f"from process {world.rank}"


def fail() -> None:
    raise InputError(SENTENCE)


def work_on() -> None:
    time.sleep(FOR_EVER_S)


def press_ctrl_c() -> None:
    Path(os.environ["MARK"]).write_text(repr(time.time()))
    os.kill(os.getpid(), signal.SIGINT)


@ends_with_exit_code
def main(scenario: str) -> int:
    """Join the other process and run the scenario."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit an ignored Ctrl-C
    with joined_world("cpu", STUCK_AFTER_S) as world:
        if scenario == "slow":
            print(world.patiently(lambda: be_slow(world), "waiting"))
            print(f"{world.total(1)} processes went on", flush=True)
            world.patiently(fail if world.is_main else work_on, "failing")
        else:
            if world.rank == 1:
                threading.Timer(1.5, press_ctrl_c).start()
            world.patiently(work_on, "working")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
