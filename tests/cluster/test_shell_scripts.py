"""Every shell script passes its linter, and those that start a run read the same variables in the same words."""

import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins import SCRIPTS

from vdvae_lr.files.bundled import CHECKOUT_ROOT

SHELL_SCRIPTS = sorted([*SCRIPTS.rglob("*.sh"), *CHECKOUT_ROOT.glob(".ci/run")])
STARTING = ("slurm.sh", "mpiexec.sh", "kubernetes/processes.sh")


@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    found = subprocess.run([shellcheck, path], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert path.stat().st_mode & 0o111, "it is not executable"


def variables(script: str) -> str:
    text = (SCRIPTS / script).read_text()
    start, end = text.index("# The same variables in every script"), text.index('--save_dir "$RUNS" "$@")')
    return text[start:end]


@pytest.mark.parametrize("script", STARTING[1:])
def test_variables_are_the_same_in_every_script(script: str) -> None:
    assert variables(script) == variables(STARTING[0])
