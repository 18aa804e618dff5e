"""Every command and setting in the documents is one that the programs understand; none of these commands is run."""

import argparse
import ast
import dataclasses
import importlib
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tyro
from docs_commands import DOCUMENTS, SHELL, Block, Command, all_commands, inline_code, read_blocks, relative

from vdvae_lr.cli.main import COMMANDS
from vdvae_lr.errors import InputError
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.model.shallow.vae import ShallowConfig
from vdvae_lr.processes.failures import DEBUG_FLAG
from vdvae_lr.training.settings import Settings, settings_for

OTHER_PROGRAMS = frozenset(
    {"make", "pip", "curl", "tensorboard", "nvidia-smi", "sha256sum", "kubectl", "docker", "apptainer", "cd", "export"}
    | {"source", ".", "cat", "tail", "kill", "mkdir", "sbatch", "srun", "scancel", "squeue", "pytest", "git", "rsync"}
    | {"wandb"}
)
HANDING_ON = re.compile(r"(.*/)?(train\.py|scripts/cluster/(slurm|mpiexec|kubernetes/\w+)\.sh|vdvae_lr(:\w+)?)")
"""What hands the rest of its line to `train`: scripts, and the container's image."""
NOT_THERE_YET: frozenset[str] = frozenset()
"""Words of `vdvae-lr` that documents may promise ahead of their code."""
OTHER_OPTIONS = frozenset(
    {"--help", "--version", "--check", "--signal", "--wait", "--nproc_per_node", "--requeue", "--logdir"}
)
"""Options of other programs that the documents speak of by themselves."""
LANGUAGES = SHELL | {"python", "toml", "text", "json", "yaml"}
BLOCKS = [block for document in DOCUMENTS for block in read_blocks(document)]
COMMANDS_IN_DOCUMENTS = [command for document in DOCUMENTS for command in all_commands(document)]


class Understood(Exception):
    """The arguments were parsed; nothing was run."""


@pytest.fixture
def only_parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, where every program of ours ends as soon as its arguments are understood."""

    def ending(parse: Callable[..., Any]) -> Callable[..., Any]:
        def parse_and_end(*arguments: Any, **options: Any) -> None:
            parse(*arguments, **options)
            raise Understood

        return parse_and_end

    monkeypatch.setattr(tyro, "cli", ending(tyro.cli))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", ending(argparse.ArgumentParser.parse_args))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def understand(program: Callable[..., Any], *arguments: Any) -> None:
    """Fail unless a program parses its arguments without complaint."""
    try:
        program(*arguments)
    except Understood:
        return
    except InputError as error:
        pytest.fail(str(error))
    except SystemExit as end:
        if end.code:
            pytest.fail(f"its arguments are refused with exit code {end.code}; the captured output says why")
        return  # --help
    pytest.fail("it did something else than parse its arguments")


def save_files(document: Path, folder: Path) -> None:
    """What a document tells its reader to save."""
    for block in read_blocks(document):
        if block.mark.startswith("file "):
            (folder / block.mark.removeprefix("file ")).write_text(block.text, encoding="utf-8")


def vdvae_lr_arguments(words: Sequence[str]) -> list[str] | None:
    """What `vdvae-lr` is given, whatever starts it and under whichever name; None when nothing does."""
    for number, word in enumerate(words):
        rest = list(words[number + 1 :])
        if Path(word).name == "vdvae-lr" or (word == "vdvae_lr" and words[number - 1] == "-m"):
            return rest
        options = not rest or rest[0].startswith("--")
        if HANDING_ON.fullmatch(word) and options and words[number - 1] not in ("--tag", "-t"):
            return ["train", *rest]
    return None


def with_a_preset(words: Sequence[str]) -> list[str]:
    """A stand-in such as PRESET after --hps becomes a preset that exists; other stand-ins stay."""
    return [
        re.sub(r"\b[A-Z]{2,}\b", "ffhq256", word) if before == "--hps" else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def check_vdvae_lr(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0].isupper() or arguments[0].startswith("--"):
        return
    name, *rest = arguments
    if name not in COMMANDS and name in NOT_THERE_YET:
        return
    assert name in COMMANDS, f"vdvae-lr has no command '{name}'"
    if not rest:
        return  # the command's name in a sentence
    understand(COMMANDS[name], with_a_preset(rest), f"vdvae-lr {name}")


def check_script(path: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script to where it has parsed its arguments; for one of bash, the Python script that it starts."""
    script = path if path.suffix == ".py" else path.with_suffix("") / f"{path.stem}.py"
    if script.is_file():
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        monkeypatch.syspath_prepend(str(script.parent))
        understand(runpy.run_path, str(script), None, "__main__")


