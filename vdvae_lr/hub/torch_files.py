"""Reads files that `torch.save` wrote (.th, .pt). No code in such a file runs."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import first_line
from vdvae_lr.files.paths import cannot_be_read

TORCH_SUFFIXES = (".th", ".pt")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict (raises InputError as `load_pickle`, or if the file holds no state dict)."""
    content = load_pickle(path)
    if _is_state_dict(content):
        return dict(content)
    items = content.items() if isinstance(content, Mapping) else ()
    key = next((repr(key) for key, value in items if _is_state_dict(value)), None)
    if key is not None:
        raise InputError(
            f"weights file {path} holds its state dict inside, under {key}; save that alone, "
            f"torch.save(torch.load('{path.name}', weights_only=True)[{key}], 'weights.th'), and give that."
        )
    raise InputError(
        f"weights file {path} holds no state dict (names to tensors); choose a *-model.th or *-model-ema.th file."
    )


def _is_state_dict(content: object) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


def load_pickle(path: Path) -> Any:
    """The content of a file of tensors and plain values.

    Raises InputError if the file is missing or cut, or is a pickle that asks for more.
    """
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"weights file {path} does not exist; check the path.") from None
    except PermissionError as error:
        raise cannot_be_read(f"weights file {path}", error) from None
    except pickle.UnpicklingError:
        raise InputError(
            f"weights file {path} is damaged or asks to run code, so it was not loaded; "
            "fetch it again from a source you trust."
        ) from None
    except Exception as error:  # a damaged file can make torch.load raise nearly anything
        raise InputError(f"weights file {path} cannot be read ({first_line(error)}); fetch it again.") from None


def _check_sums(path: Path) -> None:
    """Check the CRC-32 sums that `torch.save` wrote into the file; `torch.load` ignores them.

    The format before torch 1.6 has no sums. If the file is damaged, raises ValueError or an error of zipfile.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if not any(member.CRC for member in members):  # after torch.serialization.set_crc32_options(False)
            return
        if sum(member.file_size for member in members) > path.stat().st_size:  # torch compresses nothing
            raise ValueError("it announces more content than it has")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} in it is wrong")
