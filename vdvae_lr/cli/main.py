"""`vdvae-lr COMMAND …`: finds the command, imports it, and hands it the rest of the line.

Commands are imported when they are called: `vdvae-lr --help` waits for no torch.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vdvae_lr import __version__
from vdvae_lr.cli.exit_codes import ends_with_exit_code
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError, nearest_name_hint

T = TypeVar("T")

PROGRAM = "vdvae-lr"


def _train(arguments: Sequence[str], program: str) -> int:
    from vdvae_lr.cli.train import main as train

    return train(arguments, program)


def _compare(arguments: Sequence[str], program: str) -> int:
    from vdvae_lr.cli.compare import CompareSettings, run

    run(_settings(CompareSettings, arguments, program))
    return 0


def _export(arguments: Sequence[str], program: str) -> int:
    from vdvae_lr.cli.export import ExportSettings, run

    run(_settings(ExportSettings, arguments, program))
    return 0


def _push(arguments: Sequence[str], program: str) -> int:
    from vdvae_lr.cli.push import PushSettings, run

    run(_settings(PushSettings, arguments, program))
    return 0


def _pull(arguments: Sequence[str], program: str) -> int:
    from vdvae_lr.cli.pull import PullSettings, run

    run(_settings(PullSettings, arguments, program))
    return 0


def _verify(arguments: Sequence[str], program: str) -> int:
    from vdvae_lr.cli.verify import VerifySettings, run

    return run(_settings(VerifySettings, arguments, program))


def _settings(kind: type[T], arguments: Sequence[str], program: str) -> T:
    import tyro

    return tyro.cli(kind, args=list(arguments), prog=program, use_underscores=True)


@dataclass(frozen=True)
class Command:
    """One word of `vdvae-lr WORD …`."""

    summary: str
    call: Callable[[Sequence[str], str], int]  # the rest of the line, and what the program calls itself → exit code


COMMANDS: dict[str, Command] = {
    "train": Command("fine-tune a model with Latent Reconstruction, or train one", _train),
    "compare": Command("measure several models on the same held-out images", _compare),
    "export": Command("write averaged weights as a folder, or in the published format", _export),
    "pull": Command("fetch weights, for use without network, or into a folder", _pull),
    "push": Command("upload a run's weights to the Hugging Face Hub, with a model card", _push),
    "verify": Command("compare a published model's bound with its published number", _verify),
}


@ends_with_exit_code
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's); returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(help_text(), file=sys.stderr)
        return EXIT_INPUT_ERROR
    name, *rest = words
    if name in ("-h", "--help"):
        print(help_text())
        return 0
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if name not in COMMANDS:
        hint = nearest_name_hint(name, list(COMMANDS))
        raise InputError(f"there is no command '{name}'{hint}; {PROGRAM} knows {', '.join(COMMANDS)}.")
    return COMMANDS[name].call(rest, f"{PROGRAM} {name}")


def help_text() -> str:
    """What `--help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [--SETTING VALUE …]",
            "",
            "Hierarchical VAEs fine-tuned with Latent Reconstruction.",
            "",
            *lines,
            "",
            f"{PROGRAM} COMMAND --help lists a command's settings; {PROGRAM} --version prints the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
