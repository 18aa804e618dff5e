"""Which Parquet files of a data set on the Hugging Face Hub hold which split.

Subsets and splits are read as the Hub's own pages do: from `configs` in the head of the data set's README if it has
them, else from the files' names. Everything here is data; a loading script in the repository is never run.
"""

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vdvae_lr.datasets.folder_splits import part_of_split
from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.files.download import alone
from vdvae_lr.files.hub_client import LIBRARY, HubAccess, asset_path, hub_errors
from vdvae_lr.files.paths import cannot_be_read, is_file
from vdvae_lr.files.whole_file import write_whole

CONVERTED = "refs/convert/parquet"
"""The branch to which the Hub itself converts public data sets."""
_NAMED_SPLIT = re.compile(r"(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")  # a file that `datasets` wrote
_CONVERTED_FILE = re.compile(r"(?P<subset>[^/]+)/(?P<split>[^/]+)/\d{4,}\.parquet")  # in the branch above
_PATIENCE_S = 60.0
_NOT_THERE = (401, 403, 404)  # other answers than these may pass

Splits = Mapping[str, Sequence[str]]
"""The Parquet files of each split, sorted by name."""


@dataclass(frozen=True, kw_only=True)
class HubSettings:
    """Which part of a data set on the Hub to take; only for data set `hub`."""

    hub_subset: str = ""
    """Subset (configuration) of the data set on the Hub; empty: its only or default one."""
    hub_splits: str = ""
    """Splits of the data set on the Hub for training, validation and test, such as train,validation,test. Fewer are
    enough: what is missing is as for a folder. Empty: those with the usual names."""
    hub_column: str = ""
    """Column of the data set on the Hub that holds the images; empty: the only one that can."""
    hub_revision: str = ""
    """Branch, tag or commit of the data set on the Hub; empty: its default branch."""


@dataclass(frozen=True)
class Listing:
    """What a repository held at one commit."""

    commit: str
    files: Mapping[str, str]
    """The digest of each Parquet file, by its path."""
    configs: Sequence[Any]
    """The subsets that the README's head lists, unchecked."""


def fetch_listing(repository: str, revision: str) -> Listing:
    """Ask the Hub what a data set holds, or take its last answer if the Hub cannot be reached.

    Raises:
        InputError: there is no such data set or revision, it needs another login, or the Hub cannot be reached and was
            never asked before.
    """
    record = _record_of(repository, revision)
    try:
        found = _ask(repository, revision)
    except InputError as error:
        response = getattr(error.__cause__, "response", None)
        if (response is not None and response.status_code in _NOT_THERE) or not is_file(record):
            raise
        return _read_listing(record)
    for path in {record, _record_of(repository, found.commit)}:
        with alone(path):
            write_whole(path, json.dumps(asdict(found)).encode())
    return found


def _record_of(repository: str, revision: str) -> Path:
    """Where the Hub's last answer about a revision is kept."""
    asked = hashlib.sha256(f"{repository} {revision}".encode()).hexdigest()[:16]
    return asset_path(f"datasets/{asked}.json", HubAccess())


def _ask(repository: str, revision: str) -> Listing:
    from huggingface_hub import HfApi

    with hub_errors(repository, "list of files", revision or None):
        info = HfApi(library_name=LIBRARY).dataset_info(
            repository, revision=revision or None, files_metadata=True, timeout=_PATIENCE_S
        )
    files = {
        each.rfilename: (each.lfs and each.lfs.sha256) or each.blob_id or f"{each.rfilename} at {info.sha}"
        for each in info.siblings or []
        if each.rfilename.endswith(".parquet")
    }
    configs = getattr(info.card_data, "configs", None)
    return Listing(info.sha or "", files, configs if isinstance(configs, list) else [])


def _read_listing(record: Path) -> Listing:
    try:
        return Listing(**json.loads(record.read_bytes()))
    except OSError as error:
        raise cannot_be_read(record, error) from None
    except (ValueError, TypeError):
        raise InputError(f"{record} is damaged: delete it and run the same command again with a network.") from None


def splits_of(repository: str, listing: Listing, subset: str = "") -> Splits:
    """The Parquet files of each split of a subset; empty: of the only or default one.

    Raises:
        InputError: the repository has no Parquet files, no such subset, or several.
    """
    if not listing.files:
        raise InputError(
            f"data set {repository} has no .parquet files at commit {listing.commit[:12]}, and nothing else is read: "
            f"try the Hub's own conversion with --hub_revision {CONVERTED}, or download its images and name their "
            "folder or zip archive with --dataset folder"
        )
    subsets = _listed_subsets(listing) or _subsets_by_names(listing.files)
    default = next(iter(subsets)) if len(subsets) == 1 else "default"
    chosen = subset or default
    if chosen not in subsets:
        known = ", ".join(subsets)
        if subset:
            hint = nearest_name_hint(subset, list(subsets))
            raise InputError(f"data set {repository} has no subset '{subset}'{hint}: choose --hub_subset from {known}")
        raise InputError(f"data set {repository} has several subsets: choose one with --hub_subset from {known}")
    return subsets[chosen]


