"""How a command ends: the one place where exceptions become a sentence and an exit code.

| code | meaning                                                                                             |
|------|-----------------------------------------------------------------------------------------------------|
| 0    | done                                                                                                |
| 1    | a defect of this program, or of a library: a traceback, or one line and --debug for the traceback   |
| 2    | something that a person must mend, such as a setting or a full disk: one `error: …` line on stderr  |
| 3    | `verify`: the bound differs from the published one                                                  |
| 69   | another process of the run failed or is gone: one line names it and its cause                       |
| 75   | told to stop (SIGTERM, SIGUSR1, SIGHUP) and saved: the same command again goes on                   |
| 130  | interrupted from the keyboard (128 + SIGINT)                                                        |
| 141  | whoever read the output went away, as in `vdvae-lr train --help | head` (128 + SIGPIPE)             |
"""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from vdvae_lr.cli.shared.process import prepare_process
from vdvae_lr.cli.start import EXIT_INTERRUPTED
from vdvae_lr.errors import EXIT_READER_GONE
from vdvae_lr.processes.failures import report
from vdvae_lr.processes.streams import OutputLostError

P = ParamSpec("P")


def ends_with_exit_code(command: Callable[P, int]) -> Callable[P, int]:
    """Wrap a command's `main`: what a person or the system caused becomes a sentence and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            prepare_process()
            try:
                return command(*args, **kwargs)
            finally:
                sys.stdout.flush()  # here rather than at the interpreter's end, where an error has no exit code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except Exception as error:
            if isinstance(error, OutputLostError) and error.reader_gone:
                return EXIT_READER_GONE  # what every program does whose reader ends: nothing to say
            code = report(error)
            if code is None:
                raise
            return code

    return wrapped
