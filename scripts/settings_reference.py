"""Write docs/settings.md: every setting of train.py, read from the dataclasses that define it.

    python scripts/settings_reference.py

`tests/docs/test_settings_reference.py` checks that the committed file is what this script writes.
"""

import argparse
import ast
import dataclasses
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

from vdvae_lr.files.bundled import CHECKOUT_ROOT, bundled_folder
from vdvae_lr.files.paths import path_of
from vdvae_lr.files.presets import read_presets
from vdvae_lr.model.shallow.vae import ShallowConfig
from vdvae_lr.setting_checks import range_words, type_words
from vdvae_lr.training.settings import NEUTRAL, Settings

OUT = CHECKOUT_ROOT / "docs" / "settings.md"
COMMAND = "python scripts/settings_reference.py"
_WIDEST_VALUE = 24  # longest value of a preset in the table, in characters; block strings are longer
_HEAD = """\
# Settings

`{command}` writes this page from the source code; a test fails when the two differ.

Settings come from four places. Later places override earlier ones: the defaults below, the preset that a preset names
as its `base`, the presets that `--hps` names (left to right), and the command line. On the command line a setting is
`--NAME VALUE`. A setting that is true or false is switched on by `--NAME` and off by `--no_NAME` (`--NAME True` and
`--NAME=false` work too). In a preset, a TOML file, a setting is a line `NAME = value`. A name that does not exist is
refused, and the message suggests the nearest name. `python train.py --hps PRESET --dry_run` prints the resulting
settings; a run saves them in `settings.json`.

When a run continues, these settings may differ from before, because none of them changes what was computed so far. So
may `n_batch`, unless there are free bits or batch normalisation. Any other difference is refused, and the message names
it:

{neutral}.

`vdvae-lr COMMAND --help` lists the settings of the other commands. [Own data](own_data.md#choosing-a-model) explains
the block strings; [what is computed](method.md) the settings of the loss.

## Paths and numbers

All settings that name a file or folder read paths in the same way, on the command line, in presets, in environment
variables and in Python:

| written | meaning |
|---|---|
| `runs/first`, `../runs/first` | relative to the folder in which the command was started, also in a preset's `base` |
| `~/runs`, `~USER/runs` | in the home folder, also where the shell does not expand `~` (`--save_dir=~/runs`, TOML) |
| `./~/runs` | a folder that is really called `~` |

`--save_dir=~/runs` and `--save_dir /home/me/runs` name the same folder. If this user may not read a file or folder, the
command ends with a sentence that says so. Such a file never counts as missing or damaged.

Numbers must lie in the range that the tables give. Infinity is allowed for `grad_clip` (no clipping), `skip_threshold`
(only updates that are not finite are skipped) and `stuck_after_s` (never). NaN is never allowed.

A preset is UTF-8 text, with or without a byte-order mark. Its settings are one list, without tables such as `[run]`.
"""
_PRESETS = """\
## What the presets set

A preset with a `base` is shown with the settings of its base. Block strings and other values that are too long for a
cell are shown as "…"; look them up in `hps/`. An empty cell means the default. `paper` goes on top of another preset.
"""


@dataclass(frozen=True)
class Field:
    """One setting."""

    name: str
    aliases: tuple[str, ...]
    kind: str
    default: str
    meaning: str


def reference() -> str:
    """The text of the page."""
    neutral = textwrap.fill(", ".join(f"`{name}`" for name in sorted(NEUTRAL)), 120, break_on_hyphens=False)
    groups = [_group(name, type(group)) for name, group in vars(Settings()).items()]
    groups.append(_group("model ShallowVAE", ShallowConfig))
    return "\n".join([_HEAD.format(command=COMMAND, neutral=neutral), *groups, _presets()])


def _group(name: str, kind: type) -> str:
    about = " ".join((kind.__doc__ or "").split()).partition(". ")[0].rstrip(".")
    lines = [f"## {name[0].upper()}{name[1:]}", "", f"{about}.", ""]
    lines += _table_head("setting", "value", "default", "meaning")
    for field in _fields(kind):
        names = ", ".join(f"`{word}`" for word in (f"--{field.name}", *field.aliases))
        lines.append(_row(names, field.kind, field.default, field.meaning))
    return "\n".join(lines) + "\n"


def _fields(kind: type) -> Iterator[Field]:
    """The fields of a settings dataclass, with the docstrings below them in its source."""
    meanings = field_docstrings(kind)
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, aliases, extras = hints[field.name], (), ()
        if typing.get_origin(hint) is Annotated:
            hint, *extras = typing.get_args(hint)
            aliases = tuple(alias for extra in extras for alias in getattr(extra, "aliases", None) or ())
        yield Field(
            field.name, aliases, type_words(hint) + range_words(extras), _value(field.default), meanings[field.name]
        )


def field_docstrings(kind: type) -> dict[str, str]:
    """The docstring below each annotated attribute of a dataclass and of those it derives from, as one line.

    Raises:
        ValueError: a field has no docstring.
    """
    definition = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    found: dict[str, str] = {}
    for base in filter(dataclasses.is_dataclass, kind.__bases__):
        found |= field_docstrings(base)
    below = None
    for node in ast.iter_child_nodes(definition):
        if isinstance(node, ast.AnnAssign):
            below = ast.unparse(node.target)
        elif below and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[below] = " ".join(str(node.value.value).split())
            below = None
        else:
            below = None
    missing = [field.name for field in dataclasses.fields(kind) if field.name not in found]
    if missing:
        raise ValueError(f"{kind.__name__}.{missing[0]} has no docstring below it")
    return found


def _presets() -> str:
    presets = {path.stem: read_presets(path.stem) for path in sorted(bundled_folder("hps").glob("*.toml"))}
    names = [name for name in Settings().flat() if any(name in values for values in presets.values())]
    lines = [_PRESETS, *_table_head("setting", *(f"`{name}`" for name in presets))]
    lines += [_row(f"`{name}`", *(_cell(values, name) for values in presets.values())) for name in names]
    return "\n".join(lines) + "\n"


def _cell(values: Mapping[str, Any], name: str) -> str:
    text = _value(values[name]) if name in values else ""
    return text if len(text) <= _WIDEST_VALUE else "…"


def _value(value: Any) -> str:
    """A value as inline code, as a preset would write it, but strings without quotes."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def _table_head(*titles: str) -> list[str]:
    return ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=path_of, default=OUT, help="file to write (default: docs/settings.md)")
    options = parser.parse_args()
    options.out.write_text(reference(), encoding="utf-8")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
