"""Data sets of images on the Hugging Face Hub, in Parquet files: downloaded once, then read from this machine.

OWNER/NAME                        on the Hub
assets/vdvae_lr/datasets/files    in the Hugging Face cache: the list of files, for a start without network
hub/datasets--OWNER--NAME         there, too: the Parquet files as they came
assets/vdvae_lr/images/files      there, too: their images unpacked, named by the files' digests
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vdvae_lr.datasets.folder import BadImages, FolderSource
from vdvae_lr.datasets.folder_splits import split_by_name
from vdvae_lr.datasets.hub_listing import HubSettings, Listing, chosen_splits, fetch_listing, splits_of
from vdvae_lr.datasets.parquet_images import ParquetRows, check_pyarrow, unpack_images
from vdvae_lr.datasets.sources import Splits
from vdvae_lr.errors import InputError
from vdvae_lr.files.download import alone
from vdvae_lr.files.hub_client import HubAccess, asset_path, repository_file
from vdvae_lr.files.paths import is_file

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)


class HubSource(FolderSource):
    """Rows of Parquet files, decoded when they are read."""

    def __init__(
        self,
        rows: ParquetRows,
        root: Path,
        names: Sequence[str],
        contents: Mapping[str, str],
        image_size: int,
        image_channels: int,
        bad_images: BadImages,
    ) -> None:
        """`contents` tells the content of each file; the rest is as for a `FolderSource`."""
        super().__init__(root, names, image_size, image_channels, bad_images, rows)
        self._contents = sorted((file, contents[file]) for file in {name.rpartition("/")[0] for name in names})

    def fingerprint(self) -> str:
        """Digest of the rows' names in their order, and of the files' contents."""
        return hashlib.sha256(f"{super().fingerprint()} {self._contents}".encode()).hexdigest()


def open_hub(
    repository: str, chosen: HubSettings, image_size: int, image_channels: int, bad_images: BadImages
) -> Splits:
    """The splits of a data set on the Hub, which is downloaded and unpacked if that was not done before.

    Without a validation or test split the images are split as those of a folder are, by the names of their rows.

    Raises:
        InputError: no such data set, revision, subset, split or column; no Parquet files; a damaged file; a refusal of
            the Hub, the network or the disk. What has arrived stays for the next call.
    """
    check_pyarrow()
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"'{repository}' is no data set of the Hub: give it as OWNER/NAME with --data_root")
    listing = fetch_listing(repository, chosen.hub_revision)
    files = splits_of(repository, listing, chosen.hub_subset)
    train, valid, test = chosen_splits(repository, files, chosen.hub_splits)
    taken = dict.fromkeys(name for name in (train, valid, test) if name is not None)
    left_out = {f"file of split '{split}'": len(files[split]) for split in files if split not in taken}
    held_out = {file for split in (valid, test) if split is not None for file in files[split]}
    files = {split: [file for file in files[split] if split != train or file not in held_out] for split in taken}
    unpacked = _unpacked(repository, listing, chosen.hub_column, files.values())
    contents = {file: path.stem for file, path in unpacked.items()}
    rows = ParquetRows(Path(repository), unpacked)
    names = {split: [name for file in files[split] for name in rows.names(file)] for split in taken}
    for split, found in names.items():
        if not found:
            raise InputError(f"split '{split}' of data set {repository} holds no images: choose others (--hub_splits)")

    def part(names: Sequence[str]) -> HubSource:
        return HubSource(rows, Path(repository), names, contents, image_size, image_channels, bad_images)

    how = f"as on the Hub at commit {listing.commit[:12]} ({', '.join(taken)})"
    train_names, held_out_names = names[train], [names[split] for split in (valid, test) if split is not None]
    if valid is None:
        where = Path(repository, train)
        train_names, *cut = split_by_name(train_names, where, held_out_parts=1 if held_out_names else 2)
        held_out_names = [*cut, *held_out_names]
        how += f", with {'validation' if test else 'validation and test'} cut from '{train}' by the rows"
    valid_source, *others = map(part, held_out_names)
    return Splits(part(train_names), valid_source, others[0] if others else valid_source, left_out, how)


def _unpacked(repository: str, listing: Listing, column: str, files: Iterable[Sequence[str]]) -> dict[str, Path]:
    """The Arrow file of each Parquet file, named by the file's digest and the column.

    One process of a machine makes it, while others that need it wait.
    """
    access = HubAccess(revision=listing.commit, repo_type="dataset")
    unpacked = {}
    for file in sorted({file for of_split in files for file in of_split}):
        key = hashlib.sha256(f"{listing.files[file]} {column}".encode()).hexdigest()
        target = asset_path(f"images/{key}.arrow", HubAccess())
        if not is_file(target):
            with alone(target):
                if not is_file(target):
                    parquet = repository_file(repository, file, access)
                    unpack_images(parquet, f"{repository}/{file}", column, target)
        unpacked[file] = target
    return unpacked
