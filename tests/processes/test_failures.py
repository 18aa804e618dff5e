"""What exceptions say to a person: the thing, the remedy and the right exit code; a defect keeps its traceback."""

import errno
import os
from collections.abc import Callable

import pytest
import torch

from vdvae_lr.errors import EXIT_INPUT_ERROR, EXIT_READER_GONE, InputError
from vdvae_lr.processes.failures import EXIT_DEFECT, explanation, report, take_debug_flag
from vdvae_lr.processes.streams import OutputLostError


@pytest.fixture(autouse=True)
def no_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDVAE_LR_DEBUG", "0")  # restored afterwards, also where a test sets it


def system_error(number: int, *names: str) -> OSError:
    first, *second = [*names, None]
    return OSError(number, os.strerror(number), first, None, *second[:1])


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EROFS, "can be written"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.EIO, "check it"),
        (errno.ESTALE, "same command again"),
        (errno.ENOENT, "check the name"),
        (errno.ENOTDIR, "check the name"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.ENOMEM, "--n_batch"),
    ],
)
def test_what_the_system_refused_has_its_file_and_a_remedy(number: int, remedy: str) -> None:
    told = explanation(system_error(number, "photos/a.png"))
    assert told is not None and told.exit_code == EXIT_INPUT_ERROR
    assert "photos/a.png" in told.sentence and os.strerror(number) in told.sentence and remedy in told.sentence
    nameless = explanation(OSError(number, os.strerror(number)))
    assert nameless is not None and os.strerror(number) in nameless.sentence and "None" not in nameless.sentence


def test_both_files_of_a_renaming_are_named() -> None:
    told = explanation(OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"))
    assert told is not None and told.exit_code == EXIT_DEFECT
    told = explanation(OSError(errno.EACCES, "Permission denied", "a", None, "b"))
    assert told is not None and "a → b: Permission denied" in told.sentence


def too_large_for_the_machine() -> None:
    torch.empty(2**61, dtype=torch.uint8)


def too_large_for_python() -> None:
    bytearray(2**62)


@pytest.mark.parametrize("action", [too_large_for_the_machine, too_large_for_python])
def test_a_full_memory_has_the_remedies_of_the_documents(action: Callable[[], None]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        action()
    told = explanation(caught.value)
    assert told is not None and told.exit_code == EXIT_INPUT_ERROR
    assert told.sentence.startswith("this machine has not enough memory") and "--n_batch" in told.sentence


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be …"),
    ],
)
def test_a_full_card_has_the_remedies_of_the_documents(error: RuntimeError) -> None:
    told = explanation(error)
    assert told is not None and told.exit_code == EXIT_INPUT_ERROR and "\n" not in told.sentence
    assert told.sentence.startswith("the card has not enough memory")
    assert told.sentence.index("--n_batch") < told.sentence.index("--checkpoint_activations")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied\nmore"),
        NotImplementedError("Could not run 'aten::x'\nmore"),
        RecursionError("maximum recursion depth exceeded"),
        BrokenPipeError("a worker died"),
        OSError("no number"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
)
def test_others_are_one_line_that_leads_to_the_traceback(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report(error) == EXIT_DEFECT
    said = capsys.readouterr().err
    assert said.startswith(f"error: {type(error).__name__}: {str(error).splitlines()[0]}") and said.count("\n") == 1
    assert "--debug" in said
    monkeypatch.setenv("VDVAE_LR_DEBUG", "1")
    assert report(error) == EXIT_DEFECT
    assert len(capsys.readouterr().err.splitlines()) > 1


def test_what_a_reader_met_is_said_by_the_last_line_of_its_traceback() -> None:
    wrapped = "Caught OSError in DataLoader worker process 0.\nOriginal Traceback …\nOSError: the tape tore\n"
    told = explanation(OSError(wrapped))
    assert told is not None and told.sentence.startswith("OSError: the tape tore;")


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), AssertionError(), TypeError("x")])
def test_a_defect_says_nothing_itself(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error) is None
    assert capsys.readouterr().err == ""


def test_a_lost_output_has_the_code_of_its_cause() -> None:
    for gone, code in ((True, EXIT_READER_GONE), (False, EXIT_INPUT_ERROR)):
        told = explanation(OutputLostError("No space left on device", reader_gone=gone))
        assert told is not None and told.exit_code == code


def test_the_flag_is_taken_out_and_shows_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert take_debug_flag(["--lr", "1"]) == ["--lr", "1"]
    assert report(InputError("too big.")) == EXIT_INPUT_ERROR
    assert capsys.readouterr().err == "error: too big.\n"
    assert take_debug_flag(["--debug", "--lr", "1"]) == ["--lr", "1"]
    assert report(InputError("too big.")) == EXIT_INPUT_ERROR
    assert "InputError: too big." in capsys.readouterr().err
