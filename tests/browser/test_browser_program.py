"""The tests that open a browser cannot vanish: what counts as one, and what `.ci/run` demands of the tests and when."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from devtools import browser_program, wanted_browser

from vdvae_lr.files.bundled import CHECKOUT_ROOT

BASH = shutil.which("bash") or "/bin/bash"


def program(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!{BASH}\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are looked for in."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_a_stub_is_no_browser(path: Path) -> None:
    program(path, "chromium", "echo 'install the other package'; exit 1")
    assert browser_program() is None
    real = program(path, "google-chrome", '[ "$1" = --version ]')
    assert browser_program() == wanted_browser() == str(real)


def test_without_a_browser_tests_are_skipped_unless_it_is_required(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROWSER_TESTS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser is installed"):
        wanted_browser()
    monkeypatch.setenv("BROWSER_TESTS", "required")
    with pytest.raises(pytest.fail.Exception, match="no browser is installed"):
        wanted_browser()


def checked(folder: Path, **programs: str) -> tuple[int, list[str], str]:
    """`.ci/run` where nothing but these programs is installed: its status, what make was asked, and its complaints."""
    for name in ("dirname", "timeout", "env", "bash"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name, body in ({"make": 'echo "$* $BROWSER_TESTS"', "id": "echo 0"} | programs).items():
        program(folder, name.replace("_", "-"), body)
    environment = {"PATH": str(folder), "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run([BASH, CHECKOUT_ROOT / ".ci/run"], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


REQUIRED, OPTIONAL = (["--jobs=2 test lint required"], ["--jobs=2 test lint optional"])
WORKS, FAILS = "exit 0", "exit 1"
INSTALLS_NOT = '[ "$1" = update ]'


@pytest.mark.parametrize(
    ("programs", "made", "words"),
    [
        ({"google_chrome": WORKS}, REQUIRED, ""),
        ({"id": "echo 1000"}, OPTIONAL, "none can be installed: this is not root; the tests that open one"),
        ({"chromium": FAILS}, OPTIONAL, "there is no apt-get"),
        ({"apt_get": FAILS, "apt_cache": WORKS}, OPTIONAL, "the package lists cannot be fetched"),
        ({"apt_get": WORKS, "apt_cache": FAILS}, OPTIONAL, "there is no package chromium"),
        ({"apt_get": WORKS, "apt_cache": WORKS}, REQUIRED, ""),
        ({"apt_get": INSTALLS_NOT, "apt_cache": WORKS}, None, ""),  # could be installed, and was not
    ],
)
def test_a_browser_is_required_unless_none_can_be_had(
    tmp_path: Path, programs: dict[str, str], made: list[str] | None, words: str
) -> None:
    status, asked, complaints = checked(tmp_path, **programs)
    assert (status == 0, asked) == (made is not None, made or [])
    assert words in complaints and bool(words) == ("no browser" in complaints)
