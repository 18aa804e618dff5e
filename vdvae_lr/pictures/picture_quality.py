"""How near a model's samples and reconstructions are to images: it makes both, and scores them by their features.

Shapes: B pictures, C channels, H W resolution, N images, D features.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import Examples, posterior_pass
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quality.extractor import Extractor
from vdvae_lr.evaluation.quality.features import gather_features
from vdvae_lr.evaluation.quality.scores import Scores, check_enough, score
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity
from vdvae_lr.model.latent_model import DecodedImage, LatentModel
from vdvae_lr.pictures.group_temperatures import group_temperatures
from vdvae_lr.pictures.images import sampled_images, to_levels

PictureSet = Literal["samples", "reconstructions"]
Numbered = Iterator[tuple[Examples, Tensor]]
"""Numbers of B pictures, and these as (B, C, H, W) uint8."""


@dataclass(frozen=True)
class WantedSets:
    """The sets of pictures that are measured."""

    sets: Sequence[PictureSet]
    samples: int
    """Number of samples at each temperature, and of reconstructions at most."""
    temperature: Sequence[str]
    image: DecodedImage | None
    """What a sample shows; None: what the model's samples show."""

    def counts(self, images: int) -> dict[PictureSet, tuple[int, int]]:
        """How many pictures each set has, and with how many images it is compared, if there are so many."""
        fewer = min(self.samples, images)
        counts: dict[PictureSet, tuple[int, int]] = {"samples": (self.samples, images)}
        counts["reconstructions"] = (fewer, fewer)
        return {name: counts[name] for name in self.sets}

    def check(self, images: int) -> None:
        """Refuse sets that are too small to be measured with so many images (raises InputError)."""
        for pictures, compared in self.counts(images).values():
            check_enough(compared, pictures)


def measure_picture_quality(
    model: LatentModel, measuring: Measuring, extractor: Extractor, images: Tensor | None, wanted: WantedSets
) -> Findings:
    """FID, KID, precision and recall of each set. Every process must call this; the main one gets the findings.

    Samples are compared with all images, and reconstructions with the images that they are of.

    Args:
        model: the model, on the world's device.
        measuring: the data set's images.
        extractor: the network, on the same device.
        images: features of these images (N, D), on the main process.
        wanted: what to measure.

    Raises:
        InputError: a picture is not finite, a temperature cannot be used, or there are too few images or pictures.
    """
    found = Findings()
    for name in wanted.sets:
        for temperature in wanted.temperature if name == "samples" else ("",):
            title = f"samples, temperature {temperature}" if temperature else name
            if temperature:
                count, pictures = wanted.samples, _samples(model, measuring, wanted, temperature, title)
            else:
                count = measuring.count(wanted.samples)
                pictures = _reconstructions(model, measuring.batches(title, wanted.samples), measuring.seed)
            features = gather_features(extractor, pictures, count, title, measuring.world)
            key = f"{name}_{temperature}" if temperature else name
            found = found.and_also(_scored(key, title, features, images, measuring))
    return found


def _scored(key: str, title: str, features: Tensor, images: Tensor | None, measuring: Measuring) -> Findings:
    """The findings on one set, which the main process computes while the others wait."""

    def compute() -> Scores:
        assert images is not None  # on the main process
        compared = images[: len(features)] if key == "reconstructions" else images
        return score(compared, features, seed=measuring.seed, device=measuring.world.device)

    measuring.world.at(f"scores of {title}")
    scores = measuring.world.on_main(compute)
    return Findings() if scores is None else Findings(_quantities(scores, key, title))


def _quantities(scores: Scores, key: str, title: str) -> list[Quantity]:
    rows = {
        "fid": ("FID", scores.fid),
        "kid": ("KID", scores.kid),
        "kid_spread": ("standard deviation of KID over subsets", scores.kid_spread),
        "precision": ("precision", scores.precision),
        "recall": ("recall", scores.recall),
    }
    return [
        Quantity(f"{name}_{key}", f"{what}, {title}", "", Measurement(value, None, scores.pictures), (), {})
        for name, (what, value) in rows.items()
        if value == value  # without NaN
    ]


def _samples(model: LatentModel, measuring: Measuring, wanted: WantedSets, temperature: str, title: str) -> Numbered:
    """This process's share of the samples. Sample i is that of `vdvae-lr sample`, up to rounding."""
    world, factors = measuring.world, group_temperatures(temperature, model.resolutions)
    shards = evaluation_shards(wanted.samples, measuring.batch, world.rank, world.size)
    words = f"{measuring.name}: {title}" if measuring.name else title
    world.at(words)
    for numbers in measuring.track([rows.tolist() for rows in shards], len(shards), words):
        with torch.inference_mode():
            (images,) = sampled_images(model, numbers, (factors,), seed=measuring.seed, image=wanted.image)
            yield numbers, _levels(model, images, title)


def _reconstructions(model: LatentModel, batches: Iterable[Batch], seed: int) -> Numbered:
    """This process's share of the mean images, each of one draw of the image's latents."""
    for batch in batches:
        passed = posterior_pass(model, batch.pixels, batch.indices, seed)
        yield batch.indices, _levels(model, passed.likelihood.mean(), "reconstructions")


def _levels(model: LatentModel, images: Tensor, what: str) -> Tensor:
    """Images (B, C, H, W) on the target scale → uint8 levels of the same shape."""
    if not torch.isfinite(images).all():
        raise InputError(
            f"the model's {what} are NaN or infinite, so they have no quality; take sound weights, or a lower "
            "temperature."
        )
    return torch.from_numpy(to_levels(model.pixel_scale, images)).permute(0, 3, 1, 2)
