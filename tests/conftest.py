"""What the tests share: a small model and its images."""

import atexit
import os
import shutil
import tempfile

import pytest
import torch

from vdvae_lr.model.noise import PassNoise
from vdvae_lr.model.vdvae.vae import VDVAE, VAEConfig

# Read when huggingface_hub is imported: no test meets the network, or anybody's cache, but through a server of its own.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": tempfile.mkdtemp(prefix="vdvae_lr-tests-hf-")}
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
for name in ("VDVAE_LR_MIRROR", "VDVAE_LR_REPOSITORY"):
    os.environ.pop(name, None)

if "OMP_NUM_THREADS" not in os.environ:  # a suite with more threads is asked for with it
    torch.set_num_threads(1)  # on tensors this small threads only wait for each other, tenfold where cores are shared

SMALL = VAEConfig(
    image_size=8,
    image_channels=3,
    enc_blocks="8x1,8d2,4x1,4d4,1x1",
    dec_blocks="1x1,4m1,4x1,8m4,8x1",
    width=12,
    zdim=3,
    num_mixtures=3,
)


@pytest.fixture
def small_model() -> VDVAE:
    """A float64 model of five latent groups with every weight random, so that no path is silent."""
    torch.manual_seed(0)
    model = VDVAE(SMALL).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def small_levels() -> torch.Tensor:
    """Two random images (2, 3, 8, 8) of whole levels in float64."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 8, 8), generator=generator).double()


@pytest.fixture
def small_noise(small_model: VDVAE) -> PassNoise:
    """Every kind of noise for two images of the small model."""
    noise = PassNoise(small_model, 2, torch.device("cpu"), prior=True)
    noise.draw(2)
    return noise
