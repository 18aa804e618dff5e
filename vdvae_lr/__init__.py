"""Hierarchical VAEs fine-tuned with Latent Reconstruction over every latent group.

import vdvae_lr
model = vdvae_lr.VDVAE.from_pretrained("fashion")
pictures = vdvae_lr.sample(model, 8)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdvae_lr.evaluation.interpolating import interpolate
    from vdvae_lr.evaluation.reconstructing import reconstruct
    from vdvae_lr.evaluation.sampling import sample
    from vdvae_lr.evaluation.swapping import swap
    from vdvae_lr.evaluation.traversing import traverse
    from vdvae_lr.hub.vdvae import VDVAE
    from vdvae_lr.model.vae import VAEConfig

__version__ = "0.1.0"
__all__ = ["VDVAE", "VAEConfig", "__version__", "interpolate", "reconstruct", "sample", "swap", "traverse"]
_MODULES = {
    "VDVAE": "hub.vdvae",
    "VAEConfig": "model.vae",
    "interpolate": "evaluation.interpolating",
    "reconstruct": "evaluation.reconstructing",
    "sample": "evaluation.sampling",
    "swap": "evaluation.swapping",
    "traverse": "evaluation.traversing",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `vdvae-lr --help` waits for no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'vdvae_lr' has no attribute '{name}'")
    return getattr(import_module(f"vdvae_lr.{_MODULES[name]}"), name)
