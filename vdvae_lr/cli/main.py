"""`vdvae-lr COMMAND …`: find the command, import it, and give it the rest of the line.

A command is imported when it is called, so that `vdvae-lr --help` does not wait for torch.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from vdvae_lr import __version__
from vdvae_lr.cli.start import leaving_at_ctrl_c
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError, nearest_name_hint
from vdvae_lr.processes.failures import DEBUG_HELP, ends_with_exit_code, take_debug_flag

PROGRAM = "vdvae-lr"


@dataclass(frozen=True)
class Command:
    """One word of `vdvae-lr WORD …`.

    Attributes:
        summary: one line of the help.
        module: of `vdvae_lr.cli`, with `run(settings)` that returns the exit code, or nothing for 0.
        settings: the dataclass of the command line; empty: the module has `main(arguments, program, example)` instead.
        example: the rest of a line that works on the bundled model.
    """

    summary: str
    module: str
    settings: str = ""
    example: str = ""

    def __call__(self, arguments: Sequence[str], program: str, **options: Any) -> int:
        """Run on the rest of the line.

        Args:
            arguments: the rest of the line.
            program: what the program calls itself.
            options: of the command `train`, as `vdvae_lr.cli.train.main` takes them.
        """
        with leaving_at_ctrl_c():
            module = import_module(f"vdvae_lr.cli.{self.module}")
            command_line = import_module("vdvae_lr.cli.shared.command_line")
        example = f"{'python ' * program.endswith('.py')}{program} {self.example}".rstrip()
        if not self.settings:
            return int(module.main(arguments, program, example=example, **options))
        kind = getattr(module, self.settings)
        return module.run(command_line.parse_settings(kind, arguments, program, example=example)) or 0


_IMAGES = "--dataset fashion_small --examples"
_PAIR = f"before=fashion LR=lrvdvae-fashion {_IMAGES} 20"
COMMANDS: dict[str, Command] = {
    "train": Command(
        "fine-tune a model with Latent Reconstruction, or train one", "train", example="--iters 9 --desc first"
    ),
    "evaluate": Command(
        "measure what a model's latents do, group by group",
        "evaluate",
        "EvaluateSettings",
        f"fashion {_IMAGES} 32 --out measured "
        "--noise_images 8 --importance_images 0 --gap_images 0 --jacobian_images 0",
    ),
    "compare": Command(
        "measure several models on the same held-out images", "compare", "CompareSettings", f"{_PAIR} --out compared"
    ),
    "noise": Command("show and measure what noise in the latents does to the image", "noise", "NoiseSettings", _PAIR),
    "quality": Command(
        "FID, KID, precision and recall of samples and reconstructions",
        "quality",
        "QualitySettings",
        f"fashion {_IMAGES} 3000 --samples 3000",
    ),
    "report": Command("write runs side by side as one HTML page", "report", "ReportSettings", "measured"),
    "sample": Command(
        "make pictures from the prior, without any data",
        "sample",
        "SampleSettings",
        "fashion --count 16 --files samples --out samples.png",
    ),
    "reconstruct": Command(
        "image files beside what the model keeps of them", "reconstruct", "ReconstructSettings", "fashion samples"
    ),
    "interpolate": Command(
        "pictures between two image files",
        "interpolate",
        "InterpolateSettings",
        "fashion samples/sample-000000.png samples/sample-000001.png --animate webp",
    ),
    "traverse": Command(
        "move the channels of one latent group", "traverse", "TraverseSettings", "fashion --group 1 --animate webp"
    ),
    "swap": Command(
        "coarse latents of one image file, fine ones of another",
        "swap",
        "SwapSettings",
        "fashion samples/sample-000000.png samples/sample-000001.png",
    ),
    "app": Command("try one or several models with sliders, in the browser", "app", "AppSettings"),
    "export": Command(
        "write averaged weights as a folder, or in the published format", "export", "ExportSettings", "fashion weights"
    ),
    "pull": Command("fetch weights, for use without network, or into a folder", "pull", "PullSettings", "fashion copy"),
    "push": Command(
        "upload a run's weights to the Hugging Face Hub, with a model card",
        "push",
        "PushSettings",
        "fashion OWNER/NAME --private",
    ),
    "verify": Command(
        "compare a published model's bound with its published number",
        "verify",
        "VerifySettings",
        "fashion --examples 100",
    ),
}


@ends_with_exit_code
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's); returns the exit code."""
    return _run(sys.argv[1:] if arguments is None else arguments, PROGRAM)


@ends_with_exit_code
def main_for(model: Any, arguments: Sequence[str] | None = None) -> int:
    """The same commands for a model of your own (docs/your_model.md): `python my_vae.py COMMAND …`.

    Args:
        model: its class, which derives from `PretrainedModel`; what `train` trains. The other commands know it by its
            name, as they know every class that is defined.
        arguments: the words of the command line; None: this process's.

    Returns:
        The exit code.
    """
    return _run(sys.argv[1:] if arguments is None else arguments, f"python {Path(sys.argv[0]).name}", model=model)


def _run(arguments: Sequence[str], program: str, **options: Any) -> int:
    words = take_debug_flag(arguments)
    if not words:
        print(help_text(program), file=sys.stderr)
        return EXIT_INPUT_ERROR
    name, *rest = words
    if name in ("-h", "--help"):
        print(help_text(program))
        return 0
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if name not in COMMANDS:
        hint = nearest_name_hint(name, list(COMMANDS))
        raise InputError(f"there is no command '{name}'{hint}; {program} knows {', '.join(COMMANDS)}.")
    return COMMANDS[name](rest, f"{program} {name}", **(options if name == "train" else {}))


@ends_with_exit_code
def train(arguments: Sequence[str] | None = None) -> int:
    """The command `train` as `train.py` calls it. Torch is imported inside, where Ctrl-C ends the program."""
    words = take_debug_flag(sys.argv[1:] if arguments is None else arguments)
    return COMMANDS["train"](words, "train.py")


def help_text(program: str = PROGRAM) -> str:
    """The text of `--help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND [--SETTING VALUE …]",
            "",
            "Hierarchical VAEs fine-tuned with Latent Reconstruction.",
            "",
            *lines,
            "",
            f"{program} COMMAND --help lists a command's settings; {program} --version prints the version.",
            f"Example, on the bundled models: {program} noise {_PAIR}",
            DEBUG_HELP,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
