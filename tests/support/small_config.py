"""The smallest model with all features of a VDVAE: five latent groups at three resolutions, in colour."""

from vdvae_lr.model.vdvae.vae import VAEConfig

SMALL = VAEConfig(
    image_size=8,
    image_channels=3,
    enc_blocks="8x1,8d2,4x1,4d4,1x1",
    dec_blocks="1x1,4m1,4x1,8m4,8x1",
    width=12,
    zdim=3,
    num_mixtures=3,
)
