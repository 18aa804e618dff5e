"""What the command line sets for OpenMP and torch, before torch is imported, and only where the user set nothing."""

import os
import subprocess
import sys

import pytest
from launching import CHECKOUT

PROGRAMS = [["train.py", "--dry_run"], ["-m", "vdvae_lr", "train", "--dry_run"]]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("given", "found"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_wait_without_spinning_unless_told_to(program: list[str], given: dict[str, str], found: str) -> None:
    """OpenMP prints what it took from the environment when torch loads it."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment = unset | {"OMP_DISPLAY_ENV": "true", "PYTHONPATH": str(CHECKOUT)} | given
    command = [sys.executable, *program]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True)
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this torch does not use an OpenMP that prints its settings")
    assert f"OMP_WAIT_POLICY = '{found}'" in done.stderr
