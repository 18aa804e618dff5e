"""How a command ends: the one place where exceptions become a sentence and an exit code.

| code | meaning                                                                                             |
|------|-----------------------------------------------------------------------------------------------------|
| 0    | done                                                                                                |
| 1    | a defect of this program or of a library: a traceback, or one line and --debug for the traceback    |
| 2    | something that a person must fix, such as a setting or a full disk: one `error: …` line on stderr   |
| 3    | `verify`: the bound differs from the published one                                                  |
| 69   | another process of the run failed or is gone: one line names it and the cause                       |
| 75   | told to stop (SIGTERM, SIGUSR1, SIGHUP) and saved: the same command goes on from there              |
| 130  | interrupted from the keyboard (128 + SIGINT)                                                        |
| 141  | the program that read the output has ended, as in `vdvae-lr train --help | head` (128 + SIGPIPE)    |

With `--debug`, or VDVAE_LR_DEBUG=1, the traceback is shown as well.
"""

import errno
import functools
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec

from vdvae_lr.errors import EXIT_INPUT_ERROR, EXIT_INTERRUPTED, EXIT_READER_GONE, InputError
from vdvae_lr.files.network_errors import plain
from vdvae_lr.processes.streams import OutputLostError, prepare_process

P = ParamSpec("P")

EXIT_DEFECT = 1
DEBUG_FLAG = "--debug"
DEBUG_HELP = f"With {DEBUG_FLAG}, an error also shows where in the program it happened."
_DEBUG_VARIABLE = "VDVAE_LR_DEBUG"  # processes that this one starts inherit it

_ON_A_CARD = re.compile(r"CUDA out of memory|CUDA error: out of memory|_STATUS_ALLOC_FAILED")
_ON_THE_MACHINE = re.compile(r"DefaultCPUAllocator|bad_alloc|bad allocation|[Cc]annot allocate memory")
_LESS_MEMORY = "lower --n_batch (of other commands --batch)"
_REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "free space or choose another folder",
    errno.EDQUOT: "free space, or ask for a larger quota, or choose another folder",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another folder",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOENT: "check the name",
    errno.ENOTDIR: "check the name",
    errno.EISDIR: "name a file",
    errno.EEXIST: "choose another name, or remove it",
    errno.ELOOP: "its links lead in a circle: correct them",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or lower --num_workers",
    errno.ENFILE: "close other programs, or lower --num_workers",
    errno.EAGAIN: "raise the limit on processes (ulimit -u), or lower --num_workers",
    errno.ENOMEM: f"free memory, or {_LESS_MEMORY}",
    errno.EIO: "the disk or the network storage failed: check it, then run the same command again",
    errno.ESTALE: "the network storage lost it: run the same command again",
    errno.ETIMEDOUT: "the network or its storage does not answer: run the same command again",
    errno.EBUSY: "wait for the program that uses it, or choose another place",
}


@dataclass(frozen=True)
class Explanation:
    """What a person reads, and the exit code."""

    sentence: str
    exit_code: int = EXIT_INPUT_ERROR


def ends_with_exit_code(command: Callable[P, int]) -> Callable[P, int]:
    """Wrap a command's `main`: it returns an exit code also when a person or the system made it fail."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            prepare_process()
            try:
                return command(*args, **kwargs)
            finally:
                sys.stdout.flush()  # an error at the interpreter's own flush would have no exit code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except Exception as error:
            if isinstance(error, OutputLostError) and error.reader_gone:
                return EXIT_READER_GONE  # silently, as every program does in `… | head`
            code = report(error)
            if code is None:
                raise
            return code

    return wrapped


def take_debug_flag(words: Sequence[str]) -> list[str]:
    """The words without `--debug`. If it is among them, this process shows tracebacks from now on."""
    kept = [word for word in words if word != DEBUG_FLAG]
    if len(kept) < len(words):
        os.environ[_DEBUG_VARIABLE] = "1"
    return kept


def explanation(error: BaseException) -> Explanation | None:
    """What `error` means to a person; None for a defect of this program, which its traceback explains best."""
    if isinstance(error, InputError):
        return Explanation(str(error))
    if isinstance(error, OutputLostError):
        return Explanation(f"{error}.", error.exit_code)
    if isinstance(error, MemoryError | RuntimeError | OSError) and (memory := _memory_sentence(error)):
        return Explanation(memory)
    if isinstance(error, OSError) and error.errno is not None and error.errno in _REMEDIES:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        said = f"{' → '.join(names)}: {error.strerror}" if names else f"the system says '{error.strerror}'"
        return Explanation(f"{said}; {_REMEDIES[error.errno]}.")
    if isinstance(error, OSError | UnicodeError | RuntimeError):
        hint = "" if _debugging() else f"; run it again with {DEBUG_FLAG} for the traceback"
        kind = f"{type(error).__name__}: "
        return Explanation(f"{kind}{_cause(error).removeprefix(kind)}{hint}.", EXIT_DEFECT)
    return None


def report(error: BaseException) -> int | None:
    """Print what `error` means on standard error and return the exit code. For a defect, only return None."""
    explained = explanation(error)
    if explained is None:
        return None
    if _debugging():
        traceback.print_exception(error)
    print(f"error: {explained.sentence}", file=sys.stderr, flush=True)
    return explained.exit_code


def _debugging() -> bool:
    return os.environ.get(_DEBUG_VARIABLE, "") not in ("", "0")


def _memory_sentence(error: BaseException) -> str | None:
    said = str(error)
    if _ON_A_CARD.search(said):
        return (
            f"the card has not enough memory ({_cause(error)}); {_LESS_MEMORY} first, then give "
            "--checkpoint_activations, then --no_cuda_graph."
        )
    if isinstance(error, MemoryError) or _ON_THE_MACHINE.search(said):
        return (
            f"this machine has not enough memory ({_cause(error)}); {_LESS_MEMORY}, --num_workers or the model, or "
            "use a machine with more."
        )
    return None


def _cause(error: BaseException) -> str:
    """The error's message on one line. An error from a reader holds a traceback, and its last line is the message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return plain(lines[-1] if lines[0].startswith("Caught ") else lines[0]).removesuffix(".")
