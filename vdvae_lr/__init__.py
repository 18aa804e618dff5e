"""Hierarchical VAEs fine-tuned with Latent Reconstruction over every latent group.

import vdvae_lr
model = vdvae_lr.VDVAE.from_pretrained("fashion")
pictures = vdvae_lr.sample(model, 8)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdvae_lr.cli.main import main_for
    from vdvae_lr.hub.pretrained import VDVAE, PretrainedModel, ShallowVAE
    from vdvae_lr.model.vdvae.vae import VAEConfig
    from vdvae_lr.pictures.interpolating import interpolate
    from vdvae_lr.pictures.reconstructing import reconstruct
    from vdvae_lr.pictures.sampling import sample
    from vdvae_lr.pictures.swapping import swap
    from vdvae_lr.pictures.traversing import traverse

__version__ = "0.1.0"
__all__ = [
    "VDVAE",
    "PretrainedModel",
    "ShallowVAE",
    "VAEConfig",
    "__version__",
    "interpolate",
    "main_for",
    "reconstruct",
    "sample",
    "swap",
    "traverse",
]
_MODULES = {
    "VDVAE": "hub.pretrained",
    "ShallowVAE": "hub.pretrained",
    "VAEConfig": "model.vdvae.vae",
    "PretrainedModel": "hub.pretrained",
    "main_for": "cli.main",
    "interpolate": "pictures.interpolating",
    "reconstruct": "pictures.reconstructing",
    "sample": "pictures.sampling",
    "swap": "pictures.swapping",
    "traverse": "pictures.traversing",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `vdvae-lr --help` waits for no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'vdvae_lr' has no attribute '{name}'")
    return getattr(import_module(f"vdvae_lr.{_MODULES[name]}"), name)
