"""What every section of an evaluation is given: a model, the images, and how much of each section to measure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.activity import ACTIVE_VARIANCE
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.setting_checks import Between, Count, CountOrNone, check_settings

NOISE_VARIANCES = (0.0, 0.3, 0.4)
NOISE_IMAGES = 200
"""Noise in each group alone costs L + R + 1 decoder passes an image, and few images are enough: they differ little."""
NoiseUnit = Literal["raw", "prior_scale"]


@dataclass(frozen=True)
class SectionSettings:
    """How much of each section is measured. A count above the number of images means all of them."""

    content_dimensions: CountOrNone = 0
    """Also state bound, distortion and rate on this many dimensions an image: 784 for 28x28 images padded to 32x32; 0:
    do not."""
    active_threshold: Annotated[float, Between(0, above=True)] = ACTIVE_VARIANCE
    """Least variance of an active unit's posterior mean over the images, as it is and in units of the prior's."""
    mixture_batch: CountOrNone = 32
    """Images in a mixture for the mutual information within batches. The logarithm of this number is its ceiling. 0:
    leave it out."""
    mixture_images: CountOrNone = 32
    """Images whose latents are asked for in the mixture over all measured images. Each costs the posterior networks for
    every image. 0: leave it out."""
    importance_images: CountOrNone = 50
    """Images for the importance-weighted bound, with one pass for each of their draws; 0: leave it out."""
    importance_draws: Count = 64
    """Draws of the latents for each image, for importance weights."""
    gap_images: CountOrNone = 4
    """Images for the distance from the true posterior by group, with all draws made anew for each group; 0: leave it
    out."""
    jacobian_images: CountOrNone = 4
    """Images, and samples, at which the decoder's Jacobian is measured; 0: leave it out."""
    jacobian_values: Count = 8
    """Singular values of each group, from the largest down."""
    jacobian_tolerance: Annotated[float, Between(0, above=True)] = 1e-3
    """Error of a singular value, as a share of the largest, at which it counts as found."""
    jacobian_confidence: Annotated[float, Between(0, 1, above=True, below=True)] = 0.95
    """Share of random moves of the latents (1 − ζ) for which a bi-Lipschitz constant is also given."""
    noise_images: CountOrNone = NOISE_IMAGES
    """Images for the noise response; 0: leave it out."""
    noise_variances: tuple[float, ...] = NOISE_VARIANCES
    """Variances of the noise added to the latents, and to the active latents alone."""
    noise_units: tuple[NoiseUnit, ...] = ("raw", "prior_scale")
    """Units of that noise: as it is, or times each latent's prior scale."""
    noise_groups: str = "all"
    """Latent groups that get noise in total, counted from 0, the coarsest: 3, 0:5 (without 5), 16x16, all, or several
    with commas."""
    noise_by_group: bool = True
    """Also add noise to each group alone and to each resolution alone, with one more decoder pass for each of them."""

    reader_iterations: CountOrNone = 0
    """Steps in which a new encoder learns to read the model's own samples, to measure what it reads; 0: leave it out.
    2000 take minutes for a small model."""
    reader_batch: Count = 32
    """Samples in each of these steps."""
    reader_lr: Annotated[float, Between(0, above=True)] = 3e-3
    """Learning rate of the new encoder."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        check_settings(self)
        check_variances(self.noise_variances)
        if len(set(self.noise_units)) < len(self.noise_units):
            raise InputError(f"noise_units are {', '.join(self.noise_units)}; name each once.")
        if self.noise_images and not self.noise_units:
            raise InputError(
                "noise_units is empty; name raw or prior_scale, or leave the noise out (--noise_images 0)."
            )
        if self.mixture_batch == 1:
            raise InputError("mixture_batch is 1; it must be 2 or more, or 0 to leave out that mutual information.")

    def check_enough(self, images: int) -> None:
        """Refuse too few images (raises InputError)."""
        if images < 2:
            raise InputError("there is 1 image to evaluate on, but a variance over images needs 2; evaluate on more.")
        if images < self.mixture_batch:
            raise InputError(
                f"{images} images cannot fill a mixture of {self.mixture_batch}; evaluate on more, or lower "
                "mixture_batch."
            )


def check_variances(variances: Sequence[float], setting: str = "noise_variances") -> None:
    """Refuse variances that noise cannot have. `setting` is their name in a message.

    Raises:
        InputError: there is no variance; or one is negative, infinite or NaN, or is given twice.
    """
    if not variances:
        raise InputError("there is no noise variance to measure at; give at least one, such as 0.3.")
    for variance in variances:
        if not 0 <= variance < math.inf:
            raise InputError(f"a noise variance is {variance}; it must be a number from 0 up.")
    if len(set(variances)) < len(variances):
        raise InputError(f"{setting} are {', '.join(f'{variance:g}' for variance in variances)}; name each once.")


@dataclass(frozen=True)
class Task:
    """One evaluation."""

    model: LatentModel
    """The model, on the world's device."""
    before: LatentModel | None
    """The model before fine-tuning, on the same device; None if it is unknown or not wanted."""
    measuring: Measuring
    settings: SectionSettings


Section = Callable[[Task], Findings]
"""Measures a part of the task. Every process must call it, and gets the same findings."""
