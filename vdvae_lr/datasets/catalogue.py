"""The data sets known by name: how each is split, what its images are, what its owners allow. And the data settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from vdvae_lr.datasets.array_files import (
    CIFAR_TEST,
    IDX_SIDE,
    IDX_TEST,
    IDX_TRAIN,
    IDX_VALID,
    DataFileError,
    MissingDataError,
    existing,
    map_npy,
    read_cifar,
    read_idx,
)
from vdvae_lr.datasets.folder import BadImages, open_folder, split_by_folders
from vdvae_lr.datasets.folder_splits import SplitFolders
from vdvae_lr.datasets.hub_images import open_hub
from vdvae_lr.datasets.hub_listing import HubSettings
from vdvae_lr.datasets.inventory import PARTS
from vdvae_lr.datasets.sources import ArraySource, ImageSource, MemoryMappedSource, Pixels, Rows, Splits, all_rows
from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.files.bundled import CHECKOUT_ROOT, bundled_folder
from vdvae_lr.processes.world import World
from vdvae_lr.setting_checks import CountOrNone, PathText, check_settings

__all__ = ["DATASETS", "DataSettings", "ImageSource", "Splits", "default_data_root", "open_splits", "terms_of"]

ON_THE_HUB = "hub"
OMNIGLOT, OMNIGLOT_SOURCE = "omniglot", "omniglot-source.json"
CELEBA, CELEBA_SIDE = "celeba-64", 64


@dataclass(frozen=True)
class DataSettings(HubSettings):
    """Which images to train on and how to read them."""

    dataset: str = "fashion_small"
    """Data set by name (cifar10, imagenet32, imagenet64, ffhq256, ffhq1024, fashion, fashion_small, mnist, omniglot,
    celeba), `folder` for any folder or zip archive of images, or `hub` for a data set on the Hugging Face Hub."""
    data_root: PathText = ""
    """Folder that holds the data set's files; empty: data/NAME, where its prepare.py puts them. For `folder` also a
    .zip file, for `hub` the data set's name, OWNER/NAME."""
    bad_images: BadImages = "stop"
    """What to do about a file that is no readable image: stop and name it, or skip it and read another one instead."""
    num_workers: CountOrNone = 2
    """Processes for each rank that read images ahead of the training step; 0: read in the training process."""

    def __post_init__(self) -> None:
        """Refuse names of data sets and policies that do not exist; raises InputError."""
        check_settings(self)
        if self.dataset not in DATASETS:
            raise InputError(
                f"there is no data set '{self.dataset}'{nearest_name_hint(self.dataset, list(DATASETS))}; "
                f"choose one of {', '.join(DATASETS)}."
            )
        if self.bad_images not in ("stop", "skip"):
            raise InputError(f"bad_images is '{self.bad_images}'; choose stop or skip.")
        given = next((field.name for field in fields(HubSettings) if getattr(self, field.name)), None)
        if given is not None and self.dataset != ON_THE_HUB:
            raise InputError(f"{given} is for data set '{ON_THE_HUB}' only; leave it out, or give --dataset hub.")


def open_cifar10(root: Path, held_out: int = 5_000) -> Splits:
    """CIFAR-10. Validation images are cut from the training batches, `test_batch` is the test set."""
    folder, images, test_images = read_cifar(root)
    order = shuffled(len(images), 11172018, held_out, folder)
    return Splits(  # row for row as scikit-learn's train_test_split(…, random_state=11172018), as published for VDVAE
        ArraySource(images, order[held_out:], str(folder)),
        ArraySource(images, order[:held_out], str(folder)),
        ArraySource(test_images, all_rows(test_images), str(folder / CIFAR_TEST)),
    )


def open_imagenet(root: Path, image_size: int, held_out: int = 5_000) -> Splits:
    """Downsampled ImageNet. Validation images are cut from `-train.npy`, `-valid.npy` is the test set."""
    train_path, test_path = (root / f"imagenet{image_size}-{part}.npy" for part in ("train", "valid"))
    order = shuffled(len(map_npy(train_path, image_size)), 42, held_out, train_path)
    test = all_rows(map_npy(test_path, image_size))
    return Splits(
        MemoryMappedSource(train_path, order[:-held_out]),
        MemoryMappedSource(train_path, order[-held_out:]),
        MemoryMappedSource(test_path, test),
    )


def open_ffhq256(root: Path, held_out: int = 7_000) -> Splits:
    """FFHQ at 256×256. The held-out images are both validation and test, as published."""
    path = root / "ffhq-256.npy"
    order = shuffled(len(map_npy(path, 256)), 5, held_out, path)
    held = MemoryMappedSource(path, order[-held_out:])
    return Splits(MemoryMappedSource(path, order[:-held_out]), held, held)


