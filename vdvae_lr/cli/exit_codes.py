"""How a command ends: the one place where exceptions become a sentence and an exit code.

| code | meaning                                                                          |
|------|----------------------------------------------------------------------------------|
| 0    | done                                                                             |
| 1    | a defect of this program, with its traceback                                     |
| 2    | a person's input cannot be used: one `error: …` line on stderr                   |
| 3    | `verify`: the bound differs from the published one                               |
| 69   | another process of the run failed or is gone: one line names it and its cause    |
| 75   | told to stop (SIGTERM, SIGUSR1) and saved: the same command again goes on        |
| 130  | interrupted from the keyboard (128 + SIGINT)                                     |
| 141  | whoever read the output went away, as in `vdvae-lr train --help | head` (+ SIGPIPE) |
"""

import functools
import os
import select
import sys
from collections.abc import Callable
from typing import ParamSpec

from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError

EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141

P = ParamSpec("P")


def ends_with_exit_code(command: Callable[P, int]) -> Callable[P, int]:
    """Wrap a command's `main`: what a person caused becomes its exit code, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            try:
                return command(*args, **kwargs)
            finally:
                sys.stdout.flush()  # here rather than at the interpreter's end, where a broken pipe cannot be caught
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_INPUT_ERROR
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            if not _reader_is_gone():
                raise  # another pipe, such as that of a process reading images: a defect, to be seen
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own last flush
            return EXIT_READER_GONE

    return wrapped


def _reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
