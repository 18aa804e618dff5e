"""Presets: TOML files of settings, in `hps/` or your own.

`base = "other"` builds on another preset, `model = "ShallowVAE"` names the class of models that is trained.
"""

import tomllib
from pathlib import Path
from typing import Any

from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.files.paths import cannot_be_read, expanded, is_file, path_of

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_LARGEST = 1 << 20  # bytes


def preset_words(names: str) -> list[str]:
    """The entries of a comma-separated list of presets; the home folder replaces `~` (raises InputError)."""
    words = names.split(",")
    return [expanded(word.strip(), "hps") if word.strip().startswith("~") else word for word in words]


def preset_names() -> list[str]:
    """The names of all presets in hps/, as --hps takes them; those in a folder are FOLDER/NAME."""
    folder = bundled_folder("hps")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml"))


def read_presets(names: str) -> dict[str, Any]:
    """The settings of comma-separated presets, each on top of its base. Later presets win.

    Raises:
        InputError: a preset is unknown, cannot be read, or is its own base.
    """
    values: dict[str, Any] = {}
    for name in preset_words(names):
        if not name.strip() and names.strip():
            raise InputError(f"--hps '{names}' has an empty name beside a comma; remove the comma.")
        values |= _read_preset(name.strip(), ())
    return values


def _read_preset(name: str, above: tuple[Path, ...]) -> dict[str, Any]:
    path = path_of(name, "preset") if name.endswith(".toml") else bundled_folder("hps") / f"{name}.toml"
    try:
        values = tomllib.loads(_read_text(path))
    except FileNotFoundError:
        raise _unknown(name, above) from None
    except ValueError as error:
        raise InputError(f"preset {path} cannot be read ({error}); mend the file.") from None
    except OSError as error:
        if path.parent == bundled_folder("hps"):  # no file can have such a name
            raise _unknown(name, above) from None
        raise cannot_be_read(f"preset {path}", error) from None
    chain = (*above, path.resolve())  # whole paths: your file may have the name of the preset that it builds on
    if chain[-1] in above:
        raise InputError(f"preset '{name}' is its own base ({' → '.join(p.name for p in chain)}); remove one base.")
    if "hps" in values:
        raise InputError(f'preset {path} sets hps; name the preset that it builds on as base = "NAME".')
    base = values.pop("base", "")
    if not isinstance(base, str):
        raise InputError(f"preset {path}: base is {base!r}; it must be the name of one preset.")
    return (_read_preset(base, chain) if base else {}) | values


def _read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without the byte-order mark that some editors write.

    Raises:
        ValueError: the file is too large or in another encoding; the message says what to do.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST:,} bytes")
    if content.startswith(_UTF16):
        raise ValueError("it is UTF-16 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not UTF-8 text; save the file as UTF-8") from None


def _unknown(name: str, above: tuple[Path, ...]) -> InputError:
    known = preset_names()
    if above and name.endswith(".toml"):
        beside = above[-1].parent / name
        hint = f"; there is {beside}, but relative paths start in the working folder" if is_file(beside) else ""
        return InputError(f"preset {above[-1]} has base {name!r}, which does not exist{hint}; mend the base.")
    lower = name.lower().removesuffix(".toml")
    hint = nearest_name_hint(lower, known) or nearest_name_hint(lower.rpartition("/")[2], known)
    if not hint and is_file(Path(f"{name}.toml")):
        hint = f" (did you mean '{name}.toml'?)"
    top = ", ".join(each for each in known if "/" not in each)
    return InputError(
        f"there is no preset '{name[:100]}'{hint}; --hps knows {top}, those of hps/shallow, or a .toml file."
    )
