"""Names of weights that people write and that are none: what was probably meant, and how to write it."""

import re
from pathlib import Path

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import is_folder
from vdvae_lr.files.run_folder import complete_checkpoints

_SITE = r"(?P<site>(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:api/)?(?:models/)?|hf://(?:models/)?)"
_REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"
_REVISION = r"(?:@(?P<at>[\w./-]+))?"
_PLACE = r"(?:/(?P<page>tree|blob|resolve|raw|commit)(?:/(?P<revision>[^/?#]+))?[^?#]*|/discussions[^?#]*)?"
_ON_THE_HUB = re.compile(rf"{_SITE}?{_REPOSITORY}(?:{_REVISION}|{_PLACE})/*(?:[?#].*)?", re.ASCII)


def check_hub_name(name: str) -> None:
    """Refuse the address of a page on the Hub, and a revision within a name (raises InputError).

    The address of a file of weights (`…/resolve/…/model.safetensors`) and a plain OWNER/NAME are no such names.
    """
    found = _ON_THE_HUB.fullmatch(name)
    if found is None or (found["page"] == "resolve" and name.startswith("https://")):
        return
    here = is_folder(Path(found["repository"]).parent)  # more likely a path with a slip in it than somebody's account
    if not found["site"] and (not found["at"] or here):
        return
    revision = found["at"] or found["revision"] or "main"
    chosen = f" and --revision {revision} (in Python revision='{revision}')" if revision != "main" else ""
    what = "has a revision in the name" if found["at"] else "is the address of a repository on the Hub"
    raise InputError(f"'{without_secrets(name)}' {what}; write {found['repository']}{chosen}.")


def folder_without_weights(folder: Path, wanted: str) -> InputError:
    """The sentence on a folder that has no file of weights called `wanted`."""
    if complete_checkpoints(folder):
        return InputError(
            f"folder {folder} holds a run's checkpoints; give the run, {folder.parent}, for the newest one, or one of "
            "them."
        )
    return InputError(f"folder {folder} holds no {wanted}; give a folder of weights or a training run.")


def no_file_of_weights(path: Path) -> InputError:
    """The sentence on a file with another ending than those of weights."""
    if path.suffix == ".toml":
        return InputError(f"{path} is a preset, not weights; give it with --hps.")
    if path.name.endswith(".json"):
        return InputError(f"{path} holds settings, not weights; give its folder.")
    return InputError(f"{path} is no file of weights; give one that ends in .th or .safetensors.")