@pytest.mark.parametrize("command", COMMANDS_IN_DOCUMENTS, ids=str)
def test_command_is_understood(command: Command, only_parsing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_files(command.document, only_parsing)
    scripts = [
        word for word in command.words if re.fullmatch(r"(\./)?(scripts(/\w+){0,2}|data/\w+)/\w+\.(py|sh)", word)
    ]
    assert [word for word in scripts if not (CHECKOUT_ROOT / word).is_file()] == []
    own = next((word for word in command.words if word.endswith(".py") and (only_parsing / word).is_file()), None)
    arguments = vdvae_lr_arguments(command.words)
    if own is not None:  # a program that the document told the reader to save
        check_script(only_parsing / own, command.words[command.words.index(own) + 1 :], monkeypatch)
    elif arguments is not None:
        check_vdvae_lr(arguments)
    elif scripts:
        check_script(CHECKOUT_ROOT / scripts[0], command.words[command.words.index(scripts[0]) + 1 :], monkeypatch)
    else:
        program = " ".join(command.words[1:3]) if command.words[0] == "python" else command.words[0]
        assert program in OTHER_PROGRAMS | {"-m pytest"}, f"is '{program}' a program? Then name it in OTHER_PROGRAMS"


def test_languages_of_blocks_are_known() -> None:
    assert [block.where for block in BLOCKS if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.where)
def test_python_block_imports_what_exists(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_files(block.document, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def options_of_vdvae_lr() -> set[str]:
    """Every option of every command, as their dataclasses have them."""
    options = {f"--{name}" for name in [*Settings().flat(), *settings_for(ShallowConfig)().flat()]}
    options |= {f"--no_{name}" for name, value in Settings().flat().items() if isinstance(value, bool)}
    for name in COMMANDS:
        with suppress(ModuleNotFoundError):  # a command may share its file with another one
            found = vars(importlib.import_module(f"vdvae_lr.cli.{name}")).values()
            kinds = [kind for kind in found if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
            options |= {f"--{field.name}" for kind in kinds for field in dataclasses.fields(kind)}
    return options


def options_of_scripts() -> set[str]:
    scripts = [*CHECKOUT_ROOT.glob("scripts/**/*.py"), *CHECKOUT_ROOT.glob("data/*/prepare.py")]
    scripts.append(CHECKOUT_ROOT / "vdvae_lr" / "datasets" / "preparation.py")
    return {name for path in scripts for name in re.findall(r"add_argument\(\s*\"(--\w+)\"", path.read_text())}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_options_named_in_prose_exist(document: Path) -> None:
    known = options_of_vdvae_lr() | options_of_scripts() | OTHER_OPTIONS | {"--hparam_sets", DEBUG_FLAG}
    named = {found for span in inline_code(document) for found in re.findall(r"(?<![\w-])--[A-Za-z]\w*", span)}
    assert {name for name in named - known if name != "--no_NAME" and not name[2:].isupper()} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_files_named_in_prose_exist(document: Path) -> None:
    """Paths of the checkout in inline code; those with stand-ins in capitals are left out."""
    pattern = re.compile(r"(docs|hps|models|scripts|tests|vdvae_lr)/[\w./-]*\w\.(md|py|sh|toml|json|npz|png)")
    named = {span for span in inline_code(document) if pattern.fullmatch(span) and not re.search(r"\b[A-Z]+\b", span)}
    made_by_a_command = {"docs/benchmarks/gpu_check.md"}
    assert {name for name in named - made_by_a_command if not (CHECKOUT_ROOT / name).exists()} == set()
