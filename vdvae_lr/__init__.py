"""Hierarchical VAEs fine-tuned with Latent Reconstruction over every latent group."""

__version__ = "0.1.0"
