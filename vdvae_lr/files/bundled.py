"""Finds the files that come with the program: the presets, the small data set, the small weights."""

from pathlib import Path

from vdvae_lr.errors import InputError

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
CHECKOUT_ROOT = PACKAGE_ROOT.parent
_BASES = (PACKAGE_ROOT / "_bundled", CHECKOUT_ROOT)  # in an installed wheel, and in a checkout


def bundled_folder(name: str) -> Path:
    """The folder `name` (`"hps"`, `"data/fashion_small"`, `"models"`) in an installed wheel or in a checkout.

    Raises:
        InputError: neither has it; the installation is incomplete.
    """
    for base in _BASES:
        if (base / name).is_dir():
            return base / name
    raise InputError(
        f"this installation of vdvae_lr lacks its folder '{name}': install it again, or run from a checkout"
    )


def is_bundled_model(folder: Path) -> bool:
    """Whether a folder of weights is one of those that come with the program."""
    return folder.resolve().parent in [base / "models" for base in _BASES]
