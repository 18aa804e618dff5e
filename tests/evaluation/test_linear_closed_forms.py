"""What `evaluate` measures of a linear VAE with one group is what algebra says: each number has a closed form there.

The model is a `ShallowVAE` whose networks are one linear layer each:

    q(z|x) = N(W x, s²),    p(x|z) = N(A z + c, v),    p(z) = N(0, I),    x in [0, 1], four pixels, three latents.
"""

import math

import pytest
import torch
from measured_pixels import measuring_of, task_of
from torch import Tensor, nn

from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.evaluation.sections import measure_sections
from vdvae_lr.hub.pretrained import ShallowVAE
from vdvae_lr.model.shallow.vae import ShallowConfig
from vdvae_lr.processes.world import World

LATENTS, SIDE, IMAGES = 3, 2, 400
VARIANCE, SCALE = 0.04, 0.3  # v and s
OFFSET = 0.5


def linear_vae(reads: Tensor, writes: Tensor) -> ShallowVAE:
    """The model with W = `reads` (3, 4) and A = `writes` (4, 3)."""
    config = ShallowConfig(image_size=SIDE, latents=LATENTS, pixel_variance=VARIANCE)
    model = ShallowVAE(config)
    encoder, decoder = nn.Linear(SIDE**2, 2 * LATENTS), nn.Linear(LATENTS, SIDE**2)
    with torch.no_grad():
        encoder.weight.copy_(torch.cat([reads, torch.zeros_like(reads)]))
        encoder.bias.copy_(torch.cat([-reads @ torch.full((SIDE**2,), OFFSET), torch.full((3,), 2 * math.log(SCALE))]))
        decoder.weight.copy_(writes)
        decoder.bias.fill_(OFFSET)
    model.encoder = nn.Sequential(nn.Flatten(), encoder)
    model.decoder = decoder
    return model.double().eval()


@pytest.fixture
def writes() -> Tensor:
    return torch.tensor([[0.2, 0.05, 0.0], [-0.1, 0.15, 0.0], [0.05, 0.1, 0.02], [0.1, -0.05, 0.03]])


@pytest.fixture
def images() -> Tensor:
    """(N, 1, 2, 2) levels."""
    return torch.randint(0, 256, (IMAGES, 1, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def measured(model: ShallowVAE, images: Tensor, world: World) -> dict[str, Quantity]:
    task = task_of(
        model,
        measuring_of(images, world, batch=100),
        mixture_batch=50,
        mixture_images=20,
        importance_images=0,
        jacobian_images=2,
        noise_images=0,
    )
    return {quantity.key: quantity for quantity in measure_sections(task).quantities}


def total(found: dict[str, Quantity], key: str) -> float:
    measurement = found[key].total
    assert measurement is not None
    return measurement.value


def test_units_rate_and_geometry(writes: Tensor, images: Tensor, world: World) -> None:
    reads = torch.linalg.pinv(writes) * torch.tensor([[1.0], [0.5], [0.001]])  # reads the third latent hardly at all
    found = measured(linear_vae(reads, writes), images, world)

    means = (images.flatten(1).double() / 255 - OFFSET) @ reads.double().T
    assert total(found, "active_latents") == pytest.approx(100 * (means.var(0) >= 0.01).double().mean().item())
    kl = 0.5 * (means.square() + SCALE**2 - 1 - 2 * math.log(SCALE)).sum(1).mean().item()
    assert total(found, "rate") * SIDE**2 == pytest.approx(kl)

    on_target_scale = 2 * writes.double()  # [−1, 1] where the networks have [0, 1]
    values = torch.linalg.svdvals(on_target_scale)
    assert total(found, "largest_singular_value") == pytest.approx(values[0].item())
    assert total(found, "kappa_min") == pytest.approx(values[-1].item())
    assert total(found, "local_bi_lipschitz") == pytest.approx(max(values[0].item(), 1 / values[-1].item()))
    strength = values.square() / (4 * VARIANCE)
    least = 0.5 * (torch.log1p(strength) - strength / (1 + strength)).sum().item()
    assert total(found, "theorem_bound") * SIDE**2 == pytest.approx(least)
    deviation = torch.linalg.matrix_norm(reads.double() @ writes.double() - torch.eye(LATENTS), 2).item()
    assert found["composite_deviation"].groups[0].value == pytest.approx(deviation)


def test_eq_5(writes: Tensor, images: Tensor, world: World) -> None:
    reads = 0.8 * torch.linalg.pinv(writes)
    found = measured(linear_vae(reads, writes), images, world)
    lost = torch.eye(LATENTS).double() - reads.double() @ writes.double()
    error = lost.square().sum() + VARIANCE * reads.double().square().sum()  # E‖z − W(A z + noise)‖²
    information = 0.5 * (LATENTS * (1 - 2 * math.log(SCALE)) - error.item() / SCALE**2)
    eq_5 = found["information_from_samples"].total
    assert eq_5 is not None and eq_5.standard_error is not None
    assert abs(eq_5.value * SIDE**2 - information) < 4 * eq_5.standard_error * SIDE**2


@pytest.mark.parametrize(("strength", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_information_and_r2_of_nothing_and_of_everything(
    strength: float, share: float, writes: Tensor, images: Tensor, world: World
) -> None:
    """An encoder that reads nothing has no information; one that reads all knows each image, up to the ceiling."""
    reads = strength * 50 * torch.linalg.pinv(writes)
    found = measured(linear_vae(reads, writes / 50), images, world)
    for key in ("mutual_information", "mutual_information_set"):
        ceiling = total(found, f"{key}_ceiling")
        assert ceiling * SIDE**2 == pytest.approx(math.log(50 if key == "mutual_information" else IMAGES))
        assert total(found, key) == pytest.approx(share * ceiling, rel=1e-3, abs=1e-9)
    assert total(found, "latent_r2_mean_image") == pytest.approx(share, abs=0.01)
