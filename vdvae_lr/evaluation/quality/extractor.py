"""The network that turns pictures into features, and where its weights come from."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vdvae_lr.errors import InputError, Unreachable
from vdvae_lr.evaluation.quality.inception import FEATURES, Inception
from vdvae_lr.files.digests import file_sha256
from vdvae_lr.files.download import fetch
from vdvae_lr.files.hub_client import HubAccess, asset_path
from vdvae_lr.files.paths import is_file
from vdvae_lr.hub.torch_files import read_tensors
from vdvae_lr.hub.weight_folder import check_finite, read_weights, stored_tensors

FILE = "weights-inception-2015-12-05-6726825d.pth"
ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Digest of the published file. Its beginning stands in the file's name, and several projects record the whole."""


@dataclass(frozen=True)
class Extractor:
    """A network (B, 3, H, W) uint8 → (B, D), on the device where it computes."""

    network: nn.Module
    features: int
    """D."""
    name: str
    digest: str
    """SHA-256 of its weights' file."""

    @property
    def is_published(self) -> bool:
        """Whether the features are those that published numbers of FID come from."""
        return self.digest == SHA256

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Features of pictures (B, C, H, W) uint8 with 1 or 3 channels, which are repeated or kept: (B, D) float32."""
        found: Tensor = self.network(pixels.expand(-1, 3, -1, -1))
        return found.float()


def load_extractor(path: str) -> Extractor:
    """The Inception network of FID on the CPU.

    Args:
        path: file of its weights (.pth, .pt, .safetensors); empty: the published one, downloaded at first use.

    Raises:
        InputError: the file cannot be had, is damaged, or holds other weights.
    """
    file = Path(path) if path else _published_file()
    if not is_file(file):
        raise InputError(f"extractor {file} is no file; give {FILE}, or leave --extractor out to download it.")
    read = read_weights if file.suffix == ".safetensors" else read_tensors
    network, state = Inception(), _of_features(read(file))
    _check_fits(network, state, file)
    network.load_state_dict(state, strict=False)  # the counts of batches that normalisation has seen may be missing
    check_finite(network, str(file))
    return Extractor(network.requires_grad_(False), FEATURES, "Inception-v3, 2015-12-05", file_sha256(file))


def _published_file() -> Path:
    remedy = f"download {FILE} on a machine with network, and name it with --extractor"
    try:
        return fetch(ADDRESS, asset_path(f"quality/{FILE}", HubAccess()), remedy, SHA256)
    except Unreachable as error:
        raise InputError(f"the weights of the Inception network cannot be downloaded: {error}") from None


def _of_features(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the last layer, which names objects."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def _check_fits(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    ours, counts = stored_tensors(network), {name for name in network.state_dict() if name.endswith("_tracked")}
    wrong = next((name for name in ours if name not in state or state[name].shape != ours[name].shape), None)
    other = next((name for name in state if name not in ours.keys() | counts), None)
    if wrong is not None or other is not None:
        what = f"'{wrong}' is missing or has another shape" if wrong else f"'{other}' is not part of it"
        raise InputError(
            f"extractor {file} does not hold the weights of FID's Inception network ({what:.150}); give {FILE}, or "
            "leave --extractor out to download it."
        )
