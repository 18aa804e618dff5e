"""The house rules that can be counted: sizes, names, presets, what the documents promise, what a wheel needs."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import vdvae_lr
from vdvae_lr.cli.shared.config import settings_of_presets
from vdvae_lr.datasets.catalogue import DATASETS
from vdvae_lr.files.bundled import CHECKOUT_ROOT, bundled_folder
from vdvae_lr.files.presets import preset_names, read_presets
from vdvae_lr.hub.pretrained import model_class

FOLDERS = ("vdvae_lr", "tests", "data", "scripts")
SOURCES = sorted(
    [*CHECKOUT_ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (CHECKOUT_ROOT / folder).rglob("*.py"))]
)
DOCUMENTS = sorted([*CHECKOUT_ROOT.glob("*.md"), *(CHECKOUT_ROOT / "docs").rglob("*.md")])
PRESETS = preset_names()
OVERLAYS = {"paper", "shallow/on_mnist", "shallow/on_omniglot", "shallow/reduced", "shallow/on_celeba"}
"""Presets that go on top of another one and describe no model themselves."""
INSTALLED_AS = {"PIL": "pillow"}  # where the name to import is not the name to install
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def relative(path: Path) -> str:
    return str(path.relative_to(CHECKOUT_ROOT))


SOURCE_TEXTS = {relative(path): path.read_text(encoding="utf-8") for path in SOURCES}


def packaging(name: str) -> Any:
    """A constant of setup.py, read without running it."""
    for node in ast.parse((CHECKOUT_ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def test_files_and_functions_are_short() -> None:
    long = []
    for path, text in SOURCE_TEXTS.items():
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
        long += [f"{path}: {name} has {length} lines" for name, length in lengths.items() if length > LONGEST_FUNCTION]
        lines = len(text.splitlines())
        long += [f"{path} has {lines} lines"] if lines > LONGEST_FILE else []
    assert long == []


def test_files_say_what_they_are_for() -> None:
    assert [path for path, text in SOURCE_TEXTS.items() if text and not ast.get_docstring(ast.parse(text))] == []


def test_no_file_is_a_drawer_for_anything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "misc", "common"}
    names = {path: {path.stem, *path.relative_to(CHECKOUT_ROOT).parts} for path in SOURCES}
    assert [relative(path) for path, parts in names.items() if drawers & parts] == []


def test_no_work_is_left_marked() -> None:
    mark = re.compile(r"\b(?:TO" r"DO|FIX" r"ME)\b")  # in halves, or this line would be one
    texts = SOURCE_TEXTS | {relative(path): path.read_text(encoding="utf-8") for path in DOCUMENTS}
    assert [path for path, text in texts.items() if mark.search(text)] == []


def locale_dependent_calls(source: str) -> list[str]:
    """Calls that read or write text in the encoding of whoever's locale it is."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        opens_text = name == "open" and (not given or any(re.fullmatch("[rwax]t?[+]?", mode) for mode in modes))
        if name in {"read_text", "write_text"} or opens_text:
            found.append(ast.unparse(node))
    return found


def test_text_files_are_utf_8_in_every_locale() -> None:
    calls = {path: locale_dependent_calls(text) for path, text in SOURCE_TEXTS.items() if not path.startswith("tests")}
    assert {path: found for path, found in calls.items() if found} == {}


@pytest.mark.parametrize(
    "call", ["p.read_text()", "p.write_text('x')", "p.open()", "p.open('a', buffering=1)", "open(p, 'w')"]
)
def test_a_text_file_without_encoding_is_seen(call: str) -> None:
    assert locale_dependent_calls(call)
    assert not locale_dependent_calls(call.replace("()", "(p)").removesuffix(")") + ", encoding='utf-8')")


@pytest.mark.parametrize("call", ["p.open('rb')", "gzip.open(path)", "Image.open(path)", "os.open(path, os.O_RDONLY)"])
def test_a_binary_file_needs_no_encoding(call: str) -> None:
    assert not locale_dependent_calls(call)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_resolves_to_what_it_says(name: str) -> None:
    values = read_presets(name)
    settings = settings_of_presets(name)
    assert model_class(settings.model).__name__ == values.pop("model", "VDVAE")
    resolved = settings.flat()
    assert {key: resolved[key] for key in values} == values
    if name not in OVERLAYS:
        own = {"likelihood", "latents"} if name.startswith("shallow/") else {"enc_blocks", "dec_blocks", "input_shift"}
        assert {"dataset", "image_size", "image_channels"} | own <= values.keys()
        assert values["dataset"] in DATASETS


@pytest.mark.parametrize("name", PRESETS)
def test_base_of_a_preset_is_another_preset(name: str) -> None:
    content = tomllib.loads((bundled_folder("hps") / f"{name}.toml").read_text())
    assert content.get("base") in {None, *PRESETS} - {name}


@pytest.mark.parametrize("folder", ["hps", "data/fashion_small"])
def test_bundled_folder_is_found_and_packaged(folder: str) -> None:
    patterns = packaging("BUNDLED")[folder]
    found = bundled_folder(folder)
    packaged = {path for pattern in patterns for path in found.glob(pattern)}
    assert packaged
    assert packaged == {path for path in found.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}


def test_files_beside_the_code_are_packaged() -> None:
    package = CHECKOUT_ROOT / "vdvae_lr"
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    packaged = {
        path
        for name, patterns in packaging("PACKAGE_DATA").items()
        for pattern in patterns
        for path in (CHECKOUT_ROOT / name.replace(".", "/")).glob(pattern)
    }
    assert files == packaged


def test_make_targets_in_documents_exist() -> None:
    makefile = (CHECKOUT_ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for path in DOCUMENTS:
        promised = set(re.findall(r"(?:^ {4}|`|\$ )make ([a-z]+)", path.read_text(), re.MULTILINE))
        assert promised <= targets, relative(path)


def test_every_make_target_is_listed_and_phony() -> None:
    makefile = (CHECKOUT_ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):.*## .+", makefile, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    assert phony is not None
    assert {"install", "test", "demo", "lint"} <= set(targets)
    assert set(targets) == set(phony[1].split()) == set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def test_everything_imported_is_a_declared_dependency() -> None:
    declared = [*packaging("REQUIREMENTS"), *(name for extra in packaging("EXTRAS").values() for name in extra)]
    names = {re.split(r"[<>=!~\[]", requirement)[0].replace("-", "_") for requirement in declared}
    known = {"vdvae_lr", "apex"} | sys.stdlib_module_names  # apex is built by hand, where it is wanted
    for path in (CHECKOUT_ROOT / "vdvae_lr").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tops = {module.partition(".")[0] for module in modules} - known
            assert {INSTALLED_AS.get(top, top) for top in tops} <= names, relative(path)


def test_version_is_said_once() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", vdvae_lr.__version__)
    changelog = CHECKOUT_ROOT / "CHANGELOG.md"
    assert not changelog.is_file() or vdvae_lr.__version__ in changelog.read_text()
    try:
        installed = importlib.metadata.version("vdvae_lr")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("vdvae_lr runs from a checkout here, without being installed")
    assert installed == vdvae_lr.__version__
