"""Imports go only downwards, optional packages are imported where they are used, and model/ stays pure mathematics."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import vdvae_lr

PACKAGE = Path(vdvae_lr.__file__).parent
LAYERS = ("cli", "app", "report", "training", "pictures", "evaluation", "hub", "datasets", "losses", "model")
LAYERS += ("processes", "setting_checks", "files", "errors")  # each may import itself and those to its right
OPTIONAL = {"mpi4py", "apex", "gradio", "imageio_ffmpeg", "pyarrow", "torchmetrics", "trackio", "triton", "wandb"}
"""Packages that are imported where they are used."""
ALL_OPTIONAL = ("vdvae_lr.app.page", "vdvae_lr.model.mixture_kernel")
"""Modules that are all Gradio or all Triton. They import it, and are imported where they are used."""
IMPURE = {"os", "io", "pathlib", "json", "tomllib", "pickle", "shutil", "tempfile", "socket", "subprocess", "urllib"}
IMPURE |= {"safetensors", "PIL", "vdvae_lr.processes.world", "vdvae_lr.files.bundled", "torch.distributed"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names a piece of code imports; `from a import b` counts as `a.b`, for b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def imports_outside_functions(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_outside_functions(node)


def complaints(layer: str, source: str, module: str = "") -> list[str]:
    """What is wrong with the imports of a module of `layer` (a folder of the package, or a module beside them)."""
    tree = ast.parse(source)
    found = []
    reachable = {*(LAYERS[LAYERS.index(layer) :] if layer in LAYERS else ()), "__version__"}
    if layer == "__init__":
        reachable |= {*LAYERS}  # what people import from the package itself
    for name in imports(tree):
        top, _, rest = name.partition(".")
        if top == "":
            found.append(f"{name} is relative")
        elif top == "vdvae_lr" and rest.partition(".")[0] not in reachable:
            found.append(f"{layer} imports {name}, which lies above it")
        if layer == "model" and any(f"{name}.".startswith(f"{impure}.") for impure in IMPURE):
            found.append(f"model imports {name}: files and ranks belong elsewhere")
    found += [
        f"{name} is optional: import it where it is used"
        for name in imports_outside_functions(tree)
        if (name.partition(".")[0] in OPTIONAL and module not in ALL_OPTIONAL) or name.startswith(ALL_OPTIONAL)
    ]
    return found


def layer_of(path: Path) -> str:
    """`cli` for cli/train.py, `errors` for errors.py; `python -m vdvae_lr` is the command line."""
    top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "cli" if top == "__main__" else top


def test_modules_import_only_what_lies_below_them() -> None:
    found = {
        module: complaints(layer_of(path), path.read_text(), module)
        for path in PACKAGE.rglob("*.py")
        for module in [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)]
    }
    assert {module: complaint for module, complaint in found.items() if complaint} == {}


def test_every_module_has_its_place_in_the_order() -> None:
    assert {layer_of(path) for path in PACKAGE.rglob("*.py")} == {*LAYERS, "__init__"}


def test_launcher_imports_only_the_command_line() -> None:
    launcher = PACKAGE.parent / "train.py"
    assert set(imports(ast.parse(launcher.read_text()))) == {"sys", "vdvae_lr.cli.start.train"}


@pytest.mark.parametrize(
    ("layer", "source", "words"),
    [
        ("model", "from vdvae_lr.losses import elbo", "lies above"),
        ("datasets", "import vdvae_lr.training.loop", "lies above"),
        ("datasets", "def f():\n    from vdvae_lr.hub import sources", "lies above"),
        ("evaluation", "from vdvae_lr import training", "lies above"),
        ("errors", "from vdvae_lr.model.vdvae.vae import VeryDeepVAE as VDVAE", "lies above"),
        ("training", "from . import step", "relative"),
        ("model", "from pathlib import Path", "files and ranks"),
        ("model", "import os.path", "files and ranks"),
        ("model", "from torch import Tensor, distributed", "files and ranks"),
        ("model", "from vdvae_lr.processes.world import World", "files and ranks"),
        ("training", "import wandb", "optional"),
        ("training", "try:\n    from apex.optimizers import FusedAdam\nexcept ImportError:\n    pass", "optional"),
        ("training", "class A:\n    from mpi4py import MPI", "optional"),
        ("model", "import triton.language as tl", "optional"),
        ("training", "from vdvae_lr.model.mixture_kernel import with_slopes", "optional"),
    ],
)
def test_checker_sees_a_breach(layer: str, source: str, words: str) -> None:
    (complaint,) = complaints(layer, source)
    assert words in complaint


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("cli", "from vdvae_lr import __version__\nfrom vdvae_lr.training.loop import train"),
        ("training", "from vdvae_lr.training.optim import MovingAverage\nfrom vdvae_lr.errors import InputError"),
        ("model", "import torch\nfrom vdvae_lr.errors import InputError\nimport osmosis"),
        ("files", "from vdvae_lr.errors import InputError"),
        ("training", "def f():\n    from apex.optimizers import FusedAdam"),
    ],
)
def test_checker_leaves_what_is_allowed(layer: str, source: str) -> None:
    assert not complaints(layer, source)