def open_ffhq1024(root: Path, bad_images: BadImages) -> Splits:
    """FFHQ at 1024×1024. The images in `ffhq1024/valid` are both validation and test, as published."""
    train, valid = (existing(root / "ffhq1024" / part) for part in ("train", "valid"))
    return split_by_folders(SplitFolders(train, valid, None, {}), 1024, 3, bad_images)


def open_idx(root: Path, image_size: int, held_out: int = 5_000) -> Splits:
    """MNIST or Fashion-MNIST. The last training images are validation, `t10k` is the test set."""
    images, test = (pad_images(read_idx(root, name), image_size) for name in (IDX_TRAIN, IDX_TEST))
    _check_enough(len(images), held_out, root / IDX_TRAIN)
    rows = all_rows(images)
    return Splits(
        ArraySource(images, rows[:-held_out], IDX_TRAIN),
        ArraySource(images, rows[-held_out:], IDX_TRAIN),
        ArraySource(test, all_rows(test), IDX_TEST),
    )


def open_fashion_small(root: Path, image_size: int) -> Splits:
    """The bundled part of Fashion-MNIST, with one file for each split."""

    def part(name: str) -> ArraySource:
        images = pad_images(read_idx(root, name), image_size)
        return ArraySource(images, all_rows(images), name)

    return Splits(part(IDX_TRAIN), part(IDX_VALID), part(IDX_TEST))


def open_omniglot(root: Path, image_size: int) -> Splits:
    """Omniglot at 28×28, with one file for each split; `prepare.py` writes the record of their source last."""
    existing(root / OMNIGLOT_SOURCE)

    def part(path: Path) -> ArraySource:
        images = pad_images(map_npy(path, IDX_SIDE, 1), image_size)
        return ArraySource(images, all_rows(images), str(path))

    train, valid, test = map(part, split_files(root, OMNIGLOT))
    return Splits(train, valid, test)


def open_celeba(root: Path) -> Splits:
    """CelebA at 64×64, with one file for each split of its owners."""
    train, valid, test = (
        MemoryMappedSource(path, all_rows(map_npy(path, CELEBA_SIDE))) for path in split_files(root, CELEBA)
    )
    return Splits(train, valid, test)


def split_files(root: Path, stem: str) -> list[Path]:
    """The `.npy` files of the training, validation and test images."""
    return [root / f"{stem}-{part}.npy" for part in PARTS]


def pad_images(images: Pixels, image_size: int) -> Pixels:
    """Put images (N, 28, 28, 1) in the middle of black squares (N, image_size, image_size, 1)."""
    if image_size < IDX_SIDE or (image_size - IDX_SIDE) % 2:
        raise InputError(
            f"image_size {image_size} does not fit images of {IDX_SIDE}×{IDX_SIDE}: they are padded evenly, so choose "
            f"an even number from {IDX_SIDE} up, such as 32"
        )
    border = (image_size - IDX_SIDE) // 2
    return np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)))


def shuffled(n_images: int, seed: int, held_out: int, path: Path) -> Rows:
    """Permuted row numbers (N,) from numpy's legacy generator, whose stream never changes."""
    _check_enough(n_images, held_out, path)
    return np.random.RandomState(seed).permutation(n_images).astype(np.int64)


def _check_enough(n_images: int, held_out: int, path: Path) -> None:
    if n_images <= held_out:
        raise DataFileError(f"{path} holds {n_images} images, but {held_out} of them have to be held out")


@dataclass(frozen=True)
class KnownDataset:
    """A data set that has a name."""

    open: Callable[[Path, int, int, DataSettings], Splits]
    """Reads its folder, given the image size, the channels and all settings of the data."""
    terms: str
    """What its owners allow, in a sentence for model cards; empty: nobody knows."""
    image_channels: int | None = None
    """None: as many as the model takes."""
    image_size: int | None = None
    """None: any."""
    needs_account: bool = False
    """Its owners give it to accounts only, so prepare.py has to be given the downloaded files."""


_IMAGENET_TERMS = "ImageNet's terms of access allow non-commercial research and education."
_FFHQ_TERMS = "FFHQ is CC BY-NC-SA 4.0 (NVIDIA), each photo under its own terms: non-commercial use."
_BUNDLED = "fashion_small"
_OWN_FOLDER = "folder"

