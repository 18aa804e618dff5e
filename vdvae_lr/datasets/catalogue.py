"""The data sets known by name, and the settings that choose one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vdvae_lr.datasets.arrays import open_ffhq256, open_imagenet
from vdvae_lr.datasets.cifar import open_cifar10
from vdvae_lr.datasets.folder import BadImages, open_ffhq1024, open_folder
from vdvae_lr.datasets.idx import open_fashion, open_fashion_small
from vdvae_lr.datasets.sources import ImageSource, Splits
from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.files.bundled import CHECKOUT_ROOT, bundled_folder
from vdvae_lr.setting_checks import PathText, check_settings

__all__ = ["DATASETS", "DataSettings", "ImageSource", "Splits", "default_data_root", "open_splits"]


@dataclass(frozen=True)
class DataSettings:
    """Which images to train on and how to read them."""

    dataset: str = "fashion_small"
    """Data set by name (cifar10, imagenet32, imagenet64, ffhq256, ffhq1024, fashion, fashion_small), or `folder` for
    any folder of images."""
    data_root: PathText = ""
    """Folder that holds the data set's files; empty means data/NAME, where its prepare.py puts them."""
    bad_images: BadImages = "stop"
    """What to do about a file that is no readable image: stop and name it, or skip it (another one stands in)."""
    num_workers: int = 2
    """Processes a rank that read images ahead of the training step; 0 reads in the training process."""

    def __post_init__(self) -> None:
        """Refuse what no data set is called, and policies that do not exist; raises InputError."""
        check_settings(self)
        if self.dataset not in DATASETS:
            raise InputError(
                f"there is no data set '{self.dataset}'{nearest_name_hint(self.dataset, list(DATASETS))}; "
                f"choose one of {', '.join(DATASETS)}."
            )
        if self.bad_images not in ("stop", "skip"):
            raise InputError(f"bad_images is '{self.bad_images}'; choose stop or skip.")
        if self.num_workers < 0:
            raise InputError(f"num_workers is {self.num_workers}; give 0 or more processes.")


@dataclass(frozen=True)
class _Request:
    root: Path
    image_size: int
    image_channels: int
    bad_images: BadImages


@dataclass(frozen=True)
class _Known:
    open: Callable[[_Request], Splits]
    image_channels: int | None  # None: as the model wants
    image_size: int | None


DATASETS: dict[str, _Known] = {
    "cifar10": _Known(lambda request: open_cifar10(request.root), 3, 32),
    "imagenet32": _Known(lambda request: open_imagenet(request.root, 32), 3, 32),
    "imagenet64": _Known(lambda request: open_imagenet(request.root, 64), 3, 64),
    "ffhq256": _Known(lambda request: open_ffhq256(request.root), 3, 256),
    "ffhq1024": _Known(lambda request: open_ffhq1024(request.root, request.bad_images), 3, 1024),
    "fashion": _Known(lambda request: open_fashion(request.root, request.image_size), 1, None),
    "fashion_small": _Known(lambda request: open_fashion_small(request.root, request.image_size), 1, None),
    "folder": _Known(
        lambda request: open_folder(request.root, request.image_size, request.image_channels, request.bad_images),
        None,
        None,
    ),
}


def open_splits(settings: DataSettings, image_size: int, image_channels: int) -> Splits:
    """Training, validation and test images, each read as (B, image_size, image_size, image_channels) uint8.

    Raises `InputError` for data that are missing, damaged or of another kind, and an image size or
    channel count that the data set does not have.
    """
    known = DATASETS[settings.dataset]
    _check_fit(settings.dataset, "image_size", image_size, known.image_size)
    _check_fit(settings.dataset, "image_channels", image_channels, known.image_channels)
    root = Path(settings.data_root) if settings.data_root else default_data_root(settings.dataset)
    return known.open(_Request(root, image_size, image_channels, settings.bad_images))


def default_data_root(dataset: str) -> Path:
    """Where a data set lies when no folder is named: `data/NAME` of the checkout, else of the working folder."""
    if dataset == "folder":
        raise InputError("data set 'folder' needs the folder of your images: name it with --data_root")
    if dataset == "fashion_small":
        return bundled_folder("data/fashion_small")
    in_checkout = CHECKOUT_ROOT / "data" / dataset
    return in_checkout if in_checkout.is_dir() else Path("data") / dataset


def _check_fit(dataset: str, setting: str, chosen: int, fixed: int | None) -> None:
    if setting == "image_channels" and chosen not in (1, 3):
        raise InputError(f"image_channels is {chosen}: choose 1 for grey or 3 for colour images")
    if chosen < 1 or (fixed is not None and chosen != fixed):
        wanted = f"data set '{dataset}' has {fixed}" if fixed is not None else "it must be at least 1"
        raise InputError(f"{setting} is {chosen}, but {wanted}: set {setting} to {fixed or 32}, or choose other data")
