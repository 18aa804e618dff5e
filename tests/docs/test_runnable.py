"""What the documents mark as run does run, in order, in a folder like the reader's, and prints what they show."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_commands import DOCUMENTS, Block, commands_of, read_blocks, relative

from vdvae_lr.cli.main import main
from vdvae_lr.files.bundled import CHECKOUT_ROOT

RUNNING = [path for path in DOCUMENTS if any(block.mark == "run" for block in read_blocks(path))]
IN_A_CHECKOUT = ("train.py", "data", "docs", "hps", "models", "scripts")
TIMEOUT_S = 300
_NUMBER = re.compile(r"-?\d[\d.,]*(e[+-]?\d+)?")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a checkout's files, by links, with room for what the commands leave."""
    programs, folder = tmp_path / "bin", tmp_path / "checkout"
    programs.mkdir()
    folder.mkdir()
    for name, arguments in (("python", ""), ("vdvae-lr", "-m vdvae_lr")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    for name in IN_A_CHECKOUT:
        (folder / name).symlink_to(CHECKOUT_ROOT / name)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT_ROOT))
    monkeypatch.setenv("COLUMNS", "160")  # so that no line is broken
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more only wait for each other, on tensors this small
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))  # as for a script in it
    return folder


def run_shell(block: Block) -> str:
    """Run a block in a shell, or, if it has only commands of `vdvae-lr`, in this process, which has imported torch."""
    commands = commands_of(block)
    if len(commands) == len(block.text.splitlines()) and all(each.words[0] == "vdvae-lr" for each in commands):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            for each in commands:
                assert main(each.words[1:]) == 0, f"{each} failed; it printed:\n{printed.getvalue()}"
        return printed.getvalue()
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{block.where} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def run_python(block: Block) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, block.where, "exec"), {"__name__": "__main__"})
    return printed.getvalue()


def assert_printed(block: Block, output: str) -> None:
    """Each shown line was printed, in this order, numbers and spaces aside; "…" stands for lines, or a line's end."""
    printed = iter([_shape(line) for line in output.splitlines()])
    for line in block.text.splitlines():
        shown = _shape(line)
        whole = not shown.endswith("…")
        shown = shown.removesuffix("…").rstrip()
        if shown and not any(found == shown if whole else found.startswith(shown) for found in printed):
            pytest.fail(f"{block.where}: '{line}' was not printed there:\n{output}")


def _shape(line: str) -> str:
    return _NUMBER.sub("#", " ".join(line.split()))


@pytest.mark.slow
@pytest.mark.parametrize("document", RUNNING, ids=relative)
def test_document_runs(document: Path, checkout: Path) -> None:
    output = ""
    for block in read_blocks(document):
        if block.mark.startswith("file "):
            (checkout / block.mark.removeprefix("file ")).write_text(block.text, encoding="utf-8")
        elif block.mark == "run":
            output = run_python(block) if block.language == "python" else run_shell(block)
        elif block.mark == "prints":
            assert_printed(block, output)


def test_shown_output_is_held_to_what_was_printed() -> None:
    def shown(text: str) -> Block:
        return Block(CHECKOUT_ROOT / "README.md", 1, "text", text, "prints")

    printed = "step 1 · -ELBO 1.5\nstep 2 · -ELBO -2\nFinished: runs/first\n"
    assert_printed(shown("step  9 · -ELBO 7.25\n…\nFinished: …\n"), printed)
    for wrong in ("step 9 · ELBO 1\n", "Finished: runs/first\nstep 1 · -ELBO 1\n", "Finished\n"):
        with pytest.raises(pytest.fail.Exception):
            assert_printed(shown(wrong), printed)
