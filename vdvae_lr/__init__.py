"""Hierarchical VAEs fine-tuned with Latent Reconstruction over every latent group.

import vdvae_lr
model = vdvae_lr.VDVAE.from_pretrained("fashion")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdvae_lr.hub.vdvae import VDVAE
    from vdvae_lr.model.vae import VAEConfig

__version__ = "0.1.0"
__all__ = ["VDVAE", "VAEConfig", "__version__"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `vdvae-lr --help` waits for no torch."""
    if name == "VDVAE":
        from vdvae_lr.hub.vdvae import VDVAE

        return VDVAE
    if name == "VAEConfig":
        from vdvae_lr.model.vae import VAEConfig

        return VAEConfig
    raise AttributeError(f"module 'vdvae_lr' has no attribute '{name}'")
