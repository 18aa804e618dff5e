"""What an exception says to a person: one sentence and an exit code, or a traceback where it is a defect.

With `--debug`, or VDVAE_LR_DEBUG=1, the traceback is shown as well.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.files.network_errors import plain
from vdvae_lr.processes.streams import OutputLostError

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
    errno.ELOOP: "its links lead in a circle: mend them",
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


def take_debug_flag(words: Sequence[str]) -> list[str]:
    """The words without `--debug`; where it was among them, this process shows tracebacks from now on."""
    kept = [word for word in words if word != DEBUG_FLAG]
    if len(kept) < len(words):
        os.environ[_DEBUG_VARIABLE] = "1"
    return kept


def explanation(error: BaseException) -> Explanation | None:
    """What `error` means to a person; None where it is a defect of this program, which its traceback explains best."""
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
    """Print what `error` means on standard error; the exit code, or None (and nothing printed) for a defect."""
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
    """What the error says, on one line. What went wrong in a reader comes with a traceback: its last line says it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return plain(lines[-1] if lines[0].startswith("Caught ") else lines[0]).removesuffix(".")
