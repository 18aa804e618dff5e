"""`vdvae-lr`: the right command, light until it is called, and an exit code for every way to end."""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest

import vdvae_lr
from vdvae_lr.cli.main import COMMANDS, main
from vdvae_lr.errors import EXIT_INPUT_ERROR, EXIT_INTERRUPTED, EXIT_READER_GONE, InputError
from vdvae_lr.processes.failures import ends_with_exit_code


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    assert [name for name, command in COMMANDS.items() if not re.search(rf"{name} +{command.summary}", output)] == []


def test_no_command_is_answered_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == EXIT_INPUT_ERROR
    assert "usage: vdvae-lr COMMAND" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vdvae-lr {vdvae_lr.__version__}\n"


def test_unknown_command_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "--iters", "3"]) == EXIT_INPUT_ERROR
    captured = capsys.readouterr()
    assert captured.err.startswith("error: there is no command 'trian' (did you mean 'train'?)")
    assert len(captured.err.splitlines()) == 1 and not captured.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_under_its_own_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert not ended.value.code
    output = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"usage: vdvae-lr {name}" in output
    assert f"Example: vdvae-lr {name} {COMMANDS[name].example}".rstrip() in output


def test_train_is_the_launcher_under_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--hps", "cifar10", "--dry_run"]) == 0
    assert "39,145,700 parameters" in capsys.readouterr().out


def raising(error: BaseException) -> Callable[[], int]:
    @ends_with_exit_code
    def command() -> int:
        raise error

    return command


def test_input_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(InputError("it is too big; make it small."))() == EXIT_INPUT_ERROR
    assert capsys.readouterr() == ("", "error: it is too big; make it small.\n")


def test_interruption_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyboardInterrupt())() == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("a defect"), SystemExit(3)])
def test_anything_else_passes(error: BaseException) -> None:
    with pytest.raises(type(error)):
        raising(error)()


_TALKER = """
import sys
from vdvae_lr.processes.failures import ends_with_exit_code
@ends_with_exit_code
def command():
    {body}
    return 0
sys.exit(command())
"""


def run_with_a_reader_that_goes(body: str) -> tuple[int, str]:
    with subprocess.Popen(
        [sys.executable, "-c", _TALKER.format(body=body)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stdin.close()  # only now may it talk
        errors = process.stderr.read()
    return process.returncode, errors


def test_reader_that_goes_away_is_no_error() -> None:
    """As in `vdvae-lr train --help | head`, whether the text overflows the buffer or waits in it to the end."""
    talk = "sys.stdin.read(); print('x' * {})"
    assert run_with_a_reader_that_goes(talk.format(100_000)) == (EXIT_READER_GONE, "")
    assert run_with_a_reader_that_goes(talk.format(10)) == (EXIT_READER_GONE, "")


def test_another_broken_pipe_is_a_defect_and_seen() -> None:
    code = _TALKER.format(body="raise BrokenPipeError('a worker died')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "a worker died" in done.stderr and "--debug" in done.stderr


@pytest.mark.parametrize("words", [["sample", "fashion", "--count", "0"], ["train", "--lr", "-1"]])
def test_debug_is_a_flag_of_every_command(words: list[str]) -> None:
    command = [sys.executable, "-m", "vdvae_lr", *words]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    shown = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert plain.returncode == shown.returncode == EXIT_INPUT_ERROR
    assert plain.stderr.count("\n") == 1 and plain.stderr.startswith("error: ")
    assert shown.stderr.endswith(plain.stderr) and "Traceback" in shown.stderr


@pytest.mark.parametrize("words", [["--help"], ["sample", "--help"], ["train", "--help"]])
def test_help_explains_debug(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        main(words)
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError("odd"), OSError(28, "No space left on device"), MemoryError()])
def test_no_system_error_has_a_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(error)() in (1, EXIT_INPUT_ERROR)
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_a_full_disk_under_the_output_is_one_sentence() -> None:
    code = _TALKER.format(body="print('x')")
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" >/dev/full', sys.executable, code], capture_output=True, check=False
    )
    assert done.returncode == EXIT_INPUT_ERROR
    assert done.stderr.startswith(b"error: standard output cannot be written") and done.stderr.count(b"\n") == 1


def test_help_waits_for_no_torch() -> None:
    code = "import sys; from vdvae_lr.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
