"""Pictures that put models side by side: same images, same noise, one row a model.

Shapes: B images, C channels, H W resolution.
"""

from collections.abc import Mapping

from PIL import Image
from torch import Tensor

from vdvae_lr.evaluation.task import NOISE_VARIANCES
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.images import Pictures, as_pictures, reconstructions, samples
from vdvae_lr.pictures.noise_pictures import noise_picture
from vdvae_lr.pictures.picture_grid import picture_grid

_TEMPERATURES = (1.0, 0.8)


def comparison_pictures(models: Mapping[str, LatentModel], pixels: Tensor, seed: int) -> dict[str, Image.Image]:
    """PNG names and their grids, for the first B images of a split, (B, C, H, W) uint8."""
    return {
        "reconstructions.png": _reconstructions(models, pixels, seed),
        "samples.png": _samples(models, len(pixels), seed),
        "noise_response.png": noise_picture(models, pixels, variances=NOISE_VARIANCES, units=("raw",), seed=seed),
    }


def _grid(rows: Mapping[str, Pictures]) -> Image.Image:
    return picture_grid(list(rows.values()), list(rows))


def _reconstructions(models: Mapping[str, LatentModel], pixels: Tensor, seed: int) -> Image.Image:
    rows = {"image": as_pictures(pixels)}
    rows |= {f"{name}, reconstructed": reconstructions(model, pixels, seed=seed)[1] for name, model in models.items()}
    return _grid(rows)


def _samples(models: Mapping[str, LatentModel], count: int, seed: int) -> Image.Image:
    rows: dict[str, Pictures] = {}
    for name, model in models.items():
        drawn = samples(model, count, _TEMPERATURES, seed=seed)
        rows |= {f"{name}, temperature {t:g}": row for t, row in zip(_TEMPERATURES, drawn, strict=True)}
    return _grid(rows)