def _listed_subsets(listing: Listing) -> dict[str, Splits]:
    """The subsets in the README's head that have Parquet files. The one marked as default is called so, too."""
    subsets: dict[str, Splits] = {}
    for config in listing.configs:
        if not isinstance(config, dict):
            continue
        splits = {
            split: files
            for split, patterns in _patterns_of(config).items()
            if (files := _matching(listing.files, patterns, config.get("data_dir")))
        }
        if splits:
            subsets[str(config.get("config_name", "default"))] = splits
            if config.get("default") is True:
                subsets.setdefault("default", splits)
    return subsets


def _patterns_of(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """The patterns of files by split, in all forms in which a README may state them."""
    stated = config.get("data_files")
    if isinstance(stated, list) and all(isinstance(each, dict) and "split" in each for each in stated):
        stated = {str(each["split"]): each.get("path") for each in stated}
    if not isinstance(stated, dict):
        stated = {"train": stated}
    return {
        str(split): [each for each in (paths if isinstance(paths, list) else [paths]) if isinstance(each, str)]
        for split, paths in stated.items()
    }


def _matching(files: Iterable[str], patterns: Sequence[str], folder: object) -> list[str]:
    start = f"{folder.strip('/')}/" if isinstance(folder, str) and folder.strip("/.") else ""
    wanted = [start + pattern.removeprefix("./").replace("**/", "*") for pattern in patterns]
    return sorted(file for file in files if any(fnmatch.fnmatchcase(file, pattern) for pattern in wanted))


def _subsets_by_names(files: Iterable[str]) -> dict[str, Splits]:
    """The subsets and splits that the files' names tell; in other repositories than converted ones one subset."""
    converted = {file: _CONVERTED_FILE.fullmatch(file) for file in files}
    subsets: dict[str, dict[str, list[str]]] = {}
    for file in sorted(converted):
        found = converted[file]
        all_converted = all(each is not None and part_of_split(each["split"]) for each in converted.values())
        subset = found["subset"] if found is not None and all_converted else "default"
        subsets.setdefault(subset, {}).setdefault(_split_by_name(file), []).append(file)
    return dict(subsets)


def _split_by_name(file: str) -> str:
    """The split that a file's name tells; `train` if it tells none."""
    path = PurePosixPath(file)
    written = _NAMED_SPLIT.fullmatch(path.stem)
    if written is not None:
        return written["split"]
    for part in (*path.parts[:-1], path.stem):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word and part_of_split(word):
                return word
    return "train"


def chosen_splits(repository: str, splits: Iterable[str], wanted: str = "") -> tuple[str, str | None, str | None]:
    """Names of the splits for training, validation and test; None: there is none.

    Args:
        repository: the data set's name, for messages.
        splits: names of all its splits.
        wanted: up to three names with commas, as a person gave them; empty: those with the usual names.

    Raises:
        InputError: a name is unknown, or it is not clear which split is which part.
    """
    known = list(splits)
    has = f"data set {repository} has the splits {', '.join(known)}"
    if wanted:
        names = [name.strip() for name in wanted.split(",")]
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None or len(names) > 3:
            what = (
                f"no '{unknown}'{nearest_name_hint(unknown, known)}" if unknown is not None else "three parts to fill"
            )
            raise InputError(f"{has}, and {what}: give --hub_splits TRAINING[,VALIDATION[,TEST]] from these")
        if names[0] in names[1:]:
            raise InputError(f"--hub_splits {wanted} would train on held-out images: give another split first")
        valid, test = [*names[1:], None, None][:2]
        return names[0], valid, test if test != valid else None
    parts = {part: [name for name in known if part_of_split(name) == part] for part in ("train", "valid", "test")}
    if len(known) == 1 and not (parts["valid"] or parts["test"]):
        return known[0], None, None
    if len(parts["train"]) != 1 or any(len(names) > 1 for names in parts.values()):
        raise InputError(
            f"{has}, and it is not clear which to train on and which to hold out: say so with --hub_splits "
            "TRAINING[,VALIDATION[,TEST]]"
        )
    return parts["train"][0], next(iter(parts["valid"]), None), next(iter(parts["test"]), None)