DATASETS: dict[str, KnownDataset] = {
    "cifar10": KnownDataset(
        lambda root, *_: open_cifar10(root),
        "CIFAR-10's page states no licence; it asks to cite Krizhevsky (2009).",
        image_channels=3,
        image_size=32,
    ),
    "imagenet32": KnownDataset(lambda root, *_: open_imagenet(root, 32), _IMAGENET_TERMS, 3, 32, needs_account=True),
    "imagenet64": KnownDataset(lambda root, *_: open_imagenet(root, 64), _IMAGENET_TERMS, 3, 64, needs_account=True),
    "ffhq256": KnownDataset(lambda root, *_: open_ffhq256(root), _FFHQ_TERMS, 3, 256),
    "ffhq1024": KnownDataset(
        lambda root, size, channels, data: open_ffhq1024(root, data.bad_images),
        _FFHQ_TERMS,
        image_channels=3,
        image_size=1024,
        needs_account=True,
    ),
    "fashion": KnownDataset(
        lambda root, size, *_: open_idx(root, size), "Fashion-MNIST is MIT, © 2017 Zalando SE.", image_channels=1
    ),
    _BUNDLED: KnownDataset(
        lambda root, size, *_: open_fashion_small(root, size),
        "The images are from Fashion-MNIST: MIT, © 2017 Zalando SE.",
        image_channels=1,
    ),
    "mnist": KnownDataset(
        lambda root, size, *_: open_idx(root, size),
        "MNIST is © Yann LeCun and Corinna Cortes; CC BY-SA 3.0 is commonly stated.",
        image_channels=1,
    ),
    "omniglot": KnownDataset(
        lambda root, size, *_: open_omniglot(root, size), "Omniglot is MIT, © 2015 Brenden Lake.", image_channels=1
    ),
    "celeba": KnownDataset(
        lambda root, *_: open_celeba(root),
        "CelebA's agreement allows non-commercial research only.",
        image_channels=3,
        image_size=CELEBA_SIDE,
        needs_account=True,
    ),
    _OWN_FOLDER: KnownDataset(
        lambda root, size, channels, data: open_folder(root, size, channels, data.bad_images), ""
    ),
    ON_THE_HUB: KnownDataset(
        lambda root, size, channels, data: open_hub(str(root), data, size, channels, data.bad_images), terms=""
    ),
}


def terms_of(dataset: str) -> str:
    """What one may do with a data set, in a sentence; empty if nobody knows."""
    return DATASETS[dataset].terms if dataset in DATASETS else ""


def open_splits(settings: DataSettings, image_size: int, image_channels: int) -> Splits:
    """Find the training, validation and test images, each read as (B, image_size, image_size, image_channels) uint8.

    Raises:
        InputError: files are missing or damaged, or the data set has no images of this size or these channels.
    """
    name, known = settings.dataset, DATASETS[settings.dataset]
    if image_channels not in (1, 3):
        raise InputError(f"image_channels is {image_channels}: choose 1 for grey or 3 for colour images")
    if image_size < 1:
        raise InputError(f"image_size is {image_size}, but it must be at least 1: set image_size to 32, say")
    for setting, chosen in (("image_size", image_size), ("image_channels", image_channels)):
        fixed = getattr(known, setting)
        if fixed not in (None, chosen):
            remedy = f"set {setting} to {fixed}, or choose other data"
            raise InputError(f"{setting} is {chosen}, but data set '{name}' has {fixed}: {remedy}")
    root = Path(settings.data_root) if settings.data_root else default_data_root(name)
    with naming_the_remedy(name):
        return known.open(root, image_size, image_channels, settings)


def open_splits_together(settings: DataSettings, image_size: int, image_channels: int, world: World) -> Splits:
    """`open_splits` on every process, which all must call this. If it downloads, the main process does so first."""
    opened = partial(open_splits, settings, image_size, image_channels)
    return world.main_first(opened, "fetching images") if settings.dataset == ON_THE_HUB else opened()


def default_data_root(dataset: str) -> Path:
    """Where a data set lies if no folder is named: `data/NAME` of the checkout, else of the working folder."""
    if dataset == _OWN_FOLDER:
        raise InputError("data set 'folder' needs the folder or zip archive of your images: name it with --data_root")
    if dataset == ON_THE_HUB:
        raise InputError("data set 'hub' needs the name of a data set: give it as OWNER/NAME with --data_root")
    if dataset == _BUNDLED:
        return bundled_folder(f"data/{dataset}")
    in_checkout = CHECKOUT_ROOT / "data" / dataset
    return in_checkout if in_checkout.is_dir() else Path("data") / dataset


@contextmanager
def naming_the_remedy(dataset: str) -> Iterator[None]:
    """Add to every `DataFileError` the command that fetches or converts the data set."""
    try:
        yield
    except DataFileError as error:
        command = f"python data/{dataset}/prepare.py" + " --from PATH" * DATASETS[dataset].needs_account
        remove = "" if isinstance(error, MissingDataError) else "remove it, then "
        raise InputError(
            f"data set '{dataset}': {error}; {remove}run `{command}`, or name another folder with --data_root."
        ) from error
