"""Standard streams in every state: a program that prints comes to its end, or hears once that nobody can read it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = (
    "import os, sys, threading; from vdvae_lr.processes.streams import OutputLostError, mend_streams; mend_streams(); "
)
LETTERS = "a ä · α κ € \udce9"
LOCALES = {
    "none": {},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "strict": {"PYTHONIOENCODING": "utf-8:strict"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "unknown": {"LC_ALL": "xx_YY.nonsense"},
    "unbuffered": {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "ascii"},
}


def in_shell(code: str, redirection: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A Python program whose streams the shell sets up; the exit code is that of Python."""
    script = f'"$0" -c "$1" {redirection}'
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | variables
    return subprocess.run(
        ["bash", "-c", script, sys.executable, START + code], capture_output=True, env=environment, check=False
    )


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_every_letter_can_be_printed(locale: str, stream: str) -> None:
    done = in_shell(f"print({LETTERS!a}, file=sys.{stream})", "", **LOCALES[locale])
    assert done.returncode == 0, done.stderr
    printed = getattr(done, stream).decode("latin-1")
    assert "a " in printed and "udce9" in printed
    if locale in ("ascii", "C", "POSIX", "unbuffered"):
        assert printed == "a \\xe4 - alpha \\u03ba \\u20ac \\udce9\n"


@pytest.mark.parametrize("closed", ["0<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_the_null_device(tmp_path: Path, closed: str) -> None:
    """A file opened afterwards must not become a standard stream, and get what libraries print there."""
    file = tmp_path / "opened"
    code = "sys.stdin.read(); print('x'); print('y', file=sys.stderr); os.write(1, b'x'); os.write(2, b'y'); "
    code += f"number = os.open({str(file)!r}, os.O_CREAT | os.O_WRONLY); os.write(number, b'%d' % number)"
    done = in_shell(code, closed + ("" if "<" in closed else " </dev/null"))
    assert (done.returncode, int(file.read_bytes()) > 2) == (0, True), done.stderr
    assert bool(done.stdout) == (" >&-" not in f" {closed}")
    assert bool(done.stderr) == ("2>&-" not in closed)


@pytest.mark.parametrize(("place", "gone"), [(">/dev/full", False), ("| true", True)])
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_lost_output_is_told_once(place: str, gone: bool, variables: dict[str, str]) -> None:
    code = """
import time
lost = []
for _ in range(2000):
    try:
        print("x" * 100, flush=True)
    except OutputLostError as error:
        lost.append(error.reader_gone)
    if not lost:
        time.sleep(0.01)  # the reader may not have ended yet
print(lost, file=sys.stderr)
"""
    done = in_shell(code, f"{place}; exit ${{PIPESTATUS[0]}}", **variables)
    assert (done.returncode, done.stderr.decode()) == (0, f"[{gone}]\n")


def test_the_main_thread_hears_what_another_one_lost() -> None:
    """rich draws its bar in a thread of its own, whose exceptions nobody would catch."""
    code = """
thread = threading.Thread(target=print, args=("x",), kwargs={"flush": True})
thread.start()
thread.join()
try:
    print("y", flush=True)
except OutputLostError as error:
    print(error, file=sys.stderr)
"""
    done = in_shell(code, ">/dev/full")
    assert done.returncode == 0
    assert done.stderr.decode().startswith("standard output cannot be written (No space left on device)")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("place", ["2>/dev/full", "2>&-", "2> >(true)"])
def test_a_lost_standard_error_changes_nothing(place: str) -> None:
    code = "[print('x' * 100, file=sys.stderr, flush=True) for _ in range(1000)]; print('done'); sys.exit(3)"
    done = in_shell(code, place)
    assert (done.returncode, done.stdout) == (3, b"done\n")


def test_a_second_call_changes_nothing() -> None:
    done = in_shell("first = sys.stdout; mend_streams(); assert sys.stdout is first; print('α')", "")
    assert (done.returncode, done.stdout.decode()) == (0, "α\n"), done.stderr
