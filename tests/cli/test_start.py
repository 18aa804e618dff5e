"""Ctrl-C from the first moment on, and an environment that would trip the program later."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vdvae_lr.errors import EXIT_INTERRUPTED
from vdvae_lr.processes.streams import prepare_process

_STUBBORN = """
import os, signal
from vdvae_lr.cli.start import leaving_at_ctrl_c
signal.signal(signal.SIGINT, {handler})
with leaving_at_ctrl_c():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("half loaded, and goes on")
print("after")
"""


def stubborn(handler: str) -> tuple[int, str, str]:
    code = _STUBBORN.format(handler=handler)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_what_catches_ctrl_c_while_it_is_imported_does_not_keep_the_program() -> None:
    assert stubborn("signal.default_int_handler") == (EXIT_INTERRUPTED, "", "interrupted\n")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As in the background of a script."""
    assert stubborn("signal.SIG_IGN") == (0, "after\n", "")


@pytest.mark.parametrize("command", [["train.py", "--dry_run"], ["-m", "vdvae_lr", "sample", "--help"]])
def test_ctrl_c_while_torch_is_imported_is_one_word(command: list[str], tmp_path: Path) -> None:
    """The stand-in for torch presses Ctrl-C, and catches it as some modules do."""
    pressing = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    (tmp_path / "torch.py").write_text(pressing)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_INTERRUPTED, "", "interrupted\n")


@pytest.mark.parametrize("variable", ["TMPDIR", "TEMP"])
def test_a_temporary_folder_too_long_for_sockets_is_replaced(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", "")  # restored afterwards
    monkeypatch.setenv(variable, "/" + "x" * 100)
    prepare_process()
    assert 0 < len(os.environ["TMPDIR"]) < 75


def test_a_temporary_folder_of_fair_length_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/somewhere")
    prepare_process()
    assert os.environ["TMPDIR"] == "/somewhere"


@pytest.mark.parametrize(("columns", "left"), [("0", None), ("00", None), ("80", "80"), ("abc", "abc")])
def test_a_width_of_nothing_is_forgotten(monkeypatch: pytest.MonkeyPatch, columns: str, left: str | None) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    prepare_process()
    assert os.environ.get("COLUMNS") == left
